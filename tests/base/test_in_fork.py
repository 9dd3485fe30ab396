"""Work in a process of its own: its answer and its errors come back, its death is one exception."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from rlx.base.errors import ConfigError, UserError
from rlx.base.in_fork import Died, apart
from rlx.base.signals import Interrupted, RunFailed, Signals


def raising(error: BaseException) -> Callable[[], Any]:
    def work() -> None:
        raise error

    return work


def test_the_answer_comes_back_and_nothing_else_does() -> None:
    here: list[int] = []

    def work() -> dict[str, Any]:
        here.append(1)
        return {"pid": os.getpid(), "text": "x" * 300_000}  # more than a pipe holds

    found = apart(work)
    assert found["pid"] != os.getpid() and len(found["text"]) == 300_000 and here == []


@pytest.mark.parametrize(
    "error", [UserError("a=1: bad"), ConfigError("b=2: bad"), RunFailed("NaN", Path("/some where"))]
)
def test_an_error_comes_back_as_what_it_was(error: Exception) -> None:
    with pytest.raises(type(error)) as found:
        apart(raising(error))
    assert type(found.value) is type(error) and str(found.value) == str(error)
    assert getattr(found.value, "path", None) == getattr(error, "path", None)


@pytest.mark.parametrize(
    "work, said",
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR2), "killed by SIGUSR2"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: sys.exit(4), "SystemExit: 4"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: object(), "not JSON serializable"),
    ],
)
def test_a_death_is_one_exception_that_says_how(work: Callable[[], Any], said: str) -> None:
    with pytest.raises(Died, match=said):
        apart(work)


def send(number: int, place: Path) -> None:
    """A signal to this process once its work is ready for it."""

    def wait_and_send() -> None:
        until((place / "ready").exists)
        os.kill(os.getpid(), number)
        (place / "sent").touch()

    threading.Thread(target=wait_and_send).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_what_it_leads_to_comes_back(number: int, tmp_path: Path) -> None:
    def work() -> None:
        with Signals() as signals:
            (tmp_path / "ready").touch()
            until(lambda: signals.asked)
            raise Interrupted(signals.asked, Path("run"), "stopped", 7)

    send(number, tmp_path)
    with pytest.raises(Interrupted) as found:
        apart(work)
    assert (found.value.code, found.value.saved, found.value.path) == (128 + number, 7, Path("run"))


@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_is_not_lost_where_the_work_ignores_it(
    number: int, error: type[BaseException], tmp_path: Path
) -> None:
    def work() -> int:
        signal.signal(number, signal.SIG_IGN)
        (tmp_path / "ready").touch()
        until((tmp_path / "sent").exists)
        return 1

    send(number, tmp_path)
    with pytest.raises(error):
        apart(work)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_the_work_does_not_outlive_the_one_who_asked(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"""
import os, time
from pathlib import Path
from rlx.base.in_fork import apart
def work():
    Path({str(file)!r}).write_text(str(os.getpid()))
    time.sleep(6_000)
apart(work)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    while not (file.exists() and file.read_text()):
        time.sleep(0.02)
    process.kill()
    process.wait()
    child = int(file.read_text())

    def ended() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(ended)
