"""The mean or the interquartile mean of several curves on a common grid, and the band around it."""

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
    """One configuration: its runs, and their mean and band on a common grid."""

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
    """The statistic over the runs on a common grid, each within its own range, where at least half of them are.

    The band is a 95 % interval of it (see `interval`) from INTERVAL_FROM runs on, else the smallest and largest run.
    """
    import numpy as np

    ends = [curve.x[0] for curve in line.curves] + [curve.x[-1] for curve in line.curves]
    grid = np.linspace(min(ends), max(ends), POINTS) if max(ends) > min(ends) else np.array(ends[:1])
    if len(line.curves) == 1 and len(line.curves[0].x) <= POINTS:
        grid = np.array(line.curves[0].x)  # its own points
    y = np.array([np.interp(grid, curve.x, curve.y, left=np.nan, right=np.nan) for curve in line.curves])
    mask = 2 * (~np.isnan(y)).sum(0) >= len(y)
    grid, y = grid[mask], y[:, mask]
    line.x, line.mean = grid.tolist(), STATS[stat](y, axis=0).tolist()
    if line.band == "min-max":
        line.low, line.high = np.nanmin(y, 0).tolist(), np.nanmax(y, 0).tolist()
    elif line.band:
        low, high = interval(y, [curve.identity for curve in line.curves], STATS[stat])
        line.low, line.high = low.tolist(), high.tolist()


def interval(y: Any, strata: Sequence[str], stat: Callable[..., Any] = statistics.mean) -> tuple[Any, Any]:
    """Of a statistic of the rows of y: t times the bootstrap's standard error to each side, as `rlx compare` has it.
    Whole runs are drawn again, within each configuration where a line pools several."""
    middle = stat(y, axis=0)
    reach = statistics.half_width(max(len(y) - len(set(strata)), 1)) * statistics.standard_error(y, strata, stat)
    return middle - reach, middle + reach
