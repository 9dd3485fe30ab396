"""Where the time goes: seconds of this process by part, each second in one part only.

    env   stepping and resetting environments
    act   acting: policies, sampling answers, storing what came of it
    eval  evaluations, with everything in them
    log   metrics, checkpoints, status

What is left of a run's time is learning. The parts are this process's: it trains one run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

PARTS = ("env", "act", "eval", "log")
spent = dict.fromkeys(PARTS, 0.0)


@contextmanager
def part(name: str, whole: bool = False) -> Iterator[None]:
    """Count the time within, less what parts inside count for themselves; `whole`: theirs, too."""
    before, began = dict(spent), perf_counter()
    try:
        yield
    finally:
        if whole:
            spent.update(before)
        spent[name] += perf_counter() - began - (sum(spent.values()) - sum(before.values()))


def shares(since: dict[str, float], seconds: float) -> dict[str, float]:
    """What each part, and learning, took of `seconds`, with `spent` as it was when they began."""
    parts = {name: (spent[name] - since[name]) / seconds for name in PARTS} if seconds else dict.fromkeys(PARTS, 0.0)
    return {**parts, "learn": max(0.0, 1.0 - sum(parts.values()))}
