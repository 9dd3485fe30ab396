"""What TensorBoard shows of a sweep as a whole: the columns of its HPARAMS tab, and a band for each configuration in
its CUSTOM SCALARS tab. Both are event files beside the runs; the runs themselves say which of them share a row.

    begin(sweep, {"algo.lr": Interval(1e-5, 1e-2), "env": ["cartpole", "acrobot"]})   before the first run
    finish(sweep)                                                                     after the last one, or any time

Neither raises: a sweep must not end because of its pictures. They warn on stderr.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlx.analysis.curves import build as plot
from rlx.analysis.curves import configurations
from rlx.base.errors import UserError
from rlx.rundir import reader as runs
from rlx.rundir.filter import score
from rlx.rundir.tensorboard import Dashboard

METRICS = {  # of evaluations, then while learning
    "env": ("eval/mean_reward", "rollout/ep_rew_mean"),
    "task": ("eval/greedy_accuracy", "eval/reward", "eval/loss", "reward", "loss"),
}
COLUMNS, LAYOUT, BANDS = ".columns", ".layout", "summary"
NAMED = ("algo", "env", "task", "model")  # groups of conf/ whose choice a run keeps as GROUP.name


class Interval(NamedTuple):
    """What a search draws from."""

    low: float
    high: float


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: the sweep's page in TensorBoard is not complete ({reason})", file=sys.stderr)


# -- the columns of HPARAMS --------------------------------------------------------------------------------------


@_harmless()
def begin(directory: Path, hparams: Mapping[str, Sequence[Any] | Interval], place: str = "env") -> None:
    """Say which hyper-parameters (keys as on the command line; their values, or the interval they are drawn from) are
    the columns of HPARAMS, beside the scores of a `place`, env or task. Without this TensorBoard shows everything it
    finds, some eighty columns. Called again, it replaces what it wrote."""
    board = Dashboard(directory, suffix=COLUMNS)
    board.hparams_columns(_experiment(hparams, METRICS[place]))
    board.close()
    _replace(directory, COLUMNS)


def _experiment(hparams: Mapping[str, Sequence[Any] | Interval], metrics: Sequence[str]) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    experiment = api_pb2.Experiment()
    for key, domain in hparams.items():
        name = f"{key}.name" if key in NAMED else key
        if name == "seed":  # the seeds of a configuration are one row
            continue
        info = experiment.hparam_infos.add(name=name, differs=True)
        if isinstance(domain, Interval):
            info.type = api_pb2.DATA_TYPE_FLOAT64
            info.domain_interval.min_value, info.domain_interval.max_value = domain
            continue
        values = [_plain(value) for value in domain]
        if values and all(isinstance(value, bool) for value in values):
            info.type = api_pb2.DATA_TYPE_BOOL
        elif values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            info.type = api_pb2.DATA_TYPE_FLOAT64
        else:
            info.type, values = api_pb2.DATA_TYPE_STRING, [str(value) for value in values]
        for value in values:
            info.domain_discrete.values.add(
                **{"bool_value" if isinstance(value, bool) else "string_value" if isinstance(value, str)
                   else "number_value": value}
            )  # fmt: skip
    for tag in metrics:
        experiment.metric_infos.add(name={"tag": tag})
    return experiment


def _plain(value: Any) -> Any:
    """A word of the command line as the value it stands for."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        return float(value)
    with contextlib.suppress(yaml.YAMLError):
        return yaml.safe_load(value)
    return value


# -- the bands of CUSTOM SCALARS ---------------------------------------------------------------------------------


@_harmless()
def finish(directory: Path) -> None:
    """Write for each configuration, as the run summary/CONFIGURATION, mean and band over its seeds as `rlx plot` draws
    them; the layout that shows these as margin charts; and, in the TEXT tab, what became of every configuration's runs.
    Called again, it replaces what it wrote."""
    found = runs.find(directory)
    made, _ = configurations.read(found)
    if not any(any(path.glob("events.out.tfevents.*")) for path in found):  # tensorboard=false
        return
    names = _file_names(made)
    charts: dict[str, list[str]] = {}  # environment or task: metrics
    points: dict[str, dict[int, dict[str, float]]] = {}  # configuration: step: tag: value
    for metric in itertools.chain(*METRICS.values()):
        try:
            picture = plot.build(found, metric)
        except UserError:  # no run has it
            continue
        for place, lines in picture.panels.items():
            charts.setdefault(place, []).append(metric)
            for line in lines:
                rows = points.setdefault(names[line.curves[0].identity], {})
                for x, *values in zip(line.x, line.mean, line.low or line.mean, line.high or line.mean):
                    rows.setdefault(round(x), {}).update(zip(_tags(place, metric), values))
    for name, rows in points.items():
        board = Dashboard(directory / BANDS / name, purge_step=0)
        for step in sorted(rows):
            board.scalars(step, rows[step])
        board.close()
    for path in (directory / BANDS).glob("*"):
        _replace(path, "", keep=path.name in points)
    board = Dashboard(directory, suffix=LAYOUT)
    board.layout(_layout(charts))
    board.text("all_runs", _table(made))  # (the first of the tab)
    board.close()
    _replace(directory, LAYOUT)


def _table(made: Sequence[configurations.Configuration]) -> str:
    """As Markdown: a crash is a line here, even where other seeds of its configuration went well."""
    lines = ["| where | configuration | mean of the last evaluations | runs | first error |", "|---|---|---|---|---|"]
    for one in made:
        said = [runs.status(path) for path, _ in one.runs]
        scores = [score({"eval": status.get("evaluation")}) for status in said]
        known = [value for value in scores if value is not None]
        states = Counter(runs.state_of(status) for status in said)
        error = next((str(status["error"]) for status in said if status.get("error")), "")
        mean = f"{sum(known) / len(known):.6g}" if known else ""
        came = ", ".join(f"{count} {state}" for state, count in states.items())
        lines.append(f"| {' | '.join(map(_cell, (one.place, one.label, mean, came, error[:300])))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return re.sub(r"[|\\`*_\[\]<>&\n\r]", lambda found: f"&#{ord(found[0])};", text)


def _tags(place: str, metric: str) -> list[str]:
    return [f"{place}/{metric}/{what}" for what in ("mean", "low", "high")]


def _layout(charts: Mapping[str, Sequence[str]]) -> Any:
    from tensorboard.plugins.custom_scalar import layout_pb2

    layout = layout_pb2.Layout(version=0)
    for place, metrics in charts.items():
        category = layout.category.add(title=place)
        for metric in metrics:
            mean, low, high = _tags(place, metric)
            category.chart.add(title=metric).margin.series.add(value=mean, lower=low, upper=high)
    return layout


def _file_names(made: Sequence[configurations.Configuration]) -> dict[str, str]:
    """A directory's name for each configuration; one label in several places is one directory."""
    taken: dict[str, str] = {}
    for label in dict.fromkeys(one.label for one in made):
        plain = re.sub(r"[^\w=.,+-]+", "_", label.replace(", ", ",")).strip("._")[:100] or "all"
        free = (plain if i == 1 else f"{plain}_{i}" for i in itertools.count(1))
        taken[label] = next(name for name in free if name not in taken.values())
    return {one.identity: taken[one.label] for one in made}


def _replace(directory: Path, suffix: str, keep: bool = True) -> None:
    """Remove the event files with this suffix but the newest, or all of them and the directory."""
    paths = sorted(path for path in directory.glob(f"events.out.tfevents.*{suffix}"))
    with contextlib.suppress(OSError):
        for path in paths[:-1] if keep else paths:
            path.unlink()
        if not keep:
            directory.rmdir()
