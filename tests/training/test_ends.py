"""How a run is named, when it ends before its last step, and what is said of that."""

import json
from pathlib import Path

import pytest
from command_line import Forks
from fake_runs import make_run

from rlx.analysis import stopping
from rlx.analysis.compare import build as comparing
from rlx.analysis.curves import build as plotting
from rlx.base.errors import UserError
from rlx.config.keys import curve
from rlx.config.schema import seconds

SHORT = ["total_steps=4096", "eval_every=512", "eval_episodes=2", "video=false", "tensorboard=false"]


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("1h30m", 5400), ("1d", 86400), ("2.5", 2.5), ("2x", 0), ("", 0), ("0s", 0)]
)
def test_a_time_is_read_as_it_is_written(text: str, value: float) -> None:
    assert seconds(text) == value


def test_a_run_whose_time_is_over_goes_on_to_the_same_weights(forks: Forks, tmp_path: Path) -> None:
    whole = forks("train", *SHORT, cwd=tmp_path)
    done = forks("train", *SHORT, "max_time=0.01", "tags=[paper,x]", "name=first", "notes=a, b: c", cwd=tmp_path)
    shown = json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)
    assert done.code == 0 and f"next: rlx resume {done.run}" in done.out
    assert (shown["status"], shown["name"], shown["tags"], shown["notes"]) == (
        "interrupted", "first", ["paper", "x"], "a, b: c",
    )  # fmt: skip
    again = forks("resume", done.run, "max_time=null", "--quiet", cwd=tmp_path)
    assert again.out == f"run: {done.run}\n"
    ended = [json.loads(forks("show", run, "--json", cwd=tmp_path).out) for run in (whole.run, done.run)]
    assert ended[0]["weights_sha256"] == ended[1]["weights_sha256"]
    listed = [
        json.loads(forks("ls", "--where", where, "--json", cwd=tmp_path).out) for where in ("tag=x", "name=first")
    ]
    assert [[row["run"] for row in rows] for rows in listed] == [[done.run]] * 2
    assert json.loads(forks("diff", whole.run, done.run, "--json", cwd=tmp_path).out)["same_config"]


def test_a_run_ends_at_its_first_good_evaluation_and_says_so(forks: Forks, tmp_path: Path) -> None:
    done = forks("train", *SHORT, "stop_at=5", "--json", cwd=tmp_path)
    shown = json.loads(forks("show", done.run, "--json", cwd=tmp_path).out)
    assert (shown["status"], shown["step"], shown["stopped_at"]) == ("finished", 512, 5)
    events = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert [events[0]["event"], events[-1]["event"]] == ["begun", "ended"] and events[-1]["run"] == done.run
    assert {event["event"] for event in events[1:-1]} == {"step"} and done.out == f"run: {done.run}\n"
    refused = forks("train", *SHORT, "stop_at=5", "eval_every=0", cwd=tmp_path)
    assert refused.code == 2 and "stop_at=5: only an evaluation can reach it" in refused.err


def test_runs_that_stopped_at_a_good_evaluation_are_not_mixed_with_others(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path / "whole", f"a{seed}", [(1, 1.0)], seed=seed, score=1.0)
        path = make_run(tmp_path / "stopped", f"b{seed}", [(1, 1.0)], seed=seed, score=2.0)
        (path / "config.yaml").write_text((path / "config.yaml").read_text() + "stop_at: 475.0\n")
    sides = [str(tmp_path / name) for name in ("whole", "stopped")]
    with pytest.raises(UserError, match=r"compare: .* flatters.*A: no stop_at; B: stop_at=475"):
        comparing.build(sides)
    runs = [path for side in sides for path in Path(side).iterdir()]
    with pytest.raises(UserError, match="plot: .* flatters"):
        plotting.build(runs, "", by=["algo.name"])
    assert any("stop_at=475" in note for note in plotting.build(runs, "").notes)
    assert stopping.check({"A": [{"stop_at": 3.0}], "B": [{"stop_at": 3.0}]}, "compare")
    assert curve({"stop_at": None, "env.name": "x"}) == {"env.name": "x"}  # as before there was one


def test_a_dry_run_checks_and_writes_nothing(forks: Forks, tmp_path: Path) -> None:
    one = forks("train", *SHORT, "--dry-run", cwd=tmp_path)
    grid = forks("train", "-m", "seed=1,2", "--dry-run", cwd=tmp_path)
    chain = forks("train", "experiment=rlhf_names", "--dry-run", cwd=tmp_path)
    assert one.out.startswith("ppo on cartpole, seed 1, 4,096 steps") and grid.out.splitlines()[:2] == [
        "seed=1",
        "seed=2",
    ]
    assert chain.out.startswith("rlx train algo=pretrain") and list(tmp_path.iterdir()) == []
    wrong = forks("train", "algo.lr=-1", "--dry-run", cwd=tmp_path)
    assert wrong.code == 2 and "algo.lr=-1" in wrong.err
