"""A run directory: making one, its configuration, its status and its lock. The layout is in docs/usage.md.

config.yaml    resolved, without interpolations      run.json    command, versions, git, host, device, seed
status.json    how it stands, and who runs it        rlx.log     tracebacks
metrics.jsonl  the truth; TensorBoard's event files are derived from it
checkpoints/   one file each                         videos/     films: the newest and the best evaluation's
samples/       of a language run                     policy.txt, map.svg  what has been learned, drawn
"""

import contextlib
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import filelock
import yaml

from rlx.base import process
from rlx.base.errors import ConfigError, UserError
from rlx.base.files import guarded
from rlx.base.files.atomic import remove_temporaries, separate, sync_directory, write_atomically
from rlx.base.files.document import Document
from rlx.base.signals import Interrupted, Pruned, RunFailed
from rlx.rundir import provenance
from rlx.rundir.metrics import is_number
from rlx.rundir.provenance import Provenance

CONFIG = "config.yaml"
FORMAT = 1  # of config.yaml and status.json
HEADER = "# The configuration of a run of rlx, format "  # the first line of config.yaml
DIRECTORIES = ("checkpoints", "videos", "samples", "buffer", ".loggers")
LOCK = ".lock"
SILENT = "killed (no error recorded)"  # of a run whose process nobody waited for
IN_PLACE = ("metrics.jsonl", "rlx.log")  # files that are not written anew


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
    """A new run directory with its configuration and record in it (`origins`: see provenance.new)."""
    path = new_directory(cfg, parent, name)
    try:
        provenance.new(cfg, command, device, origins or {}).write(path)
        status = {"status": "running", "step": 0, "total_steps": cfg.total_steps, **process.me()}
        Status.of(status).beat(path, durable=False)
        write_config(path, raw)  # the last: it makes the directory a run
        sync_directory(path.parent)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)  # it is no run yet
        if isinstance(error, OSError):
            raise ConfigError(f"runs_dir={cfg.runs_dir}: {error}") from None
        raise
    return path


# -- configuration ---------------------------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run directory. Raises ConfigError if it is not one."""
    file = path / CONFIG
    if not file.is_file():
        raise ConfigError(f"{path}: not a run directory (no config.yaml; `rlx ls` lists the runs there are)")
    raw = guarded.yaml_value(file)
    if not isinstance(raw, dict) or not isinstance(raw.get("algo"), dict):
        raise ConfigError(f"{file}: not the configuration of a run")
    return raw


def write_config(path: Path, raw: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)
    write_atomically(path / CONFIG, f"{HEADER}{FORMAT}\n{text}".encode())


def check_formats(path: Path) -> None:
    """Raises ConfigError for a run directory of a later rlx: it may mean something else by the same names. run.json
    speaks for metrics.jsonl, too, which is nothing but lines of metrics."""
    for file, written, known in (
        (Provenance.FILE, Provenance.read(path).format, provenance.FORMAT),
        (CONFIG, _config_format(path), FORMAT),
        (Status.FILE, Status.read(path).format, FORMAT),
    ):
        if written > known:
            raise ConfigError(f"{path}/{file}: format {written}, this rlx reads format {known} (a later one wrote it)")


def _config_format(path: Path) -> int:
    """What the first line of config.yaml says; 1 where somebody has removed it."""
    match = re.match(rf"{HEADER}(\d{{1,9}})\n", guarded.text(path / CONFIG))
    return int(match[1]) if match else 1


# -- status and lock -------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class LastEvaluation(Document):
    """The newest evaluation of a run: its step, its score, and whatever the world says of it beside them."""

    step: int = 0
    score: float | None = None
    mean_reward: float | None = None  # the score of runs that have none beside it

    @property
    def value(self) -> float | None:
        """The score, the more the better; it may be NaN."""
        return self.score if self.score is not None else self.mean_reward

    @property
    def comparable(self) -> float | None:
        """The score where it is a finite number."""
        return float(self.value) if is_number(self.value) else None  # type: ignore[arg-type]


