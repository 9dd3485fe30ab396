"""A piece of work in a process of its own, so that whatever kills it kills nothing else.

The process is a fork: what this one has imported need not be imported again. Where there is no fork (Windows) the work
is done here.
"""

import ctypes
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Self

from rlx.base.errors import ConfigError, UserError
from rlx.base.signals import STOPPING, Interrupted, RunFailed, handled, name_of

PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Died(Exception):
    """The process of a piece of work ended without an answer: it was killed, or crashed."""


def apart(work: Callable[[], Any]) -> Any:
    """What `work()` returns (it must be JSON), computed in a fork.

    A UserError, ConfigError, RunFailed or Interrupted that it raises is raised here; anything else, and a process that
    was killed, is Died. Signals that stop a run are passed on to it; where it ends in another way than by
    Interrupted then, this raises KeyboardInterrupt, or SystemExit(128 + signal). It does not outlive this process
    (Linux).
    """
    if not hasattr(os, "fork"):
        return work()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with tempfile.TemporaryFile() as answer:
        parent = os.getpid()
        with _held():  # a signal between the fork and the handlers would be lost
            pid = os.fork()
            if pid == 0:
                _child(work, answer.fileno(), parent)
            with _passing_on(pid) as passed:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
                _, status = os.waitpid(pid, 0)
        answer.seek(0)
        try:
            return _outcome(answer.read(), os.waitstatus_to_exitcode(status))
        finally:
            if passed and not isinstance(sys.exception(), Interrupted):
                raise KeyboardInterrupt if passed[0] == signal.SIGINT else SystemExit(128 + passed[0])


class Several:
    """Pieces of work in processes of their own, `count` at once. Within `with`, signals that stop a run are passed on
    to each and kept in `passed`; after one nothing more is begun. Its end waits for all."""

    def __init__(self, count: int) -> None:
        self.count, self.pids, self.passed = count, set[int](), list[int]()
        self._handlers = ExitStack()

    def __enter__(self) -> Self:
        self._handlers.enter_context(handled(lambda number, _: self._pass_on(number)))
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        with self._handlers:
            if kind is not None:
                self._pass_on(signal.SIGTERM)
            self.wait()

    def begin(self, work: Callable[[], Any]) -> None:
        """Begin a piece once there is room for it. What it returns or raises is its own affair."""
        self.wait(self.count - 1)
        if self.passed:
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        parent = os.getpid()
        with _held():
            if (pid := os.fork()) == 0:
                _piece(work, parent)
            self.pids.add(pid)

    def wait(self, most: int = 0) -> None:
        """Until no more than `most` are at work."""
        while len(self.pids) > (0 if self.passed else most):
            for pid in list(self.pids):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    self.pids.discard(pid)
            time.sleep(0.02)

    def _pass_on(self, number: int) -> None:
        self.passed.append(number)
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _piece(work: Callable[[], Any], parent: int) -> None:
    """Never returns."""
    code = 1
    try:
        _begin(parent)
        work()
        code = 0
    finally:
        _leave(code)


@contextmanager
def _held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _passing_on(pid: int) -> Iterator[list[int]]:
    passed: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        passed.append(number)
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    with handled(pass_on):
        yield passed


def _child(work: Callable[[], Any], answer: int, parent: int) -> None:
    """Never returns."""
    code = 1
    try:
        _begin(parent)
        try:
            message = {"returns": work()}
        except (UserError, RunFailed, Interrupted) as error:
            message = _as_message(error)
        os.write(answer, json.dumps(message).encode())
        code = 0
    except BaseException:
        os.write(answer, json.dumps({"crash": traceback.format_exc()}).encode())
    finally:
        _leave(code)


def _begin(parent: int) -> None:
    """What a child does first: it has signals and a process group of its own, and ends with its parent."""
    os.setpgid(0, 0)  # Ctrl-C comes once, from the process that waits
    die_with(parent)
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code)


def die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)


def _as_message(error: BaseException) -> dict[str, Any]:
    message: dict[str, Any] = {"raises": type(error).__name__, "text": str(error)}
    if isinstance(error, RunFailed | Interrupted):
        message["path"] = str(error.path)
    if isinstance(error, Interrupted):
        message |= {"number": error.code - 128, "saved": error.saved}
    return message


def _outcome(answer: bytes, code: int) -> Any:
    if not answer:
        raise Died(f"killed by {name_of(-code)}" if code < 0 else f"its process ended with exit code {code}")
    message = json.loads(answer)
    if "returns" in message:
        return message["returns"]
    if "crash" in message:
        raise Died(message["crash"].strip().splitlines()[-1])
    kind, text = message["raises"], message["text"]
    if kind == "RunFailed":
        raise RunFailed(text, Path(message["path"]))
    if kind == "Interrupted":
        raise Interrupted(message["number"], Path(message["path"]), text, message["saved"])
    raise (ConfigError if kind == "ConfigError" else UserError)(text)
