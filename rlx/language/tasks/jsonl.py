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
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from rlx.base.errors import ConfigError, shown
from rlx.language.tasks import base

KEYS = ("prompt", "answer", "chosen", "rejected", "pattern")
NUMBER = re.compile(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)\s*")


@dataclass
class Config(base.TaskConfig):
    file: Annotated[str, Field(min_length=1)]
    verifier: Literal["exact", "contains", "numeric", "regex"]
    alphabet: Annotated[str, Field(min_length=1)] | None  # None: the characters of the file
    prompt_length: Annotated[int, Field(ge=0, le=4096)] | None  # most characters of a prompt; None: as in the file


class Task(base.AnswerTask):
    def __init__(self, cfg: Config) -> None:
        self.verifier = cfg.verifier
        rows = _read(cfg)
        self.answers: dict[str, list[str]] = {}
        self.patterns: dict[str, list[str]] = {}
        for row in rows:
            self.answers.setdefault(row["prompt"], []).append(row["answer"])
            self.patterns.setdefault(row["prompt"], []).append(row.get("pattern", ""))
        self._prompts = list(self.answers)
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

    def draw(self, rng: np.random.Generator, n: int) -> list[str]:
        return [self._prompts[i] for i in rng.integers(len(self._prompts), size=n).tolist()]

    def answer(self, prompt: str) -> str:
        return self.answers[prompt][0]

    def correct(self, prompt: str, completion: str, ended: bool) -> bool:
        if not ended:
            return False
        verify, answers = VERIFIERS[self.verifier], self.patterns if self.verifier == "regex" else self.answers
        return any(verify(right, completion) for right in answers[prompt])

    def dense(self, prompt: str, completion: str, ended: bool) -> float:
        if self.correct(prompt, completion, ended):
            return 1.0
        return max(np.mean(base.positions(answer, completion, ended)).item() for answer in self.answers[prompt])

    def well_formed(self, prompt: str, completion: str, ended: bool) -> bool:
        return ended and (self.verifier != "numeric" or NUMBER.fullmatch(completion) is not None)

    def pairs(self, rng: np.random.Generator, n: int) -> list[tuple[str, str, str]]:
        """The file's preferences of training prompts if it has any, else answers and what comes of changing them."""
        pairs = [pair for pair in self._preferences if not (self.splits and base.is_held_out(pair[0]))]
        return [pairs[i] for i in rng.integers(len(pairs), size=n).tolist()] if pairs else super().pairs(rng, n)


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


def _read(cfg: Config) -> list[dict[str, str]]:
    """The rows of the file, each with a prompt and an answer. ConfigError with the line of the first fault."""
    where = f"task.file={shown(cfg.file)}"
    try:
        text = Path(cfg.file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file (task=jsonl task.file=FILE, one JSON object a line)") from None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text (byte {error.start})") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append(_row(cfg, line))
            except ValueError as error:
                raise ConfigError(f"{where}: line {number}: {error}") from None
    if not rows:
        raise ConfigError(f"{where}: is empty (needed: one JSON object a line, with prompt and answer)")
    return rows


def _row(cfg: Config, line: str) -> dict[str, str]:
    """ValueError says what is wrong with it."""
    try:
        row: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f'{shown(line.strip())}: must be an object, {{"prompt": ..., "answer": ...}}')
    row = {key: row[key] for key in KEYS if key in row}
    for key, value in row.items():
        if not isinstance(value, str):
            raise ValueError(f"{key}={shown(value)}: must be a string in quotes")
    if ("chosen" in row) != ("rejected" in row):
        raise ValueError(f"has {'chosen' if 'chosen' in row else 'rejected'} alone; chosen and rejected go together")
    if "chosen" in row:
        row.setdefault("answer", row["chosen"])
    needed = ("prompt", "answer", "pattern") if cfg.verifier == "regex" else ("prompt", "answer")
    for key in needed:
        if key not in row:
            raise ValueError(f"no {key} (task.verifier={cfg.verifier} needs {', '.join(needed)})")
    _check(cfg, row)
    return row


def _check(cfg: Config, row: dict[str, str]) -> None:
    prompt, answer = row["prompt"], row["answer"]
    if cfg.prompt_length is not None and len(prompt) > cfg.prompt_length:
        raise ValueError(f"the prompt has {len(prompt)} characters; task.prompt_length={cfg.prompt_length} is the most")
    for key in KEYS[1:4]:
        if cfg.max_new is not None and len(row.get(key, "")) >= cfg.max_new:
            raise ValueError(
                f"{key} and its end have {len(row[key]) + 1} tokens; task.max_new={cfg.max_new} is the most"
            )
    if cfg.alphabet is not None:
        for key in KEYS[:4]:
            if strangers := sorted(set(row.get(key, "")) - set(cfg.alphabet)):
                raise ValueError(f"{key} has {strangers[0]!r}, which is not in task.alphabet={shown(cfg.alphabet)}")
    if cfg.verifier == "numeric" and not NUMBER.fullmatch(answer):
        raise ValueError(f"answer={shown(answer)}: must be a number (task.verifier=numeric)")
    if cfg.verifier == "regex":
        try:
            matches = re.fullmatch(row["pattern"], answer)
        except re.error as error:
            raise ValueError(f"pattern={shown(row['pattern'])}: is no regular expression: {error}") from None
        if not matches:
            raise ValueError(f"answer={shown(answer)}: does not match pattern={shown(row['pattern'])}")