@dataclass(kw_only=True)
class Status(Document):
    """How a run stands, and which process runs it."""

    FILE: ClassVar[str] = "status.json"
    OPTIONAL: ClassVar[tuple[str, ...]] = ("error", "traceback", "weights_sha256", "stopped_at", "heartbeat")

    format: int = FORMAT
    status: str = "killed"
    step: int = 0
    total_steps: int | None = None
    checkpoint: int | None = None  # the step of the newest one
    evaluation: LastEvaluation | None = None
    pid: int | None = None
    process_started: float | None = None
    boot: str | None = None
    host: str | None = None
    error: str | None = None
    traceback: str | None = None
    weights_sha256: str | None = None  # of a run that has finished
    stopped_at: float | None = None  # the score (stop_at) whose first evaluation ended it
    heartbeat: str | None = None

    @property
    def lives(self) -> bool:
        """Does the process that wrote it still run?"""
        who = {"pid": self.pid, "process_started": self.process_started, "boot": self.boot, "host": self.host}
        return process.lives({**who, "heartbeat": self.heartbeat})

    @property
    def state(self) -> str:
        """running, finished, failed, interrupted, pruned; killed: it says running and its process is gone; damaged: it
        is there and cannot be read."""
        if self.damage:
            return "damaged"
        return "killed" if self.status == "running" and not self.lives else self.status

    @property
    def score(self) -> float | None:
        """Of the last evaluation, where it is a finite number."""
        return self.evaluation.comparable if self.evaluation else None

    def beat(self, run: Path, durable: bool = True) -> None:
        """Write it with the time of now, and without secrets. Raises CannotWrite."""
        clean = replace(self, heartbeat=process.now())
        clean.error, clean.traceback = (text and provenance.scrub(text) for text in (self.error, self.traceback))
        clean.write(run, durable)


@contextlib.contextmanager
def lock(directory: Path, title: str, holder: Callable[[], str] | None = None) -> Iterator[None]:
    """Hold the lock of a directory, the operating system's: kill -9 releases it. Waits for it; or raises ConfigError
    with what `holder()` says of who has it."""
    held = filelock.FileLock(directory / LOCK)
    try:
        held.acquire(timeout=0 if holder else -1)
    except filelock.Timeout:
        raise ConfigError(f"{title}: {holder and holder()}") from None
    except OSError as error:
        raise ConfigError(f"{title}: cannot be locked: {error.strerror or error}") from None
    try:
        yield
    finally:
        held.release()


def refuse_links(path: Path) -> None:
    """Links above a run directory are followed, inside one none is: what it leads to would be cut, filled or replaced.
    Raises ConfigError."""
    for directory in (path, *(path / name for name in DIRECTORIES)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ConfigError(f"{entry.path}: is a link, and rlx follows none inside a run directory")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Status]:
    """Be the one process that runs this directory; gives the status as it was before.

    Raises ConfigError naming who holds it. After a UserError, which changed nothing, the status is put back; whatever
    else ends it before the run's own loop has said how it stands is a failure.
    """
    refuse_links(path)
    with lock(path, str(path), lambda: f"{_holder(path)} is running it"):
        before = Status.read(path)
        for name in IN_PLACE:
            separate(path / name)
        for directory in (path, path / "checkpoints"):
            remove_temporaries(directory)
        with contextlib.suppress(OSError):  # a full disk shows later, where it matters
            replace(before, status="running", **process.me()).beat(path, durable=False)
        try:
            yield before
        except (RunFailed, Interrupted, Pruned):
            raise
        except BaseException as error:
            begun = before.pid == os.getpid() and before.status == "running"  # by this process
            if Status.read(path).status == "running":
                if isinstance(error, UserError) and not begun:
                    put_back(path, before)
                else:
                    _fail(path, error)
            raise


def _fail(path: Path, error: BaseException) -> None:
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    with contextlib.suppress(OSError):
        replace(Status.read(path), status="failed", error=text, traceback=traceback.format_exc()).beat(path)


class NotItsOwn(RuntimeError):
    """A file of a run in progress is another one now, or gone; one line that names it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is not this run's any more (removed, moved or replaced while it went on)")


class OwnFiles:
    """What tells a run in progress that its directory is still its own: by inode, where others write by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claim = {file: _inode(file) for file in (path, path / LOCK)}
        self._log = path / "metrics.jsonl", _inode(path / "metrics.jsonl")

    @property
    def lost(self) -> Path | None:
        """The directory or its lock, where it has lost them: then nothing there is to be written to."""
        return next((file for file, inode in self._claim.items() if _inode(file) != inode), None)

    def check(self) -> None:
        """Raises NotItsOwn."""
        if file := self.lost:
            raise NotItsOwn(file)
        file, inode = self._log
        if _inode(file) != inode:
            raise NotItsOwn(file)
        for name in (CONFIG, Provenance.FILE):
            if not (self.path / name).exists():
                raise NotItsOwn(self.path / name)


def _inode(file: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        about = file.lstat()
        return about.st_dev, about.st_ino
    return None


def put_back(path: Path, status: Status) -> None:
    """Let the status be what it was."""
    with contextlib.suppress(OSError):
        if status.source:
            status.write(path)
        else:
            (path / Status.FILE).unlink(missing_ok=True)


def note_death(path: Path, error: str) -> None:
    """Let the status of a run say what its process died of; only who waited for that knows."""
    status = Status.read(path)
    if status.state == "killed":
        with contextlib.suppress(OSError):
            replace(status, error=error).write(path)


def _holder(path: Path) -> str:
    for _ in range(20):  # who has just taken the lock may not have signed yet
        status = Status.read(path)
        if status.lives:
            return f"process {status.pid} on {status.host}"
        time.sleep(0.05)
    return "another process"
