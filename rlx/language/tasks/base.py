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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from typing import Annotated, Any, Literal, TypeVar
from zlib import crc32

import numpy as np
from pydantic import Field

from rlx.base.errors import ConfigError, UserError, shown
from rlx.base.watch import Watch
from rlx.config.ranges import Unit

T = TypeVar("T")
HELD_OUT = 8  # one prompt in so many
ENOUGH = 64  # different prompts from which a split is made
TRIES = 1_000  # of anything drawn at random until it fits

EXAMPLES = 256  # prompts that stand for all of a task's

Tokens = Annotated[int, Field(ge=1, le=4096)]
Sizes = Callable[[Sequence[str]], list[int]]  # the tokens of each text


@dataclass
class TaskConfig:
    name: str
    implementation: str
    reward: Literal["exact", "dense", "mixed"]
    max_new: Tokens | None  # L: tokens of a completion, end inside; None: the longest answer and its end
    sft_stop: Unit  # sampled accuracy at which sft stops; 0: never


def characters(texts: Sequence[str]) -> list[int]:
    """The tokens of each text where a token is a character."""
    return list(map(len, texts))


def is_held_out(prompt: str) -> bool:
    return crc32(prompt.encode("utf-8", "surrogatepass")) % HELD_OUT == 0


class Task(ABC):
    """Prompts with a reward. `symbols` are the characters a completion is made of, `longest` the most of them that
    are needed, `num_prompts` how many different prompts there are. `notices`: what a new run should say of it;
    `seconds`: the most that judging one completion may take."""

    notices: Sequence[str] = ()
    seconds = 30.0

    def __init__(
        self, cfg: TaskConfig, *, alphabet: str, symbols: str, prompt_length: int, longest: int, num_prompts: int
    ) -> None:
        self.cfg, self.name = cfg, cfg.name
        self.alphabet, self.symbols = alphabet, symbols
        self.prompt_length = prompt_length  # of the longest prompt, in characters
        self.longest, self.max_new = longest, cfg.max_new or longest + 1
        self.tokens: Sizes = characters
        self.splits = num_prompts >= ENOUGH

    def measure(self, tokens: Sizes = characters) -> None:
        """Count in a model's tokens. Raises ConfigError where max_new has no room for an answer."""
        self.tokens = tokens
        if tokens is characters:
            least = most = self.longest
        else:  # a token may be more than a character or less
            sizes = tokens([*self.symbols])
            start = min(sizes) - 1  # what some tokenizers put before any text
            least = max(tokens(self.answers()), default=0)
            most = max(least, start + self.longest * (max(sizes) - start))
        self.check_room(least)
        self.max_new = self.cfg.max_new or most + 1

    def check_room(self, least: int) -> None:
        """Raises ConfigError where max_new is too small for `least` tokens and the end."""
        if self.cfg.max_new is not None and self.cfg.max_new <= least:
            raise ConfigError(
                f"task.max_new={self.cfg.max_new}: must be at least {least + 1}, what task={self.name} needs, "
                "the end token included"
            )

    def some_prompts(self) -> list[str]:
        """All prompts there are, or some of them."""
        return self.draw(np.random.default_rng(0), EXAMPLES)

    def answers(self) -> list[str]:
        """All completions that the task itself writes, or some of them."""
        it: Any = self  # with what only some tasks have
        if hasattr(self, "answer"):
            return [it.answer(prompt) for prompt in self.some_prompts()]
        return list(it.text(np.random.default_rng(0), EXAMPLES)) if hasattr(self, "text") else []

    def demonstrations(self, rng: np.random.Generator, n: int) -> list[tuple[str, str]]:
        """n training prompts, drawn with replacement, with an answer each; of a task that has answers."""
        it: Any = self
        return [(prompt, it.answer(prompt)) for prompt in self.prompts(rng, n)]

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
        return self.of_side(partial(self.draw, rng), n, held_out, lambda prompt: prompt)

    def of_side(self, draw: Callable[[int], list[T]], n: int, held_out: bool, prompt: Callable[[T], str]) -> list[T]:
        """n of what `draw` draws, whose prompts are of the side of the split that is asked for."""
        if not self.splits:
            return draw(n)
        kept: list[T] = []
        for _ in range(TRIES):
            kept += [one for one in draw(max(n, HELD_OUT)) if is_held_out(prompt(one)) == held_out]
            if len(kept) >= n:
                return kept[:n]
        raise UserError(f"task={self.name}: one side of its split has too few prompts ({len(kept)} of {n})")


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
        return [prompt + answer for prompt, answer in self.demonstrations(rng, n)]

    def pairs(self, rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
        """(prompt, chosen, rejected): the answer, and the answer with one character changed; both ended."""
        return [(prompt, answer, self._wrong(rng, prompt, answer)) for prompt, answer in self.demonstrations(rng, n)]

    def _wrong(self, rng: np.random.Generator, prompt: str, answer: str) -> str:
        with Judge(self) as judge:
            best = judge(self.reward, prompt, answer, True)
            for _ in range(TRIES):
                changed = _change(rng, answer, self.symbols)
                if self.tokens([changed])[0] < self.max_new and judge(self.reward, prompt, changed, True) < best:
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


class Judge:
    """Calls what a task has to say of completions. Where that raises or takes longer than its `seconds`, RuntimeError
    and TimeoutError name prompt and completion; a UserError stays what it is."""

    def __init__(self, task: Any) -> None:
        seconds: float = getattr(task, "seconds", Task.seconds)
        self.task, self._asked = task, ("", "")
        self._watch = Watch(seconds, lambda: self._fault(f"takes more than {seconds:g} seconds"))

    def __enter__(self) -> "Judge":
        self._watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watch.__exit__(*error)

    def __call__(self, call: Callable[..., T], prompt: str, completion: str, ended: bool) -> T:
        self._asked = (prompt, completion)
        self._watch.next()
        try:
            return call(prompt, completion, ended)
        except UserError:
            raise
        except Exception as error:
            raise RuntimeError(self._fault(f"raises {type(error).__name__}: {error}")) from error

    def _fault(self, what: str) -> str:
        prompt, completion = map(shown, self._asked)
        return f"task={self.task.name}: judging completion {completion} to prompt {prompt} {what}"


def score(
    task: Task, prompts: Sequence[str], completions: Sequence[str], ended: Sequence[bool]
) -> dict[str, np.ndarray]:
    """reward, correct and format (well_formed) of each completion, float64 [B] each.

    UserError where a task's reward is not a finite number; see Judge.
    """
    rows = list(zip(prompts, completions, map(bool, ended), strict=True))
    with Judge(task) as judge:
        rewards = [judge(task.reward, *row) for row in rows]
        correct = [judge(task.correct, *row) for row in rows]
        formed = [judge(task.well_formed, *row) for row in rows]
    for (prompt, completion, _), reward in zip(rows, rewards):
        if not isinstance(reward, Real) or not math.isfinite(reward):
            raise UserError(
                f"task={task.name}: the reward of completion {shown(completion)} to prompt {shown(prompt)} is "
                f"{reward!r:.80}; it must be a finite number"
            )
    return {
        "reward": np.array(rewards, np.float64),
        "correct": np.array(correct, np.float64),
        "format": np.array(formed, np.float64),
    }
