"""A task of your own, from a file: `task=jsonl task.file=FILE`. One JSON object a line, blank lines are skipped:

    {"prompt": "2+2=", "answer": "4"}                       a demonstration; a prompt may have several right answers
    {"prompt": "2+2=", "answer": "4", "pattern": "0*4"}     with task.verifier=regex, the pattern of what is right
    {"prompt": "2+2=", "chosen": "4", "rejected": "5"}      a preference; `chosen` serves as the answer if there is none

    task.verifier   exact      the completion is an answer
                    contains   an answer occurs in it
                    numeric    it is the same number as an answer: 4, 4.0 and +4 are
                    regex      it matches the row's pattern from beginning to end

Partial credit (task.reward=dense): 1 where it is right, else the share of right positions. The alphabet and the two
lengths are those of the file unless given.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from rlx.base.errors import ConfigError, UserError, shown
from rlx.base.watch import Watch
from rlx.language.tasks import base

KEYS = ("prompt", "answer", "chosen", "rejected", "pattern")
SECONDS = 5.0  # the most that matching a pattern may take
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*")


@dataclass
class Config(base.TaskConfig):
    file: Annotated[str, Field(min_length=1)]
    verifier: Literal["exact", "contains", "numeric", "regex"]
    alphabet: Annotated[str, Field(min_length=1)] | None  # None: the characters of the file
    prompt_length: Annotated[int, Field(ge=0, le=4096)] | None  # most characters of a prompt; None: as in the file


class Task(base.AnswerTask):
    seconds = SECONDS

    def __init__(self, cfg: Config) -> None:
        self.verifier, self.file = cfg.verifier, cfg.file
        self._rows, self.notices = _read(cfg)
        rows = [row for _, row in self._rows]
        self.rights: dict[str, list[str]] = {}
        self.patterns: dict[str, list[str]] = {}
        for row in rows:
            self.rights.setdefault(row["prompt"], []).append(row["answer"])
            self.patterns.setdefault(row["prompt"], []).append(row.get("pattern", ""))
        self._prompts = list(self.rights)
        self._preferences = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows if "chosen" in row]
        written = {key: sorted({c for row in rows for c in row.get(key, "")}) for key in KEYS[:4]}
        alphabet = cfg.alphabet or "".join(sorted({c for text in written.values() for c in text}))
        super().__init__(
            cfg,
            alphabet=alphabet,
            symbols="".join(written["answer"]) or alphabet,
            prompt_length=cfg.prompt_length or max(map(len, self._prompts)),
            longest=max(len(row.get(key, "")) for row in rows for key in KEYS[1:4]),
            num_prompts=len(self._prompts),
        )
        sides = set(map(base.is_held_out, self._prompts))
        self.splits = self.splits and len(sides) == 2

    def measure(self, tokens: base.Sizes = base.characters) -> None:
        """By all that is in the file. Raises ConfigError naming the line of the first text that has no room."""
        self.tokens, longest = tokens, 0
        for key in KEYS[1:4]:
            texts = [(number, row[key]) for number, row in self._rows if key in row]
            for (number, _), size in zip(texts, tokens([text for _, text in texts])):
                if self.cfg.max_new is not None and size >= self.cfg.max_new:
                    raise ConfigError(
                        f"task.file={shown(self.file)}: line {number}: {key} and its end have {size + 1} tokens; "
                        f"task.max_new={self.cfg.max_new} is the most"
                    )
                longest = max(longest, size)
        self.max_new = self.cfg.max_new or longest + 1

    def some_prompts(self) -> list[str]:
        return self._prompts

    def answers(self) -> list[str]:
        return [row[key] for _, row in self._rows for key in KEYS[1:4] if key in row]

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        return [self._prompts[i] for i in rng.integers(len(self._prompts), size=n).tolist()]

    def answer(self, prompt: str) -> str:
        """The first one of the file; `demonstrations` has all."""
        return self.rights[prompt][0]

    def demonstrations(self, rng: np.random.Generator, n: int) -> list[tuple[str, str]]:
        def draw(size: int) -> list[tuple[str, str]]:
            rows = rng.integers(len(self._rows), size=size).tolist()
            return [(row["prompt"], row["answer"]) for _, row in (self._rows[i] for i in rows)]

        return self.of_side(draw, n, False, lambda row: row[0])

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        if not ended:
            return False
        verify, answers = VERIFIERS[self.verifier], self.patterns if self.verifier == "regex" else self.rights
        return any(verify(right, completion) for right in answers[prompt])

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        if self.correct(prompt, completion, ended):
            return 1.0
        return max(np.mean(base.positions(answer, completion, ended)).item() for answer in self.rights[prompt])

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return ended and (self.verifier != "numeric" or NUMBER.fullmatch(completion) is not None)

    def pairs(self, rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
        """The file's preferences of training prompts, or answers and what comes of changing them if it has none.
        UserError where all of them are held out."""
        if not self._preferences:
            return super().pairs(rng, n)
        pairs = [pair for pair in self._preferences if not (self.splits and base.is_held_out(pair[0]))]
        if not pairs:
            raise UserError(
                f"task.file={shown(self.file)}: the prompts of all its {len(self._preferences)} preferences are "
                f"held out for evaluation (one prompt in {base.HELD_OUT} is); preferences of other prompts are needed"
            )
        return [pairs[i] for i in rng.integers(len(pairs), size=n).tolist()]


def same_number(a: str, b: str) -> bool:
    if not (NUMBER.fullmatch(a) and NUMBER.fullmatch(b)):
        return False
    return Decimal(a.strip()) == Decimal(b.strip())


VERIFIERS = {
    "exact": lambda right, completion: completion == right,
    "contains": lambda right, completion: right in completion,
    "numeric": same_number,
    "regex": lambda right, completion: re.fullmatch(right, completion) is not None,
}


# -- reading ---------------------------------------------------------------------------------------------------


def _read(cfg: Config) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The rows of the file with their lines, each with a prompt and an answer; and notices of keys that count for
    nothing. ConfigError with the line of the first fault."""
    where = f"task.file={shown(cfg.file)}"
    try:
        text = Path(cfg.file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file (task=jsonl task.file=FILE, one JSON object a line)") from None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text (byte {error.start})") from None
    rows, odd = [], {"unknown": Odd(), "duplicate": Odd()}
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, _row(cfg, line, partial(_note, odd, number))))
            except ValueError as error:
                raise ConfigError(f"{where}: line {number}: {error}") from None
    if not rows:
        raise ConfigError(f"{where}: is empty (needed: one JSON object a line, with prompt and answer)")
    meanings = {"unknown": "is not read", "duplicate": "counts with its last value"}
    return rows, [f"{where}: {seen.line(kind)} {meanings[kind]}" for kind, seen in odd.items() if seen.keys]


