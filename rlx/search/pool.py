"""Workers: forks of the process that was typed, which waits for them. They do not outlive it (Linux)."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rlx.base.errors import UserError
from rlx.base.in_fork import die_with
from rlx.base.signals import STOPPING, handled, name_of
from rlx.base.text import escaped
from rlx.search.study import Study

LOOK = 0.2  # seconds between two looks at the workers
AGAIN = 5.0  # seconds after which a worker that was asked to stop is asked again


def need() -> None:
    """Raises UserError on a system that cannot fork."""
    if not hasattr(os, "fork"):
        raise UserError("rlx sweep: its workers are forks of a process, which this system lacks (Linux and macOS fork)")


def run(study: Study, jobs: int, look: Callable[[], Any]) -> int:
    """Work on a study with so many workers. `look` is called a few times a second.

    Returns 0 when all came to their end, 128 + signal when one stopped them, 1 when one failed or was killed (its
    trial was taken over where another was left).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    received: list[int] = []
    with handled(lambda number, _frame: received.append(number)):
        pids = {_fork(study, index): index + 1 for index in range(jobs)}
        code, sent_at = 0, float("-inf")
        while pids:
            look()
            if received and time.monotonic() - sent_at > AGAIN:
                sent_at = time.monotonic()
                _signal(pids, signal.SIGTERM)
            if len(received) > 1 and received[-1] == signal.SIGINT:  # at once: nothing that was saved is lost
                _signal(pids, signal.SIGKILL)
            for pid in list(pids):
                gone, status = os.waitpid(pid, os.WNOHANG)
                if gone:
                    ended, index = os.waitstatus_to_exitcode(status), pids.pop(pid)
                    if ended not in (0, 128 + signal.SIGTERM) and not received:
                        code = 1
                        if ended < 0:
                            print(f"rlx: warning: worker {index} was killed by {name_of(-ended)}", file=sys.stderr)
            time.sleep(LOOK)
        look()
    return 128 + received[0] if received else code


def _signal(pids: Any, number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _fork(study: Study, index: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)  # Ctrl-C comes once, from the process that waits
        die_with(parent)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        from rlx.search import worker

        code = worker.work(study, parent)
    except UserError as error:
        print(escaped(f"rlx: error: worker {index + 1}: {error}"), file=sys.stderr)
    except BaseException as error:
        study.log(traceback.format_exc())
        line = " ".join(f"{type(error).__name__}: {error}".split())
        print(
            f"rlx: error: worker {index + 1}: {escaped(line)} (traceback in {study.directory}/rlx.log)", file=sys.stderr
        )
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
