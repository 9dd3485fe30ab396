"""What TensorBoard shows of a grid, as TensorBoard's own back ends answer; and `rlx dash`, which starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from command_line import Forks, command, entries, environment
from fake_runs import make_run, ramp
from hparams_page import hparams_tab
from waiting import PATIENCE, until

from rlx.analysis.curves import summary
from rlx.config.older_runs import METRICS as OF_WORLD
from rlx.rundir import tensorboard_grid
from rlx.rundir.tensorboard_grid import Interval

METRICS = OF_WORLD["control"]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """2 configurations x 3 seeds that finished; of a third one a run that failed and one that was killed."""
    here = tmp_path / "runs" / "sweeps" / "grid"
    for seed in (1, 2, 3):
        make_run(here, f"a{seed}", ramp(seed), seed=seed, lr=0.5, score=100.0 * seed, events=True)
        make_run(here, f"b{seed}", ramp(3), seed=seed, lr=0.25, score=7.0, events=True)
    make_run(here, "c1", [], seed=1, lr=9.0, status="failed", error="FloatingPointError: NaN", events=True)
    make_run(here, "c2", ramp(1, 50), seed=2, lr=9.0, status="running", score=3.0, events=True)
    return here


def rows(directory: Path) -> dict[float, dict[str, Any]]:
    return {row["hparams"]["algo.lr"]: row for row in hparams_tab(directory).values()}


def plugin_answers(directory: Path) -> tuple[Any, Any]:
    """(what the custom-scalars tab lays out, read(run, tag) -> [(step, value)])."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
    from tensorboard.plugins.custom_scalar import layout_pb2

    root = EventAccumulator(str(directory / "summary")).Reload()
    content = root.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    assert list(root.PluginTagToContent("custom_scalars")) == ["custom_scalars__config__"]

    def read(run: str, tag: str) -> list[tuple[int, float]]:
        events = EventAccumulator(str(directory / run), size_guidance={SCALARS: 0}).Reload()
        return [(event.step, event.value) for event in events.Scalars(tag)]

    return layout_pb2.Layout.FromString(content), read


# -- HPARAMS -------------------------------------------------------------------------------------------------------


def test_a_grid_has_a_row_per_configuration_with_the_mean_over_its_seeds(grid: Path) -> None:
    tensorboard_grid.columns(
        grid, {"seed": ["1", "2", "3"], "algo.lr": ["0.5", "0.25", "9.0"], "env": ["cartpole"]}, METRICS
    )
    tab = rows(grid)
    assert set(tab) == {0.5, 0.25, 9.0}
    assert tab[0.5]["metrics"]["eval/mean_reward"] == 200 and tab[0.25]["metrics"]["eval/mean_reward"] == 7
    assert tab[0.5]["status"] == ["success"] * 3


def test_a_run_that_failed_and_one_that_was_killed_stay_visible(grid: Path) -> None:
    tensorboard_grid.columns(grid, {"algo.lr": [0.5, 0.25, 9.0]}, METRICS)
    assert rows(grid)[9.0]["status"] == ["failure", "unknown"]
    assert rows(grid)[9.0]["metrics"]["eval/mean_reward"] == 3


def test_the_columns_are_what_was_swept_and_the_scores(grid: Path) -> None:
    hparams = {"seed": [1, 2], "algo.lr": Interval(1e-5, 1e-2), "env": ["cartpole"], "algo.norm": [True, False]}
    tensorboard_grid.columns(grid, {"algo.old": [1]}, METRICS)
    tensorboard_grid.columns(grid, hparams, METRICS)
    found = columns(grid)
    infos = {info.name: info for info in found.hparam_infos}
    assert set(infos) == {"algo.lr", "env.name", "algo.norm"}
    assert (infos["algo.lr"].domain_interval.min_value, infos["algo.lr"].domain_interval.max_value) == (1e-5, 1e-2)
    assert [value.string_value for value in infos["env.name"].domain_discrete.values] == ["cartpole"]
    assert [value.bool_value for value in infos["algo.norm"].domain_discrete.values] == [True, False]
    assert [info.name.tag for info in found.metric_infos] == ["eval/mean_reward", "rollout/ep_rew_mean"]


def columns(directory: Path) -> Any:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment

    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(TBContext(logdir=str(directory), data_provider=provider))
    request = api_pb2.GetExperimentRequest(include_metrics=True)
    return get_experiment.Handler(RequestContext(), context, "", request).run()


def configurations(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "summary").glob("*/"))


def test_no_run_has_the_name_dot_and_the_bands_are_the_last_of_scalars(grid: Path) -> None:
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    tensorboard_grid.columns(grid, {"algo.lr": [0.5]}, METRICS)
    summary.write(grid)
    runs = EventMultiplexer().AddRunsFromDirectory(str(grid)).Reload()
    assert "." not in runs.Runs()
    tags = {run: set(runs.PluginRunToTagToContent("scalars").get(run, ())) for run in runs.Runs()}
    bands = set().union(*(tags[run] for run in tags if run.startswith("summary/")))
    others = set().union(*(tags[run] for run in tags if not run.startswith("summary")))
    assert bands and others and min(bands) > max(others)


# -- CUSTOM SCALARS ------------------------------------------------------------------------------------------------


