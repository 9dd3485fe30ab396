"""What `rlx compare` compares, and what it found. Never imports torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rlx.analysis import statistics
from rlx.analysis.curves.curves import Curve
from rlx.analysis.statistics import Difference, Estimate

E = TypeVar("E", bound=Estimate)
Place = tuple[str, str, str]
ENOUGH = 5  # seeds below which the scores themselves say more than an interval


RETURNS = {  # what an episode of these environments can give within Gymnasium's time limits
    "CartPole-v1": (0.0, 500.0),
    "CartPole-v0": (0.0, 200.0),
    "Acrobot-v1": (-500.0, 0.0),
    "MountainCar-v0": (-200.0, 0.0),
    "Pendulum-v1": (-3255.0, 0.0),  # 200 steps of at most pi^2 + .1 * 8^2 + .001 * 2^2
    "FrozenLake-v1": (0.0, 1.0),
    "FrozenLake8x8-v1": (0.0, 1.0),
}


def possible(place: Place, scores: Sequence[float], estimate: E, difference: bool = False) -> E:
    """An estimate whose interval keeps inside what is possible for a score, or for the difference of two, where that is
    known and none of the scores lies beyond."""
    low, high = (0.0, 1.0) if place[0] == "task" else RETURNS.get(place[2], (-math.inf, math.inf))
    if estimate.low is None or estimate.high is None or not all(low <= score <= high for score in scores):
        return estimate
    least, most = (low - high, high - low) if difference else (low, high)
    return replace(estimate, low=max(least, estimate.low), high=min(most, estimate.high))


@dataclass
class Side:
    name: str  # A, B, ...
    label: str
    curves: list[Curve]
    paths: list[Path]

    def on(self, place: Place) -> list[Curve]:
        return [curve for curve in self.curves if curve.place == place]

    def scores(self, place: Place) -> list[float]:
        return [curve.y[-1] for curve in self.on(place)]

    def summary(self, names: dict[Place, str], lower: bool) -> list[tuple[str, dict[str, Any]]]:
        """For each environment that it has runs on: {seeds, iqm, mean, worst, scores}."""
        rows = []
        for place in sorted(names, key=lambda place: place[1:]):
            if values := self.scores(place):
                at = possible(place, values, statistics.estimate(values, self.strata(place)))
                mean, worst = sum(values) / len(values), max(values) if lower else min(values)
                rows.append(
                    (names[place], {"seeds": len(values), "iqm": at, "mean": mean, "worst": worst, "scores": values})
                )
        return rows

    def strata(self, place: Place) -> list[str]:
        return [curve.identity for curve in self.on(place)]


@dataclass
class Result:
    """Two sides in one environment, or over all of them (then without a difference)."""

    place: str
    seeds: tuple[int, int]
    improvement: Estimate
    difference: Difference | None
    better: str | None = None  # a name
    needed: int | None = None  # seeds per side for 80 % power at the observed difference; None beyond statistics.CAP
    verdict: str = ""


@dataclass
class Pair:
    first: Side
    second: Side
    results: list[Result]  # one an environment, and where there are several one over all


@dataclass
class ComparisonData:
    metric: str
    lower: bool  # is better
    sides: list[Side]
    names: dict[Place, str]
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        sides = [
            {
                "name": side.name, "label": side.label, "runs": [str(curve.path) for curve in side.curves],
                "places": [
                    {"place": name, **of, "iqm": _json(of["iqm"])} for name, of in side.summary(self.names, self.lower)
                ],
            }
            for side in self.sides
        ]  # fmt: skip
        pairs = [
            {"a": pair.first.name, "b": pair.second.name, "results": [_result_json(each) for each in pair.results]}
            for pair in self.pairs
        ]
        return {
            "metric": self.metric, "lower_is_better": self.lower, "level": statistics.LEVEL, "sides": sides,
            "pairs": pairs, "notes": self.notes,
        }  # fmt: skip


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high} if estimate else None


def _result_json(result: Result) -> dict[str, Any]:
    return {
        "place": result.place, "seeds": list(result.seeds), "difference": _json(result.difference),
        "improvement": _json(result.improvement), "better": result.better, "seeds_needed": result.needed,
        "verdict": result.verdict,
    }  # fmt: skip
