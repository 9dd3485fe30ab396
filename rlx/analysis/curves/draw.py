"""The picture of `rlx plot`. matplotlib only, and only when there is something to draw; pyplot is left out: it costs
half a second and keeps global state."""

import math
import textwrap
from pathlib import Path
from typing import Any

from rlx.analysis.curves.bands import INTERVAL_FROM
from rlx.analysis.curves.build import Plot
from rlx.analysis.curves.curves import X
from rlx.analysis.numbers import short
from rlx.base.errors import UserError

SUFFIXES = (".png", ".svg", ".pdf")
STEPS = {"env": "environment steps", "task": "optimiser steps"}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
MEANS = {"mean": "mean", "iqm": "interquartile mean"}
DASHES = ("-", "--", "-.", ":")


def draw(plot: Plot, out: Path) -> None:
    """Write the picture. Raises UserError where that cannot be."""
    from matplotlib.figure import Figure  # no pyplot: no windows, Agg for PNG
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    columns = min(3, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    figure = Figure(figsize=(7.2 if columns == 1 else 5.2 * columns, 0.4 + 3.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    looks: dict[str, int] = {}
    written = short if plot.x == "step" else "{:g}".format
    for axis, (name, lines) in zip(axes, plot.panels.items()):
        for line in lines:
            label = line.label.rpartition(" (")[0]  # one colour for one name in all panels
            i = looks.setdefault(label, len(looks))
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            marker = "o" if len(line.x) == 1 else None
            axis.plot(line.x, line.mean, color=colour, linestyle=dash, linewidth=1.8, marker=marker, label=line.label)
            if line.low:
                axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        axis.set_title(name, fontsize=11, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(6))
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
        if len(lines) > 1 or lines[0].low:
            few = len(lines) <= 6
            place: dict[str, Any] = {"loc": "best"} if few else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            axis.legend(frameon=False, fontsize=9, **place)
    for axis in axes[len(plot.panels) :]:
        axis.set_visible(False)
    figure.supylabel("share of runs above tau" if plot.stat == "profile" else plot.metric, fontsize=10)
    text = textwrap.fill(caption(plot), int(14 * figure.get_figwidth()))
    figure.supxlabel(text, fontsize=8, color="0.35", x=0.99, ha="right")
    try:
        figure.savefig(out, dpi=150)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from None


def _along(plot: Plot, name: str) -> str:
    if plot.stat == "profile":
        return f"{plot.metric}{', normalised' if plot.x == 'normalised' else ''}: tau"
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
