"""Reading run directories: what `rlx ls` and `rlx show` print. Never imports torch."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError, choices_hint, shown
from rlx.base.files import guarded
from rlx.config.facts import Facts
from rlx.rundir import home
from rlx.rundir.layout import SILENT, Status
from rlx.rundir.metrics import MetricsTable
from rlx.rundir.provenance import Provenance

HEADER = 100_000_000  # bytes, the most that safetensors takes


class NotARun(UserError):
    """A path that is not a run directory; the message is one line."""


def find(root: Path, links: bool = True) -> list[Path]:
    """All run directories under `root`, oldest first, each once: linked folders are looked into after the others, and
    not without `links`. None is looked for inside a run directory."""
    seen: set[tuple[int, int]] = set()
    runs: list[str] = []
    roots = [os.fspath(root)]
    while roots:
        runs += _walk(roots.pop(0), seen, roots)
        if not links:
            break
    return sorted(map(Path, runs), key=lambda path: (path.name, str(path)))


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file() and (path / "config.yaml").is_file()


def _walk(root: str, seen: set[tuple[int, int]], links: list[str]) -> Iterator[str]:
    """The runs below a directory; links to directories are added to `links`, and none of `seen` (by inode) again."""
    try:
        about = os.stat(root)
        if (about.st_dev, about.st_ino) in seen:
            return
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(root) as listing:
            entries = list(listing)
    except OSError:  # no directory, or one that may not be read
        return
    if {"run.json", "config.yaml"} <= {entry.name for entry in entries}:
        yield root
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, seen, links)
        elif entry.is_symlink() and entry.is_dir():
            links.append(entry.path)


def newest_first(root: Path) -> list[Path]:
    """All run directories under `root` by when they were started, in a grid's directory or not."""
    return sorted(find(root), key=lambda path: (str(Provenance.read(path).started), path.name), reverse=True)


def resolve(name: str, runs_dir: Path | None = None) -> Path:
    """A run directory by path, `latest` for the newest under runs_dir, latest:ALGO for the newest of an algorithm.

    Raises NotARun.
    """
    word, colon, algo = name.partition(":")
    if word == "latest":
        runs_dir = runs_dir or home.runs_dir()
        runs = find(runs_dir)
        if not runs:
            elsewhere = f"{home.FLAG} DIRECTORY or {home.VARIABLE} looks elsewhere"
            raise NotARun(f"{name}: there is no run under {runs_dir}/ yet (rlx train starts one; {elsewhere})")
        if colon:
            of = {path: str(Provenance.read(path).algo) for path in runs}
            runs = [path for path in runs if of[path] == algo]
            if not runs:
                hint = choices_hint(algo, set(of.values()), "latest:")
                raise NotARun(f"{name}: there is no run of {shown(algo)} under {runs_dir}/{hint}")
        return max(runs, key=changed)
    path = Path(name)
    if not path.exists():
        raise NotARun(f"{name}: no such run directory (`rlx ls` lists the runs there are)")
    if not is_run(path):
        raise NotARun(f"{name}: not a run directory (no config.yaml and run.json; `rlx ls` lists the runs there are)")
    return path


def changed(path: Path) -> float:
    """When run.json was written last, which every start does."""
    try:
        return (path / Provenance.FILE).stat().st_mtime
    except OSError:
        return 0.0


def facts(path: Path) -> Facts:
    """What its algorithm said about itself when the run began; for one from before 0.2.0, what was taken for granted
    of all."""
    record = Provenance.read(path)
    return Facts.of(record.facts, "language" if record.place == "task" else "control")


def place(path: Path) -> str:
    """The world of a run: env or task."""
    return Provenance.read(path).place


def state(path: Path) -> str:
    """The state of a run directory: see Status.state."""
    return Status.read(path).state


def drawing(path: Path) -> str:
    """What a tabular algorithm has learnt, in plain text; empty where there is none."""
    with contextlib.suppress(guarded.Damaged):
        return guarded.text(path / "policy.txt").rstrip("\n")
    return ""


def _newest_checkpoint(path: Path) -> tuple[int | None, str | None]:
    """The step and the hash that the newest checkpoint says it has (it is not checked here)."""
    files = [file for file in (path / "checkpoints").glob("*_*.safetensors") if file.stem[-12:].isdigit()]
    for file in sorted(files, key=lambda file: file.stem[-12:], reverse=True):
        manifest = checkpoint_manifest(file)
        step, weights = manifest.get("step"), manifest.get("weights_sha256")
        if isinstance(step, int) and isinstance(weights, str):
            return step, weights
    return None, None


def checkpoint_manifest(file: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, its tensors not read; {} where it says nothing that can be read."""
    try:
        with guarded.opened(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = guarded.parsed(stream.read(length)) if length <= HEADER else {}
        manifest = guarded.parsed(header["__metadata__"]["rlx"].encode())
        return manifest if isinstance(manifest, dict) else {}
    except (ValueError, RecursionError, MemoryError, KeyError, TypeError, AttributeError):
        return {}


def show(path: Path, damage: str | None = None) -> dict[str, Any]:
    """What others build on: {run, algo, env or task, seed, step, status, weights_sha256, eval, metrics}, and more.

    A run of which a file cannot be read has the status `damaged`, and an error that names the file; `damage`: of one
    that is not read here.
    """
    record, status, table = Provenance.read(path), Status.read(path), MetricsTable(path)
    step, weights = _newest_checkpoint(path)
    metrics, policy, evaluation = table.last(), drawing(path), status.evaluation
    damage = record.damage or damage or status.damage or table.damage
    silent = SILENT if status.state == "killed" else None
    state = "damaged" if damage and status.state != "running" else status.state
    return {
        "run": str(path),
        "algo": record.algo,
        record.place: getattr(record, record.place),
        "seed": record.seed,
        "step": status.step,
        "checkpoint": step,
        "total_steps": status.total_steps,
        "status": state,
        "error": status.error or damage or silent,
        **({} if status.stopped_at is None else {"stopped_at": status.stopped_at}),
        "weights_sha256": status.weights_sha256 or weights,
        "eval": evaluation.to_json() if evaluation else None,
        "metrics": metrics,
        **({"time": shares} if (shares := table.shares()) else {}),
        "device": record.device,
        "versions": record.versions,
        "notices": record.notices,
        "resumes": record.resumes,
        "started": record.started,
        **record.origins,
        **{key: value for key in ("study", "trial", "params") if (value := getattr(record, key)) is not None},
        "command": record.command,
        **({"code": code} if (code := record.code_digest) else {}),
        **({"policy": policy} if policy else {}),
    }
