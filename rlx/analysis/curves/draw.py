"""The picture of `rlx plot`. matplotlib only, and only when there is something to draw; pyplot is left out: it costs
half a second and keeps global state."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.analysis.curves.bands import INTERVAL_FROM
from rlx.analysis.curves.build import Plot
from rlx.analysis.curves.curves import X
from rlx.analysis.names import readable
from rlx.analysis.numbers import short
from rlx.base.errors import UserError

SUFFIXES = (".png", ".svg", ".pdf")
STEPS = {"env": "environment steps", "task": "optimiser steps"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
MEANS = {"mean": "mean", "iqm": "interquartile mean"}
DASHES = ("-", "--", "-.", ":")


@dataclass
class Look:
    """What the user says of the picture."""

    style: str = "screen"
    size: tuple[float, float] | None = None  # inches
    title: str = ""
    ylabel: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # of lines: what stands there, and what shall
    caption: bool = True


# paper: a column of a two-column page; fonts are embedded as Type 42, for venues refuse Type 3; an SVG's text is text
STYLES: dict[str, dict[str, Any]] = {
    "screen": {
        "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "legend.fontsize": 9, "lines.linewidth": 1.8,
    },
    "paper": {
        "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "lines.linewidth": 1.2,
        "xtick.labelsize": 7, "ytick.labelsize": 7, "axes.linewidth": 0.6,
    },
}  # fmt: skip
FONTS = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}
DPI = {"screen": 150, "paper": 300}


def size_of(text: str) -> tuple[float, float]:
    """Inches of 3.4x2.4. Raises UserError."""
    words = text.lower().split("x")
    try:
        width, height = map(float, words)
    except ValueError:
        width = height = 0.0
    if not (1 <= width <= 50 and 1 <= height <= 50):
        raise UserError(f"--size={text}: must be WIDTHxHEIGHT in inches from 1 to 50, e.g. 3.4x2.4")
    return width, height


def labels_of(words: Sequence[str], plot: Plot) -> dict[str, str]:
    """{label of a line: what it shall be} of words old=new; old may be its beginning. Raises UserError."""
    there = dict.fromkeys(line.label.rpartition(" (")[0] for lines in plot.panels.values() for line in lines)
    chosen = {}
    for word in words:
        place = next((i for i, sign in enumerate(word) if sign == "=" and word[:i] in there), word.find("="))
        old, new = word[: max(place, 0)], word[place + 1 :]
        if place < 1 or old not in there:
            raise UserError(f"--label={word}: must be OLD=NEW, and OLD one of: {'; '.join(there)}")
        chosen[old] = new
    return chosen


def draw(plot: Plot, out: Path, look: Look | None = None) -> None:
    """Write the picture. Raises UserError where that cannot be."""
    import matplotlib

    look = look or Look()
    settings: Any = {**STYLES[look.style], **FONTS}
    with matplotlib.rc_context(settings):
        try:
            _figure(plot, look).savefig(out, dpi=DPI[look.style])
        except OSError as error:
            raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from None


def _figure(plot: Plot, look: Look) -> Any:
    from matplotlib.figure import Figure  # no pyplot: no windows, Agg for PNG
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    paper = look.style == "paper"
    columns = min(3, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    wide, high = (3.4, 2.4) if paper else (7.2 if columns == 1 else 5.2, 3.9)
    figure = Figure(figsize=look.size or (wide * columns, (0.0 if paper else 0.4) + high * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    ticks = min(6, max(2, round(2 * figure.get_figwidth() / columns)))
    looks: dict[str, int] = {}
    several = len({line.label.rpartition(" (")[0] for lines in plot.panels.values() for line in lines}) > 1
    written = short if plot.x == "step" else "{:g}".format
    for axis, (name, lines) in zip(axes, plot.panels.items()):
        for line in lines:
            label = line.label.rpartition(" (")[0]  # one colour for one name in all panels
            i = looks.setdefault(label, len(looks))
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            marker = "o" if len(line.x) == 1 else None
            written_as = look.labels.get(label, label if paper else line.label)
            how: dict[str, Any] = {"linestyle": dash, "marker": marker, "clip_on": marker is None}
            axis.plot(line.x, line.mean, color=colour, label=written_as, **how)
            if line.low:
                axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        if len(plot.panels) > 1 or not (paper or look.title):
            axis.set_title(name, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(ticks))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
        axis.grid(True, color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(_along(plot, name))
        axis.margins(x=0.01)
        if plot.stat == "profile":
            axis.set_ylim(0, 1.02)
        else:
            axis.set_xlim(left=0)
        if several or len(lines) > 1 or lines[0].low:
            few = len(lines) <= 6
            place: dict[str, Any] = {"loc": "best"} if few else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            axis.legend(frameon=False, **place)
    for axis in axes[len(plot.panels) :]:
        axis.set_visible(False)
    drawn = "share of runs above tau" if plot.stat == "profile" else readable(plot.metric)
    figure.supylabel(look.ylabel or drawn, fontsize=STYLES[look.style]["axes.labelsize"])
    if look.title:
        figure.suptitle(look.title, fontsize=STYLES[look.style]["axes.titlesize"] + 1)
    if look.caption:
        text = textwrap.fill(caption(plot), int(14 * figure.get_figwidth()))
        figure.supxlabel(text, fontsize=6 if paper else 8, color="0.35", x=0.99, ha="right")
    return figure


def _along(plot: Plot, name: str) -> str:
    if plot.stat == "profile":
        return f"{readable(plot.metric)}{', normalised' if plot.x == 'normalised' else ''}: tau"
    return STEPS[plot.kinds[name]] if plot.x == "step" else X[plot.x][1]


def caption(plot: Plot) -> str:
    """What line and band are."""
    if plot.stat == "profile":
        parts = ["share of runs that score more than tau", "band: 95 % interval at each tau (Clopper and Pearson)"]
        if plot.x == "normalised":
            parts.append("scores of each environment from 0, the worst run shown, to 1, the best")
        return "; ".join(parts)
    bands = {line.band for lines in plot.panels.values() for line in lines}
    interval, extent = "95 % interval (t, bootstrapped standard error)", "smallest to largest seed"
    parts = [f"line: {MEANS[plot.stat]} over seeds"] if bands - {None} else ["one seed a line"]
    if {"bootstrap95", "min-max"} <= bands:
        parts.append(f"band: {interval} from {INTERVAL_FROM} seeds on, else {extent}")
    elif bands - {None}:
        parts.append(f"band: {interval if 'bootstrap95' in bands else extent}")
    if plot.smooth > 1:
        parts.append(f"mean of the last {plot.smooth} log lines")
    return "; ".join(parts)