def test_a_grid_has_a_band_per_configuration_with_mean_lowest_and_highest_seed(grid: Path) -> None:
    summary.write(grid)
    layout, read = plugin_answers(grid)
    assert configurations(grid) == ["lr=0.25", "lr=0.5", "lr=9"]
    [category] = layout.category
    assert category.title == "cartpole" and [chart.title for chart in category.chart] == [
        "eval/mean_reward",
        "rollout/ep_rew_mean",
    ]
    [series] = category.chart[1].margin.series
    curves = {what: dict(read("summary/lr=0.5", getattr(series, what))) for what in ("value", "lower", "upper")}
    assert curves["value"][100] == 200 and curves["lower"][100] == 100 and curves["upper"][100] == 300
    assert [step for step, _ in read("summary/lr=9", series.value)] == sorted(
        step for step, _ in read("summary/lr=9", series.value)
    )


def test_finish_called_again_replaces_what_it_wrote(grid: Path) -> None:
    summary.write(grid)
    before = {name for name in entries(grid) if "tfevents" not in name}
    make_run(grid, "a4", ramp(10), seed=4, lr=0.5, score=1000.0, events=True)
    for path in grid.glob("b?"):
        path.rename(grid.parent / path.name)
    summary.write(grid)
    layout, read = plugin_answers(grid)
    assert configurations(grid) == ["lr=0.5", "lr=9"]
    assert [len(list(path.iterdir())) for path in (grid / "summary").glob("lr=*/")] == [1, 1]
    assert len(list(grid.rglob("*.layout"))) == 1 and "summary/lr=0.25" in before
    steps = [step for step, _ in read("summary/lr=0.5", layout.category[0].chart[1].margin.series[0].upper)]
    assert len(steps) == len(set(steps))
    assert read("summary/lr=0.5", layout.category[0].chart[0].margin.series[0].upper)[-1] == (100, 1000)


def test_what_became_of_the_runs_stands_in_the_text_tab(grid: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    summary.write(grid)
    root = EventAccumulator(str(grid / "summary")).Reload()
    text = root.Tensors("all_runs")[-1].tensor_proto.string_val[0].decode()
    rows = {line.split(" | ")[1]: line.strip("| ").split(" | ")[2:] for line in text.splitlines()[2:]}
    assert rows["lr=0.5"][:2] == ["200", "3 finished"]
    assert rows["lr=9"] == ["3", "1 failed, 1 killed", "FloatingPointError: NaN"]


def test_configurations_whose_names_look_alike_keep_their_own_bands(tmp_path: Path) -> None:
    for seed, text in enumerate(["a/b", "a b", "a:b"]):
        make_run(tmp_path, str(seed), ramp(seed + 1), weight=text, events=True)
    summary.write(tmp_path)
    assert len(configurations(tmp_path)) == 3


def test_a_grid_without_a_run_and_one_that_cannot_be_written_end_nothing(tmp_path: Path, capsys: Any) -> None:
    summary.write(tmp_path)
    assert entries(tmp_path) == set() and capsys.readouterr().err == ""
    (tmp_path / "file").write_text("")
    tensorboard_grid.columns(tmp_path / "file", {"algo.lr": [1]}, METRICS)
    make_run(tmp_path, "a", ramp(1), events=True)
    (tmp_path / "summary").write_text("")
    summary.write(tmp_path)
    assert capsys.readouterr().err.count("warning:") >= 2


def test_the_pages_of_a_grid_need_no_torch(grid: Path) -> None:
    code = "import sys; from rlx.rundir import tensorboard_grid; from rlx.analysis.curves import summary\n"
    code += "from pathlib import Path\n"
    code += f"d = Path({str(grid)!r})\n"
    code += "tensorboard_grid.columns(d, {'algo.lr': [1]}, ['x']); summary.write(d)\n"
    code += "assert 'torch' not in sys.modules; print('done')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.stdout, done.stderr) == ("done\n", "")


# -- rlx dash ------------------------------------------------------------------------------------------------------


class Dash:
    """`rlx dash words...`, and the address that it prints."""

    def __init__(self, *words: str, cwd: Path) -> None:
        code = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from rlx.cli.main import main; main()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "dash", *words], cwd=cwd, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout
        self.line = self.process.stdout.readline()

    def end(self, number: int, group: bool) -> int:
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self.process.wait(PATIENCE)


@pytest.mark.parametrize("number, group, code", [(signal.SIGINT, True, 0), (signal.SIGTERM, False, 143)])
def test_dash_prints_its_address_once_it_answers_and_leaves_nothing_running(
    number: int, group: bool, code: int, grid: Path
) -> None:
    tensorboard_grid.columns(grid, {"algo.lr": [1]}, METRICS)
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with contextlib.suppress(OSError):  # by another program: as good
        taken.bind(("127.0.0.1", 6006))
        taken.listen()
    with taken:
        dash = Dash(cwd=grid.parents[2])
        try:
            address = dash.line.split()[0]
            port = int(address.rpartition(":")[2])
            assert address == f"http://localhost:{port}" and 6006 < port < 6106
            with urllib.request.urlopen(address, timeout=PATIENCE) as page:
                assert page.status == 200
        finally:
            assert dash.end(number, group) == code
    assert dash.process.stderr and dash.process.stderr.read() == (
        "rlx: note: HPARAMS has the columns of one grid; of the newest: rlx dash runs/sweeps/grid\n"
    )

    def free() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("localhost", port)) != 0

    until(free)


def test_a_port_that_was_asked_for_and_is_taken_is_one_line(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = forks("dash", "--port", str(port), cwd=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and f"--port={port}" in done.err


def test_dash_imports_nothing_slow() -> None:
    code = (
        "import sys; from rlx.cli.verbs import dashboard; "
        "print({'torch', 'tensorboard', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.stdout == "set()\n", done.stderr
    assert command("dash")[-1] == "dash"
