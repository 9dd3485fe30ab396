"""`rlx sweep`: from the command line to run directories, and back."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_runs
from command_line import CRASH, LISTING_MODULES, PLUGIN, Begun, Forks, entries, environment
from waiting import PATIENCE, until

from rlx.base.signals import Pruned

SMALL = [
    "env=cartpole", "preset=none", "total_steps=256", "eval_episodes=1", "tensorboard=false", "algo.num_envs=2",
    "algo.num_steps=32", "algo.num_minibatches=2", "algo.num_epochs=1", "model.hidden=[8]", "checkpoint_every=64",
]  # fmt: skip
LR, CLIP = "algo.lr=tag(log, interval(1e-4, 1e-2))", "algo.clip_coef=interval(.1, .3)"
OURS = [*SMALL, LR, CLIP, "study=ours"]


def rows(here: Path, name: str = "ours") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (here / "runs" / "sweeps" / name / "trials.jsonl").read_text().splitlines()]


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def study(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a study that has ended. Read it only."""
    here = tmp_path_factory.mktemp("study")
    done = forks("sweep", *OURS, "trials=4", "seeds=2", "-j", "2", cwd=here)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "run: runs/sweeps/ours" and "4 of 4 trials ended: 4 complete" in done.out
    assert sum("of 4  trial" in line for line in done.err.splitlines()) == 4
    return here


# -- a search -------------------------------------------------------------------------------------------------------


def test_a_trials_score_is_the_mean_of_its_seeds_final_evaluations(study: Path) -> None:
    place = study / "runs" / "sweeps" / "ours"
    for row in rows(study):
        assert row["state"] == "complete" and row["seeds_done"] == 2
        assert row["runs"] == [f"trial_{row['number']:04d}_s{seed}" for seed in (1, 2)]
        scores = [read(place / run / "status.json")["evaluation"]["score"] for run in row["runs"]]
        assert row["score"] == pytest.approx(statistics.fmean(scores))


def test_each_run_is_an_ordinary_one_that_knows_its_trial(study: Path) -> None:
    place = study / "runs" / "sweeps" / "ours"
    for row in rows(study):
        for run, seed in zip(row["runs"], (1, 2)):
            record = read(place / run / "run.json")
            assert (record["trial"], record["study"], record["seed"]) == (row["number"], "ours", seed)
            assert record["params"] == row["params"] and record["command"][:2] == ["rlx", "train"]


def test_the_command_of_a_trials_run_trains_the_same_weights(study: Path, forks: Forks, tmp_path: Path) -> None:
    path = study / "runs" / "sweeps" / "ours" / "trial_0002_s2"
    done = forks(*read(path / "run.json")["command"][1:], cwd=tmp_path)
    assert done.code == 0, done.err
    whole = read(tmp_path / done.run / "status.json")
    assert whole["weights_sha256"] == read(path / "status.json")["weights_sha256"]


