"""Learning curves of many runs on one picture: one line for each configuration, its seeds as mean and band.

Reads config.yaml, status.json and metrics.jsonl of run directories. Never imports torch; numpy and matplotlib only
when there is something to compute and to draw. pyplot is left out: it costs half a second and keeps global state.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlx.analysis import runs
from rlx.errors import UserError, choices_hint, did_you_mean, shown

SUFFIXES = (".png", ".svg", ".pdf")
X = {"step": ("step", "steps"), "time": ("time/time_elapsed", "seconds of wall time")}
STEPS = {"env": "environment steps", "task": "optimiser steps"}
METRICS = ("rollout/ep_rew_mean", "reward", "loss")  # the first of them that a run has, where none is asked for
ORIGINS = ("init", "algo.reward_model")  # paths of other runs: what tells lines apart is the algorithm they are of
# What never changes a curve: where and how a run is computed (logger.MACHINE_KEYS; a test compares), what it leaves
# behind and what its preset promises.
APART = (
    "seed", "device", "threads", "run", "run_dir", "runs_dir", "name",
    "expect", "video", "samples", "tensorboard", "keep_checkpoints", "log_every", "eval_every",
)  # fmt: skip
POINTS = 200  # of a line
INTERVAL_FROM, RESAMPLES = 5, 2000  # seeds from which the band is an interval and not the range
MANY = 3  # more differing keys than these are not all written into the legend
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito 2008
DASHES = ("-", "--", "-.", ":")


@dataclass
class Curve:
    """One metric of one run."""

    path: Path
    config: dict[str, Any]  # flat, without what is APART
    seed: Any
    x: list[float]
    y: list[float]

    @property
    def identity(self) -> str:
        return json.dumps(self.config, sort_keys=True, default=str)

    def get(self, key: str) -> Any:
        return self.seed if key == "seed" else self.config.get(key)

    @property
    def place(self) -> tuple[str, str, str]:
        """env or task, its name, and what tells it from another one of that name."""
        kind = "task" if "task.name" in self.config else "env"
        own = self.config.get("env.id", self.config.get("task.implementation"))
        return kind, str(self.config.get(f"{kind}.name")), str(own)


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
        return "bootstrap95" if count >= INTERVAL_FROM else "min-max" if count > 1 else None


@dataclass
class Plot:
    """What is drawn: one panel an environment or task."""

    metric: str
    x: str
    smooth: int
    panels: dict[str, list[Line]]
    notes: list[str]
    kinds: dict[str, str]  # of each panel: env or task

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric, "x": X[self.x][0], "smooth": self.smooth, "notes": self.notes,
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


# -- which runs ------------------------------------------------------------------------------------------------


def find(names: Sequence[str]) -> list[Path]:
    """The runs that the words name: runs, directories of runs, latest. Raises UserError."""
    found: list[Path] = []
    for name in names or ("runs",):
        path = Path(name)
        if name == "latest":
            found.append(runs.resolve(name))
        elif not path.is_dir():
            what = "not a directory" if path.exists() else "no such directory"
            raise UserError(f"{shown(name)}: {what} (a run, or a directory with runs under it; rlx train makes runs/)")
        else:
            found += runs.find(path)
    if not found:
        raise UserError(f"no runs under {', '.join(names) or 'runs'} yet: rlx train algo=ppo env=cartpole")
    return sorted({path.resolve(): path for path in found}.values(), key=_natural)


def _natural(path: Path) -> list[Any]:
    """The order in which runs began: by name, job 2 of a sweep before job 10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _config(path: Path) -> dict[str, Any]:
    """The flat configuration of a run; {} where it cannot be read."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        raw = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    found = _flat(raw) if isinstance(raw, dict) else {}
    for key in ORIGINS:  # seeds of one experiment start from different runs
        if found.get(key) is not None:
            found[key] = (runs.record(path).get(key.rpartition(".")[2]) or {}).get("algo")
    return found


def _flat(tree: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _rows(path: Path, key: str = "") -> Iterable[dict[str, Any]]:
    """The lines of metrics.jsonl that may hold a key. A torn line, where a run was killed, is left out."""
    try:
        lines = (path / "metrics.jsonl").read_bytes().splitlines()
    except OSError:
        return
    wanted = json.dumps(key).encode() if key else b""
    for line in lines:
        if wanted in line:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read(paths: Sequence[Path], metric: str, x: str, smooth: int) -> tuple[list[Curve], list[str]]:
    """The curves of a metric, and notes about the runs that lack it or did not finish. Raises UserError."""
    curves, notes = [], []
    for path in paths:
        if not (config := _config(path)):
            notes.append(f"{path}: config.yaml is unreadable")
            continue
        key = X[x][0]
        rows = [row for row in _rows(path, metric) if _number(row.get(metric)) and _number(row.get(key))]
        if not rows:
            notes.append(f"{path} has no {metric}")
            continue
        if (state := runs.state(path)) != "finished":
            notes.append(
                f"{path} {'is still running' if state == 'running' else f'was {state}'} at {rows[-1]['step']:,}"
            )
        kept = {name: value for name, value in config.items() if name.partition(".")[0] not in APART}
        values = _smooth([float(row[metric]) for row in rows], smooth)
        curves.append(Curve(path, kept, config.get("seed"), [float(row[key]) for row in rows], values))
    if not curves:
        known = {key for path in paths for row in _rows(path) for key, value in row.items() if _number(value)} - {
            "step"
        }
        if metric in known:
            raise UserError(f"--x={x}: no run has {X[x][0]} beside {metric}")
        there = f" (there are: {', '.join(sorted(known))})" if known else "; no run has any yet"
        raise UserError(f"--metric={shown(metric)}: no run has it{did_you_mean(metric, known)}{there}")
    return curves, notes


def _smooth(values: list[float], count: int) -> list[float]:
    """The mean of the last `count` values at each one."""
    if count == 1:
        return values
    found, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - count] if i >= count else 0.0)
        found.append(total / min(i + 1, count))
    return found


def _newest(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    """One run for each configuration and seed, the longest and then the newest: a repeated run is no further seed."""
    best: dict[tuple[str, Any], Curve] = {}
    for curve in curves:
        key = (curve.identity, curve.seed)
        if key not in best or curve.x[-1] >= best[key].x[-1]:
            best[key] = curve
    kept = list(best.values())
    left = len(curves) - len(kept)
    return kept, [f"{left} earlier run{'s' * (left > 1)} of the same configuration and seed left out"] if left else []


# -- which lines -----------------------------------------------------------------------------------------------


def full_key(name: str, known: Iterable[str]) -> str:
    """algo.weight for weight. Raises UserError."""
    keys = sorted(known)
    if name in keys:
        return name
    ends = [key for key in keys if key.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f"--by={shown(name)}: which of {', '.join(ends)}?")
    short = {key.rpartition(".")[2] for key in keys} if "." not in name else keys
    hint = choices_hint(name, short, where="the keys of config.yaml")
    raise UserError(f"--by={shown(name)}: no run's configuration has this key{hint}")


def build(paths: Sequence[Path], metric: str, by: Sequence[str] = (), x: str = "step", smooth: int = 1) -> Plot:
    """Everything that is drawn; without a metric the first of METRICS that there is. Raises UserError."""
    metric = metric or _default(paths)
    curves, notes = read(paths, metric, x, smooth)
    curves, left_out = _newest(curves)
    notes += left_out
    chosen = [full_key(name, {"seed", *(key for curve in curves for key in curve.config)}) for name in by]
    names = {place: place[1] for place in dict.fromkeys(curve.place for curve in curves)}
    if len(set(names.values())) < len(names):  # two environments of one name
        names = {place: place[2] for place in names}
    panels: dict[str, list[Line]] = {}
    for place in sorted(names, key=lambda place: place[1:]):
        here = [curve for curve in curves if curve.place == place]
        lines = _lines(here, chosen)
        hidden = _label(lines, chosen)
        if hidden:
            notes.append(f"the lines of {names[place]} differ in {', '.join(hidden)} too")
        for line in lines:
            if chosen and (pooled := _differing([curve.config for curve in line.curves])):
                notes.append(f"{line.label}: one line for runs that differ in {', '.join(pooled[:MANY])}")
            _average(line)
        panels[names[place]] = lines
    return Plot(metric, x, smooth, panels, notes, {names[place]: place[0] for place in names})


def _default(paths: Sequence[Path]) -> str:
    for metric in METRICS:
        if any(metric in row for path in paths for row in _rows(path, metric)):
            return metric
    return METRICS[0]


def _lines(curves: Sequence[Curve], by: Sequence[str]) -> list[Line]:
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        key = json.dumps([curve.get(name) for name in by], default=str) if by else curve.identity
        groups.setdefault(key, []).append(curve)
    lines = [Line({}, sorted(group, key=lambda curve: str(curve.seed).zfill(12))) for group in groups.values()]
    return sorted(lines, key=lambda line: str(line.curves[0].config.get("algo.name")))


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """The keys whose values are not the same everywhere, algo.name first."""
    keys = dict.fromkeys(["algo.name", *(key for config in configs for key in config)])
    return [key for key in keys if len({json.dumps(config.get(key), default=str) for config in configs}) > 1]


def _label(lines: Sequence[Line], by: Sequence[str]) -> list[str]:
    """Name each line by what tells it from the others; what is left unsaid. Two algorithms differ in everything:
    then the name is enough, and further keys are for lines of one algorithm."""
    hidden: list[str] = []
    for name in dict.fromkeys(str(line.curves[0].config.get("algo.name")) for line in lines):
        same = [line for line in lines if str(line.curves[0].config.get("algo.name")) == name]
        configs = [line.curves[0].config for line in same]
        keys = list(by) or [key for key in _differing(configs) if key != "algo.name"]
        if not by and len(keys) > MANY:
            needed = _needed(configs, keys)
            hidden += [key for key in keys if key not in needed]
            keys = needed
        if not by and (len(same) < len(lines) or not keys):
            keys = ["algo.name", *keys]
        short = [key.rpartition(".")[2] for key in keys]
        for line in same:
            line.keys = {key: line.curves[0].get(key) for key in keys}
            words = [
                shown(value) if key in ("algo.name", "env.name", "task.name") else
                f"{short[i] if short.count(short[i]) == 1 else key}={_value(value)}"
                for i, (key, value) in enumerate(line.keys.items())
            ]  # fmt: skip
            what = "run" if by and len({curve.identity for curve in line.curves}) > 1 else "seed"
            line.label = f"{', '.join(words)} ({len(line.curves)} {what}{'s' * (len(line.curves) > 1)})"
    return list(dict.fromkeys(hidden))


def _needed(configs: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[str]:
    """The first keys that tell all the configurations apart."""
    found: list[str] = []

    def kinds(chosen: list[str]) -> int:
        return len({json.dumps([config.get(key) for key in chosen], default=str) for config in configs})

    for key in keys:
        if kinds([*found, key]) > kinds(found):
            found.append(key)
    return found


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)


# -- mean and band ---------------------------------------------------------------------------------------------


def _average(line: Line) -> None:
    """Mean over the runs on a common grid, each within its own range, where at least half of them are.

    The band is a 95 % bootstrap interval of that mean (percentile; whole runs are drawn again, within each
    configuration where a line pools several) from INTERVAL_FROM runs on, else the smallest and largest run.
    """
    import numpy as np

    ends = [curve.x[0] for curve in line.curves] + [curve.x[-1] for curve in line.curves]
    grid = np.linspace(min(ends), max(ends), POINTS) if max(ends) > min(ends) else np.array(ends[:1])
    if len(line.curves) == 1 and len(line.curves[0].x) <= POINTS:
        grid = np.array(line.curves[0].x)  # its own points
    y = np.array([np.interp(grid, curve.x, curve.y, left=np.nan, right=np.nan) for curve in line.curves])
    there = 2 * (~np.isnan(y)).sum(0) >= len(y)
    grid, y = grid[there], y[:, there]
    line.x, line.mean = grid.tolist(), np.nanmean(y, 0).tolist()
    if line.band == "min-max":
        line.low, line.high = np.nanmin(y, 0).tolist(), np.nanmax(y, 0).tolist()
    elif line.band:
        low, high = _bootstrap(y, [curve.identity for curve in line.curves])
        line.low, line.high = low.tolist(), high.tolist()


def _bootstrap(y: Any, strata: Sequence[str]) -> tuple[Any, Any]:
    """The 2.5 and 97.5 % quantiles of the mean over resampled rows, drawn within each stratum."""
    import numpy as np

    rng, groups = np.random.default_rng(0), np.array(strata)
    weights = np.zeros((RESAMPLES, len(y)))
    for group in dict.fromkeys(strata):
        rows = np.flatnonzero(groups == group)
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
    known = ~np.isnan(y)
    count = weights @ known
    means = weights @ np.where(known, y, 0.0) / np.where(count > 0, count, np.nan)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    return low, high


# -- the picture -----------------------------------------------------------------------------------------------


def draw(plot: Plot, out: Path) -> None:
    """Write the picture. Raises UserError where that cannot be."""
    from matplotlib.figure import Figure  # no pyplot: no windows, Agg for PNG
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    columns = min(3, len(plot.panels))
    rows = math.ceil(len(plot.panels) / columns)
    figure = Figure(figsize=(7.2 if columns == 1 else 5.2 * columns, 0.4 + 3.9 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    looks: dict[str, int] = {}
    for axis, (name, lines) in zip(axes, plot.panels.items()):
        for line in lines:
            label = line.label.rpartition(" (")[0]  # one colour for one name in all panels
            i = looks.setdefault(label, len(looks))
            colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
            marker = "o" if len(line.x) == 1 else None
            axis.plot(line.x, line.mean, color=colour, linestyle=dash, linewidth=1.8, marker=marker, label=line.label)
            if line.band:
                axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
        axis.set_title(name, fontsize=11, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.xaxis.set_major_formatter(FuncFormatter(_steps if plot.x == "step" else lambda value, _: f"{value:g}"))
        axis.grid(True, color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel(STEPS[plot.kinds[name]] if plot.x == "step" else X[plot.x][1])
        axis.margins(x=0.01)
        axis.set_xlim(left=0)
        if len(lines) > 1 or line.band:
            few = len(lines) <= 6
            place: dict[str, Any] = {"loc": "best"} if few else {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            axis.legend(frameon=False, fontsize=9, **place)
    for axis in axes[len(plot.panels) :]:
        axis.set_visible(False)
    figure.supylabel(plot.metric, fontsize=10)
    figure.supxlabel(caption(plot), fontsize=8, color="0.35", x=0.99, ha="right")
    try:
        figure.savefig(out, dpi=150)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from None


def _steps(value: float, _: Any = None) -> str:
    for unit, sign in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{sign}"
    return f"{value:g}"


def caption(plot: Plot) -> str:
    """What line and band are."""
    bands = {line.band for lines in plot.panels.values() for line in lines}
    interval, extent = "95 % bootstrap interval", "smallest to largest seed"
    parts = ["line: mean over seeds"] if bands - {None} else ["one seed a line"]
    if {"bootstrap95", "min-max"} <= bands:
        parts.append(f"band: {interval} from {INTERVAL_FROM} seeds on, else {extent}")
    elif bands - {None}:
        parts.append(f"band: {interval if 'bootstrap95' in bands else extent}")
    if plot.smooth > 1:
        parts.append(f"mean of the last {plot.smooth} log lines")
    return "; ".join(parts)


def check_out(out: Path) -> None:
    """Raises UserError where no picture can be written."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out={out}: must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise UserError(f"--out={out}: the directory {out.parent} does not exist")
    if out.is_dir():
        raise UserError(f"--out={out}: is a directory")
    if not os.access(out if out.exists() else parent, os.W_OK):
        raise UserError(f"--out={out}: cannot be written here (permission denied)")
