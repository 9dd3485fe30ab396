"""A study's trials: planned once, taken once, taken over, pruned where they compare, told once."""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_runs import Child
from tiny_study import CLIP, EVERY, STEPS, asked, begin, pretend
from waiting import until

from rlx.base import process
from rlx.base.errors import ConfigError, UserError
from rlx.rundir import reader
from rlx.search import optuna_storage, params, pool, search, trials, winner, worker
from rlx.search.study import Study
from rlx.search.trials import TrialResult


def good(point: dict[str, Any], seed: int, step: int) -> float:
    """Best at lr 1e-3; the clip coefficient hardly matters; seeds differ."""
    return 100 - 10 * abs(math.log10(point["algo.lr"]) + 3) + point["algo.clip_coef"] + 0.1 * seed + 0.001 * step


def states(study: Study) -> list[str]:
    return [row["state"] for row in search.rows(study)]


def done(study: Study, score: float = 1.0) -> trials.Trial:
    trial = trials.take(study, os.getpid())
    assert trial is not None
    trials.tell(trial, TrialResult("complete", score))
    return trial


# -- planned and taken ----------------------------------------------------------------------------------------------


def test_optuna_hands_out_each_waiting_trial_once_and_then_none(tmp_path: Path) -> None:
    """`trials.pop` rests on a private name of Optuna's: this fails where that has changed."""
    study = begin(tmp_path, trials=3)
    one, other = optuna_storage.open_study(study), optuna_storage.open_study(study)
    popped = [trials.pop(one), trials.pop(other), trials.pop(one), trials.pop(other)]
    assert popped[3] is None and len(set(popped[:3])) == 3


def test_as_many_trials_are_planned_as_were_asked_for_however_often(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=4)
    for _ in range(2):
        assert states(begin(tmp_path, trials=4)) == ["waiting"] * 4
    assert len(states(search.again(str(study.directory), 7))) == 7
    with pytest.raises(UserError, match="has 7"):
        search.again(str(study.directory), 5)