def test_a_study_says_what_was_asked_and_what_was_decided(study: Path) -> None:
    asked = read(study / "runs" / "sweeps" / "ours" / "study.json")
    assert (asked["algo"], asked["env"], asked["trials"], asked["seeds"], asked["seed"]) == ("ppo", "cartpole", 4, 2, 1)
    assert (asked["sampler"], asked["pruner"], asked["storage"]) == ("tpe", "median", "journal")
    assert asked["space"]["algo.lr"] == {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
    assert asked["config"]["eval_every"] == 51 and any("eval_every=51" in note for note in asked["notes"])
    assert asked["config"]["video"] is False and any("video=false" in note for note in asked["notes"])


def test_evaluations_that_are_asked_for_stay(forks: Forks, tmp_path: Path) -> None:
    done = forks("sweep", *SMALL, CLIP, "trials=1", "seeds=1", "eval_every=128", "study=a", cwd=tmp_path)
    assert done.code == 0, done.err
    assert read(tmp_path / "runs" / "sweeps" / "a" / "study.json")["config"]["eval_every"] == 128
    assert set(rows(tmp_path, "a")[0]["values"]) == {"128", "256"}


def test_the_same_words_again_find_nothing_left_to_do(study: Path, forks: Forks) -> None:
    before = (study / "runs" / "sweeps" / "ours" / "trials.jsonl").read_text()
    done = forks("sweep", *OURS, "trials=4", "seeds=2", cwd=study)
    assert done.code == 0 and "4 of 4 trials ended" in done.out, done.err
    assert (study / "runs" / "sweeps" / "ours" / "trials.jsonl").read_text() == before


def test_two_commands_at_once_share_one_study(forks: Forks, tmp_path: Path) -> None:
    both = forks.together(2, "sweep", *OURS, "trials=4", "seeds=1", cwd=tmp_path)
    assert [done.code for done in both] == [0, 0], both
    found = rows(tmp_path)
    assert [row["state"] for row in found] == ["complete"] * 4
    assert len({json.dumps(row["params"]) for row in found}) == 4


def test_one_worker_twice_is_the_same_search(forks: Forks, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        done = forks("sweep", *SMALL, LR, CLIP, "trials=3", "seeds=1", f"study={name}", cwd=tmp_path)
        assert done.code == 0, done.err
        found.append([(row["params"], row["score"]) for row in rows(tmp_path, name)])
    assert found[0] == found[1]


def test_a_task_is_searched_like_an_environment(forks: Forks, tmp_path: Path) -> None:
    tiny = [
        "total_steps=4",
        "eval_prompts=8",
        "samples=2",
        "model.num_layers=1",
        "model.d_model=8",
        "model.num_heads=2",
    ]
    words = ["algo=sft", "task=add2", *tiny, "tensorboard=false", "algo.lr=1e-3,1e-2", "study=ours"]
    done = forks("sweep", *words, "trials=2", "seeds=1", "sampler=random", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [row["state"] for row in rows(tmp_path)] == ["complete"] * 2
    assert read(tmp_path / "runs" / "sweeps" / "ours" / "study.json")["task"] == "add2"


def test_ranges_may_live_in_a_file_of_rlx_of_the_users_and_of_config_dir(
    forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlx.launch import search_request

    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "more" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "mine.yaml").write_text("# mine\nalgo.lr: tag(log, interval(1e-4, 1e-3))\n")
    (tmp_path / "more" / "sweep" / "theirs.yaml").write_text("algo.lr: [1e-3, 1e-2]\nalgo.gamma: interval(.9, .99)\n")
    (tmp_path / "conf" / "sweep" / "bad.yaml").write_text("algo.lrr: interval(0.1, 0.2)\n")
    monkeypatch.chdir(tmp_path)
    assert set(search_request.ask(["env=cartpole", "sweep=mine", CLIP]).space) == {"algo.lr", "algo.clip_coef"}
    found = search_request.ask(["env=cartpole", "sweep=theirs", "algo.gamma=0.95"], Path("more")).space
    assert found == {"algo.lr": {"type": "choice", "choices": [1e-3, 1e-2]}}  # what the command line sets stays set
    assert "algo.gae_lambda" in search_request.ask(["env=cartpole"]).space  # conf/sweep/ppo.yaml
    assert "mine" in forks("list", "sweeps", cwd=tmp_path).out
    done = forks("sweep", "env=cartpole", "sweep=bad", cwd=tmp_path)
    assert done.code == 2 and "did you mean 'algo.lr'? [conf/sweep/bad.yaml]" in " ".join(done.err.split()), done.err


@pytest.mark.parametrize("name", [path.stem for path in (PLUGIN.parent.parent / "conf" / "sweep").glob("*.yaml")])
def test_every_file_of_ranges_has_a_source_and_ranges_that_hold(name: str, tmp_path: Path) -> None:
    from rlx.config.registry import first_comment, options
    from rlx.launch import search_request

    assert len(first_comment(options("sweep")[name])) > 20
    place = {"grpo": ["task=add2"], "q_learning": ["env=grid"]}.get(name, ["env=cartpole"])
    assert len(search_request.ask([f"algo={name}", *place]).space) >= 5


# -- what goes wrong --------------------------------------------------------------------------------------------------

BAD = [
    (["algo.clip_coef=interval(-1, 2)"], "algo.clip_coef=-1.0: must be a number > 0"),
    (["algo.clip_coef=interval(0.1, 2"], "cannot read 'algo.clip_coef=interval(0.1, 2'"),
    (["algo.clip_coef=interval(1)"], "interval(a, b)"),
    (["algo.clip_coef=interval(a,b)"], "interval(a, b)"),
    (["algo.clip_ceof=interval(.1,.2)"], "did you mean 'algo.clip_coef'"),
    (["algo.num_epochs=interval(2,12)"], "int(interval(2, 12)) searches those"),
    (["algo.num_epochs=two,three"], "algo.num_epochs=two"),
    (["model.activation=relu,tahn"], "tahn"),
    (["+algo.new=1,2"], "algo.new"),
    (["env=cartpole,acrobot"], "a search has one env"),
    (["seed=1,2"], "seeds=N"),
    (["total_steps=range(1,5)"], "total_steps=range(1,5)"),
    ([CLIP, "trials=0"], "trials=0"),
    ([CLIP, "trails=5"], "did you mean 'trials'"),
    ([CLIP, "sampler=tpee"], "did you mean 'tpe'"),
    ([CLIP, "pruner=asha"], "hyperband, median, none"),
    ([CLIP, "sampler=cmaes"], "two ranges of numbers"),
    ([CLIP, "storage=elsewhere"], "storage=elsewhere"),
    ([CLIP, "storage=sqlite:///nowhere/x.db"], "cannot be reached"),
    ([CLIP, "storage=mysql://me:hush@localhost/x"], "cannot be reached"),
    ([CLIP, "eval_every=0"], "eval_every=0"),
    ([CLIP, "study=a/b"], "study=a/b"),
    ([CLIP, "seed=4294967295"], "seed=4294967295"),
    ([CLIP, "env=nosuch"], "env=nosuch"),
    ([CLIP, "algo.lr=-1"], "algo.lr=-1"),
    ([CLIP, "algo.clip_coef=0.2"], "algo.clip_coef=0.2: is also given a range"),
    ([CLIP, "hydra.sweep.dir=x"], "hydra.sweep.dir=x"),
    ([CLIP, "experiment=rlhf_names"], "chain"),
    ([CLIP, "task=add2"], "task=add2"),
    ([CLIP, "-m"], "--multirun"),
    ([CLIP, "--train"], "rlx sweep best STUDY --train"),
    ([CLIP, "runs_dir=afile"], "afile"),
    (["algo=trpo"], "no range to search"),
    (["sweep=pppo"], "did you mean 'ppo'"),
    (["env.id=CartPole-v0,CartPole-v1"], "a search has one env.id"),
    (["resume", "nosuch"], "no such study"),
    (["resume"], "STUDY is missing"),
    ([], "what to search is missing"),
    (["shwo"], "did you mean 'show'"),
    (["best", "a", "b"], "unexpected argument: b"),
    (["best", "a", "--seeds", "3"], "--seeds"),
    (["show", "afile"], "no such study"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_a_mistake_is_one_line_and_leaves_nothing(words: list[str], said: str, forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("not a directory\n")
    first = [] if not words or words[0] in ("resume", "shwo", "best", "show") else ["env=cartpole", "preset=none"]
    done = forks("sweep", *first, *words, cwd=tmp_path)
    assert done.code == 2 and done.out == "", done
    assert len(done.err.splitlines()) == 1 and done.err.startswith("rlx: error: ") and said in done.err, done.err
    assert "hush" not in done.err and entries(tmp_path) == {"afile"}


def test_a_study_of_another_algorithm_or_space_is_refused(study: Path, forks: Forks) -> None:
    before = entries(study)
    for words, said in [
        ([*SMALL[:1], "algo=dqn", "algo.lr=1e-3,1e-4"], "algo=ppo, not dqn"),
        ([*SMALL, "env=acrobot", LR, CLIP], "env=cartpole, not acrobot"),
        ([*SMALL, LR], "algo.clip_coef=[0.1 to 0.3], not nothing"),
    ]:
        done = forks("sweep", *words, "study=ours", "trials=4", "seeds=2", cwd=study)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done
    assert entries(study) == before


def test_without_optuna_one_line_names_the_extra(forks: Forks, tmp_path: Path, study: Path) -> None:
    done = forks("sweep", *OURS, cwd=tmp_path, without=["optuna"])
    assert done.code == 2 and len(done.err.splitlines()) == 1, done
    assert "pip install" in done.err and "[sweep]" in done.err
    assert entries(tmp_path) == set()
    assert forks("sweep", "best", "ours", cwd=study, without=["optuna"]).code == 0  # trials.jsonl says it


def test_a_configuration_that_crashes_is_recorded_and_the_others_finish(forks: Forks, tmp_path: Path) -> None:
    words = [*CRASH, *SMALL[1:], "+env.kwargs.after=9999", "env.kwargs.after=40,9998,9999", "study=ours", "pruner=none"]
    done = forks("sweep", *words, "trials=5", "seeds=1", "sampler=random", "-j", "2", cwd=tmp_path)
    assert done.code == 0, done.err
    states = Counter()
    for row in rows(tmp_path):
        crashes = row["params"]["env.kwargs.after"] == 40
        states[row["state"]] += 1
        assert row["state"] == ("failed" if crashes else "complete"), row
        if crashes:
            assert row["seeds_done"] == 0 and "ZeroDivisionError" in row["traceback"] and row["error"] in done.out
    assert states["failed"] and states["complete"] and f"{states['failed']} failed" in done.out
    assert "ZeroDivisionError: the corridor" in forks("sweep", "show", "ours", cwd=tmp_path).out


def test_a_search_in_which_all_crash_exits_with_1(forks: Forks, tmp_path: Path) -> None:
    words = [*CRASH, *SMALL[1:], "+env.kwargs.after=40", "study=ours", LR, "trials=2", "seeds=1"]
    done = forks("sweep", *words, cwd=tmp_path)
    assert done.code == 1 and "2 failed" in done.out and done.out.splitlines()[-1] == "run: runs/sweeps/ours", done
    best = forks("sweep", "best", "ours", cwd=tmp_path)
    assert best.code == 2 and "no trial is complete" in best.err


def test_a_run_whose_process_is_killed_is_gone_on_with_once(forks: Forks, tmp_path: Path) -> None:
    env = ["env=gym", "env.id=rlx_random.envs:Killed-v0", "+env.kwargs.after=60", "+env.kwargs.once=once"]
    done = forks("sweep", *env, *SMALL[1:], LR, "study=ours", "trials=2", "seeds=1", cwd=tmp_path)
    assert done.code == 0 and "2 of 2 trials ended: 2 complete" in done.out, done
    place = tmp_path / "runs" / "sweeps" / "ours"
    assert "killed by SIGKILL" in (place / "rlx.log").read_text()
    assert len(read(place / "trial_0000_s1" / "run.json")["resumes"]) == 1


# -- stopped and gone on with -----------------------------------------------------------------------------------------


def begun(forks: Forks, here: Path, *words: str) -> Begun:
    """`rlx sweep words...`, once a run is learning."""
    process = forks.begin("sweep", *words, cwd=here)
    until(lambda: process.poll() is not None or list(here.rglob("trial_*/metrics.jsonl")))
    return process


def test_ctrl_c_stops_all_workers_with_checkpoints_and_says_how_to_go_on(forks: Forks, tmp_path: Path) -> None:
    slow = [word.replace("total_steps=256", "total_steps=300_000") for word in OURS]
    process = begun(forks, tmp_path, *slow, "trials=3", "seeds=1", "-j", "2")
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and err.splitlines()[-1].endswith("go on with: rlx sweep resume ours"), err
    assert out.splitlines()[-1] == "run: runs/sweeps/ours"
    assert not psutil.wait_procs(children, timeout=PATIENCE)[1]
    status = [read(file) for file in tmp_path.rglob("trial_*/status.json")]
    assert {one["status"] for one in status} == {"interrupted"}
    assert all(one["checkpoint"] == one["step"] for one in status)
    left = Counter(row["state"] for row in rows(tmp_path))
    assert set(left) == {"interrupted", "waiting"} and len(status) <= left["interrupted"] <= 2


def test_a_search_that_is_killed_loses_nothing(forks: Forks, tmp_path: Path) -> None:
    """The small version of benchmarks/search_torture.py."""
    words = [word.replace("total_steps=256", "total_steps=6_000") for word in OURS if "checkpoint" not in word]
    words.append("checkpoint_every=250")
    process = begun(forks, tmp_path, *words, "trials=3", "seeds=2", "-j", "2")
    until(lambda: process.poll() is not None or list(tmp_path.rglob("trial_*/checkpoints/step_*")))
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not psutil.wait_procs(family, timeout=PATIENCE)[1]  # those below it die with it
    cut = [file.parent for file in tmp_path.rglob("trial_*/status.json") if read(file)["status"] == "running"]
    before = {row["number"]: row["params"] for row in rows(tmp_path) if row["params"]}
    done = forks("sweep", "resume", "ours", "-j", "2", cwd=tmp_path)
    assert done.code == 0 and "3 of 3 trials ended" in done.out, done.err
    found = rows(tmp_path)
    assert {row["state"] for row in found} <= {"complete", "pruned"} and len(found) == 3
    for row in found:
        assert before.get(row["number"], row["params"]) == row["params"]
        if row["state"] == "complete":
            place = tmp_path / "runs" / "sweeps" / "ours"
            scores = [read(place / run / "status.json")["evaluation"]["score"] for run in row["runs"]]
            assert len(scores) == 2 and row["score"] == pytest.approx(statistics.fmean(scores))
    assert cut and read(cut[0] / "run.json")["resumes"]
    whole = forks(*read(cut[0] / "run.json")["command"][1:], cwd=tmp_path)
    assert (
        read(tmp_path / whole.run / "status.json")["weights_sha256"] == read(cut[0] / "status.json")["weights_sha256"]
    )


def test_resume_can_ask_for_more_trials_and_for_nothing_else(forks: Forks, tmp_path: Path) -> None:
    assert forks("sweep", *OURS, "trials=1", "seeds=1", cwd=tmp_path).code == 0
    done = forks("sweep", "resume", "latest", "trials=3", cwd=tmp_path)
    assert done.code == 0 and "3 of 3 trials ended: 3 complete" in done.out, done.err
    for word, said in [("trials=2", "has 3"), ("algo.lr=1", "the rest is fixed"), ("sampler=gp", "is fixed")]:
        done = forks("sweep", "resume", "latest", word, cwd=tmp_path)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done


def test_a_pruned_run_is_finished_by_rlx_resume_as_if_never_pruned(tmp_path: Path) -> None:
    def prune(step: int, metrics: dict[str, Any]) -> None:
        if metrics.get("eval/step", 0) >= 96:
            raise Pruned(f"pruned at {step}")

    with pytest.raises(Pruned):
        tiny_runs.train(tmp_path, name="run", progress=prune)
    status = read(tmp_path / "run" / "status.json")
    assert status["status"] == "pruned" and status["checkpoint"] is not None and status["error"].startswith("pruned at")
    tiny_runs.resume(tmp_path / "run")
    assert tiny_runs.result(tmp_path / "run") == tiny_runs.result(tiny_runs.train(tmp_path, name="whole"))


# -- the winner -------------------------------------------------------------------------------------------------------


def test_the_winner_is_trained_on_seeds_that_the_study_has_not_used(study: Path, forks: Forks) -> None:
    done = forks("sweep", "best", "ours", "--train", "--seeds", "2", "--json", cwd=study)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["score"] == max(row["score"] for row in rows(study)) and found["fresh"]["seeds"] == [3, 4]
    place = study / "runs" / "sweeps" / "ours" / "best"
    runs = [place / f"trial_{found['trial']:04d}_s{seed}" for seed in (3, 4)]
    scores = [read(run / "status.json")["evaluation"]["score"] for run in runs]
    assert found["fresh"]["scores"] == scores and found["fresh"]["mean"] == statistics.fmean(scores)
    assert found["difference"] == pytest.approx(statistics.fmean(scores) - found["score"])
    assert read(place / "best.json") == found and read(runs[0] / "run.json")["params"] == found["params"]
    again = forks("sweep", "best", "ours", "--train", "--seeds", "2", cwd=study)  # they are there
    assert "The winner was chosen for its score" in again.out and again.out.splitlines()[-1].endswith("ours/best")
    assert read(runs[0] / "run.json")["resumes"] == []


def test_show_lists_the_trials_and_imports_no_torch(study: Path) -> None:
    for words in (["show", "ours", "--json"], ["best", "ours"]):
        done = subprocess.run(
            [sys.executable, "-c", LISTING_MODULES, "sweep", *words],
            cwd=study,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        out, modules = done.stdout, done.stderr.splitlines()[-1]
        assert not {"torch", "hydra", "gymnasium"} & set(modules.split())
        if "--json" in words:
            assert [row["state"] for row in json.loads(out)["rows"]] == ["complete"] * 4


def test_a_study_is_not_mistaken_for_a_grid_and_its_runs_are_listed(study: Path, forks: Forks) -> None:
    done = forks("ls", "--json", cwd=study)
    assert done.code == 0 and len(json.loads(done.out)) >= 8, done.err
    assert forks("show", str(study / "runs" / "sweeps" / "ours" / "trial_0000_s1"), cwd=study).code == 0
