"""How a run ends before its time. SIGINT (Ctrl-C), SIGTERM (kill, SLURM's end), SIGUSR1 (SLURM's warning) and SIGHUP (a
closed terminal) ask it to; under nohup SIGHUP does not."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

STOPPING = tuple(
    number
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP")
    if (number := getattr(signal, name, None)) is not None
    and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN)
)

TWICE = 0.1  # seconds within which two SIGTERM are one: sent to the process, and to its group


class RunFailed(Exception):
    """Training failed; the traceback is in the run's log and in status.json."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Pruned(Exception):
    """A search has seen enough of this run; its progress callback raises this, and the run keeps what it has."""


class Interrupted(BaseException):
    """A signal asked the run to stop. `code` is the exit code, 128 + signal; `saved` the step of the newest
    checkpoint, from which a resume goes on (None: there is none), `again` the command that goes on where that is not
    `rlx resume PATH`."""

    def __init__(self, number: int, path: Path, text: str, saved: int | None, again: str | None = None) -> None:
        super().__init__(text)
        self.code, self.path, self.saved, self.again = 128 + number, path, saved, again


@contextmanager
def handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """The signals that stop a run go to `handler`."""
    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread: whoever runs us handles signals
        for number in STOPPING:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StoppedAtOnce(KeyboardInterrupt):
    """A second signal: the user does not wait for a checkpoint."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Signals(ExitStack):
    """They ask the loop to checkpoint and stop; a second SIGINT or SIGTERM stops it at once."""

    asked = 0
    _since = 0.0

    def __enter__(self) -> Self:
        self.enter_context(handled(self._note))
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        late = number == signal.SIGTERM and time.monotonic() - self._since > TWICE
        if self.asked and (late or number == signal.SIGINT):
            raise StoppedAtOnce(number)
        self.asked, self._since = number, time.monotonic()


def name_of(number: int) -> str:
    return signal.Signals(number).name
