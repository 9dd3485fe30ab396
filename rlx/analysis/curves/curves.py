"""One metric of each of many runs, over steps or seconds: the curves that `rlx plot` averages. Never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError, did_you_mean, shown
from rlx.config import keys
from rlx.rundir import query, reader
from rlx.rundir.metrics import MetricsTable, is_number
from rlx.rundir.query import config, full_key

X = {
    "step": ("step", "steps"),
    "seconds": ("time/time_elapsed", "seconds of wall time"),
    "time": ("time/time_elapsed", "seconds of wall time"),
}


@dataclass
class Curve:
    """One metric of one run."""

    path: Path
    config: dict[str, Any]  # flat, what makes a curve: see config.keys
    seed: Any
    x: list[float]
    y: list[float]

    @property
    def identity(self) -> str:
        return query.identity(self.config)

    def get(self, key: str) -> Any:
        return self.seed if key == "seed" else self.config.get(key)

    @property
    def place(self) -> tuple[str, str, str]:
        """env or task, its name, and what tells it from another one of that name."""
        return query.place(self.config)


def read(paths: Sequence[Path], metric: str, x: str, smooth: int) -> tuple[list[Curve], list[str]]:
    """The curves of a metric, and notes about the runs that lack it or did not finish. Raises UserError."""
    curves, notes = [], []
    for path in paths:
        if not (settings := config(path)):
            notes.append(f"{path}: config.yaml is unreadable")
            continue
        key = X[x][0]
        lines = [
            row for row in MetricsTable(path).rows(metric) if is_number(row.get(metric)) and is_number(row.get(key))
        ]
        if not lines:
            notes.append(f"{path} has no {metric}")
            continue
        if (state := reader.state(path)) != "finished":
            notes.append(
                f"{path} {'is still running' if state == 'running' else f'was {state}'} at {lines[-1]['step']:,}"
            )
        values = smoothed([float(row[metric]) for row in lines], smooth)
        x_values = [float(line[key]) for line in lines]
        curves.append(Curve(path, keys.curve(settings), settings.get("seed"), x_values, values))
    if not curves:
        names = {key for path in paths for key in MetricsTable(path).numbers()}
        if metric in names:
            raise UserError(f"--x={x}: no run has {X[x][0]} beside {metric}")
        choices = f" (there are: {', '.join(sorted(names))})" if names else "; no run has any yet"
        raise UserError(f"--metric={shown(metric)}: no run has it{did_you_mean(metric, names)}{choices}")
    return curves, notes


def smoothed(values: list[float], count: int) -> list[float]:
    """The mean of the last `count` values at each one."""
    if count == 1:
        return values
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - count] if i >= count else 0.0)
        means.append(total / min(i + 1, count))
    return means


def newest(curves: Sequence[Curve]) -> tuple[list[Curve], list[str]]:
    """One run for each configuration and seed, the longest and then the newest: a repeated run is no further seed."""
    best: dict[tuple[str, Any], Curve] = {}
    for curve in curves:
        key = (curve.identity, curve.seed)
        if key not in best or curve.x[-1] >= best[key].x[-1]:
            best[key] = curve
    kept = list(best.values())
    left = len(curves) - len(kept)
    return kept, [f"{left} earlier run{'s' * (left > 1)} of the same configuration and seed left out"] if left else []


def full_keys(names: Sequence[str], curves: Sequence[Curve]) -> list[str]:
    """algo.lr for lr. Raises UserError."""
    return [full_key(name, {"seed", *(key for curve in curves for key in curve.config)}) for name in names]


def default_metric(paths: Sequence[Path]) -> str:
    """Where none is asked for: the first that a run has of those that say how it learns."""
    listed = sorted(map(reader.facts, paths), key=lambda facts: (facts.world, -len(facts.metrics)))
    names = list(dict.fromkeys(name for facts in listed for name in facts.learning))
    for metric in names:
        if any(metric in row for path in paths for row in MetricsTable(path).rows(metric)):
            return metric
    return next(iter(names), "rollout/ep_rew_mean")
