"""Performance profiles, and rlx show of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Forks
from fake_runs import make_run, ramp

from rlx.analysis import grids, statistics
from rlx.analysis.curves import draw, profiles
from rlx.analysis.curves.build import Plot
from rlx.rundir import query


def build(root: Path, *by: str) -> Plot:
    return profiles.build(query.find([str(root)]), by=by)


def runs(root: Path, env: str, name: str, scores: list[float]) -> None:
    for seed, score in enumerate(scores):
        make_run(root / env / name, f"s{seed}", ramp(1), seed=seed, env=env, name=name, score=score)


def at(line: object, level: float) -> float:
    return float(line.mean[int(np.searchsorted(line.x, level, side="right")) - 1])  # type: ignore[attr-defined]


def test_in_one_environment_it_is_the_share_of_runs_above_each_score(tmp_path: Path) -> None:
    scores = {"ppo": [100.0, 200.0, 200.0, 500.0], "dqn": [50.0, 500.0]}
    for name, each in scores.items():
        runs(tmp_path, "cartpole", name, each)
    plot = build(tmp_path)
    [lines] = plot.panels.values()
    assert [line.label for line in lines] == ["dqn (2 seeds)", "ppo (4 seeds)"]
    for line, values in zip(lines, (scores["dqn"], scores["ppo"])):
        for level in (49.0, 50.0, 100.0, 199.0, 200.0, 300.0, 499.9, 500.0):
            assert at(line, level) == pytest.approx(np.mean(np.array(values) > level)), (line.label, level)
    assert (plot.x, plot.stat, plot.notes) == ("score", "profile", [])


def test_over_environments_each_is_stretched_from_its_worst_to_its_best_and_weighs_the_same(tmp_path: Path) -> None:
    runs(tmp_path, "cartpole", "ppo", [500.0, 0.0])
    runs(tmp_path, "cartpole", "dqn", [250.0])
    runs(tmp_path, "acrobot", "ppo", [-100.0, -100.0, -200.0, -300.0])
    plot = build(tmp_path)
    [(title, [dqn, ppo])] = plot.panels.items()
    assert title == "2 environments" and plot.x == "normalised"
    assert at(ppo, 0.6) == pytest.approx((1 / 2 + 2 / 4) / 2) and at(ppo, 0.4) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert at(dqn, 0.49) == 1.0 and at(dqn, 0.5) == 0.0 and plot.notes == ["dqn (1 seed) has no run on acrobot"]
    middle = statistics.mean_improvement([profiles.share(1, 2), profiles.share(2, 4)])
    found = int(np.searchsorted(ppo.x, 0.6, side="right")) - 1
    assert (ppo.low[found], ppo.high[found]) == (pytest.approx(middle.low), pytest.approx(middle.high))
    assert "scores of each environment from 0, the worst run shown, to 1, the best" in draw.caption(plot)


def test_runs_that_did_not_finish_are_counted(tmp_path: Path) -> None:
    runs(tmp_path, "cartpole", "ppo", [1.0, 2.0])
    make_run(tmp_path, "x", ramp(1), status="failed")
    assert build(tmp_path).notes == ["left out 1 failed"]


def test_the_picture_and_the_table_of_a_profile(tmp_path: Path, forks: Forks) -> None:
    for env in ("cartpole", "acrobot"):
        runs(tmp_path, env, "ppo", [3.0, 4.0])
        runs(tmp_path, env, "dqn", [1.0, 2.0])
    done = forks("plot", ".", "--profile", "-o", "a.svg", cwd=tmp_path)
    assert done.code == 0 and done.err == "" and "2 environments" in done.out, done
    assert "share of runs above tau" in (tmp_path / "a.svg").read_text()
    found = json.loads(forks("plot", ".", "--profile", "--group-by", "algo.name,lr", "--json", cwd=tmp_path).out)
    assert found["stat"] == "profile" and len(found["panels"][0]["lines"]) == 2


def test_a_profile_of_nothing_is_one_line(tmp_path: Path, forks: Forks) -> None:
    make_run(tmp_path, "x", ramp(1), status="failed")
    done = forks("plot", ".", "--profile", cwd=tmp_path)
    assert done.code == 2 and "no finished run has eval (left out 1 failed)" in done.err


# -- rlx show of a grid -------------------------------------------------------------------------------------------


def test_the_jobs_of_a_grid_are_shown_with_what_they_differ_in(tmp_path: Path, forks: Forks) -> None:
    sweep = tmp_path / "sweep"
    jobs = []
    for i, status in enumerate(("finished", "failed", None, None)):
        words = ["env=cartpole", f"algo.lr={i}"]
        jobs.append({"job": i, "run": f"{i}_x", "overrides": words, "error": "Boom: no" if i == 1 or i == 3 else None})
        if status:
            make_run(sweep, f"{i}_x", ramp(1), status=status, score=7.5, lr=i)
    make_run(sweep, "10_x", ramp(1), status="running", seed=3)  # whose process is gone
    (sweep / "jobs.jsonl").write_text("".join(f"{json.dumps(job)}\n" for job in jobs) + '{"torn": ')
    found = grids.show(sweep)
    assert found["states"] == {"finished": 1, "failed": 2, "killed": 1, "removed": 1} and found["kind"] == "sweep"
    assert [job["run"] for job in found["jobs"]] == ["0_x", "1_x", "10_x", "2_x", "3_x"]
    assert found["jobs"][0]["params"] == {"env": "cartpole", "algo.lr": "0"} and found["jobs"][1]["error"] == "Boom: no"
    done = forks("show", "sweep", cwd=tmp_path)
    assert done.code == 0 and "algo.lr=0" in done.out and "Boom: no" in done.out
    assert done.out.splitlines()[-1] == "grid sweep: 1 finished, 2 failed, 1 killed, 1 removed"
    assert json.loads(forks("show", "sweep", "--json", cwd=tmp_path).out)["states"] == found["states"]


def test_the_trials_of_a_study_are_shown_by_number(tmp_path: Path, forks: Forks) -> None:
    study = tmp_path / "study"
    make_run(study, "trial_0000_s1", ramp(1), trial=0)
    (study / "study.json").write_text("{}")
    assert grids.show(study)["jobs"] == []
    rows = [
        {
            "number": 0,
            "state": "complete",
            "score": 471.5,
            "params": {"algo.lr": 1e-3, "algo.gamma": 0.9},
            "runs": ["a"],
        },
        {"number": 1, "state": "pruned", "score": None, "params": {"algo.lr": 1e-4, "algo.gamma": 0.9}, "error": None},
        {"number": 2, "state": "failed", "params": {"algo.lr": 2.0, "algo.gamma": 0.9}, "error": "NaN\nin the loss"},
    ]
    (study / "trials.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = forks("show", "study", cwd=tmp_path).out.splitlines()
    assert (
        lines[0].split() == ["trial", "status", "score"] and lines[-1] == "study study: 1 complete, 1 pruned, 1 failed"
    )
    assert lines[1].split() == ["0", "complete", "471.5", "algo.lr=0.001"] and "NaN" in lines[3]
    assert [job["trial"] for job in json.loads(forks("show", "study", "--json", cwd=tmp_path).out)["jobs"]] == [0, 1, 2]


def test_a_directory_that_is_neither_is_one_line(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "empty").mkdir()
    done = forks("show", "empty", cwd=tmp_path)
    assert done.code == 2 and "empty: not a run directory" in done.err
