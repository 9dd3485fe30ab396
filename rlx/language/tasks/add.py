"""Addition: `37+58=` -> `590`, the digits of the sum from the last to the first.

Operands are padded with zeros to `digits`, the sum to one more, so that every digit has its place. Reversed, each
digit of the sum depends on two digits and a carry that is already decided: small models learn that far sooner.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig

DIGITS = "0123456789"


@dataclass
class Config(TaskConfig):
    digits: Annotated[int, Field(ge=1, le=100)]  # of each operand


class Task(AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.digits = cfg.digits
        super().__init__(
            cfg,
            alphabet=DIGITS + "+=",
            symbols=DIGITS,
            prompt_length=2 * cfg.digits + 2,
            longest=cfg.digits + 1,
            num_prompts=100**cfg.digits,
        )

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        rows = rng.integers(10, size=(n, 2 * self.digits)) + ord("0")
        text = rows.astype(np.uint8).tobytes().decode()
        numbers = [text[i : i + self.digits] for i in range(0, len(text), self.digits)]
        return [f"{a}+{b}=" for a, b in zip(numbers[::2], numbers[1::2])]

    def answer(self, prompt: str) -> str:
        a, b = prompt[:-1].split("+")
        return str(int(a) + int(b)).zfill(self.digits + 1)[::-1]
