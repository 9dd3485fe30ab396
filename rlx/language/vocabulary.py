"""What the ids of a run's tokens mean and which files it learns from. Both are saved with the weights: a file may
change afterwards, and other characters would then stand behind the same ids without a word."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.base.errors import ConfigError, shown
from rlx.run import Run

NAME = "vocabulary"  # under which it is tracked


class Vocabulary:
    """A run's task and tokenizer, and what is saved of them:

    alphabet     of a tokenizer of characters, in the order of their ids
    context      most tokens of a sequence that its network reads; both null for a model of a directory
    tokenizer    of that: sha256 of its ids, and of all of it
    files        sha256 of the files that the configuration names
    """

    may_be_missing = True  # in a checkpoint from before it was saved

    def __init__(self, task: Any, tokenizer: Any, context: int | None) -> None:
        self.task, self.tokenizer, self.context = task, tokenizer, context
        self.digests: dict[str, str] | None = getattr(tokenizer, "digests", None)
        self.file: str | None = getattr(task.cfg, "file", None)
        self.files = {"task.file": sha256(Path(self.file))} if self.file and Path(self.file).is_file() else {}

    def state_dict(self) -> dict[str, Any]:
        alphabet = getattr(self.tokenizer, "alphabet", None)
        return {"alphabet": alphabet, "context": self.context, "tokenizer": self.digests, "files": self.files}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """It was made of that state already."""

    def changes(self, saved: Mapping[str, Any]) -> list[str]:
        """One line for each file that is not what it was when `saved` was, where ids still mean what they did.

        Raises ConfigError where they do not, and where the task has characters without one.
        """
        lines = []
        if (before := saved["tokenizer"]) and self.digests:
            where = f"model.path={shown(self.tokenizer.path)}: its tokenizer"
            if before["ids"] != self.digests["ids"]:
                raise ConfigError(f"{where} {_changed(before['ids'], self.digests['ids'])}: ids have other meanings")
            if before["whole"] != self.digests["whole"]:
                lines.append(f"{where} {_changed(before['whole'], self.digests['whole'])}")
        where = f"task.file={shown(self.file)}" if self.file else f"task={self.task.name}"
        if strangers := [c for c in self.task.alphabet if saved["alphabet"] and c not in saved["alphabet"]]:
            raise ConfigError(
                f"{where}: has the character {strangers[0]!r}, for which these weights have no token (their alphabet: "
                f"{shown(saved['alphabet'])})"
            )
        for key, digest in self.files.items():
            if (old := saved["files"].get(key)) and old != digest:
                lines.append(f"{where} {_changed(old, digest)}")
        return lines


def saved_in(run: Run) -> Any:
    """What a run's checkpoint holds of it; None in one from before it was saved."""
    try:
        return run.state(NAME)
    except KeyError:
        return None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(old: str, new: str) -> str:
    return f"has changed since these weights were trained (sha256 {old[:8]}, now {new[:8]})"
