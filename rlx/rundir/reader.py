"""Reading run directories: what `rlx ls` and `rlx show` print. Never imports torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlx.base import process
from rlx.base.errors import UserError, choices_hint, shown
from rlx.config.facts import Facts


class NotARun(UserError):
    """A path that is not a run directory; the message is one line."""


def find(root: Path) -> list[Path]:
    """All run directories under `root`, oldest first. None is looked for inside a run directory or behind a link."""
    return sorted(map(Path, _walk(os.fspath(root))), key=lambda path: (path.name, str(path)))


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file() and (path / "config.yaml").is_file()


def _walk(root: str) -> Iterator[str]:
    try:
        with os.scandir(root) as found:
            entries = list(found)
    except OSError:  # no directory, or one that may not be read
        return
    if {"run.json", "config.yaml"} <= {entry.name for entry in entries}:
        yield root
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def newest_first(root: Path) -> list[Path]:
    """All run directories under `root` by when they were started, in a grid's directory or not."""
    return sorted(find(root), key=lambda path: (str(record(path).get("started")), path.name), reverse=True)


def resolve(name: str, runs_dir: str = "runs") -> Path:
    """A run directory by path, `latest` for the newest under runs_dir, latest:ALGO for the newest of an algorithm.

    Raises NotARun.
    """
    word, colon, algo = name.partition(":")
    if word == "latest":
        found = find(Path(runs_dir))
        if not found:
            raise NotARun(f"{name}: there is no run under {runs_dir}/ yet (rlx train starts one)")
        if colon:
            of = {path: str(record(path).get("algo")) for path in found}
            found = [path for path in found if of[path] == algo]
            if not found:
                known = choices_hint(algo, set(of.values()), "latest:")
                raise NotARun(f"{name}: there is no run of {shown(algo)} under {runs_dir}/{known}")
        return max(found, key=lambda path: (path / "run.json").stat().st_mtime)
    path = Path(name)
    if not path.exists():
        raise NotARun(f"{name}: no such run directory (`rlx ls` lists the runs there are)")
    if not is_run(path):
        raise NotARun(f"{name}: not a run directory (no config.yaml and run.json; `rlx ls` lists the runs there are)")
    return path


def record(path: Path) -> dict[str, Any]:
    """What run.json says; {} if it is missing or damaged."""
    return _json(path / "run.json")


def facts(path: Path) -> Facts:
    """What its algorithm said about itself when the run began; for one from before 0.2.0, what was taken for granted
    of all."""
    known = record(path)
    return Facts.of(known.get("facts"), "language" if "task" in known else "control")


def place(path: Path) -> str:
    """The world of a run: env or task."""
    return "task" if "task" in record(path) else "env"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""


def state_of(status: dict[str, Any]) -> str:
    """running, finished, failed, interrupted - or killed, for one that says running and whose process is gone."""
    said = str(status.get("status", "killed"))
    return "killed" if said == "running" and not process.lives(status) else said


def status(path: Path) -> dict[str, Any]:
    """What status.json says; {} if it is missing or damaged."""
    return _json(path / "status.json")


def state(path: Path) -> str:
    """The state of a run directory."""
    return state_of(status(path))


def _last_metrics(path: Path) -> dict[str, Any]:
    """The newest value of every metric, wall-clock ones left out."""
    found: dict[str, Any] = {}
    try:
        lines = path.read_bytes().splitlines()[-50:]
    except OSError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # the torn last line of a killed run
            continue
        if isinstance(row, dict):
            found |= {key: value for key, value in row.items() if not key.startswith("time/")}
    return found


def _newest_checkpoint(path: Path) -> dict[str, Any]:
    """What the newest checkpoint says of itself (its hash is not checked here); {} if there is none."""
    files = [file for file in (path / "checkpoints").glob("*_*.safetensors") if file.stem[-12:].isdigit()]
    for file in sorted(files, key=lambda file: file.stem[-12:], reverse=True):
        try:
            with open(file, "rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header = json.loads(stream.read(min(length, file.stat().st_size)))
            found = json.loads(header["__metadata__"]["rlx"])
            return {"step": found["step"], "weights_sha256": found["weights_sha256"]}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def show(path: Path) -> dict[str, Any]:
    """What others build on: {run, algo, env or task, seed, step, status, weights_sha256, eval, metrics}, and more."""
    known, said = record(path), status(path)
    checkpoint = _newest_checkpoint(path)
    metrics = _last_metrics(path / "metrics.jsonl")
    drawing = _text(path / "policy.txt")
    return {
        "run": str(path),
        "algo": known.get("algo"),
        **({"task": known["task"]} if "task" in known else {"env": known.get("env")}),
        "seed": known.get("seed"),
        "step": said.get("step", 0),
        "checkpoint": checkpoint.get("step"),
        "total_steps": said.get("total_steps"),
        "status": state_of(said),
        "error": said.get("error"),
        "weights_sha256": said.get("weights_sha256") or checkpoint.get("weights_sha256"),
        "eval": said.get("evaluation"),
        "metrics": metrics,
        "device": known.get("device"),
        "versions": known.get("versions"),
        "notices": known.get("notices", []),
        "resumes": known.get("resumes", []),
        "started": known.get("started"),
        **{name: known[name] for name in ("init", "reward_model", "study", "trial", "params") if name in known},
        "command": known.get("command"),
        **({"policy": drawing} if drawing else {}),
    }
