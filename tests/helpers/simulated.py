"""How often the intervals of `rlx compare` hold the truth, by simulation: the table of docs/comparing.md.

    python tests/helpers/simulated.py [repeats]

Scores of seeds are drawn from a known distribution, many times over, and each time the functions that rlx calls give
their intervals. The truth (the population's interquartile mean, P(X > Y)) is that of a sample of 400,000.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from rlx.analysis import statistics

Draw = Callable[[np.random.Generator, int], Any]
KINDS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "uniform": lambda rng, n: rng.uniform(size=n),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n),
    "heavy tails (t, 3 df)": lambda rng, n: rng.standard_t(3, size=n),
    "cut off at a best score": lambda rng, n: np.minimum(rng.normal(size=n), 0.5),
    "three seeds in ten fail": lambda rng, n: np.where(rng.random(n) < 0.7, 500.0, 100.0) + 20 * rng.normal(size=n),
}
SIZE = 400_000


@cache
def population(kind: str) -> Any:
    return np.sort(KINDS[kind](np.random.default_rng(0), SIZE))


def true_iqm(kind: str) -> float:
    return float(population(kind)[SIZE // 4 : 3 * SIZE // 4].mean())


def true_improvement(kind: str, shift: float) -> float:
    """P(X + shift > Y) of two draws."""
    return float(np.searchsorted(population(kind), population(kind)[::100] + shift).mean() / SIZE)


def coverage(kind: str, n: int, repeats: int, seed: int = 1) -> dict[str, float]:
    """The share of repetitions in which an interval from n scores (a side) holds the truth, and false alarms: how often
    two sides of the same scores are told apart. The first side's probability of improvement is about .8."""
    rng, shift = np.random.default_rng(seed), 1.2 * float(population(kind).std())
    truth, chance = true_iqm(kind), true_improvement(kind, shift)
    hits = dict.fromkeys(("iqm", "difference", "improvement", "plain"), 0)
    for _ in range(repeats):
        x, y = KINDS[kind](rng, n), KINDS[kind](rng, n)
        hits["iqm"] += _holds(statistics.estimate(x), truth)
        hits["difference"] += _holds(statistics.difference(x, y), 0.0)
        hits["improvement"] += _holds(statistics.improvement(x + shift, y), chance)
        resampled = statistics.iqm(rng.choice(x, (500, n)), axis=1)
        low, high = np.quantile(resampled, [0.025, 0.975])
        hits["plain"] += bool(low <= truth <= high)
    return {name: count / repeats for name, count in hits.items()}


def _holds(found: statistics.Estimate, truth: float) -> bool:
    return found.low is not None and found.high is not None and found.low <= truth <= found.high


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    for kind in KINDS:
        for n in (3, 5, 10, 20):
            found = coverage(kind, n, count)
            print(f"{kind:24} {n:3}", *(f"{name} {share:.3f}" for name, share in found.items()), flush=True)
