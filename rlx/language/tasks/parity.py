"""Parity with scratch bits: `1101=` -> `1001`, the parity of the first bit, of the first two, ... of all.

Every scratch bit can be judged by itself, from the one before it and one bit of the prompt: the demonstration of
process supervision (Shao et al. 2024, arXiv:2402.03300, 4.1.3).
"""

from dataclasses import dataclass
from itertools import accumulate
from operator import xor
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig

FOLLOWS = {"0": ("00", "11"), "1": ("01", "10")}  # bit of the prompt -> parity before it and after it


@dataclass
class Config(TaskConfig):
    length: Annotated[int, Field(ge=1, le=1000)]  # bits of the prompt


class Task(AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.length = cfg.length
        super().__init__(
            cfg,
            alphabet="01=",
            symbols="01",
            prompt_length=cfg.length + 1,
            longest=cfg.length,
            num_prompts=2**cfg.length,
        )

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        text = (rng.integers(2, size=(n, self.length)) + ord("0")).astype(np.uint8).tobytes().decode()
        return [text[i : i + self.length] + "=" for i in range(0, len(text), self.length)]

    def answer(self, prompt: str) -> str:
        return "".join(map(str, accumulate(map(int, prompt[:-1]), xor)))

    def step_rewards(self, prompt: str, completion: str, ended: bool) -> list[tuple[int, float]]:
        """A step is a token: 1 where a bit follows from the bit before it (which may itself be wrong: only the token
        that makes a mistake is to blame for it), and for the end after the last bit."""
        steps = []
        for i, (before, bit) in enumerate(zip("0" + completion, completion)):
            right = i < self.length and before + bit in FOLLOWS[prompt[i]]
            steps.append((i, float(right)))
        if ended:
            steps.append((len(completion), float(len(completion) == self.length)))
        return steps
