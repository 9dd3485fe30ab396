"""A run directory: making one, its configuration, its status and its lock. The layout is in the README.

config.yaml    resolved, without interpolations      run.json    command, versions, git, host, device, seed
status.json    how it stands, and who runs it        rlx.log     tracebacks
metrics.jsonl  the truth; TensorBoard's event files are derived from it
checkpoints/   one file each
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock
import yaml

from rlx.base import process
from rlx.base.atomic_files import remove_temporaries, sync_directory, write_atomically, write_json
from rlx.base.errors import ConfigError, UserError
from rlx.config.facts import Facts
from rlx.rundir import provenance as record

# What a run cannot change once it has begun, but for what only says how it is computed. Further keys of `algo` are a
# fact of the algorithm.
FROZEN = ("seed", "runs_dir", "env", "task", "init", "model", "algo.name", "algo.implementation")
MOVABLE = ("env.workers", "env.step_timeout", "env.replay")
NAMES = ("runs_dir", "env.name", "task.name", "algo.name")


# -- a new one -------------------------------------------------------------------------------------------------


def new_directory(cfg: Any, parent: Path | None = None, name: str | None = None) -> Path:
    """Create this run's own directory, exclusively. Raises ConfigError where that cannot be."""
    parent = parent or Path(cfg.runs_dir).absolute() / cfg.place.name / cfg.algo.name
    path = parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for _ in range(1000):
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            path = parent / (name or f"{stamp}_s{cfg.seed}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                if name:
                    raise
        raise FileExistsError(0, "no free name")
    except OSError as error:
        where = "" if name else f"runs_dir={cfg.runs_dir}: "
        raise ConfigError(f"{where}cannot create {path}: {error.strerror}") from None


def open_new(
    cfg: Any,
    raw: Mapping[str, Any],
    command: list[str],
    device: str,
    parent: Path | None = None,
    name: str | None = None,
    origins: Mapping[str, Any] | None = None,
) -> Path:
    """A new run directory with its configuration and record in it (`origins`: see record.new)."""
    path = new_directory(cfg, parent, name)
    try:
        write_json(path / "run.json", record.new(cfg, command, device, origins or {}))
        status = {"status": "running", "step": 0, "total_steps": cfg.total_steps, **process.me()}
        write_status(path, status, durable=False)
        write_config(path, raw)  # the last: it makes the directory a run
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"runs_dir={cfg.runs_dir}: {error}") from None
    return path


# -- configuration ---------------------------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run directory. Raises ConfigError if it is not one."""
    file = path / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{path}: not a run directory (no config.yaml; `rlx ls` lists the runs there are)")
    try:
        raw = yaml.load(file.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: unreadable ({type(error).__name__})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("algo"), dict):
        raise ConfigError(f"{file}: not the configuration of a run")
    return raw


def write_config(path: Path, raw: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)
    write_atomically(path / "config.yaml", text.encode())


def is_frozen(key: str, facts: Facts) -> bool:
    """Is this dotted key part of what a run of an algorithm with these facts cannot change?"""
    frozen = (*FROZEN, *(f"algo.{name}" for name in facts.frozen))
    return any(key == part or key.startswith(f"{part}.") for part in frozen) and key not in MOVABLE


def identity(raw: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """What tells a run's checkpoints from another run's: its frozen keys, but for names and places."""
    flat = {key: new for key, (_, new) in record.differences({}, raw).items()}
    return {key: value for key, value in flat.items() if is_frozen(key, facts) and key not in NAMES}


# -- status and lock -------------------------------------------------------------------------------------------


def read_status(path: Path) -> dict[str, Any]:
    """status.json; {} if it is missing or damaged."""
    try:
        found = json.loads((path / "status.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_status(path: Path, status: Mapping[str, Any], durable: bool = True) -> None:
    write_json(path / "status.json", {**status, "heartbeat": process.now()}, durable)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[dict[str, Any]]:
    """Be the one process that runs this directory; gives the status as it was before.

    The lock is the operating system's: kill -9 releases it. Raises ConfigError naming who holds it. After a
    UserError, which changed nothing, the status is put back.
    """
    lock = filelock.FileLock(path / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(f"{path}: {_holder(path)} is running it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be locked: {error.strerror or error}") from None
    try:
        before = read_status(path)
        for directory in (path, path / "checkpoints"):
            remove_temporaries(directory)
        with contextlib.suppress(OSError):  # a full disk shows later, where it matters
            write_status(path, {**before, "status": "running", **process.me()}, durable=False)
        try:
            yield before
        except UserError:
            if read_status(path).get("status") == "running":
                put_back(path, before)
            raise
    finally:
        lock.release()


def put_back(path: Path, status: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        if status:
            write_json(path / "status.json", status)
        else:
            (path / "status.json").unlink(missing_ok=True)


def _holder(path: Path) -> str:
    for _ in range(20):  # who has just taken the lock may not have signed yet
        status = read_status(path)
        if process.lives(status):
            return f"process {status.get('pid')} on {status.get('host')}"
        time.sleep(0.05)
    return "another process"
