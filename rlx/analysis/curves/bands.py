"""The mean or the interquartile mean of several curves where they were measured, and the band around it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlx.analysis import statistics
from rlx.analysis.curves.curves import Curve

STATS: dict[str, Callable[..., Any]] = {"mean": statistics.mean, "iqm": statistics.iqm}
POINTS = 200  # of a line
INTERVAL_FROM = 5  # seeds from which the band is an interval and not the range


@dataclass
class Line:
    """One configuration: its runs, and their mean and band at common steps."""

    keys: dict[str, Any]  # what tells it from the others of its panel
    curves: list[Curve]
    label: str = ""
    x: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    @property
    def band(self) -> str | None:
        count = len(self.curves)
        free = count - len({curve.identity for curve in self.curves})  # one configuration each: nothing to resample
        return "bootstrap95" if free >= INTERVAL_FROM - 1 else "min-max" if count > 1 else None


def average(line: Line, stat: str = "mean") -> None:
    """The statistic over the runs where they were measured, each within its own range, where at least half of them are.

    The band is a 95 % interval of it (see `interval`) from INTERVAL_FROM runs on, inside what these runs have ever
    measured (a mean return beyond that may be impossible), else the smallest and largest run.
    """
    import numpy as np

    grid = measured([curve.x for curve in line.curves])
    y = np.array([np.interp(grid, curve.x, curve.y, left=np.nan, right=np.nan) for curve in line.curves])
    mask = 2 * (~np.isnan(y)).sum(0) >= len(y)
    grid, y = grid[mask], y[:, mask]
    line.x, line.mean = grid.tolist(), STATS[stat](y, axis=0).tolist()
    if line.band == "min-max":
        line.low, line.high = np.nanmin(y, 0).tolist(), np.nanmax(y, 0).tolist()
    elif line.band:
        low, high = interval(y, [curve.identity for curve in line.curves], STATS[stat])
        values = [value for curve in line.curves for value in curve.y]
        line.low, line.high = (np.clip(edge, min(values), max(values)).tolist() for edge in (low, high))


def measured(steps: Sequence[Sequence[float]]) -> Any:
    """Where a line has points, at most POINTS of them: between two steps at which all were measured, values that are
    interpolated vary less than any that was measured, and a band would shrink there.

    The steps that at least half of the runs share; where those are few, every step of each run.
    """
    import numpy as np

    every, count = np.unique(np.concatenate([np.unique(x) for x in steps]), return_counts=True)
    common = every[2 * count >= len(steps)]
    grid = common if 2 * len(common) >= np.median([len(set(x)) for x in steps]) else every
    places = np.linspace(0, len(grid) - 1, min(POINTS, len(grid))).round().astype(int)
    return grid[np.unique(places)]


def interval(y: Any, strata: Sequence[str], stat: Callable[..., Any] = statistics.mean) -> tuple[Any, Any]:
    """Of a statistic of the rows of y: t times the bootstrap's standard error to each side, as `rlx compare` has it.
    Whole runs are drawn again, within each configuration where a line pools several."""
    middle = stat(y, axis=0)
    reach = statistics.half_width(max(len(y) - len(set(strata)), 1)) * statistics.standard_error(y, strata, stat)
    return middle - reach, middle + reach
