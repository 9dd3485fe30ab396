"""Loggers: each step once, whatever happens; and nothing that happens in one reaches the run."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Forks
from tiny_runs import Child, die, die_at, record, result, resume, train

from rlx.base.errors import ConfigError
from rlx.rundir.checkpoint import Checkpoints
from rlx.rundir.metrics import read_metrics

MINE = Path(__file__).parents[1] / "fixtures" / "workshop" / "my_loggers.py"
LINES = f"{MINE}:Lines"


def lines(path: Path, name: str = "lines.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def by_step(path: Path) -> dict[int, dict[str, Any]]:
    """The truth, one dictionary a step."""
    rows: dict[int, dict[str, Any]] = {}
    for row in read_metrics(path / "metrics.jsonl"):
        rows.setdefault(row["step"], {}).update(row)
    return rows


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if not key.startswith("time/") and key != "step"}


def table(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_each_step_once(path: Path) -> None:
    truth = by_step(path)
    logged = [line for line in lines(path) if line["what"] == "log"]
    assert [line["step"] for line in logged] == list(truth)
    assert [timeless(line["metrics"]) for line in logged] == [timeless(row) for row in truth.values()]
    rows = table(path)
    assert [int(row["step"]) for row in rows] == list(truth)
    for row, true in zip(rows, truth.values()):
        assert {key: float(value) for key, value in row.items() if value and not key.startswith("time/")} == {
            key: float(value) for key, value in true.items() if not key.startswith("time/")
        }


def test_each_step_arrives_once_with_all_that_metrics_jsonl_has_of_it(tmp_path: Path) -> None:
    path = train(tmp_path, logger=["csv", LINES])
    check_each_step_once(path)
    first, *_, last = lines(path)
    assert first == {"what": "start", "step": 0, "seed": 1, "name": first["name"], "algo": "ppo"}
    assert first["name"].startswith("cartpole/ppo/") and last == {"what": "finish", "status": "finished"}
    assert not list(path.glob("events*"))  # a list is exactly what is written


@pytest.mark.parametrize("steps", [[150], [100, 200, 300], [64, 320]], ids=str)
def test_killed_and_resumed_each_step_has_arrived_once(steps: list[int], tmp_path: Path) -> None:
    path = tmp_path / "run"
    first, *more = [die_at(step) for step in steps]
    lives = [partial(train, tmp_path, name="run", progress=first, logger=["csv", LINES])]
    lives += [partial(resume, path, progress=die) for die in more]
    assert [Child(life).wait() for life in lives] == [-signal.SIGKILL] * len(steps)
    resume(path)
    check_each_step_once(path)
    assert [line["step"] for line in lines(path) if line["what"] == "start"][0] == 0
    assert result(path) == result(train(tmp_path, logger=["csv"]))


def test_killed_right_behind_a_checkpoint_its_step_has_arrived(tmp_path: Path) -> None:
    real = Checkpoints.save

    def save(self: Checkpoints, kind: str, step: int, *args: Any, **kwargs: Any) -> Any:
        saved = real(self, kind, step, *args, **kwargs)
        if kind == "step" and step >= 128:
            die()
        return saved

    def life() -> None:
        Checkpoints.save = save  # type: ignore[method-assign]
        train(tmp_path, name="run", logger=["csv", LINES])

    assert Child(life).wait() == -signal.SIGKILL
    resume(tmp_path / "run")
    check_each_step_once(tmp_path / "run")


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_one_that_raises_is_one_warning_and_the_run_is_the_same(where: str, tmp_path: Path, capsys) -> None:
    broken = {"name": f"{MINE}:Broken", "kwargs": {"where": where}}
    path = train(tmp_path, logger=[broken, LINES, "csv"])
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and f"Broken: no network in {where}; it is left out" in warnings[0]
    assert record(path)["failed"] == {"loggers": 1}
    check_each_step_once(path)
    assert result(path) == result(train(tmp_path))


def test_tensorboard_is_one_of_them_and_an_empty_list_is_none(tmp_path: Path) -> None:
    for logger, tensorboard, drawn in ((["tensorboard"], False, True), ([], True, False), (None, True, True)):
        path = train(tmp_path, logger=logger, tensorboard=tensorboard)
        assert bool(list(path.glob("events*"))) is drawn and not (path / "metrics.csv").exists()


@pytest.mark.parametrize(
    "logger, says",
    [
        (["cvs"], r"logger=cvs: no such logger; did you mean 'csv'"),
        ([{"nam": "csv"}], r"logger=.*must be a name or"),
        ([f"{MINE}:Nobody"], "has no Nobody"),
        (["json:JSONDecoder"], "json:JSONDecoder: has no start and no log and no finish"),
        ([{"name": LINES, "kwargs": {"files": 1}}], "files"),
        ([{"name": "csv", "kwargs": {"x": 1}}], "logger=csv: kwargs="),
    ],
)
def test_what_is_none_is_refused_before_anything_is_written(logger: list[Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        train(tmp_path / "runs", logger=logger)
    assert not (tmp_path / "runs").exists()


def test_from_the_command_line_and_in_a_grid(forks: Forks, tmp_path: Path) -> None:
    shutil.copy(MINE, tmp_path / "my_loggers.py")
    done = forks("train", *TINY, "logger=[csv,./my_loggers.py:Lines]", cwd=tmp_path)
    assert done.code == 0, done.err
    check_each_step_once(tmp_path / done.run)
    assert forks("train", "-m", *TINY, "logger=[csv]", "seed=1,2", cwd=tmp_path).code == 0
    assert len(list(tmp_path.rglob("metrics.csv"))) == 3
    assert "csv" in forks("list", "loggers", cwd=tmp_path).out


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    path = tmp_path / "run"
    logger = [{"name": "wandb", "kwargs": {"project": "trial"}}, LINES]
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(150), logger=logger)).wait() == -signal.SIGKILL
    resume(path)
    check_each_step_once_of_lines(path)
    assert len(list((path / "wandb").glob("offline-run-*/*.wandb"))) == 2


def test_mlflow_in_files(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    path = tmp_path / "run"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(150), logger=["mlflow", LINES])).wait() < 0
    resume(path)
    check_each_step_once_of_lines(path)
    from mlflow import MlflowClient

    client = MlflowClient((path / "mlruns").as_uri())
    [run] = client.search_runs([client.get_experiment_by_name("rlx").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["algo.name"] == "ppo"
    history = client.get_metric_history(run.info.run_id, "train/value_loss")
    truth = [(step, row["train/value_loss"]) for step, row in by_step(path).items() if "train/value_loss" in row]
    assert [(each.step, pytest.approx(each.value)) for each in history] == truth


def check_each_step_once_of_lines(path: Path) -> None:
    assert [line["step"] for line in lines(path) if line["what"] == "log"] == list(by_step(path))