def test_a_system_that_cannot_fork_is_one_line_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(UserError, match="forks"):
        begin(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_plan_cut_by_a_kill_is_completed_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(study: Study, where: Any) -> None:
        optuna_storage.open_study(study, where).enqueue_trial({})
        os.kill(os.getpid(), signal.SIGKILL)

    def cut() -> None:
        monkeypatch.setattr(trials, "plan", plan)
        begin(tmp_path, trials=4)

    assert Child(cut).wait() == -signal.SIGKILL
    assert states(begin(tmp_path, trials=4)) == ["waiting"] * 4


def test_a_trial_whose_worker_is_gone_is_taken_over_as_it_is(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=2)
    Child(lambda: trials.take(study, os.getppid()) and os.kill(os.getpid(), signal.SIGKILL)).wait()
    (left,) = [row for row in search.rows(study) if row["state"] == "interrupted"]
    trial = trials.take(study, os.getpid())
    assert trial is not None and (trial.number, trial.params) == (left["number"], left["params"])
    assert trials.take(study, os.getpid()).number != trial.number  # type: ignore[union-attr]
    assert trials.take(study, os.getpid()) is None  # both are this process's, and it lives


def test_a_trial_of_another_host_is_left_alone_while_its_heart_beats(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=1)
    trial = SimpleNamespace(number=0, user_attrs={"owner": {**process.me(), "host": "elsewhere"}})
    trial.user_attrs["owner"]["heartbeat"] = process.now()
    assert trials.lives(study, trial)
    trial.user_attrs["owner"]["heartbeat"] = "2020-01-01T00:00:00+00:00"
    assert not trials.lives(study, trial)
    path = study.run(0, 1)
    path.mkdir()
    (path / "config.yaml").write_text("algo: {}")
    (path / "status.json").write_text(json.dumps({"host": "elsewhere", "heartbeat": process.now()}))
    assert trials.lives(study, trial)


def test_a_trial_that_was_given_up_is_the_next_one_taken(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=3)
    first = trials.take(study, os.getpid())
    assert first is not None
    trials.give_up(first)
    again = trials.take(study, os.getpid())
    assert again is not None and (again.number, again.params) == (first.number, first.params)


# -- samplers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "gp", "nsga2"])
def test_a_study_of_one_worker_is_reproduced_by_its_seed(tmp_path: Path, sampler: str) -> None:
    if sampler == "cmaes":
        pytest.importorskip("cmaes")
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        study = begin(tmp_path, name=name, trials=4, sampler=sampler, seed=seed)
        drawn.append([done(study, k).params for k in range(4)])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({json.dumps(point) for point in drawn[0]}) == 4  # a worker that begins anew draws nothing twice


def test_points_lie_in_their_ranges_and_choices_come_back_as_they_were(tmp_path: Path) -> None:
    choices = [[64], [64, 64], None, True, 0.5, "relu", {"a": 1}]
    space = {
        "algo.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "algo.num_epochs": {"type": "int", "low": 1, "high": 9, "step": 2, "log": False},
        "algo.gamma": {"type": "float", "low": 0.1, "high": 0.4, "step": 0.1, "log": False},
        "model.hidden": {"type": "choice", "choices": choices},
    }
    study = begin(tmp_path, trials=30, sampler="random", space=space)
    drawn = [done(study).params for _ in range(30)]
    assert all(1e-5 <= point["algo.lr"] <= 1e-2 and point["algo.num_epochs"] in (1, 3, 5, 7, 9) for point in drawn)
    assert {round(point["algo.gamma"], 6) for point in drawn} == {0.1, 0.2, 0.3, 0.4}
    assert {json.dumps(point["model.hidden"]) for point in drawn} == {json.dumps(choice) for choice in choices}
    assert [row["params"] for row in search.rows(study)] == drawn


def test_tpe_finds_a_better_point_than_chance(tmp_path: Path) -> None:
    best = {}
    for sampler in ("tpe", "random"):
        study = begin(tmp_path, name=sampler, sampler=sampler, trials=40)
        for _ in range(40):
            trial = trials.take(study, os.getpid())
            assert trial is not None
            trials.tell(trial, TrialResult("complete", good(trial.params, 1, STEPS)))
        best[sampler] = statistics.fmean(sorted(row["score"] for row in search.rows(study))[-10:])
    assert best["tpe"] > best["random"]


# -- pruning --------------------------------------------------------------------------------------------------------


def test_positions_count_steps_over_the_seeds_in_whole_evaluations(tmp_path: Path) -> None:
    study = begin(tmp_path, seeds=3)
    at = [trials.position(study, seed, step) for seed in range(2) for step in (EVERY, EVERY + 13, 2 * EVERY, STEPS)]
    assert at == [20, 20, 40, 100, 120, 120, 140, 200]
    assert trials.position(study, 2, STEPS + 11) == 3 * STEPS  # a last rollout goes beyond


def test_the_median_pruner_stops_what_is_below_the_median_and_nothing_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=12, pruner="median", sampler="random")
    pretend(monkeypatch, good)
    assert worker.work(study, os.getppid()) == 0
    rows = search.rows(study)
    assert [row["state"] for row in rows[: optuna_storage.STARTUP]] == ["complete"] * optuna_storage.STARTUP
    for row in rows[optuna_storage.STARTUP :]:
        first = str(2 * EVERY)  # after the second evaluation of the first seed
        finished = [other for other in rows[: row["number"]] if other["state"] == "complete"]
        median = statistics.median(other["values"][first] for other in finished)
        below = max(value for at, value in row["values"].items() if int(at) <= int(first)) < median
        assert not below or row["state"] == "pruned", row
        if row["state"] == "pruned":
            assert row["score"] is None and row["seeds_done"] < 2 or row["seeds_done"] == 2
    assert {row["state"] for row in rows} == {"complete", "pruned"}


def test_what_is_compared_is_the_mean_over_the_seeds_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = begin(tmp_path, trials=1, seeds=2)
    pretend(monkeypatch, lambda point, seed, step: 10.0 * seed + step)
    worker.work(study, os.getppid())
    (row,) = search.rows(study)
    first = {str(step): 10.0 + step for step in range(EVERY, STEPS + 1, EVERY)}
    second = {str(STEPS + step): (110.0 + 20.0 + step) / 2 for step in range(EVERY, STEPS + 1, EVERY)}
    assert row["values"] == {**first, **second} and row["score"] == 115.0 and row["seeds_done"] == 2


