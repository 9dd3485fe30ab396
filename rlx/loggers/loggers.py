"""What a logger is, and the loggers of a run.

    class MyLogger:                       logger=[./my_loggers.py:MyLogger], or {name: ..., kwargs: {...}}
        def start(self, run, step): ...   before the first step, or after a resume at `step`; `run`: see LoggedRun
        def log(self, step, metrics): ... once a step: everything that metrics.jsonl has of it
        def finish(self, status): ...     finished, failed, interrupted or pruned

After a resume each step arrives once: how far a logger had been told is kept beside the run, and as the resumed run is
the same, those steps are not told again. One that goes back to `step` itself says so (`rewinds = True`) and is told
them. One that raises, wherever, is a warning and is not asked again; training goes on.
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rlx.base import extras
from rlx.base.errors import ConfigError
from rlx.config import plugins
from rlx.config.plugins import FORM, Item, is_item, kwargs_of, name_of

TENSORBOARD = "tensorboard"  # which the loop writes itself: it takes texts and films, too


@dataclass(frozen=True)
class LoggedRun:
    """The run that a logger is told of."""

    path: Path
    name: str  # ENV/ALGO/TIME_sSEED
    config: dict[str, Any]
    seed: int
    command: list[str]


class Logger(Protocol):
    def start(self, run: LoggedRun, step: int) -> None: ...
    def log(self, step: int, metrics: dict[str, Any]) -> None: ...
    def finish(self, status: str) -> None: ...


def names(items: Sequence[Item] | None, tensorboard: bool) -> list[str]:
    """The names that a configuration asks for."""
    return ([TENSORBOARD] if tensorboard else []) if items is None else [name_of(item) for item in items]


def check(items: Sequence[Item] | None) -> None:
    """Raises ConfigError for what is no logger, or cannot be made."""
    for item in items or ():
        if not is_item(item):
            raise ConfigError(f"logger={item}: {FORM}")
        if name_of(item) != TENSORBOARD:
            _factory(item)


def _factory(item: Item) -> Any:
    """A function without arguments that makes the logger. Raises ConfigError."""
    name, kwargs = name_of(item), kwargs_of(item)
    kind = plugins.find("loggers", name, lambda: [TENSORBOARD, *plugins.LOGGERS]).load()
    if not isinstance(kind, type):
        raise ConfigError(
            f"logger={name}: must be a class with start(run, step), log(step, metrics) and finish(status)"
        )
    if missing := [method for method in ("start", "log", "finish") if not callable(getattr(kind, method, None))]:
        raise ConfigError(
            f"logger={name}: has no {' and no '.join(missing)} (start(run, step), log(step, metrics), finish)"
        )
    if (needs := getattr(kind, "EXTRA", None)) and not extras.installed(needs):
        raise ConfigError(f"logger={name}: its package is missing: {extras.install(needs)}")
    try:
        inspect.signature(kind).bind(**kwargs)
    except TypeError as error:
        raise ConfigError(f"logger={name}: kwargs={kwargs}: {error}") from None
    return lambda: kind(**kwargs)


class Loggers:
    """Those of a run. Nothing here raises; `failed` is called for each that does."""

    def __init__(
        self, items: Sequence[Item] | None, run: LoggedRun, step: int, failed: Callable[[], None] = lambda: None
    ) -> None:
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._each: list[_Guarded] = []
        for number, item in enumerate(items or ()):
            if name_of(item) != TENSORBOARD:
                self._each.append(_Guarded(item, run, step, number, failed))

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Of a step there may be several lines: they are given together, once the next step or a checkpoint comes."""
        if not self._each:
            return
        if self._pending and self._pending[0] == step:
            self._pending[1].update(metrics)
            return
        self.flush()
        self._pending = step, dict(metrics)

    def flush(self) -> None:
        if self._pending:
            step, metrics = self._pending
            self._pending = None
            for logger in self._each:
                logger.log(step, metrics)

    def finish(self, status: str) -> None:
        self.flush()
        for logger in self._each:
            logger.finish(status)
        self._each = []


def _recalled(directory: Path, name: str) -> tuple[int, int]:
    """The file that says how far a logger has been told, open, and the step."""
    directory.mkdir(exist_ok=True)
    file = os.open(directory / name, os.O_RDWR | os.O_CREAT, 0o644)
    text = os.pread(file, 20, 0)
    return file, int(text) if text.isdigit() else -1


class _Guarded:
    """One logger, and how far it has been told."""

    def __init__(self, item: Item, run: LoggedRun, step: int, number: int, failed: Callable[[], None]) -> None:
        self.name, self.told, self.failed = name_of(item), -1, failed
        self.logger: Logger | None = None
        self.file: int | None = None
        with self._guard():
            logger: Logger = _factory(item)()
            if not getattr(logger, "rewinds", False):
                slug = re.sub(r"\W", "-", self.name)
                self.file, self.told = _recalled(run.path / ".loggers", f"{number}_{slug}")
            logger.start(run, step)
            self.logger = logger

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        if self.logger is None or step <= self.told:
            return
        with self._guard():
            self.logger.log(step, dict(metrics))
            if self.file is not None:
                os.pwrite(self.file, b"%020d" % step, 0)

    def finish(self, status: str) -> None:
        if self.logger is not None:
            with self._guard():
                self.logger.finish(status)
        if self.file is not None:
            os.close(self.file)
            self.file = None

    @contextlib.contextmanager
    def _guard(self) -> Any:
        try:
            yield
        except Exception as error:
            self.logger = None
            self.failed()
            reason = " ".join(str(error).split()) or type(error).__name__
            with contextlib.suppress(OSError, ValueError):
                print(f"rlx: warning: logger {self.name}: {reason}; it is left out, training goes on", file=sys.stderr)
