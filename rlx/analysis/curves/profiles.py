"""Performance profiles: the share of runs that score more than tau, at each tau. Agarwal et al. 2021,
arXiv:2108.13264, sec. 4.2: one line over several environments shows where an algorithm is ahead, which a mean hides.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlx.analysis import statistics, stopping
from rlx.analysis.curves import scores
from rlx.analysis.curves.bands import Line
from rlx.analysis.curves.build import Plot, group, label
from rlx.analysis.curves.curves import Curve, full_keys
from rlx.analysis.statistics import Estimate
from rlx.base.errors import UserError
from rlx.rundir.query import place_names

POINTS = 101


def build(paths: Sequence[Path], metric: str = "eval", by: Sequence[str] = ()) -> Plot:
    """One line a configuration, on several environments one an algorithm; raises UserError.

    On one environment tau is a score. On several each environment's scores go from 0, the worst run that is shown, to
    1, the best, and every environment weighs the same.
    """
    metric = scores.full_metric(paths, metric)
    curves, notes = scores.read(paths, metric)
    if not curves:
        raise UserError(f"plot --profile: no finished run has {metric} ({'; '.join(notes)})")
    names = place_names(curve.place for curve in curves)
    several = len(names) > 1
    keys = full_keys(by, curves)
    if several:
        keys = keys or ["algo.name"]
        _normalise(curves)
    lines = group(curves, keys)
    if hidden := label(lines, keys):
        notes.append(f"the lines differ in {', '.join(hidden)} too")
    notes += stopping.check({line.label: [curve.config for curve in line.curves] for line in lines}, "plot --profile")
    levels = _levels(curves, several)
    for line in lines:
        missing = [names[place] for place in names if place not in {curve.place for curve in line.curves}]
        if missing:
            notes.append(f"{line.label} has no run on {', '.join(missing)}")
        _profile(line, levels)
    title = f"{len(names)} environments" if several else next(iter(names.values()))
    kind = next(iter(names))[0]
    return Plot(metric, "normalised" if several else "score", 1, {title: lines}, notes, {title: kind}, "profile")


def _normalise(curves: Sequence[Curve]) -> None:
    for place in {curve.place for curve in curves}:
        here = [curve for curve in curves if curve.place == place]
        low, high = min(curve.y[0] for curve in here), max(curve.y[0] for curve in here)
        for curve in here:
            curve.y = [(curve.y[0] - low) / (high - low) if high > low else 1.0]


def _levels(curves: Sequence[Curve], several: bool) -> list[float]:
    """A grid, and just below and at every score, where the shares step."""
    import numpy as np

    values = np.array([curve.y[0] for curve in curves])
    low, high = (0.0, 1.0) if several else (float(values.min()), float(values.max()))
    edge = 0.02 * (high - low) or 1.0
    grid = np.linspace(low - edge, high + (0 if several else edge), POINTS)
    return [float(level) for level in np.unique(np.concatenate([grid, values, np.nextafter(values, -np.inf)]))]


def _profile(line: Line, levels: list[float]) -> None:
    """The share of runs above each level, the mean over the environments, and its interval at each level."""
    places: dict[Any, list[float]] = {}
    for curve in line.curves:
        places.setdefault(curve.place, []).append(curve.y[0])
    estimates = [
        statistics.mean_improvement(
            [share(sum(value > level for value in values), len(values)) for values in places.values()]
        )
        for level in levels
    ]
    line.x, line.mean = list(levels), [each.value for each in estimates]
    if len(line.curves) > 1:
        line.low, line.high = [each.low or 0.0 for each in estimates], [each.high or 0.0 for each in estimates]


def share(count: int, total: int) -> Estimate:
    """A share of `total` runs and its 95 % interval, which covers at least that: Clopper and Pearson 1934."""
    from scipy.special import betaincinv

    tail = (1 - statistics.LEVEL) / 2
    low = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, total - count, 1 - tail)) if count < total else 1.0
    return Estimate(count / total, low, high)
