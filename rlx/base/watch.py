"""A time limit for calls of code that may never come back: a regular expression, a reward of one's own."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

TICKS = 4  # looks within the limit


class _OverTime(BaseException):
    """Not an Exception, which the code that is watched may catch."""


class Watch:
    """Within `with`, TimeoutError where more than `seconds` pass without a `next()`. It looks four times in that and
    costs nothing in between.

    By a signal, which Python code, its regular expressions and system calls notice; outside the main thread, where
    there are none, nothing is watched.
    """

    def __init__(self, seconds: float, message: Any = "") -> None:
        self.seconds, self.message = seconds, message  # a text, or a function that makes one
        self.count = self._seen = self._same = 0
        self._before: Any = None

    def next(self) -> None:
        self.count += 1

    def __enter__(self) -> "Watch":
        if threading.current_thread() is threading.main_thread() and signal.getitimer(signal.ITIMER_REAL)[0] == 0:
            self._before = signal.signal(signal.SIGALRM, self._look)
            signal.setitimer(signal.ITIMER_REAL, self.seconds / TICKS, self.seconds / TICKS)
        return self

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        self._same = self._same + 1 if self._seen == self.count else 0
        self._seen = self.count
        if self._same >= TICKS:
            raise _OverTime

    def __exit__(self, kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        if kind is _OverTime:
            raise TimeoutError(self.message() if callable(self.message) else self.message) from None
