"""Counting: `7=` -> `aaaaaaa` and the end, in the right place. There is room for more letters than any prompt asks for,
so that only the end token can make it right."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig

LETTER = "a"


@dataclass
class Config(TaskConfig):
    largest: Annotated[int, Field(ge=1, le=1000)]  # prompts ask for 1 to this many letters


class Task(AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.largest = cfg.largest
        super().__init__(
            cfg,
            alphabet="0123456789=" + LETTER,
            symbols=LETTER,
            prompt_length=len(str(cfg.largest)) + 1,
            longest=cfg.largest + 1,  # room for one too many
            num_prompts=cfg.largest,
        )

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        return [f"{i}=" for i in rng.integers(1, self.largest + 1, n).tolist()]

    def answer(self, prompt: str) -> str:
        return LETTER * int(prompt[:-1])

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return ended and set(completion) == {LETTER}
