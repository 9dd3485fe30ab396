"""A study's directory, runs/sweeps/NAME: what was asked, what came of it. Imports neither optuna nor torch.

study.json     what was asked: the configuration of every run but for its seed and what is searched, the ranges, ...
journal.log    Optuna's records (or the database that `storage` names)
trials.jsonl   the same for others to read: a line for each trial      importance.json   {key: share}
trial_0007_s1  an ordinary run directory for each seed of a trial      rlx.log           what they printed, tracebacks
best/          runs of the winner on fresh seeds, and best.json
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import Any

import filelock

from rlx.base import process
from rlx.base.errors import ConfigError, UserError, choices_hint, shown
from rlx.base.files import guarded
from rlx.base.files.atomic import TEMPORARY, write_atomically, write_json
from rlx.rundir import home, reader
from rlx.rundir.layout import lock
from rlx.rundir.provenance import scrub

OVER = (
    "complete",
    "pruned",
    "failed",
)  # a trial at its end; before: waiting, running, interrupted (its worker is gone)
MOST = 1 << 28  # bytes of trials.jsonl
ASKED = {
    "name": str, "config": dict, "space": dict, "trials": int, "seeds": int, "seed": int, "sampler": str, "pruner": str,
    "storage": str,
}  # fmt: skip
SAME = ("algo", "env", "task", "space", "config", "seeds", "sampler", "pruner", "storage")  # of two that are one study


@dataclass
class Study:
    directory: Path
    asked: dict[str, Any]  # study.json
    url: str | None = None  # of the storage, with the password that study.json does not keep

    @property
    def name(self) -> str:
        return str(self.asked["name"])

    @property
    def seeds(self) -> list[int]:
        """The seeds of each trial."""
        return list(range(self.asked["seed"], self.asked["seed"] + self.asked["seeds"]))

    @property
    def total_steps(self) -> int:
        """The steps of one run."""
        return int(self.asked["config"]["total_steps"])

    @property
    def eval_every(self) -> int:
        return min(int(self.asked["config"]["eval_every"]), self.total_steps)

    def run(self, number: int, seed: int) -> Path:
        return self.directory / f"trial_{number:04d}_s{seed}"

    def locked(self) -> AbstractContextManager[None]:
        """Be the one process that takes or plans trials. Raises UserError where that cannot be."""
        return lock(self.directory, str(self.directory))

    def rows(self) -> list[dict[str, Any]]:
        """The trials as of the last change: number, state, score, params, seeds_done, error, runs, ..."""
        with contextlib.suppress(ValueError, RecursionError):  # missing, damaged: it is written anew from the storage
            rows = [guarded.parsed(line) for line in guarded.data(self.directory / "trials.jsonl", MOST).splitlines()]
            return rows if all(map(_is_row, rows)) else []
        return []

    def write_rows(self, rows: list[dict[str, Any]]) -> None:
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        write_atomically(self.directory / "trials.jsonl", lines.encode())

    def log(self, text: str) -> None:
        """Into rlx.log."""
        with contextlib.suppress(OSError), open(self.directory / "rlx.log", "a", encoding="utf-8") as file:
            file.write(f"{process.now()} {scrub(text.rstrip())}\n")

    def plan(self, trials: int) -> None:
        """Raise how many trials there are to be. Raises UserError."""
        if trials < self.asked["trials"]:
            raise UserError(f"trials={trials}: the study {self.name} has {self.asked['trials']}; it can get more")
        if trials > self.asked["trials"]:
            self.asked["trials"] = trials
            write_json(self.directory / "study.json", self.asked)


def _is_row(row: Any) -> bool:
    """Is this line of trials.jsonl one that `write_rows` writes?"""
    return (
        isinstance(row, dict)
        and row.keys() >= {"score", "error", "traceback"}
        and isinstance(row.get("number"), int)
        and isinstance(row.get("state"), str)
        and isinstance(row.get("params"), dict)
        and isinstance(row.get("runs"), list)
        and isinstance(row.get("seeds_done"), int)
        and isinstance(row.get("score"), int | float | NoneType)
        and (row["state"] != "complete" or row.get("score") is not None)
        and all(isinstance(row.get(key), str | NoneType) for key in ("error", "traceback"))
    )


def done(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["state"] in OVER]


def leader(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The complete trial with the highest score, the first of equals."""
    return max((row for row in rows if row["state"] == "complete"), key=lambda row: row["score"], default=None)


# -- a new one, and one that is there ----------------------------------------------------------------------------


