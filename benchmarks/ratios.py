"""What the samples of benchmarks.speed say: rates, times and memory of each side, and their ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

GATE = 1.15  # rlx's median steps to 475 over the peer's
Sample = dict[str, Any]
ROWS = [
    ("train_rate", "steps / CPU s, training only", "{:,.0f}"),
    ("whole_rate", "steps / CPU s, whole process", "{:,.0f}"),
    ("cpu_to_475", "CPU s to a return of 475, whole process", "{:.1f}"),
    ("steps_to_475", "environment steps to 475", "{:,.0f}"),
    ("last_return", "return of the last 100 episodes at the end", "{:.0f}"),
    ("memory_mb", "peak memory, MB", "{:,.0f}"),
]
ACROSS_SEEDS = ("cpu_to_475", "steps_to_475", "last_return")  # compared by medians


def figures(full: Sample, short: Sample, clock: str = "cpu") -> dict[str, float | None]:
    """The rates of one side in one round, from its run with all steps and its run with few.

    Training only is what the further steps cost: (N - n) / (CPU_N - CPU_n). The CPU time to 475 is that of the
    short run and, at that rate, of the steps from there to the step at which 475 was reached. With `clock` "wall" the
    seconds are those of the clock on the wall.
    """
    more, seconds = full["steps"] - short["steps"], full[clock] - short[clock]
    rate = more / seconds if seconds > 0 else math.nan
    reached = full["steps_to_475"]
    return {
        "train_rate": rate,
        "whole_rate": full["steps"] / full[clock],
        "cpu_to_475": None if reached is None else short[clock] + (reached - short["steps"]) / rate,
        "steps_to_475": reached,
        "last_return": full.get("last_return"),
        "memory_mb": full["memory_mb"],
    }


def by_round(samples: Sequence[Sample], side: str, clock: str = "cpu") -> dict[int, dict[str, float | None]]:
    """The figures of one side by seed; a round is a seed."""
    found: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        if sample["side"] == side:
            found.setdefault(sample["seed"], {})[sample["kind"]] = sample
    return {seed: figures(pair["full"], pair["short"], clock) for seed, pair in found.items() if len(pair) == 2}


def spread(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Median, min and max; what was never reached (None) counts as later than everything. None where nothing was."""
    known = sorted(math.inf if value is None else value for value in values)
    if not known or known[0] == math.inf:
        return None
    return {
        name: None if math.isinf(value) else round(value, 4)
        for name, value in (("median", statistics.median(known)), ("min", known[0]), ("max", known[-1]))
    }


def compare(samples: Sequence[Sample], ours: str, theirs: str, clock: str = "cpu") -> dict[str, Any]:
    """Both sides and their ratio, for each figure. Rates are ratios pair by pair: within a round both sides met the
    same machine. Learning depends on the seed, which means nothing across two programs: there it is the ratio of the
    medians. Above 1 is always good for rlx."""
    mine, other = by_round(samples, ours, clock), by_round(samples, theirs, clock)
    rounds = sorted(mine.keys() & other.keys())
    found: dict[str, Any] = {"rlx": ours, "peer": theirs, "rounds": len(rounds)}
    for key, _, _ in ROWS:
        a, b = [mine[seed][key] for seed in rounds], [other[seed][key] for seed in rounds]
        sides: dict[str, Any] = {"rlx": spread(a), "peer": spread(b)}
        if key in ACROSS_SEEDS:
            medians = [(side or {}).get("median") for side in (sides["rlx"], sides["peer"])]
            if key.endswith("_to_475"):
                sides["reached"] = [sum(value is not None for value in side) for side in (a, b)]
                medians.reverse()  # fewer are better
            sides["ratio"] = {"median": round(medians[0] / medians[1], 4)} if all(medians) else None
        else:
            pairs = [x / y if key.endswith("_rate") else y / x for x, y in zip(a, b)]
            sides["ratio"] = {**(spread(pairs) or {}), "pairs": [round(pair, 4) for pair in pairs]}
        found[key] = sides
    return found


def passes_gate(comparison: dict[str, Any]) -> bool:
    """Does rlx learn from as few environment steps as the peer, up to GATE? A peer that never does is no bar."""
    steps = comparison["steps_to_475"]
    if steps["peer"] is None or steps["peer"]["median"] is None:
        return True
    return steps["rlx"] is not None and (steps["rlx"]["median"] or math.inf) / steps["peer"]["median"] <= GATE
