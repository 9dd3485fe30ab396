"""How a run ends before its time. SIGINT (Ctrl-C), SIGTERM (kill, SLURM's end), SIGUSR1 (SLURM's warning) and SIGHUP (a
closed terminal) ask it to; under nohup SIGHUP does not."""

import _thread
import os
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

ENDING = tuple(number for number in STOPPING if signal.Signals(number).name in ("SIGTERM", "SIGHUP"))  # SIGKILL is next

GRACE = 5.0  # seconds that those wait for the end of an iteration
TWICE = 0.1  # seconds within which two SIGTERM are one: sent to the process, and to its group


class RunFailed(Exception):
    """Training failed; the traceback is in the run's log and in status.json."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Pruned(Exception):
    """A search has seen enough of this run; its progress callback raises this, and the run keeps what it has."""


class Paused(Exception):
    """The time of the run is over (max_time); a resume goes on."""


TIME_UP, REACHED = -1, -2  # beside the numbers of signals: why a run stops before its last step


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
    """A second signal, or a first one for which the iteration was too long: nobody waits for a checkpoint."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__()
        self.number, self.why = number, why


class Signals(ExitStack):
    """They ask the loop to checkpoint and stop, which it does between two iterations. A second SIGINT or SIGTERM stops
    it at once; so does a first SIGTERM or SIGHUP that has not been `heard` after GRACE seconds, if it `insists`."""

    def __init__(self, insists: bool = False) -> None:
        super().__init__()
        self.insists, self.heard = insists, False
        self.asked = 0
        self._since, self._too_late = 0.0, False

    def __enter__(self) -> Self:
        self.enter_context(handled(self._note))
        self.callback(setattr, self, "heard", True)
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and self._too_late:
            raise StoppedAtOnce(self.asked, f"{name_of(self.asked)} ({GRACE:g} s in an iteration)")
        late = number == signal.SIGTERM and time.monotonic() - self._since > TWICE
        if self.asked and (late or number == signal.SIGINT):
            raise StoppedAtOnce(number, f"a second {name_of(number)}")
        if self.insists and not self.asked and number in ENDING:
            _thread.start_new_thread(self._insist, ())  # (threading's locks may be held by what was interrupted)
        self.asked, self._since = number, time.monotonic()

    def _insist(self) -> None:
        time.sleep(GRACE)
        if not self.heard:
            self._too_late = True
            os.kill(os.getpid(), signal.SIGTERM)


def name_of(number: int) -> str:
    return signal.Signals(number).name
