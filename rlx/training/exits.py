"""os._exit while a run learns: an environment that calls it would end the process as if all had gone well."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def no_silent_exit() -> Iterator[None]:
    """Let os._exit raise SystemExit, which names the environment, as sys.exit does. Forks leave as they always did; so
    does another thread, with a code that is no success. (Not seen: `_exit` imported earlier, or called in C.)"""
    real, owner = os._exit, os.getpid()

    def leave(code: Any = 0) -> Any:
        if os.getpid() != owner:
            real(code)
        if threading.current_thread() is not threading.main_thread():
            real(code or 1)
        raise SystemExit(code)

    os._exit = leave  # type: ignore[assignment]
    try:
        yield
    finally:
        os._exit = real
