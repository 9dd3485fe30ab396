"""A call that never comes back is ended, whatever it waits in."""

import contextlib
import re
import signal
import time

import pytest

from rlx.base.watch import Watch

SECONDS = 0.2


def loop():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0)


CALLS = {
    "a regular expression": lambda: re.fullmatch("(a+)+b", "a" * 40),
    "a loop that catches what it can": loop,
    "a sleep": lambda: time.sleep(60),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_takes_too_long_is_ended(call):
    began = time.perf_counter()
    with pytest.raises(TimeoutError, match="^too long$"), Watch(SECONDS, "too long"):
        call()
    assert SECONDS <= time.perf_counter() - began < 20 * SECONDS
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_many_calls_may_take_longer_together():
    with Watch(SECONDS) as watch:
        for _ in range(30):
            watch.next()
            time.sleep(SECONDS / 10)


def test_what_is_raised_within_is_left_alone():
    with pytest.raises(KeyError), Watch(SECONDS):
        raise KeyError
