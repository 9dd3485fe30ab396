"""status.json and run.json as objects: what is written is what 0.1.0 wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_runs import Child, die_at, resume, train

from rlx.base import process
from rlx.rundir.layout import LastEvaluation, Status
from rlx.rundir.provenance import Provenance

ME = ["pid", "process_started", "boot", "host"]
BEGUN = ["format", "status", "step", "total_steps", "checkpoint", "evaluation", *ME]
RECORD = [
    "format", "command", "started", "algo", "env", "env_id", "seed", "device", "threads", "versions", "host", "machine",
    "git",
]  # fmt: skip


def keys(file: Path) -> list[str]:
    return list(json.loads(file.read_text()))


def test_the_keys_of_a_status_and_a_record_stand_in_their_order(tmp_path: Path) -> None:
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(208))).wait() < 0
    path = tmp_path / "run"
    assert keys(path / "run.json") == ["notices", "resumes", *RECORD, "facts", "engine"]
    assert keys(path / "status.json") == [*BEGUN, "heartbeat"]
    resume(path)
    assert keys(path / "run.json") == ["notices", "resumes", *RECORD, "facts", "engine"]
    assert keys(path / "status.json") == [*BEGUN, "weights_sha256", "heartbeat"]
    assert keys(path / "status.json") == list(Status.read(path).to_json())
    evaluation = json.loads((path / "status.json").read_text())["evaluation"]
    assert list(evaluation) == ["step", "score", "mean_reward", "std_reward", "episodes"]


def test_a_run_that_failed_has_its_error_before_the_heartbeat(tmp_path: Path) -> None:
    Status(status="failed", step=3, total_steps=5, error="e", traceback="t", **process.me()).beat(tmp_path)
    assert keys(tmp_path / "status.json") == [*BEGUN, "error", "traceback", "heartbeat"]


@pytest.mark.parametrize("document", [Status, Provenance])
def test_a_document_read_and_written_is_the_file_it_was(document: type, tmp_path: Path) -> None:
    path = train(tmp_path)
    before = (path / document.FILE).read_bytes()
    document.load(path).write(path)
    assert (path / document.FILE).read_bytes() == before


@pytest.mark.parametrize(
    "tree, value, comparable",
    [
        ({"score": 1, "mean_reward": 2}, 1, 1.0),
        ({"mean_reward": 2.5}, 2.5, 2.5),  # of runs before there was a score
        ({"score": float("inf")}, float("inf"), None),
        ({"score": True}, None, None),
        ({"score": "x"}, None, None),
        (None, None, None),
    ],
)
def test_an_evaluation_has_one_score(tree: object, value: object, comparable: object) -> None:
    evaluation = LastEvaluation.of(tree)
    assert (evaluation.value, evaluation.comparable) == (value, comparable)


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 10**299, True, "1", None])
def test_no_process_has_a_number_that_is_none(pid: object) -> None:
    me = {**process.me(), "pid": pid, "heartbeat": process.now(), "status": "running"}
    assert Status.of(me).state == "killed"
