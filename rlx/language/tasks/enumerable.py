"""A task so small that everything can be computed: every completion is listed, each has its reward in a table.

The prompt is empty. With 4 letters and L = 4 there are 1 + 4 + 16 + 64 completions that end within L tokens and 256
that fill it without an end: 341, and their probabilities sum to 1 under any policy. Expected reward, gradient and
KL are sums over them.

    x_k = frac(k g + k^2 g^2),  g the golden ratio        for completion number k: irregular, but the same for ever
    reward = max(0, 1 - (max_j x_j - x_k) / .1)           about one in ten pays, the best one 1

task.reward=exact pays for the best one only.
"""

from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from pydantic import Field

from rlx.language.tasks import base

LETTERS = "abcdefghijklmnopqrstuvwxyz"
GOLDEN = (5**0.5 - 1) / 2
PAYING = 0.1  # the share of completions that pay
MOST = 100_000  # completions


@dataclass
class Config(base.TaskConfig):
    letters: Annotated[int, Field(ge=2, le=26)]

    def __post_init__(self) -> None:
        if self.max_new is None:
            raise ValueError("max_new=null: must be a number here, the length of the longest completions")
        if self.letters**self.max_new > MOST:
            raise ValueError(f"letters={self.letters}: too many completions to list with task.max_new={self.max_new}")


class Task(base.Task):
    def __init__(self, cfg: Config) -> None:
        letters = LETTERS[: cfg.letters]
        super().__init__(cfg, alphabet=letters, symbols=letters, prompt_length=0, longest=0, num_prompts=1)
        completions = self.all_completions()
        k = np.arange(len(completions))
        x = (k * GOLDEN + k**2 * GOLDEN**2) % 1
        self._table = dict(zip(completions, np.maximum(0, 1 - (x.max() - x) / PAYING).tolist()))

    def all_completions(self) -> list[tuple[str, bool]]:
        """(completion, ended) of every one there is, shortest first."""
        L = self.max_new
        return [("".join(text), n < L) for n in range(L + 1) for text in product(self.alphabet, repeat=n)]

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        return [""] * n

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        return self._table.get((completion, ended), 0.0)

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        return self.dense(prompt, completion, ended) == 1.0

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return (completion, ended) in self._table
