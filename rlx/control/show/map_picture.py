"""How a map is drawn: a grid's values with arrows, each action's value as a triangle of its cell, visits, and the
optimum beside it; any other table as actions over states; two dimensions of a Box as colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.base.pages.canvas import FAINT, INK, PAPER, Canvas, Colour
from rlx.control.show.maps import SIDE, States, Surface, compass

GAP, HEAD, BAR = 28, 26, 26  # pixels: between panels, of a title, of a scale of colours
UNKNOWN, GROUND = (233, 234, 238), (250, 250, 251)
ANCHORS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))  # viridis
ACTIONS = (  # Okabe and Ito, then Tol
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (51, 34, 136), (136, 34, 85), (153, 153, 51), (110, 110, 110), (200, 185, 40), (102, 51, 0),
)  # fmt: skip
SPECIAL = {"G": (198, 232, 200), "H": (120, 130, 145), "X": (236, 160, 150), "C": (120, 130, 145)}
ARROWS = ((0, -1), (1, 0), (0, 1), (-1, 0))  # x, y of up, right, down, left
MATRIX = 900  # pixels of a table's width, at most


@dataclass
class ColourScale:
    """Numbers to colours."""

    low: float
    high: float

    @classmethod
    def of(cls, *arrays: np.ndarray | None) -> "ColourScale":
        values = np.concatenate([np.ravel(x) for x in arrays if x is not None] or [np.zeros(1)])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        return cls(low, high if high > low else low + 1.0)

    def colours(self, values: Any) -> np.ndarray:
        """[...] -> [..., 3] uint8; what is no number is grey."""
        values = np.asarray(values, float)
        known = np.isfinite(values)
        at = np.clip((np.where(known, values, self.low) - self.low) / (self.high - self.low), 0, 1) * (len(ANCHORS) - 1)
        below = np.minimum(at.astype(int), len(ANCHORS) - 2)
        stops = np.array(ANCHORS, float)
        mixed = stops[below] + (at - below)[..., None] * (stops[below + 1] - stops[below])
        return np.where(known[..., None], mixed, UNKNOWN).round().astype(np.uint8)

    def colour(self, value: float) -> Colour:
        return tuple(int(part) for part in self.colours(value))  # type: ignore[return-value]


def draw(it: States | Surface, title: str) -> Canvas:
    """The whole picture."""
    if isinstance(it, Surface):
        return _surface(it, title)
    return _grid(it, title) if it.letters else _table(it, title)


def _ink(colour: Colour) -> Colour:
    """What is read on a colour."""
    return INK if 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 135 else PAPER


def number(value: float) -> str:
    """-.93, 0, 12.5, 3.1k"""
    if not np.isfinite(value):
        return ""
    if abs(value) >= 1e4:
        return f"{value / 1e3:.3g}k" if abs(value) < 1e6 else f"{value:.1e}"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.2f}"
    return "0" if float(text) == 0 else text.replace("0.", ".", 1) if abs(value) < 1 else text


# -- grids -------------------------------------------------------------------------------------------------------


def _grid(states: States, title: str) -> Canvas:
    assert states.mdp is not None and states.mdp.layout is not None
    rows, columns = len(states.mdp.layout), len(states.mdp.layout[0])
    side = int(np.clip(360 / columns, 40, 76))
    turn, known, open_ = compass(states), states.known, states.open
    v, q, best_q, visits = states.value, known.get("q"), states.best_q, known.get("visits")
    best_v = best_q.max(-1) if best_q is not None else None
    seen = visits.any(-1) if visits is not None else np.ones(len(states.action), bool)
    shown = open_ & seen
    v, q = (None if x is None else np.where(seen.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan) for x in (v, q))
    values = ColourScale.of(*(x[open_] for x in (v, best_v) if x is not None))
    action_values = ColourScale.of(*(x[open_] for x in (q, best_q) if x is not None))
    action_values.low = max(action_values.low, 2 * values.low - values.high)  # a cliff would leave one colour for all
    best = [(row >= row.max() - 1e-9).nonzero()[0].tolist() for row in best_q] if best_q is not None else []
    chosen = [[int(a)] if ok else [] for a, ok in zip(states.action, shown)]
    top: list[tuple[str, Any]] = [
        ("learned V(s), and where its policy goes" if v is not None else "the policy", ("cells", v, values, chosen))
    ]
    low: list[tuple[str, Any]] = []
    if best_v is not None:
        top.append(("optimum V*(s)", ("cells", best_v, values, best)))
    if visits is not None:
        total = visits.sum(-1).astype(float)
        top.append(("visits", ("visits", np.where(total > 0, np.log10(np.maximum(total, 1)), np.nan), total, None)))
    if turn is not None and side >= 40:
        if q is not None:
            low.append(("learned Q(s, a)", ("q", q, action_values, None)))
        if known.get("probability") is not None:
            low.append(("pi(a|s)", ("q", known["probability"], ColourScale(0.0, 1.0), None)))
        if best_q is not None:
            low.append(("optimum Q*(s, a)", ("q", best_q, action_values, None)))
    lines = [line for line in (top, low) if line]
    width, height = columns * side, rows * side
    per_line = max(1, min(3, 1160 // (width + GAP)))
    lines = [line[i : i + per_line] for line in lines for i in range(0, len(line), per_line)]
    canvas = Canvas(GAP + max(map(len, lines)) * (width + GAP), 2 * HEAD + 8 + len(lines) * (HEAD + height + BAR + GAP))
    canvas.text(GAP, HEAD, title, 15, anchor="start")
    for r, line in enumerate(lines):
        for c, (name, (kind, numbers, scale, arrows)) in enumerate(line):
            x0, y0 = GAP + c * (width + GAP), 2 * HEAD + 8 + r * (HEAD + height + BAR + GAP)
            canvas.text(x0, y0 + HEAD / 2 - 4, name, 12, FAINT, "start")
            y0 += HEAD
            for s, letter in enumerate(states.letters):
                x, y = x0 + s % columns * side, y0 + s // columns * side
                if not open_[s]:
                    colour = SPECIAL.get(letter, UNKNOWN)
                    canvas.rect(x, y, side, side, colour, PAPER)
                    canvas.text(x + side / 2, y + side / 2, letter, 14, _ink(colour))
                    continue
                if kind == "q":
                    _triangles(canvas, x, y, side, numbers[s], turn or [], scale)
                else:
                    value = numbers[s] if numbers is not None else np.nan
                    own = ColourScale.of(numbers[open_]) if kind == "visits" else scale
                    colour = own.colour(value)
                    canvas.rect(x, y, side, side, colour, PAPER)
                    text = number(float(scale[s])) if kind == "visits" else number(float(value))
                    down = 0.76 if kind == "cells" else 0.5
                    canvas.text(x + side / 2, y + down * side, text, min(12, side / 3.8), _ink(colour))
                    ways = [turn[action] for action in arrows[s]] if arrows and turn else []
                    for way in ways:  # several equal ones meet at their backs
                        away = 0.5 if len(ways) > 1 else 0.0
                        _arrow(canvas, x + side / 2, y + 0.38 * side, 0.19 * side, way, _ink(colour), away)
                    if kind == "cells" and turn is None and arrows and arrows[s]:
                        canvas.text(x + side / 2, y + 0.36 * side, str(arrows[s][0]), 13, _ink(colour))
                    if letter == "S":
                        canvas.text(x + 8, y + 9, "S", 10, _ink(colour))
            if kind != "visits":
                _bar(canvas, x0, y0 + height + 8, min(width, 160), scale)
            else:
                canvas.text(x0, y0 + height + 14, "grey: never seen", 11, FAINT, "start")
    return canvas


def _triangles(
    canvas: Canvas, x: float, y: float, side: float, q: np.ndarray, turn: Sequence[int], scale: ColourScale
) -> None:  # fmt: skip
    """The value of each action on its side of the cell."""
    corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
    middle = (x + side / 2, y + side / 2)
    for action, way in enumerate(turn):
        colour = scale.colour(float(q[action]))
        canvas.polygon([corners[way], corners[(way + 1) % 4], middle], colour, PAPER)
        if side >= 56:
            dx, dy = ARROWS[way]
            canvas.text(
                middle[0] + 0.31 * side * dx, middle[1] + 0.35 * side * dy, number(float(q[action])),
                side / 7.2, _ink(colour),
            )  # fmt: skip


def _arrow(
    canvas: Canvas, x: float, y: float, reach: float, way: int, colour: Colour, away: float = 0.0
) -> None:  # fmt: skip
    """From its middle `away` times its reach."""
    dx, dy = ARROWS[way]
    if away:
        x, y, reach = x + away * reach * dx, y + away * reach * dy, (1 - away) * reach * 1.2
    tip, back = (x + reach * dx, y + reach * dy), (x - reach * dx, y - reach * dy)
    neck = (x + 0.2 * reach * dx, y + 0.2 * reach * dy)
    wing = 0.55 * reach
    canvas.line([back, neck], colour, 2)
    canvas.polygon(
        [tip, (neck[0] - wing * dy, neck[1] + wing * dx), (neck[0] + wing * dy, neck[1] - wing * dx)], colour
    )


def _bar(canvas: Canvas, x: float, y: float, width: float, scale: ColourScale) -> None:
    """What the colours mean."""
    low, high = number(scale.low), number(scale.high)
    left = 7 * len(low) + 6
    shades = scale.colours(np.linspace(scale.low, scale.high, 32))[None]
    canvas.text(x, y + 5, low, 11, FAINT, "start")
    canvas.image(x + left, y, width - left, 10, shades)
    canvas.text(x + width + 6, y + 5, high, 11, FAINT, "start")


# -- other tables ------------------------------------------------------------------------------------------------


def _table(states: States, title: str) -> Canvas:
    """Actions over states, as the columns of a strip."""
    known, count = states.known, len(states.action)
    q, best_q, visits = known.get("q"), states.best_q, known.get("visits")
    values = ColourScale.of(q, best_q)
    strips: list[tuple[str, np.ndarray, ColourScale]] = []
    if q is not None:
        strips.append(("learned Q(s, a)", q.T, values))
    if (probability := known.get("probability")) is not None:
        strips.append(("pi(a|s)", probability.T, ColourScale(0.0, 1.0)))
    if (v := states.value) is not None and q is None:
        strips.append(("learned V(s)", v[None], ColourScale.of(v, best_q)))
    if best_q is not None:
        strips.append(("optimum Q*(s, a)", best_q.T, values))
    if visits is not None:
        seen = np.where(visits > 0, np.log10(np.maximum(visits, 1)), np.nan)
        strips.append(("visits, log10 (grey: never)", seen.T, ColourScale.of(seen)))
    if not strips:
        strips.append(("greedy action", states.action.reshape(1, -1).astype(float), ColourScale.of(states.action)))
    wide = max(1, min(24, MATRIX // count))
    width, row = min(MATRIX, count * wide), 16
    heights = [row * len(numbers) for _, numbers, _ in strips]
    canvas = Canvas(2 * GAP + 90 + max(width, 320), 2 * HEAD + 8 + sum(heights) + len(strips) * (HEAD + BAR + 14))
    canvas.text(GAP, HEAD, title, 15, anchor="start")
    y, x = 2.0 * HEAD + 8, GAP + 70
    for (name, numbers, scale), height in zip(strips, heights):
        canvas.text(GAP, y + 8, name, 12, FAINT, "start")
        y += HEAD
        for i in range(len(numbers)):
            label = states.actions[i] if len(numbers) == len(states.actions) else ""
            canvas.text(x - 8, y + (i + 0.5) * row, label, 11, FAINT, "end")
        canvas.image(x, y, width, height, scale.colours(numbers))
        canvas.text(x + width, y + height + 12, f"state 0 to {count - 1}", 11, FAINT, "end")
        _bar(canvas, x, y + height + 7, 130, scale)
        y += height + BAR + 14
    return canvas


# -- two dimensions of a Box -------------------------------------------------------------------------------------


def _surface(it: Surface, title: str) -> Canvas:
    size = 320
    panels: list[tuple[str, np.ndarray, ColourScale | None]] = []
    if (value := it.known.get("value")) is not None:
        panels.append(("learned V(s)", value, ColourScale.of(value)))
    if it.discrete is None:
        action = it.action.reshape(SIDE * SIDE, -1)
        for i in range(min(3, action.shape[1])):
            name = it.plane.actions[i] if i < len(it.plane.actions) else f"action {i}"
            panels.append((f"the policy: {name}", action[:, i], ColourScale.of(action[:, i])))
    else:
        panels.append(("the policy", it.action, None))
    legend = _legend(it, size) if it.discrete is not None else []
    extra = max((y for _, y, *_ in legend), default=0)
    canvas = Canvas(GAP + len(panels) * (size + 2 * GAP + 16), 2 * HEAD + 8 + HEAD + size + 96 + extra)
    canvas.text(GAP, HEAD, title, 15, anchor="start")
    for c, (name, numbers, scale) in enumerate(panels):
        x, y = GAP + 24 + c * (size + 2 * GAP + 16), 3.0 * HEAD + 8
        canvas.text(x, y - HEAD / 2 - 2, name, 12, FAINT, "start")
        pixels = scale.colours(numbers) if scale else _categories(it)
        canvas.image(x, y, size, size, pixels.reshape(SIDE, SIDE, 3))
        _axes(canvas, x, y, size, it)
        if scale:
            _bar(canvas, x, y + size + 66, 150, scale)
        else:
            for right, down, colour, words in legend:
                left, height = x + right, y + size + 66 + down
                if colour:
                    canvas.rect(left, height, 10, 10, colour)
                canvas.text(left + (15 if colour else 0), height + 5, words, 11, FAINT, "start")
    return canvas


def _categories(it: Surface) -> np.ndarray:
    """The greedy action's colour, as strong as its probability is above that of chance."""
    colours = np.array(ACTIONS, float)[it.action % len(ACTIONS)]
    probability = it.known.get("probability")
    strength = probability.max(-1) if probability is not None else np.ones(len(colours))
    return (255 + strength[:, None] * (colours - 255)).round().astype(np.uint8)


