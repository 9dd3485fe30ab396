"""A finding of a check, and how checks run: apart, so that nothing that somebody's code does ends them."""

import contextlib
import os
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.base.in_fork import Died, apart
from rlx.base.signals import RunFailed
from rlx.config import own_code

OK, FAIL, NOTE = "ok", "FAIL", "note"


class Failed(Exception):
    """A check that does not hold; the message says what was expected and what was seen."""


@dataclass
class Finding:
    check: str
    status: str  # OK, FAIL, NOTE
    detail: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


Check = tuple[str, Callable[[], str]]  # its name, and what it does: it returns what holds, or raises Failed


def run(checks: Iterable[Check]) -> Iterator[Finding]:
    """One finding each. What else a check raises is a failure that names the line of the code that was checked. Where
    the first one fails, the others cannot be tried."""
    for i, (name, check) in enumerate(checks):
        finding = _finding(name, check)
        yield finding
        if i == 0 and finding.status == FAIL:
            return


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        detail = check()
    except Failed as failure:
        return Finding(name, FAIL, one_line(str(failure)))
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, UserError | RunFailed | Died) else f"{type(error).__name__}: "
        return Finding(name, FAIL, f"{kind}{one_line(str(error))}{_place(error)}")
    note = detail.startswith("note: ")
    return Finding(name, NOTE if note else OK, detail.removeprefix("note: "))


def one_line(text: str) -> str:
    return " ".join(text.split())[:500]


def _place(error: BaseException) -> str:
    """' (./my_env.py, line 12)': the innermost line of the folder's own code."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if own_code.below(path) and path.suffix == ".py":
            return f" ({own_code.near(path)}, line {frame.lineno})"
    return ""


def separately(work: Callable[[], Any]) -> Any:
    """`work()`, JSON, in a fork whose output goes nowhere. Raises what base.in_fork.apart does."""

    def quiet() -> Any:
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
            for stream in (1, 2):
                os.dup2(nowhere.fileno(), stream)
        return work()

    return apart(quiet)


def killed(work: Callable[[], Any]) -> None:
    """Let `work` run until it kills its own process. Raises Failed where it comes to an end before."""
    try:
        separately(work)
    except Died as death:
        if "SIGKILL" in str(death):
            return
        raise Failed(str(death)) from None
    raise Failed("it ended before it could be killed")


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A directory for the runs of a check, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rlx-check-") as directory:
        yield Path(directory)
