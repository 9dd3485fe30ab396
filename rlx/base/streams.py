"""Standard output belongs to the answer: what others print while their code runs goes to standard error."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_callers = False  # the streams


@contextlib.contextmanager
def belongs_to_caller() -> Iterator[None]:
    """Meanwhile the streams are those of a program that uses rlx: they stay as they are."""
    global _callers
    before, _callers = _callers, True
    try:
        yield
    finally:
        _callers = before


@contextlib.contextmanager
def others_on_stderr() -> Iterator[None]:
    """Meanwhile stream 1 is stream 2, for Python, for C and for child processes."""
    if _callers:
        yield
        return
    try:
        _flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError):  # a stream is closed
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            _flush()
        os.dup2(kept, 1)
        os.close(kept)


def end_stdout() -> None:
    """The answer is out: what is printed while the process ends goes to standard error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        os.dup2(2, 1)
        sys.stdout = sys.stderr


def _flush() -> None:
    """Python's and C's own buffers."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
