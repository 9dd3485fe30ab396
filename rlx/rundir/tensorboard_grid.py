"""What TensorBoard shows of a grid or a search as a whole: the columns of its HPARAMS tab, and a band for each
configuration in its CUSTOM SCALARS tab. Both are event files beside the runs; the runs themselves say which of them
share a row.

    columns(grid, {"algo.lr": Interval(1e-5, 1e-2), "env": ["cartpole", "acrobot"]}, metrics)   before the first run
    bands(grid, rows, charts, table)                                                            after the last one

Neither raises: no run must end because of a picture. They warn on stderr. What the bands are: analysis.curves.summary.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from rlx.rundir.tensorboard import Dashboard

COLUMNS, LAYOUT, BANDS = ".columns", ".layout", "summary"
LAST = "~bands"  # sorts behind every letter
NAMED = ("algo", "env", "task", "model")  # groups of conf/ whose choice a run keeps as GROUP.name


class Interval(NamedTuple):
    """The interval that a search draws from."""

    low: float
    high: float


@contextlib.contextmanager
def harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        print(f"warning: the grid's page in TensorBoard is not complete ({reason})", file=sys.stderr)


# -- the columns of HPARAMS --------------------------------------------------------------------------------------


@harmless()
def columns(directory: Path, hparams: Mapping[str, Sequence[Any] | Interval], metrics: Sequence[str]) -> None:
    """Say which hyper-parameters (keys as on the command line; their values, or the interval they are drawn from) are
    the columns of HPARAMS, beside `metrics`. Without this TensorBoard shows everything it
    finds, some eighty columns. Called again, it replaces what it wrote."""
    dashboard = Dashboard(directory / BANDS, suffix=COLUMNS)  # (in the directory itself they were of a run called ".")
    dashboard.hparams_columns(_experiment(hparams, metrics))
    dashboard.close()
    _replace(directory / BANDS, COLUMNS)
    _replace(directory, COLUMNS, keep=0)


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

Rows = Mapping[str, Mapping[int, Mapping[str, float]]]  # configuration: step: tag: value


@harmless()
def bands(directory: Path, rows: Rows, charts: Mapping[str, Sequence[str]], table: str) -> None:
    """Write for each configuration, as the run summary/CONFIGURATION, the values of its `rows` (see `tags`); the layout
    that shows them as margin charts, `charts` of a place being its metrics; and `table` in the TEXT tab. Called again,
    it replaces what it wrote."""
    for name, steps in rows.items():
        dashboard = Dashboard(directory / BANDS / name, purge_step=0)
        for step in sorted(steps):
            dashboard.scalars(step, steps[step])
        dashboard.close()
    for path in (directory / BANDS).glob("*/"):
        _replace(path, "", keep=path.name in rows)
        if path.name not in rows:
            with contextlib.suppress(OSError):
                path.rmdir()
    dashboard = Dashboard(directory / BANDS, suffix=LAYOUT)
    dashboard.layout(_layout(charts))
    dashboard.text("all_runs", table)  # (the first of the tab)
    dashboard.close()
    _replace(directory / BANDS, LAYOUT)
    _replace(directory, LAYOUT, keep=0)


def tags(place: str, metric: str) -> list[str]:
    """The tags of the mean, the lower and the upper end of a band. CUSTOM SCALARS draws nothing that SCALARS does not
    list; there they come last."""
    return [f"{LAST}/{place}/{metric}/{what}" for what in ("mean", "low", "high")]


def _layout(charts: Mapping[str, Sequence[str]]) -> Any:
    from tensorboard.plugins.custom_scalar import layout_pb2

    layout = layout_pb2.Layout(version=0)
    for place, metrics in charts.items():
        category = layout.category.add(title=place)
        for metric in metrics:
            mean, low, high = tags(place, metric)
            category.chart.add(title=metric).margin.series.add(value=mean, lower=low, upper=high)
    return layout


def _replace(directory: Path, suffix: str, keep: int = 1) -> None:
    """Remove the event files with this suffix but for the newest one, or all."""
    paths = sorted(directory.glob(f"events.out.tfevents.*{suffix}"))
    with contextlib.suppress(OSError):
        for path in paths[: len(paths) - keep]:
            path.unlink()
