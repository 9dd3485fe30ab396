"""What a task of the language world is: prompts, and a verifiable reward of a completion.

    class Task(AnswerTask):                   the right answer is known: demonstrations, pairs and a corpus follow
        def __init__(self, cfg)               calls super().__init__(cfg, alphabet=..., ...)
        def draw(self, rng, n)                n random prompts
        def answer(self, prompt)              the demonstration, without the end token

    class Task(base.Task):                    only a reward is known
        def draw(self, rng, n)
        def correct(self, prompt, completion, ended) -> bool
        def dense(self, prompt, completion, ended) -> float

A completion is text without its end token; `ended` says whether it had one. The reward by `task.reward`:

    exact    1 if correct, else 0
    dense    partial credit, from 0 to 1; where an answer is known the share of right `positions`
    mixed    the mean of both

One prompt in eight, by its crc32, is held out and never handed out for training, except where there are too few
prompts (`splits` is False): then evaluation draws from all of them.

A task module has `Config` and `Task`. A third party adds one by the entry-point group `rlx.tasks` (implementation ->
module) and a YAML file task/NAME.yaml (see rlx.config.registry).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np
from pydantic import Field

from rlx.base.errors import ConfigError, UserError, shown
from rlx.config.ranges import Unit

HELD_OUT = 8  # one prompt in so many
ENOUGH = 64  # different prompts from which a split is made
TRIES = 1_000  # of anything drawn at random until it fits

Tokens = Annotated[int, Field(ge=1, le=4096)]


@dataclass
class TaskConfig:
    name: str
    implementation: str
    reward: Literal["exact", "dense", "mixed"]
    max_new: Tokens | None  # L: tokens of a completion, end inside; None: the longest answer and its end
    sft_stop: Unit  # sampled accuracy at which sft stops; 0: never


def is_held_out(prompt: str) -> bool:
    return crc32(prompt.encode("utf-8", "surrogatepass")) % HELD_OUT == 0


class Task(ABC):
    """Prompts with a reward. `symbols` are the characters a completion is made of, `longest` the most of them that
    are needed, `num_prompts` how many different prompts there are."""

    def __init__(
        self, cfg: TaskConfig, *, alphabet: str, symbols: str, prompt_length: int, longest: int, num_prompts: int
    ) -> None:
        if cfg.max_new is not None and cfg.max_new <= longest:
            raise ConfigError(
                f"task.max_new={cfg.max_new}: must be at least {longest + 1}, what task={cfg.name} needs, "
                "the end token included"
            )
        self.cfg, self.name = cfg, cfg.name
        self.alphabet, self.symbols = alphabet, symbols
        self.prompt_length = prompt_length  # of the longest prompt, in characters
        self.max_new = cfg.max_new or longest + 1
        self.splits = num_prompts >= ENOUGH

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        """n random prompts, of either side of the split."""

    @abstractmethod
    def correct(self, prompt: str, completion: str, ended: bool) -> bool: ...

    @abstractmethod
    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        """Partial credit, from 0 to 1."""

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        """Whether it has the form of an answer, right or wrong."""
        return ended and set(completion) <= set(self.symbols)

    def reward(self, prompt: str, completion: str, ended: bool) -> float:
        exact = float(self.correct(prompt, completion, ended)) if self.cfg.reward != "dense" else 0.0
        if self.cfg.reward == "exact":
            return exact
        dense = self.dense(prompt, completion, ended)
        return dense if self.cfg.reward == "dense" else (exact + dense) / 2

    def prompts(self, rng: np.random.Generator, n: int, held_out: bool = False) -> list[str]:
        """n prompts, drawn with replacement, of the side of the split that is asked for."""
        if not self.splits:
            return self.draw(rng, n)
        prompts: list[str] = []
        for _ in range(TRIES):
            prompts += [prompt for prompt in self.draw(rng, max(n, HELD_OUT)) if is_held_out(prompt) == held_out]
            if len(prompts) >= n:
                return prompts[:n]
        raise UserError(f"task={self.name}: one side of its split has too few prompts ({len(prompts)} of {n})")


class AnswerTask(Task):
    """A task whose right answer is known.

    It may also have `step_rewards(prompt, completion, ended) -> [(index of the step's last token, reward)]`, where
    every step can be judged by itself; the end token, the last of an ended completion, is one.
    """

    def __init__(self, cfg: TaskConfig, **facts: Any) -> None:
        super().__init__(cfg, **facts)
        self._answer = lru_cache(4096)(self.answer)  # a prompt is asked about many times in a step

    @abstractmethod
    def answer(self, prompt: str) -> str:
        """The demonstration, without the end token."""

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        return ended and completion == self._answer(prompt)

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        right = positions(self._answer(prompt), completion, ended)
        return sum(right) / len(right)

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return super().well_formed(prompt, completion, ended) and len(completion) == len(self._answer(prompt))

    def text(self, rng: np.random.Generator, n: int) -> list[str]:
        """A corpus for pretraining: training prompts with their answers."""
        return [prompt + self.answer(prompt) for prompt in self.prompts(rng, n)]

    def pairs(self, rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
        """(prompt, chosen, rejected): the answer, and the answer with one character changed; both ended."""
        return [
            (prompt, answer := self.answer(prompt), self._wrong(rng, prompt, answer)) for prompt in self.prompts(rng, n)
        ]

    def _wrong(self, rng: np.random.Generator, prompt: str, answer: str) -> str:
        best = self.reward(prompt, answer, True)
        for _ in range(TRIES):
            changed = _change(rng, answer, self.symbols)
            if len(changed) < self.max_new and self.reward(prompt, changed, True) < best:
                return changed
        raise UserError(f"task={self.name}: no wrong answer found by changing one character of {shown(answer)}")


def positions(answer: str, completion: str, ended: bool) -> list[bool]:
    """Which tokens are right, of as many as the longer of both has, end tokens counted:

        answer 531., completion 521.  ->  1 0 1 1          (. is the end)
        answer 531., completion 5317  ->  1 1 1 0
        answer 531., completion 5.    ->  1 0 0 0

    All are if and only if the completion is the answer. What comes too much counts as wrong and the end at its place
    as right: were only the answer's characters counted, never ending would be worth as much as ending, and a policy
    that fills `max_new` collects partial credit for ever and is never right.
    """
    size = max(len(answer) + 1, len(completion) + ended)
    right = [a == b for a, b in zip(answer, completion)]
    if len(completion) == len(answer):
        right.append(ended)
    return right + [False] * (size - len(right))


def _change(rng: np.random.Generator, answer: str, symbols: str) -> str:
    """One character of the answer changed; where that is impossible one more or one fewer."""
    i = int(rng.integers(len(answer))) if answer else 0
    others = [symbol for symbol in symbols if symbol != answer[i : i + 1]]
    if answer and others:
        return answer[:i] + others[int(rng.integers(len(others)))] + answer[i + 1 :]
    longer = answer + symbols[int(rng.integers(len(symbols)))]
    return longer if not answer or rng.random() < 0.5 else answer[:-1]


def score(
    task: Task, prompts: Sequence[str], completions: Sequence[str], ended: Sequence[bool]
) -> dict[str, np.ndarray]:
    """reward, correct and format (well_formed) of each completion, float64 [B] each.

    UserError where a task's reward is not a finite number.
    """
    rows = list(zip(prompts, completions, map(bool, ended), strict=True))
    rewards = [task.reward(*row) for row in rows]
    for (prompt, completion, _), reward in zip(rows, rewards):
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise UserError(
                f"task={task.name}: the reward of completion {shown(completion)} to prompt {shown(prompt)} is "
                f"{shown(reward)}; it must be a finite number"
            )
    return {
        "reward": np.array(rewards, np.float64),
        "correct": np.array([task.correct(*row) for row in rows], np.float64),
        "format": np.array([task.well_formed(*row) for row in rows], np.float64),
    }
