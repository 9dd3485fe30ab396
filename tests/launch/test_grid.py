"""`rlx train -m`: no job hides or stops another, and what is finished is not done again."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import CRASH, TINY, Done, Forks
from waiting import until

from rlx.launch import grid

JOBLIB = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def killed(once: Path) -> list[str]:
    """Overrides of jobs of which the one with after=100 is killed once."""
    kwargs = [f"+env.kwargs.once={once}", "+env.kwargs.after=9000,100,9001"]
    return ["env=gym", "env.id=rlx_random.envs:Killed-v0", *kwargs, *TINY]


def statuses(grid: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(grid.glob("*/status.json"))}


def weights(done: Done, cwd: Path) -> list[str]:
    return [status["weights_sha256"] for status in statuses(cwd / done.run).values()]


@pytest.mark.parametrize("launcher", [[], JOBLIB], ids=["basic", "joblib"])
def test_a_killed_job_stops_no_other_and_is_finished_by_continue(
    launcher: list[str], tmp_path: Path, forks: Forks
) -> None:
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [*killed(tmp_path / "once"), *launcher]
    done = forks("train", "-m", *words, cwd=tmp_path)
    assert done.code == 1 and done.out.splitlines()[-2] == "2 of 3 jobs finished", done
    assert "killed by SIGKILL" in done.out and "killed by SIGKILL" in done.err and "Traceback" not in done.err
    before = statuses(tmp_path / done.run)
    assert {"killed by SIGKILL"} == {one["error"] for one in before.values() if one["status"] == "running"}
    again = forks("train", "-m", *words, "--continue", cwd=tmp_path)
    assert again.code == 0 and again.run == done.run and "3 of 3 jobs finished" in again.out, again
    after = statuses(tmp_path / done.run)
    assert len(after) == 3 and [name for name in before if before[name] == after[name]] == [
        name for name in before if before[name]["status"] == "finished"
    ]
    never = forks("train", "-m", *words, cwd=tmp_path)
    assert never.run != done.run and weights(never, tmp_path) == weights(done, tmp_path)


def test_a_failing_job_is_shown_and_tried_again_by_continue(tmp_path: Path, forks: Forks) -> None:
    words = [*CRASH, "+env.kwargs.after=100,9000", *TINY]
    done = forks("train", "-m", *words, cwd=tmp_path)
    assert done.code == 1 and "ZeroDivisionError" in done.out and "1 of 2 jobs finished" in done.out
    log = (tmp_path / done.run / "output.log").read_text()
    again = forks("train", "-m", "--continue", *words, cwd=tmp_path)
    assert again.code == 1 and again.run == done.run and "1 of 2 jobs finished" in again.out
    assert len((tmp_path / done.run / "output.log").read_text()) > len(log)


def test_continue_of_another_command_is_another_grid(tmp_path: Path, forks: Forks) -> None:
    first = forks("train", "-m", "seed=1,2", *TINY, cwd=tmp_path)
    other = forks("train", "-m", "seed=1,3", *TINY, "--continue", cwd=tmp_path)
    assert (first.code, other.code) == (0, 0) and first.run != other.run


def test_a_torn_or_strange_line_hides_no_later_job(tmp_path: Path) -> None:
    for text in ('{"job": 0, "ru', "[]\n", "{}\n", ""):
        (tmp_path / "jobs.jsonl").write_text(text)
        grid.record(tmp_path, 1, "1_x", ["seed=1"])
        assert [job["run"] for job in grid.Grid(tmp_path, 2, []).jobs()] == ["1_x"]


@pytest.mark.parametrize("text", ["{}", "[]", "null", '{"asked": 1}', "{"])
def test_a_damaged_record_of_another_grid_is_passed_over(text: str, tmp_path: Path, forks: Forks) -> None:
    damaged = tmp_path / "runs" / "sweeps" / "other" / "sweep.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text(text)
    done = forks("train", "-m", "seed=1,2", *TINY, "--continue", cwd=tmp_path)
    assert done.code == 0 and "2 of 2 jobs finished" in done.out, done


def test_continue_waits_for_no_grid_that_still_runs(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "-m", "seed=1,2", *TINY, cwd=tmp_path)
    (run, *_) = sorted(Path(tmp_path / done.run).glob("*/status.json"))
    process = subprocess.Popen(["sleep", "60"])
    try:
        from rlx.base import process as processes

        started = processes._started(process.pid)
        me = {**processes.me(), "pid": process.pid, "process_started": started}
        run.write_text(json.dumps({**json.loads(run.read_text()), "status": "running", **me}))
        again = forks("train", "-m", "seed=1,2", *TINY, "--continue", cwd=tmp_path)
    finally:
        process.kill()
        process.wait()
    assert again.code == 2 and "still running" in again.err and len(again.err.splitlines()) == 1


def test_continue_is_for_grids(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "seed=1", "--continue", cwd=tmp_path)
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "rlx resume" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_grid_says_how_to_go_on_and_does(number: int, code: int, tmp_path: Path, forks: Forks) -> None:
    words = ["-m", "seed=1,2", "total_steps=12_000", "eval_every=0", "video=false", "tensorboard=false"]
    process = forks.begin("train", *words, cwd=tmp_path)
    try:
        until(lambda: list(tmp_path.glob("runs/sweeps/*/*/metrics.jsonl")))
        process.send_signal(number)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == code, (out, err)
    assert "--continue" in err.splitlines()[-1] and "Traceback" not in err
    grid = tmp_path / out.splitlines()[-1].removeprefix("run: ")
    assert [status["status"] for status in statuses(grid).values()] == ["interrupted"]
    again = forks("train", *words, "--continue", cwd=tmp_path)
    assert again.code == 0 and tmp_path / again.run == grid and "2 of 2 jobs finished" in again.out, again


def test_workers_of_a_killed_grid_begin_no_further_job(tmp_path: Path, forks: Forks) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [
        "-m",
        "seed=1,2,3,4,5,6",
        "algo.engine=torch",
        "total_steps=12_000",
        "eval_every=0",
        "video=false",
        "tensorboard=false",
    ]
    process = forks.begin("train", *words, *JOBLIB, cwd=tmp_path)
    try:
        until(lambda: list(tmp_path.glob("runs/sweeps/*/*/metrics.jsonl")))
        early = forks("train", *words, "--continue", cwd=tmp_path)
    finally:
        process.kill()
        process.wait()
    assert early.code == 2 and f"still running (process {process.pid})" in early.err
    (grid,) = tmp_path.glob("runs/sweeps/*")
    states, since = [], time.monotonic()
    while "running" in states or time.monotonic() - since < 2.0:  # what had begun comes to its end
        time.sleep(0.05)
        now = [status["status"] for status in statuses(grid).values()]
        if now != states:
            states, since = now, time.monotonic()
    assert len(states) < 6
    again = forks("train", *words, "--continue", cwd=tmp_path)
    assert again.code == 0 and "6 of 6 jobs finished" in again.out, again


def test_jobs_that_run_at_once_are_those_that_run_one_after_the_other(forks: Forks, tmp_path: Path) -> None:
    grids = [forks("train", "-m", "seed=1,2,3", *words, *TINY, cwd=tmp_path) for words in (["-j", "3"], [])]
    hashes = []
    for done in grids:
        assert done.code == 0 and "3 of 3 jobs finished" in done.out, done.err
        rows = json.loads(forks("ls", done.run, "--json", cwd=tmp_path).out)
        hashes.append({row["seed"]: row["weights_sha256"] for row in rows})
    assert hashes[0] == hashes[1] and len(set(hashes[0].values())) == 3
