"""What a chart shows and where on it: curves with bands, or points. The SVG is in templates/charts.svg.jinja."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rlx.analysis.numbers import short

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, FLOOR = 58, 626, 12, 258  # of the frame
COLOURS = 8  # of lines (c0 ... c7 of the page); what is beyond them is grey


class Polyline(NamedTuple):
    """A line with its band (empty: none)."""

    name: str
    colour: str  # a class of the page: c0, c1, ..., or grey, behind the others
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Point(NamedTuple):
    x: float
    y: float | None  # None: a cross on the floor
    kind: str  # a class of the page: done, pruned, failed
    tip: str


@dataclass
class Axis:
    """Values to pixels; logarithmic where it is said."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    names: list[str] = field(default_factory=list)  # of categories 0, 1, ...

    def __post_init__(self) -> None:
        if not self.high > self.low:
            room = abs(self.low) * 0.05 or 0.5
            self.low, self.high = (self.low / 1.3, self.low * 1.3) if self.log else (self.low - room, self.high + room)

    def at(self, value: float) -> float:
        move: Callable[[float], float] = math.log10 if self.log else float
        share = (move(value) - move(self.low)) / (move(self.high) - move(self.low))
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        if self.names:
            return [(float(i), name if len(name) <= 12 else f"{name[:11]}…") for i, name in enumerate(self.names)]
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = (1, 2, 5) if len(powers) <= 3 else (1,)
            values = [m * 10.0**power for power in powers for m in marks]
            return [(x, short(x)) for x in values if self.low * 0.999 <= x <= self.high * 1.001]
        step = _nice((self.high - self.low) / 5)
        first = math.ceil(self.low / step - 1e-9)
        values = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        names = [short(value) for value in values]
        if len(set(names)) < len(names):  # of a narrow range far from 0
            names = [f"{value:,.{max(0, 1 - math.floor(math.log10(step)))}f}" for value in values]
        return list(zip(values, names))


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= step * 0.999)


@dataclass
class Chart:
    x: Axis
    y: Axis
    x_name: str
    y_name: str
    lines: Sequence[Polyline] = ()
    dots: Sequence[Point] = ()
    best: Sequence[tuple[float, float]] = ()  # the corners of a staircase
    levels: Sequence[tuple[float, str]] = ()  # what is wanted, and what it is

    def points(self, x: Sequence[float], y: Sequence[float], step: int = 1) -> str:
        """Of a line; with step -1 from its end."""
        return " ".join(f"{self.x.at(a):g},{self.y.at(b):g}" for a, b in list(zip(x, y))[::step])


def curves(
    lines: Sequence[Polyline], x_name: str, y_name: str, levels: Sequence[tuple[float, str]] = ()
) -> Chart:  # fmt: skip
    """Lines with bands; grey ones behind; levels to be reached."""
    steps = [v for line in lines for v in line.x]
    values = [v for line in lines for v in (*line.y, *line.low, *line.high)] + [level for level, _ in levels]
    x = Axis(min(0.0, *steps), max(steps), LEFT, RIGHT)
    return Chart(
        x, _upright(values), x_name, y_name, sorted(lines, key=lambda line: line.colour != "grey"), levels=levels
    )


def points(dots: Sequence[Point], x: Axis, x_name: str, best: Sequence[tuple[float, float]] = ()) -> Chart:
    """The score of each dot, which says what it is, and a staircase of the best so far."""
    scores = [dot.y for dot in dots if dot.y is not None]
    return Chart(x, _upright(scores or [0.0, 1.0]), x_name, "score", dots=dots, best=best)


def _upright(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    room = 0.05 * (high - low)
    return Axis(low - room, high + room, FLOOR, TOP)


def axis(values: Sequence[Any], log: bool = False) -> Axis:
    """Of numbers, or of categories (the place of each is `place`)."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) < len(values) or not numbers:
        names = sorted({str(value) for value in values})
        return Axis(-0.5, len(names) - 0.5, LEFT, RIGHT, names=names)
    log = log and min(numbers) > 0
    return Axis(min(numbers), max(numbers), LEFT + 8, RIGHT - 8, log)


def place(value: Any, x: Axis) -> float:
    return float(x.names.index(str(value))) if x.names else float(value)
