"""A task of your own: move each letter on by one, `abca=` -> `bcdb`.

The right answer is known, so a task of this form gives demonstrations (sft), pairs (dpo, reward_model) and a corpus
(pretrain) besides the reward (grpo and its kin). Where only a reward is known, derive from Task of the same module.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig

LETTERS = "abcdefgh"


@dataclass
class Config(TaskConfig):
    """The keys of task/NAME.yaml."""

    length: Annotated[int, Field(ge=1, le=100)]  # letters of a prompt


class Task(AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.length = cfg.length
        super().__init__(
            cfg,
            alphabet=LETTERS + "=",  # every character of prompts and answers
            symbols=LETTERS,  # those of answers
            prompt_length=cfg.length + 1,  # of the longest prompt
            longest=cfg.length,  # answer
            num_prompts=len(LETTERS) ** cfg.length,  # different ones; of 64 and more some are held out
        )

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        """n random prompts."""
        rows = rng.integers(len(LETTERS), size=(n, self.length))
        return ["".join(LETTERS[i] for i in row) + "=" for row in rows]

    def answer(self, prompt: str) -> str:
        """The right completion of a prompt."""
        return "".join(LETTERS[(LETTERS.index(letter) + 1) % len(LETTERS)] for letter in prompt[:-1])