def path_of(asked: Mapping[str, Any]) -> Path:
    """The directory of a study with these settings."""
    return Path(asked["config"]["runs_dir"]).absolute() / "sweeps" / str(asked["name"])


def fresh_name(algo: str, place: str) -> str:
    return f"{place}_{algo}_{datetime.now():%Y%m%d-%H%M%S-%f}"


@contextlib.contextmanager
def made(directory: Path) -> Iterator[Study | None]:
    """Its directory, locked: the study that is there already, or None for one that is to be written. Raises
    ConfigError."""
    if directory.exists() and not (directory / ".lock").exists():  # with it, another process may be at it
        _check_empty(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(directory / ".lock")
        held.acquire()
    except OSError as error:
        raise ConfigError(f"cannot create the study's directory {directory}: {error.strerror}") from None
    try:
        _check_empty(directory)
        yield load(directory) if (directory / "study.json").is_file() else None
    finally:
        held.release()


def _check_empty(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    if "study.json" not in names and any(name != ".lock" and not name.startswith(TEMPORARY) for name in names):
        raise ConfigError(f"study={directory.name}: {directory} exists already and is not a study (no study.json)")


def check_same(study: Study, asked: Mapping[str, Any]) -> None:
    """Raises ConfigError where a study of that name is another one."""
    for key in SAME:
        new, old = asked.get(key), study.asked.get(key)
        if new == old:
            continue
        detail = ""
        if isinstance(new, Mapping) and isinstance(old, Mapping):
            key, new, old = _first(new, old, "" if key == "config" else key)
            detail = "a search of " if key.startswith("space.") else ""
            key = key.removeprefix("space.")
        has, wanted = (_short(value) for value in (old, new))
        raise ConfigError(
            f"study={study.name}: exists already, with {detail}{key}={has}, not {wanted} (use another name; "
            f"rlx sweep resume {study.name} continues this one)"
        )


def _first(new: Mapping[str, Any], old: Mapping[str, Any], path: str) -> tuple[str, Any, Any]:
    for key in dict.fromkeys([*old, *new]):
        here = f"{path}.{key}".lstrip(".")
        one, other = new.get(key), old.get(key)
        if one != other:
            if isinstance(one, Mapping) and isinstance(other, Mapping) and not here.startswith("space"):
                return _first(one, other, here)
            return here, one, other
    return path, new, old


def _short(value: Any) -> str:
    from rlx.search.params import said

    if value is None:
        return "nothing"
    return f"[{said(value)}]" if isinstance(value, Mapping) and "type" in value else shown(value)


def load(directory: Path) -> Study:
    """Raises UserError."""
    file = directory / "study.json"
    try:
        asked = guarded.json_object(file)
    except guarded.Damaged as error:
        reason = str(error).rpartition("(")[2].rstrip(")")
        raise UserError(f"{file}: not the settings of a study ({reason})") from None
    for key, kind in ASKED.items():
        if not isinstance(asked.get(key), kind):
            raise UserError(f"{file}: not the settings of a study ({key}={shown(asked.get(key))})")
    return Study(directory.absolute(), asked)


def _newest(directories: list[Path]) -> Study:
    """The newest study that can be read. Raises UserError."""
    studies, error = [], UserError()
    for directory in directories:
        try:
            studies.append(load(directory))
        except UserError as damage:
            error = damage
    if not studies:
        raise error
    return max(studies, key=lambda study: str(study.asked.get("created")))


def find(name: str, root: Path | None = None) -> Study:
    """A study by its path, its name under runs/sweeps, or `latest`. Raises UserError."""
    root = root or home.runs_dir() / "sweeps"
    directories = sorted(file.parent for file in root.glob("*/study.json"))
    if name == "latest":
        if not directories:
            raise UserError(f"latest: there is no study under {root} yet (rlx sweep algo=ppo env=cartpole makes one)")
        return _newest(directories)
    for path in (Path(name), root / name):
        if name and (path / "study.json").is_file():
            return load(path)
    is_directory = Path(name).is_dir() or (root / name).is_dir()
    what = "not a study (no study.json)" if name and is_directory else "no such study"
    raise UserError(f"{shown(name)}: {what}{choices_hint(name, [path.name for path in directories])}")


def state_of_run(path: Path) -> str | None:
    """How the run of a trial stands: running, finished, pruned, failed, interrupted, killed; None before it began."""
    return reader.state(path) if (path / "config.yaml").is_file() else None