def test_hyperband_stops_some_of_the_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = begin(tmp_path, trials=14, pruner="hyperband", sampler="random")
    pretend(monkeypatch, good)
    worker.work(study, os.getppid())
    rows = search.rows(study)
    scores = {state: [max(row["values"].values()) for row in rows if row["state"] == state] for state in states(study)}
    assert set(scores) == {"complete", "pruned"}
    assert statistics.fmean(scores["pruned"]) < statistics.fmean(scores["complete"])


# -- workers, killed ------------------------------------------------------------------------------------------------


def test_workers_that_are_killed_again_and_again_leave_exactly_the_planned_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=8, sampler="random")
    pretend(monkeypatch, good, seconds=0.1)
    points: dict[int, Any] = {}
    for _ in range(3):
        child = Child(lambda: pool.run(study, 2, lambda: None))
        time.sleep(0.8)
        child.kill()
        child.wait()
        for row in study.rows():
            if row["params"]:
                assert points.setdefault(row["number"], row["params"]) == row["params"]
    assert pool.run(study, 2, lambda: None) == 0
    rows = search.rows(study)
    assert [row["state"] for row in rows] == ["complete"] * 8
    for row in rows:
        assert row["score"] == pytest.approx(statistics.fmean(good(row["params"], seed, STEPS) for seed in (1, 2)))
        assert points.get(row["number"], row["params"]) == row["params"]


def test_the_workers_do_not_outlive_the_process_that_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=4)
    pretend(monkeypatch, good, seconds=6_000)
    child = Child(lambda: pool.run(study, 2, lambda: None))
    while sum(row["state"] == "running" for row in study.rows()) < 2 or len(list(study.directory.glob("trial_*"))) < 2:
        time.sleep(0.02)
    child.kill()
    child.wait()
    until(lambda: not any(process.lives(status) for status in statuses(study)))
    assert {status["status"] for status in statuses(study)} == {"running"}  # killed, not at their end


def statuses(study: Study) -> list[dict[str, Any]]:
    """What the runs of its trials say."""
    return [json.loads(file.read_text()) for file in study.directory.glob("trial_*/status.json")]


def test_a_worker_that_is_asked_to_stop_while_it_takes_a_trial_gives_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=2)
    pretend(monkeypatch, good)
    take = trials.take

    def interrupted(study: Study, parent: int) -> trials.Trial | None:
        trial = take(study, parent)
        os.kill(os.getpid(), signal.SIGTERM)
        return trial

    with monkeypatch.context() as patch:
        patch.setattr(trials, "take", interrupted)
        assert worker.work(study, os.getppid()) == 128 + signal.SIGTERM
    assert statuses(study) == [] and sorted(states(study)) == ["interrupted", "waiting"]
    assert worker.work(study, os.getppid()) == 0 and states(study) == ["complete"] * 2


def test_a_search_that_finds_no_trial_left_waits_for_those_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=1)
    pretend(monkeypatch, good, seconds=1)
    first = Child(lambda: pool.run(study, 1, lambda: None))
    until(lambda: list(study.directory.glob("trial_*")))
    assert pool.run(study, 1, lambda: None) == 0 and states(study) == ["complete"]
    assert first.wait() == 0


def test_a_search_takes_over_what_another_leaves_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = begin(tmp_path, trials=1)
    pretend(monkeypatch, good, seconds=6_000)
    first = Child(lambda: pool.run(study, 1, lambda: None))
    until(lambda: list(study.directory.glob("trial_*/status.json")))
    pretend(monkeypatch, good)
    second = Child(lambda: pool.run(study, 1, lambda: None))
    first.kill()
    first.wait()
    assert second.wait() == 0 and states(study) == ["complete"]