@dataclass
class Odd:
    """Keys of one kind, and the lines that they stand in."""

    keys: dict[str, None] = field(default_factory=dict)
    lines: dict[int, None] = field(default_factory=dict)

    def line(self, kind: str) -> str:
        first, more = next(iter(self.lines)), len(self.lines) - 1
        others = f" (and {more:,} other lines)" if more else ""
        return f"line {first}{others}: the {kind} key {', '.join(map(repr, [*self.keys][:5]))}"


def _note(odd: dict[str, Odd], number: int, kind: str, key: str) -> None:
    odd[kind].keys[key] = odd[kind].lines[number] = None


def _row(cfg: Config, line: str, note: Callable[[str, str], None]) -> dict[str, str]:
    """ValueError says what is wrong with it; `note` takes note of odd keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = {key for key, times in Counter(key for key, _ in pairs).items() if times > 1}
        for key in sorted(twice):
            note("duplicate", key)
        return dict(pairs)

    try:
        row: Any = json.loads(line, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f'{shown(line.strip())}: must be an object, {{"prompt": ..., "answer": ...}}')
    unknown = [key for key in row if key not in KEYS]
    for key in unknown:
        note("unknown", key)
    row = {key: row[key] for key in KEYS if key in row}
    for key, value in row.items():
        if not isinstance(value, str):
            raise ValueError(f"{key}={shown(value)}: must be a string in quotes")
        if lone := next((c for c in value if "\ud800" <= c <= "\udfff"), None):
            raise ValueError(f"{key} has {ascii(lone)}, half of a character (a lone surrogate)")
    if ("chosen" in row) != ("rejected" in row):
        raise ValueError(f"has {'chosen' if 'chosen' in row else 'rejected'} alone; chosen and rejected go together")
    if "chosen" in row:
        if row["chosen"] == row["rejected"]:
            raise ValueError(f"chosen and rejected are both {shown(row['chosen'])}: there is nothing to prefer")
        row.setdefault("answer", row["chosen"])
    needed = ("prompt", "answer", "pattern") if cfg.verifier == "regex" else ("prompt", "answer")
    for key in needed:
        if key not in row:
            hint = f"; it has {', '.join(map(repr, unknown[:5]))}" if unknown else ""
            raise ValueError(f"no {key} (task.verifier={cfg.verifier} needs {', '.join(needed)}{hint})")
    _check(cfg, row)
    return row


def _check(cfg: Config, row: dict[str, str]) -> None:
    prompt, answer = row["prompt"], row["answer"]
    if cfg.prompt_length is not None and len(prompt) > cfg.prompt_length:
        raise ValueError(f"the prompt has {len(prompt)} characters; task.prompt_length={cfg.prompt_length} is the most")
    if cfg.alphabet is not None:
        for key in KEYS[:4]:
            if strangers := sorted(set(row.get(key, "")) - set(cfg.alphabet)):
                raise ValueError(f"{key} has {strangers[0]!r}, which is not in task.alphabet={shown(cfg.alphabet)}")
    if cfg.verifier == "contains" and not answer:
        raise ValueError("answer='': every completion contains that (task.verifier=contains needs a text)")
    if cfg.verifier == "numeric" and not NUMBER.fullmatch(answer):
        raise ValueError(f"answer={shown(answer)}: must be a number (task.verifier=numeric)")
    if cfg.verifier == "regex":
        try:
            with Watch(SECONDS):
                matches = re.fullmatch(row["pattern"], answer)
        except TimeoutError:
            raise ValueError(
                f"pattern={shown(row['pattern'])}: takes more than {SECONDS:g} seconds to match answer={shown(answer)} "
                "(nested repetitions such as (a+)+ never end)"
            ) from None
        except re.error as error:
            raise ValueError(f"pattern={shown(row['pattern'])}: is no regular expression: {error}") from None
        if not matches:
            raise ValueError(f"answer={shown(answer)}: does not match pattern={shown(row['pattern'])}")
