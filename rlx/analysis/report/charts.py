"""Charts as SVG in the page itself: curves with bands, points, bars. Their colours are the page's variables, so that
they are readable on light and on dark paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 42
COLOURS = 8  # of lines (c0 ... c7 of the page); what is beyond them is grey


class Curve(NamedTuple):
    """A line with its band (empty: none)."""

    name: str
    colour: int | None  # None: grey, behind the others
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Point(NamedTuple):
    x: float
    y: float
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
        return [(i * step, short(i * step)) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= step * 0.999)


def short(value: float) -> str:
    """1.2M, 40k, 0.001"""
    if value == 0:
        return "0"
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{sign}"
    return f"{value:.4g}"


# -- the kinds ---------------------------------------------------------------------------------------------------


def curves(lines: Sequence[Curve], x_name: str, y_name: str) -> str:
    """Lines with bands; grey ones behind."""
    values = [v for line in lines for v in (*line.y, *line.low, *line.high)]
    steps = [v for line in lines for v in line.x]
    if not values:
        return ""
    x, y = _axes((min(0.0, *steps), max(steps)), (min(values), max(values)))
    parts, order = [], sorted(lines, key=lambda line: line.colour is not None)
    for line in order:
        if line.colour is not None and len(line.low):
            edge = [*zip(line.x, line.low), *reversed(list(zip(line.x, line.high)))]
            parts.append(f'<polygon class="c{line.colour}" points="{_points(edge, x, y)}"/>')
    for line in order:
        name = "grey" if line.colour is None else f"c{line.colour}"
        if len(line.x) == 1:
            place = f'cx="{x.at(line.x[0])}" cy="{y.at(line.y[0])}"'
            parts.append(f'<circle class="{name}" {place} r="4"><title>{escape(line.name)}</title></circle>')
        else:
            points = _points(zip(line.x, line.y), x, y)
            tip = f"<title>{escape(line.name)}</title>"
            parts.append(f'<polyline class="{name}" data-name="{escape(line.name)}" points="{points}">{tip}</polyline>')
    return _frame("".join(parts), x, y, x_name, y_name, "curves")


def points(found: Sequence[Point], x: Axis, y_name: str, x_name: str, best: Sequence[tuple[float, float]] = ()) -> str:
    """Dots that say what they are, and a staircase of the best so far."""
    heights = [point.y for point in found if math.isfinite(point.y)]
    low, high = (min(heights), max(heights)) if heights else (0.0, 1.0)
    y = _axes((0, 1), (low, high))[1]
    parts = []
    if len(best) > 1:
        corners = [(best[0][0], best[0][1])]
        for at, value in best[1:]:
            corners += [(at, corners[-1][1]), (at, value)]
        parts.append(f'<polyline class="best" points="{_points(corners, x, y)}"/>')
    for point in found:
        tip = f"<title>{escape(point.tip)}</title>"
        cx = x.at(point.x)
        if math.isfinite(point.y):
            parts.append(f'<circle class="{point.kind}" cx="{cx}" cy="{y.at(point.y)}" r="4.5">{tip}</circle>')
        else:  # no score: a cross on the floor
            cy = HEIGHT - BOTTOM - 6
            cross = f"M{cx - 4:g},{cy - 4}l8,8m0,-8l-8,8"
            parts.append(f'<path class="{point.kind}" d="{cross}">{tip}</path>')
    return _frame("".join(parts), x, y, x_name, y_name, "points")


def bars(shares: Sequence[tuple[str, float]], unit: str) -> str:
    """Horizontal bars from 0 on, the largest first."""
    row, left = 24, 180
    largest = max((share for _, share in shares), default=0.0) or 1.0
    parts = []
    for i, (name, share) in enumerate(shares):
        width, top = (WIDTH - left - 60) * max(0.0, share) / largest, 4 + i * row
        parts.append(
            f'<text x="{left - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="c0" x="{left}" y="{top + 2}" width="{width:.1f}" height="{row - 8}"/>'
            f'<text x="{left + width + 6:.1f}" y="{top + 14}">{share:.2f}</text>'
        )
    size = f'viewBox="0 0 {WIDTH} {8 + row * len(shares)}"'
    return f'<svg class="chart bars" {size} role="img" aria-label="{escape(unit)}">{"".join(parts)}</svg>'


def axis(values: Sequence[Any], log: bool = False) -> Axis:
    """Of numbers, or of categories (the place of each is `place`)."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) < len(values) or not numbers:
        names = sorted({str(value) for value in values})
        return Axis(-0.5, len(names) - 0.5, LEFT, WIDTH - RIGHT, names=names)
    log = log and min(numbers) > 0
    return Axis(min(numbers), max(numbers), LEFT + 8, WIDTH - RIGHT - 8, log)


def place(value: Any, x: Axis) -> float:
    return float(x.names.index(str(value))) if x.names else float(value)


# -- parts -------------------------------------------------------------------------------------------------------


def _axes(x: tuple[float, float], y: tuple[float, float]) -> tuple[Axis, Axis]:
    room = 0.05 * (y[1] - y[0])
    return Axis(*x, LEFT, WIDTH - RIGHT), Axis(y[0] - room, y[1] + room, HEIGHT - BOTTOM, TOP)


def _points(found: Any, x: Axis, y: Axis) -> str:
    return " ".join(f"{x.at(a):g},{y.at(b):g}" for a, b in found)


def _frame(inside: str, x: Axis, y: Axis, x_name: str, y_name: str, kind: str) -> str:
    floor, parts = HEIGHT - BOTTOM, []
    for value, text in y.ticks():
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{LEFT},{at:g}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:g}" text-anchor="end">{text}</text>')
    for value, text in x.ticks():
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at:g},{TOP}V{floor}"/>')
        parts.append(f'<text x="{at:g}" y="{floor + 16}" text-anchor="middle">{escape(text)}</text>')
    middle = (LEFT + WIDTH - RIGHT) // 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>')
    scale = f'data-x="{x.low:g},{x.high:g},{x.start:g},{x.end:g}" data-y="{y.low:g},{y.high:g},{y.start:g},{y.end:g}"'
    label = f'role="img" aria-label="{escape(y_name)} over {escape(x_name)}"'
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {WIDTH} {HEIGHT}" {scale} {label}>{"".join(parts)}'
        f'<path class="axis" d="M{LEFT},{TOP}V{floor}H{WIDTH - RIGHT}"/>{inside}</svg>'
    )