def test_a_run_that_raises_fails_its_trial_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(point: dict[str, Any], seed: int, step: int) -> float:
        if point["algo.clip_coef"] > 0.2 and seed == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return float("nan") if point["algo.lr"] > 1e-2 else 1.0

    study = begin(tmp_path, trials=10, sampler="random")
    pretend(monkeypatch, curve)
    assert worker.work(study, os.getppid()) == 0
    for row in search.rows(study):
        lr, clip = row["params"]["algo.lr"], row["params"]["algo.clip_coef"]
        assert row["state"] == ("failed" if lr > 1e-2 or clip > 0.2 else "complete"), row
        if lr > 1e-2:
            assert "its score is nan" in row["error"]
        elif clip > 0.2:
            assert row["error"] == "seed 2: killed by SIGKILL"
            assert reader.show(study.run(row["number"], 2))["error"] == "killed by SIGKILL"


def test_a_run_that_was_killed_once_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def curve(point: dict[str, Any], seed: int, step: int) -> float:
        once = tmp_path / f"killed{seed}"
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0

    study = begin(tmp_path, trials=1)
    pretend(monkeypatch, curve)
    worker.work(study, os.getppid())
    assert states(study) == ["complete"]


# -- storage --------------------------------------------------------------------------------------------------------


def test_half_a_line_at_the_end_of_the_journal_is_mended(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=3)
    done(study)
    with open(study.directory / "journal.log", "ab") as file:
        file.write(b'{"op_code": 4, "worker')
    done(study)
    assert states(study) == ["complete", "complete", "waiting"]


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"{}", b"\xff"])
def test_a_line_of_the_journal_that_is_no_record_is_named_by_its_file(line: bytes, tmp_path: Path) -> None:
    study = begin(tmp_path, trials=2)
    journal = study.directory / "journal.log"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([lines[0], line, *lines[1:], b""]))
    with pytest.raises(ConfigError, match="journal.log: is damaged"):
        search.again(str(study.directory))


@pytest.mark.parametrize("text", [None, "", "{}", "half a li"])
def test_a_study_whose_records_are_gone_is_not_searched_anew(text: str | None, tmp_path: Path) -> None:
    study = begin(tmp_path, trials=2)
    done(study)
    journal, before = study.directory / "journal.log", study.rows()
    journal.unlink() if text is None else journal.write_text(text)
    for go_on in (lambda: search.again(str(study.directory)), lambda: begin(tmp_path, trials=2)):
        with pytest.raises(ConfigError, match="records of its 1 trials are gone from .*journal.log"):
            go_on()
    assert study.rows() == before


def test_a_study_that_cannot_be_written_is_shown_as_it_was_and_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(tmp_path, trials=2)
    before = study.rows()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr(trials.os, "access", lambda *_: False)
    assert search.rows(study) == before
    with pytest.raises(UserError, match="journal.log: cannot be opened: Read-only file system"):
        search.again(str(study.directory))
    with pytest.raises(UserError, match="cannot be locked: Read-only file system"), study.locked():
        pass


@pytest.mark.parametrize("text", ["[]", "null", '{"a": 1}', "{", ""])
def test_a_damaged_list_of_trials_is_written_anew(text: str, tmp_path: Path) -> None:
    study = begin(tmp_path, trials=2)
    before = study.rows()
    (study.directory / "trials.jsonl").write_text(text)
    assert search.rows(study) == before == study.rows()


def test_a_lock_left_by_a_kill_is_not_waited_for(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=3)

    def die_with_the_locks() -> None:
        with study.locked():
            optuna_storage._journal(study.directory / "journal.log")._lock.acquire()
            os.kill(os.getpid(), signal.SIGKILL)

    Child(die_with_the_locks).wait()
    began = time.monotonic()
    done(study)
    assert time.monotonic() - began < 5  # Optuna's own lock would be waited for half a minute


def test_a_database_serves_as_well_and_its_password_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = begin(tmp_path, trials=2, storage="sqlite:///x.db")
    done(study)
    assert study.asked["storage"] == f"sqlite:///{tmp_path}/x.db"
    os.chdir("/")
    assert states(search.again(str(study.directory))) == ["complete", "waiting"]
    with pytest.raises(ConfigError, match="cannot be reached") as error:
        begin(tmp_path, name="other", storage="postgresql://me:hush@localhost/x")
    assert "hush" not in str(error.value) and not (tmp_path / "runs" / "sweeps" / "other").exists()
    kept = Study(study.directory, {**study.asked, "storage": "postgresql://***@localhost/x"})
    with pytest.raises(ConfigError, match="give storage=URL again"):
        optuna_storage.storage(kept)


