"""Learning curves of many runs: one line for each configuration, its seeds as mean (or IQM) and band.

Reads config.yaml, status.json and metrics.jsonl of run directories. Never imports torch; numpy only when there is
something to compute. The picture is in draw.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.analysis import stopping
from rlx.analysis.curves.bands import Line, average
from rlx.analysis.curves.curves import Curve, X, default_metric, full_keys, newest, read
from rlx.base.errors import shown
from rlx.rundir.query import differing, needed, place_names, value_text

MANY = 3  # more differing keys than these are not all written into the legend


@dataclass
class Plot:
    """What is drawn: one panel an environment or task."""

    metric: str
    x: str
    smooth: int
    panels: dict[str, list[Line]]
    notes: list[str]
    kinds: dict[str, str]  # of each panel: env or task
    stat: str = "mean"  # or iqm, or profile: shares over scores instead of scores over steps

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric, "x": X[self.x][0] if self.x in X else self.x,
            "smooth": self.smooth, "stat": self.stat, "notes": self.notes,
            "panels": [
                {self.kinds[name]: name, "lines": list(map(_line_json, lines))} for name, lines in self.panels.items()
            ],
        }  # fmt: skip


def _line_json(line: Line) -> dict[str, Any]:
    return {
        "label": line.label, "keys": line.keys, "seeds": [curve.seed for curve in line.curves],
        "runs": [str(curve.path) for curve in line.curves], "band": line.band,
        "x": line.x, "mean": line.mean, "low": line.low, "high": line.high,
    }  # fmt: skip


def build(
    paths: Sequence[Path], metric: str, by: Sequence[str] = (), x: str = "step", smooth: int = 1, stat: str = "mean"
) -> Plot:
    """Everything that is drawn; without a metric the first of METRICS that there is. Raises UserError."""
    metric = metric or default_metric(paths)
    curves, notes = read(paths, metric, x, smooth)
    curves, left_out = newest(curves)
    notes += left_out
    chosen = full_keys(by, curves)
    names = place_names(curve.place for curve in curves)
    panels: dict[str, list[Line]] = {}
    for place in sorted(names, key=lambda place: place[1:]):
        here = [curve for curve in curves if curve.place == place]
        lines = group(here, chosen)
        hidden = label(lines, chosen)
        if hidden:
            notes.append(f"the lines of {names[place]} differ in {', '.join(hidden)} too")
        notes += stopping.said([curve.config for curve in here])
        for line in lines:
            stopping.check({line.label: [curve.config for curve in line.curves]}, "plot")
            if chosen and (pooled := differing([curve.config for curve in line.curves])):
                notes.append(f"{line.label}: one line for runs that differ in {', '.join(pooled[:MANY])}")
            average(line, stat)
        panels[names[place]] = lines
    return Plot(metric, x, smooth, panels, notes, {names[place]: place[0] for place in names}, stat)


def group(curves: Sequence[Curve], by: Sequence[str]) -> list[Line]:
    """A line for each configuration, or for each value of the keys `by`."""
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        key = json.dumps([curve.get(name) for name in by], default=str) if by else curve.identity
        groups.setdefault(key, []).append(curve)
    lines = [Line({}, sorted(group, key=lambda curve: str(curve.seed).zfill(12))) for group in groups.values()]
    return sorted(lines, key=lambda line: str(line.curves[0].config.get("algo.name")))


def label(lines: Sequence[Line], by: Sequence[str]) -> list[str]:
    """Name each line by what tells it from the others; what is left unsaid. Two algorithms differ in everything:
    then the name is enough, and further keys are for lines of one algorithm."""
    hidden: list[str] = []
    for name in dict.fromkeys(str(line.curves[0].config.get("algo.name")) for line in lines):
        same = [line for line in lines if str(line.curves[0].config.get("algo.name")) == name]
        configs = [line.curves[0].config for line in same]
        keys = list(by) or [key for key in differing(configs) if key != "algo.name"]
        if not by and len(keys) > MANY:
            shortest = needed(configs, keys)
            hidden += [key for key in keys if key not in shortest]
            keys = shortest
        if not by and (len(same) < len(lines) or not keys):
            keys = ["algo.name", *keys]
        short = [key.rpartition(".")[2] for key in keys]
        for line in same:
            line.keys = {key: line.curves[0].get(key) for key in keys}
            words = [
                shown(value) if key in ("algo.name", "env.name", "task.name") else
                f"{short[i] if short.count(short[i]) == 1 else key}={value_text(value)}"
                for i, (key, value) in enumerate(line.keys.items())
            ]  # fmt: skip
            what = "run" if by and len({curve.identity for curve in line.curves}) > 1 else "seed"
            line.label = f"{', '.join(words)} ({len(line.curves)} {what}{'s' * (len(line.curves) > 1)})"
    return list(dict.fromkeys(hidden))
