"""One number of each run that finished: what `rlx compare` and performance profiles are about. Never imports torch."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlx.analysis.curves.curves import Curve, newest
from rlx.base.errors import UserError, did_you_mean, shown
from rlx.config import keys
from rlx.rundir import query
from rlx.rundir.layout import Status
from rlx.rundir.metrics import MetricsTable, is_number

EVAL = "eval"


def read(paths: Sequence[Path], metric: str = EVAL) -> tuple[list[Curve], list[str]]:
    """Of every finished run the score of its last evaluation, or the last value of another metric, as a curve of one
    point, one for each seed; and notes on the runs that were left out."""
    points, left = [], Counter[str]()
    for path in paths:
        config, status = query.config(path), Status.read(path)
        if status.state != "finished":
            left[status.state] += 1
        elif not config:
            left["with an unreadable config.yaml"] += 1
        elif (value := _value(path, status, metric)) is None:
            left[f"without {'an evaluation' if metric == EVAL else metric}"] += 1
        else:
            points.append(Curve(path, keys.curve(config), config.get("seed"), [float(status.step)], [value]))
    curves, repeated = newest(points)
    reasons = ", ".join(f"{count} {reason}" for reason, count in left.items())
    return curves, [*([f"left out {reasons}"] if left else []), *repeated]


def _value(path: Path, status: Status, metric: str) -> float | None:
    if metric == EVAL:
        return status.score
    values = [row[metric] for row in MetricsTable(path).rows(metric) if is_number(row.get(metric))]
    return float(values[-1]) if values else None


def full_metric(paths: Sequence[Path], metric: str) -> str:
    """rollout/ep_rew_mean for ep_rew_mean. Raises UserError for one that no run has."""
    if metric == EVAL:
        return metric
    names = {key for path in paths for key in MetricsTable(path).numbers(also=("step",))}
    ends = sorted(key for key in names if key == metric or key.endswith(f"/{metric}"))
    if metric in ends or len(ends) == 1:
        return metric if metric in ends else ends[0]
    if ends:
        raise UserError(f"--metric={shown(metric)}: which of {', '.join(ends)}?")
    choices = f" (there are: eval, {', '.join(sorted(names))})" if names else "; no run has any yet"
    raise UserError(f"--metric={shown(metric)}: no run has it{did_you_mean(metric, {EVAL, *names})}{choices}")