def test_a_database_that_has_the_study_for_another_directory_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path / "one", storage=f"sqlite:///{tmp_path}/x.db")
    with pytest.raises(ConfigError, match="from another directory"):
        begin(tmp_path / "two", storage=f"sqlite:///{tmp_path}/x.db")
    assert not (tmp_path / "two").exists()


# -- the same study, and another one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algo": "dqn"}, "algo=ppo, not dqn"),
        ({"env": "acrobot"}, "env=cartpole, not acrobot"),
        ({"seeds": 5}, "seeds=2, not 5"),
        ({"sampler": "random"}, "sampler=tpe, not random"),
        ({"pruner": "median"}, "pruner=none, not median"),
        ({"space": {"algo.lr": CLIP}}, "algo.lr=[1e-05 to 0.1, log], not [0.1 to 0.3]"),
        ({"space": {"algo.clip_coef": CLIP}}, "algo.lr=[1e-05 to 0.1, log], not nothing"),
    ],
)
def test_another_study_of_the_same_name_is_refused_by_what_differs(tmp_path: Path, changes: Any, said: str) -> None:
    begin(tmp_path)
    with pytest.raises(ConfigError) as error:
        begin(tmp_path, **changes)
    assert said in str(error.value) and str(error.value).startswith("study=study: ")


def test_a_key_of_the_configuration_that_differs_is_named(tmp_path: Path) -> None:
    begin(tmp_path)
    other = asked(tmp_path)
    other["config"]["algo"]["gamma"] = 0.5
    with pytest.raises(ConfigError, match=r"algo.gamma=0.99, not 0.5"):
        search.begin(other)


def test_a_directory_that_is_no_study_is_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "sweeps" / "study"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not a study"):
        begin(tmp_path)
    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


def test_several_that_begin_the_same_study_at_once_have_one(tmp_path: Path) -> None:
    children = [Child(lambda: begin(tmp_path, trials=5)) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert states(begin(tmp_path, trials=5)) == ["waiting"] * 5


def test_a_study_is_found_by_path_by_name_and_as_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no study under"):
        search.find("latest")
    one = begin(tmp_path, name="one")
    time.sleep(1.1)  # `created` has seconds
    two = begin(tmp_path, name="two")
    assert search.find("one").directory == search.find("runs/sweeps/one").directory == one.directory
    assert search.find("latest").directory == two.directory
    with pytest.raises(UserError, match="did you mean 'two'"):
        search.find("twoo")


# -- what came of it --------------------------------------------------------------------------------------------------


def test_importance_gives_the_larger_share_to_what_matters(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=20, sampler="random")
    for index in range(20):
        trial = trials.take(study, os.getpid())
        assert trial is not None
        trials.tell(trial, TrialResult("complete", good(trial.params, 1, STEPS)))
        if index == 5:
            assert trials.importance(study) is None  # too few to say
    shares = trials.importance(study)
    assert shares is not None and shares["algo.lr"] > 0.7 > shares["algo.clip_coef"]
    assert sum(shares.values()) == pytest.approx(1)
    trials.write_importance(study)
    assert json.loads((study.directory / "importance.json").read_text()) == shares == trials.importance(study)


def test_the_winner_is_the_highest_score_and_its_command_sets_its_point(tmp_path: Path) -> None:
    study = begin(tmp_path, trials=4)
    with pytest.raises(UserError, match="no trial is complete yet"):
        winner.best(study, search.rows(study))
    made = [done(study, score) for score in (1.0, 3.0, 3.0, 2.0)]
    found = winner.best(study, search.rows(study))
    assert (found["trial"], found["score"], found["params"]) == (1, 3.0, made[1].params)
    assert params.word("algo.lr", made[1].params["algo.lr"]) in found["command"]


def test_trials_are_read_without_optuna_once_all_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = begin(tmp_path, trials=2)
    for _ in range(2):
        done(study)
    monkeypatch.setattr(optuna_storage, "open_study", lambda *_: pytest.fail("the storage was asked"))
    assert states(study) == ["complete", "complete"]
