"""Countdown, small: `3,7,2:8=` -> `3-2+7`, an expression of each number exactly once whose value is the target.

Every expression that does it is right; the demonstration is the first one that a search in a fixed order finds.
Numbers are 1 to 9, targets 0 or more; multiplication, where it is allowed, binds stronger.

Partial credit (task.reward=dense): one third for an expression, one for its using each number exactly once, one for
the right value too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rlx.language.tasks.base import AnswerTask, TaskConfig

EXPRESSION = re.compile(r"[1-9]([-+*][1-9])*")


@dataclass
class Config(TaskConfig):
    numbers: Annotated[int, Field(ge=2, le=4)]  # of a prompt
    operations: Literal["+", "-", "*", "+-", "+*", "-*", "+-*"]


class Task(AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.numbers, self.operations = cfg.numbers, cfg.operations
        target = 9**cfg.numbers if "*" in cfg.operations else 9 * cfg.numbers  # the largest
        super().__init__(
            cfg,
            alphabet="0123456789,:=" + cfg.operations,
            symbols="123456789" + cfg.operations,
            prompt_length=2 * cfg.numbers + len(str(target)) + 1,
            longest=2 * cfg.numbers - 1,
            num_prompts=9**cfg.numbers,
        )

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        prompts: list[str] = []
        while len(prompts) < n:
            digits = rng.integers(1, 10, (n, self.numbers))
            shown = rng.permuted(digits, axis=1).tolist()  # in another order than that of the solution
            chosen = rng.integers(len(self.operations), size=(n, self.numbers - 1)).tolist()
            for row, numbers, operations in zip(digits.tolist(), shown, chosen):
                target = evaluate(_expression(row, [self.operations[i] for i in operations]))
                if target is not None and target >= 0:
                    prompts.append(f"{','.join(map(str, numbers))}:{target}=")
        return prompts[:n]

    def answer(self, prompt: str) -> str:
        return next(self.solutions(prompt))

    def solutions(self, prompt: str) -> Iterator[str]:
        """Every right expression (twice where a number is there twice)."""
        numbers, target = _parse(prompt)
        for order in permutations(numbers):
            for operations in product(self.operations, repeat=self.numbers - 1):
                expression = _expression(order, operations)
                if evaluate(expression) == target:
                    yield expression

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        return self._thirds(prompt, completion, ended) == 3

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        return self._thirds(prompt, completion, ended) / 3

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return self._thirds(prompt, completion, ended) >= 1

    def _thirds(self, prompt: str, completion: str, ended: bool) -> int:
        value = evaluate(completion) if ended and set(completion) <= set(self.symbols) else None
        if value is None:
            return 0
        numbers, target = _parse(prompt)
        if sorted(completion[::2]) != sorted(numbers):
            return 1
        return 3 if value == target else 2


def evaluate(expression: str) -> int | None:
    """The value of digits 1 to 9 with one of + - * between any two; None for anything else."""
    if not EXPRESSION.fullmatch(expression):
        return None
    total, term = 0, int(expression[0])
    for operation, digit in zip(expression[1::2], expression[2::2]):
        if operation == "*":
            term *= int(digit)
        else:
            total, term = total + term, int(operation + digit)
    return total + term


def _parse(prompt: str) -> tuple[list[str], int]:
    numbers, target = prompt[:-1].split(":")
    return numbers.split(","), int(target)


def _expression(numbers: Sequence[int | str], operations: Sequence[str]) -> str:
    return "".join(f"{number}{operation}" for number, operation in zip(numbers, [*operations, ""]))
