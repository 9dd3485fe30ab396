"""What copy, reverse and sort share: `3142657=` -> the same symbols in some order. Every place is a step."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig, positions

SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass
class SequenceConfig(TaskConfig):
    length: Annotated[int, Field(ge=1, le=1000)]  # of the sequence
    symbols: Annotated[int, Field(ge=2, le=36)]  # different ones, the first of 0-9a-z


class SequenceTask(AnswerTask):
    def __init__(self, cfg: SequenceConfig) -> None:
        self.length = cfg.length
        symbols = SYMBOLS[: cfg.symbols]
        super().__init__(
            cfg,
            alphabet=symbols + "=",
            symbols=symbols,
            prompt_length=cfg.length + 1,
            longest=cfg.length,
            num_prompts=cfg.symbols**cfg.length,
        )

    @abstractmethod
    def order(self, sequence: str) -> str:
        """The symbols in the order that is asked for."""

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        rows = rng.integers(len(self.symbols), size=(n, self.length)).tolist()
        return ["".join([self.symbols[i] for i in row]) + "=" for row in rows]

    def answer(self, prompt: str) -> str:
        return self.order(prompt[:-1])

    def step_rewards(self, prompt: str, completion: str, ended: bool) -> list[tuple[int, float]]:
        """A step is a token: 1 where it is right, 0 elsewhere (see base.positions)."""
        right = positions(self._answer(prompt), completion, ended)
        return [(i, float(right[i])) for i in range(len(completion) + ended)]