def _legend(it: Surface, size: float) -> list[tuple[float, float, Colour | None, str]]:
    """(right, down, colour, words) of each action that the map shows, in lines of the panel's width."""
    there = [int(action) for action in np.unique(it.action)]
    names = it.plane.actions if len(it.plane.actions) == it.discrete else [f"action {a}" for a in range(max(there) + 1)]
    items: list[tuple[Colour | None, str]] = [(ACTIONS[a % len(ACTIONS)], names[a]) for a in there]
    if "probability" in it.known:
        items.append((None, "paler: less sure"))
    x, y, placed = 0.0, 0.0, []
    for colour, words in items:
        width = 30 + 6.2 * len(words)
        if x and x + width > size + GAP:
            x, y = 0.0, y + 17
        placed.append((x, y, colour, words))
        x += width
    return placed


def _axes(canvas: Canvas, x: float, y: float, size: float, it: Surface) -> None:
    plane = it.plane
    for share in (0.0, 0.5, 1.0):
        at_x, at_y = (low + share * (high - low) for low, high in zip(plane.low, plane.high))
        canvas.text(x + share * size, y + size + 12, number(at_x), 11, FAINT)
        canvas.text(x - 6, y + size - share * size, number(at_y), 11, FAINT, "end")
    canvas.text(x + size / 2, y + size + 30, plane.names[0], 11, FAINT)
    canvas.text(x + size / 2, y + size + 46, f"upwards: {plane.names[1]}", 11, FAINT)
    if it.path is not None and len(it.path) > 1:
        share_ = (it.path - plane.low) / (np.array(plane.high) - plane.low)
        points = [(x + size * a, y + size * (1 - b)) for a, b in share_ if 0 <= a <= 1 and 0 <= b <= 1]
        canvas.line(points, INK, 3)
        canvas.line(points, PAPER, 1.5)
