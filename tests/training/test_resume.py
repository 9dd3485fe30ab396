"""A resumed run equals one never stopped: weights to the last bit, metrics but for time/."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from command_line import environment
from tiny_runs import (
    Child,
    checkpoints,
    die,
    die_at,
    die_at_env_step,
    fail_at,
    read_metrics,
    record,
    result,
    resume,
    status,
    train,
)  # fmt: skip
from waiting import until

from rlx.base.errors import ConfigError, UserError
from rlx.run import Run, StateMismatch
from rlx.rundir import layout
from rlx.rundir.checkpoint import Checkpoints
from rlx.training import runner
from rlx.training.runner import Interrupted

NORMALIZED = {"env.normalize_obs": True, "env.normalize_reward": True}
GYM = {"env": "gym", "env.name": "any"}
SHORT = {**GYM, "env.max_episode_steps": 7}
CASES = {
    "cartpole": {},
    "cartpole, normalized": NORMALIZED,
    "cartpole, vector": {"env.backend": "vector"},
    "pendulum": {"env": "pendulum", **NORMALIZED},
    "lunarlander": {"env": "lunarlander", **NORMALIZED},
    "hopper": {"env": "hopper", **NORMALIZED},
    "halfcheetah": {"env": "halfcheetah", **NORMALIZED, "eval_episodes": 1, "env.max_episode_steps": 50},
    "acrobot": {"env": "acrobot", "env.max_episode_steps": 60},
    "minigrid": {"env": "minigrid_empty", "env.max_episode_steps": 20},
    "penalty": {"algo": "ppo_penalty"},
    "target_kl": {"algo.target_kl": 1e-4, "algo.lr": 1e-2},
    "uneven minibatches": {"algo.num_minibatches": 5},
    "one minibatch, annealed": {"algo.num_minibatches": 1, "algo.anneal_lr": True, "algo.anneal_clip": True},
    "ordinary torch": {"algo.engine": "torch"},
    "multi-discrete": {**SHORT, "env.id": "SpacesMulti-v0"},
    "multi-binary": {**SHORT, "env.id": "SpacesBits-v0"},
    "dict and integer box": {**SHORT, "env.id": "SpacesDict-v0"},
    "several lives": {**GYM, "env.id": "Lives-v0", "env.wrappers": ["episodic_life"]},
    "not replayed": {"env.replay": False},
    "not replayable": {**GYM, "env.id": "CounterVector-v0", "env.backend": "vector", "eval_every": 0},
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The finished run of a configuration, made once."""
    made = {}

    def get(**changes):
        key = json.dumps(changes, sort_keys=True)
        if key not in made:
            made[key] = train(tmp_path_factory.mktemp("whole"), **changes)
        return made[key]

    return get


# -- kill -9


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_equals_one_never_stopped(case, tmp_path, never_stopped):
    changes = CASES[case]
    path = tmp_path / "run"
    # Before the first checkpoint, behind one, in the middle of a rollout, at the last step before its evaluation.
    lives = [
        lambda: train(tmp_path, name="run", progress=die_at(32), **changes),
        lambda: resume(path, progress=die_at(160)),
        lambda: (die_at_env_step(50), resume(path)),
        lambda: resume(path, progress=die_at(320)),
    ]
    for life in lives:
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    assert result(path) == result(never_stopped(**changes))
    assert checkpoints(path) == checkpoints(never_stopped(**changes))
    assert [entry["step"] for entry in record(path)["resumes"]][0] == 0 and len(record(path)["resumes"]) == 4


def test_a_run_killed_at_any_file_operation_equals_one_never_stopped(tmp_path, never_stopped):
    """From opening the run directory to its last status; between its best and its periodic checkpoint, too. Of a table,
    which is quickly trained and writes one file more than a network."""
    changes = {"total_steps": 128, "eval_every": 64, "checkpoint_every": 32, "keep_checkpoints": 1, "tensorboard": True}
    changes |= {"env": "frozenlake", "algo": "q_learning"}
    whole = result(never_stopped(**changes))
    operation, begun, code = 0, 0, None
    while code != 0:
        code = Child(lambda n=operation: (fail_at(n), train(tmp_path, name=f"run{n}", **changes))).wait()
        path = tmp_path / f"run{operation}"
        if not (path / "config.yaml").exists():
            with pytest.raises(ConfigError, match="not a run directory"):
                resume(path)
        else:
            begun += 1
            resume(path)
            assert result(path) == whole, f"killed at file operation {operation}"
            assert not list(path.rglob(".tmp-*"))
        operation += 3  # coprime to before and after: both come
    assert begun > 25


def test_a_resume_killed_at_any_file_operation_can_be_resumed(tmp_path, never_stopped):
    changes = {"total_steps": 160, "eval_every": 0, "checkpoint_every": 64}
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(96), **changes)).wait() < 0
    whole, operation, code = result(never_stopped(**changes)), 0, None
    while code != 0:
        path = shutil.copytree(tmp_path / "run", tmp_path / f"run{operation}")
        code = Child(lambda n=operation, path=path: (fail_at(n), resume(path))).wait()
        resume(path)
        assert result(path) == whole, f"killed at file operation {operation}"
        operation += 5
    assert operation > 40


def test_a_run_killed_in_any_environment_step_equals_one_never_stopped(tmp_path, never_stopped):
    """Steps of an evaluation are among them."""
    rng = random.Random(0)
    path = tmp_path / "run"
    lives = 0
    code = Child(lambda: (die_at_env_step(40), train(tmp_path, name="run"))).wait()
    while code != 0:
        assert code == -signal.SIGKILL
        lives += 1
        k = rng.randrange(60, 250)
        code = Child(lambda k=k: (die_at_env_step(k), resume(path))).wait()
    assert lives >= 4 and result(path) == result(never_stopped())


def test_a_run_killed_at_random_times_equals_one_never_stopped(tmp_path, never_stopped):
    rng = random.Random(0)
    whole = never_stopped(total_steps=960)
    path = tmp_path / "run"
    train(tmp_path, name="begun", progress=None, total_steps=960)
    child = Child(lambda: train(tmp_path, name="run", total_steps=960))
    while not (path / "config.yaml").exists():
        time.sleep(0.001)
    for _ in range(20):
        time.sleep(0.02 + 0.1 * rng.random())
        child.kill()
        child.wait()
        child = Child(lambda: resume(path))
    assert child.wait() == 0 and result(path) == result(whole)


def test_by_the_command_line_a_killed_run_equals_the_job_of_a_grid(tmp_path, forks):
    words = ["env=cartpole", "total_steps=30_000", "checkpoint_every=1_000", "eval_every=5_000", "video=false"]
    words.append("algo.num_epochs=4")
    swept = forks("train", "-m", *words, "seed=1,2", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert swept.code == 0, swept.err
    (job,) = [path.parent for path in (tmp_path / "sweep").glob("*/run.json") if record(path.parent)["seed"] == 2]
    process = forks.begin("train", *words, "seed=2", "runs_dir=single", cwd=tmp_path)
    until(lambda: list(tmp_path.glob("single/cartpole/ppo/*/checkpoints/step_*")))
    process.kill()
    process.communicate()
    (path,) = (tmp_path / "single" / "cartpole" / "ppo").iterdir()
    assert json.loads(forks("show", str(path), "--json", cwd=tmp_path).out)["status"] == "killed"
    done = forks("resume", str(path), cwd=tmp_path)
    assert done.code == 0 and (tmp_path / done.run).samefile(path), done.err
    assert result(path) == result(job)


# -- what a run holds


class Thing:
    """A tracked object that holds one number."""

    def __init__(self, value, **attributes):
        self.value = value
        self.__dict__.update(attributes)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_every_generator_goes_on_where_it_was(tmp_path):
    """Also one that the resumed process has not asked for yet when it is stopped again."""
    cpu = torch.device("cpu")
    run = Run(tmp_path, cpu, 1)
    early, late = run.rng("early"), run.rng("late")
    early.random(), late.random(3), torch.rand(5)
    state = run.state_dict()
    expected = [early.random(), late.random(), torch.rand(1).item(), torch.rand(1).item()]
    run = Run(tmp_path, cpu, 1, state)
    assert [run.rng("early").random(), torch.rand(1).item()] == [expected[0], expected[2]]
    run = Run(tmp_path, cpu, 1, run.state_dict())
    assert [run.rng("late").random(), torch.rand(1).item()] == [expected[1], expected[3]]


def test_generators_differ_by_name_and_seed(tmp_path):
    runs = [Run(tmp_path, torch.device("cpu"), seed) for seed in (1, 2)]
    assert len({run.rng(name).random() for run in runs for name in ("a", "b")}) == 4
    assert len({torch.rand(1, generator=run.generator(name)).item() for run in runs for name in ("a", "b")}) == 4


def test_what_is_tracked_is_restored_and_what_is_missing_is_named(tmp_path):
    run = Run(tmp_path, torch.device("cpu"), 1)
    run.step = 7
    run.track(a=Thing(5), b=Thing(6))
    resumed, thing = Run(tmp_path, torch.device("cpu"), 1, run.state_dict()), Thing(0)
    assert resumed.step == 7 and resumed.state("a") == {"value": 5}
    resumed.track(a=thing)
    thing.value = 9
    assert resumed.state("a") == {"value": 9}
    assert resumed.state_dict()["tracked"] == {"a": {"value": 9}, "b": {"value": 6}}  # b is not lost
    with pytest.raises(StateMismatch, match=r"the checkpoint holds no 'c' \(it holds: b\)"):
        resumed.track(c=Thing(0))
    broken = Run(tmp_path, torch.device("cpu"), 1, {**run.state_dict(), "tracked": {"a": {}}})
    with pytest.raises(StateMismatch, match="the checkpoint's 'a' does not fit: 'value'"):
        broken.track(a=Thing(0))


def test_a_run_is_exact_anywhere_unless_something_it_tracks_is_not(tmp_path):
    run = Run(tmp_path, torch.device("cpu"), 1)
    run.track(a=Thing(1), b=Thing(1, replayable=True), c=Thing(1, envs=Thing(1, replayable=True)))
    assert run.exact_anywhere
    for thing in (Thing(1, replayable=False), Thing(1, envs=Thing(1, replayable=False))):
        run.track(d=thing)
        assert not run.exact_anywhere


# -- bad checkpoints


def damage(path, rng):
    """Cut a file short, or flip one bit of it."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        del data[rng.randrange(len(data)) :]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_behind_bad_checkpoints_the_last_good_one_is_used_and_the_result_is_the_same(tmp_path, never_stopped, capsys):
    rng = random.Random(0)
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(304))).wait() < 0
    whole = result(never_stopped())
    there = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda file: file.name[-24:])
    assert len(there) == 4  # best 288, step 256, 192, 128
    for bad in (1, 2, 3):
        for trial in range(3):
            path = shutil.copytree(tmp_path / "run", tmp_path / f"run{bad}{trial}")
            for file in there[-bad:]:
                damage(path / "checkpoints" / file.name, rng)
            resume(path)
            assert result(path) == whole
            lines = capsys.readouterr().err.splitlines()
            assert [line.split(",")[0] for line in lines] == ["rlx: warning: skipped a checkpoint"] * bad
            assert record(path)["resumes"][0]["step"] == int(there[-bad - 1].stem[-12:])


def test_without_a_good_checkpoint_nothing_is_changed(tmp_path):
    """Exit 2, and never from scratch."""
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    path, rng = tmp_path / "run", random.Random(1)
    for file in (path / "checkpoints").iterdir():
        damage(file, rng)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match=r"^[^\n]*no checkpoint can be read: [^\n]*damaged[^\n]*$"):
        resume(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    shutil.rmtree(path / "checkpoints")
    with pytest.raises(ConfigError, match=r"its checkpoints are gone \(there was one of step 128\)"):
        resume(path)
    assert len(read_metrics(path / "metrics.jsonl")) > 5


@pytest.mark.parametrize("change", [{"env": "acrobot"}, {"seed": 2}, {"model.hidden": [4, 4]}])
def test_a_checkpoint_of_another_run_is_refused(change, tmp_path):
    ours, theirs = train(tmp_path / "a"), train(tmp_path / "b", **change)
    shutil.rmtree(ours / "checkpoints")
    shutil.copytree(theirs / "checkpoints", ours / "checkpoints")
    with pytest.raises(ConfigError, match=r"^[^\n]*is another run's: [^\n]*$"):
        resume(ours)
    with pytest.raises(ConfigError, match="is another run's"):
        runner.open_policy(ours)


def test_metrics_that_are_not_the_checkpoints_are_an_error_not_a_new_beginning(tmp_path):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics\.jsonl: 0 bytes, but the checkpoint was written at byte"):
        resume(tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == ""


# -- signals


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 138), ("SIGHUP", 129)])
def test_a_signal_stops_the_run_at_that_very_step(name, code, tmp_path, never_stopped):
    if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN:
        pytest.skip("pytest runs under nohup, or in the background: see the next test")

    def ask(step, _metrics):
        if step == 160:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted, match=f"^interrupted by {name} at step 160$") as stop:
        train(tmp_path, name="run", progress=ask)
    path = tmp_path / "run"
    assert (stop.value.code, stop.value.saved, stop.value.path) == (code, 160, path)
    assert signal.getsignal(getattr(signal, name)) == before
    assert (status(path)["status"], status(path)["step"], status(path)["checkpoint"]) == ("interrupted", 160, 160)
    assert "step_000000000160.safetensors" in checkpoints(path)
    resume(path)
    assert result(path) == result(never_stopped())
    assert record(path)["resumes"][0]["step"] == 160


def test_under_nohup_a_run_outlives_its_terminal(tmp_path):
    words = ["train", "total_steps=20000", "eval_every=0", "video=false", "tensorboard=false", "checkpoint_every=1000"]
    child = subprocess.Popen(
        [sys.executable, "-m", "rlx", *words], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    until(lambda: list(tmp_path.rglob("checkpoints/step_*")))
    child.send_signal(signal.SIGHUP)
    assert child.wait() == 0


def test_a_signal_while_the_run_directory_is_made_stops_the_run_at_its_first_step(tmp_path, never_stopped):
    def life():
        real = layout.open_new

        def opened(*args):
            path = real(*args)
            os.kill(os.getpid(), signal.SIGTERM)
            return path

        layout.open_new = opened
        train(tmp_path, name="run")

    assert Child(life).wait() == 128 + signal.SIGTERM
    path = tmp_path / "run"
    assert (status(path)["status"], status(path)["step"], status(path)["checkpoint"]) == ("interrupted", 32, 32)
    resume(path)
    assert result(path) == result(never_stopped())


def test_a_signal_at_every_step_in_turn_ends_equal(tmp_path, never_stopped):
    """Checkpoints at steps that the run never stopped has none at change nothing."""

    def ask(_step, _metrics):
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path, name="run", progress=ask)
    for _ in range(8):
        with pytest.raises(Interrupted):
            resume(tmp_path / "run", progress=ask)
    resume(tmp_path / "run", progress=ask)  # at the last step there is nothing left to stop
    assert result(tmp_path / "run") == result(never_stopped())


def test_a_signal_in_an_evaluation_lets_it_end_and_saves_that_step(tmp_path, never_stopped, monkeypatch):
    from rlx.control import evaluate

    real = evaluate.evaluate

    def evaluation(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate", evaluation)
    with pytest.raises(Interrupted) as stop:
        train(tmp_path, name="run")
    monkeypatch.undo()
    assert stop.value.saved == 96 and status(tmp_path / "run")["evaluation"]["step"] == 96
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(never_stopped())


def test_a_second_sigint_stops_at_once_and_the_run_goes_on_from_its_last_checkpoint(tmp_path, never_stopped):
    def twice(step, _metrics):
        if step == 160:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="second SIGINT") as stop:
        train(tmp_path, name="run", progress=twice)
    assert (stop.value.code, stop.value.saved) == (130, 128)
    assert status(tmp_path / "run")["status"] == "interrupted" and "160" not in "".join(checkpoints(tmp_path / "run"))
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(never_stopped())


# -- environments that cannot be restored, and other ways to step them


def test_where_saving_would_change_the_run_a_signal_saves_nothing(tmp_path, never_stopped):
    def ask(step, _metrics):
        if step == 160:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"at step 160 \(.*restarts from the checkpoint of step 128\)$") as stop:
        train(tmp_path, name="run", progress=ask, **CASES["not replayed"])
    assert stop.value.saved == 128 and not any("160" in name for name in checkpoints(tmp_path / "run"))
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(never_stopped(**CASES["not replayed"]))


def test_several_checkpoints_at_one_step_start_new_episodes_once(tmp_path, monkeypatch):
    from rlx.envs.batch import Envs

    resets = []
    real = Envs.reset
    monkeypatch.setattr(Envs, "reset", lambda self: (resets.append(self.domain), real(self))[1])
    path = train(tmp_path, eval_every=64, checkpoint_every=64, **CASES["not replayed"])
    best = sum(row["step"] % 64 == 0 for row in read_metrics(path / "metrics.jsonl") if "eval/mean_reward" in row)
    assert best == 5 and resets.count(0) == 1 + 5  # the first, then one for each of the steps 64, 128, ... 320


def test_async_environments_give_the_same_run_also_stopped_and_resumed(tmp_path, never_stopped):
    changes = {"env.backend": "async", "env.workers": 2, "eval_every": 0, "env.replay": True}

    def ask(step, _metrics):
        if step == 160:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(tmp_path, name="run", progress=ask, **changes)
    resume(tmp_path / "run", env__workers=1)
    assert result(tmp_path / "run") == result(never_stopped(eval_every=0))


def test_cartpole_for_all_lanes_at_once_gives_the_same_run(never_stopped):
    assert result(never_stopped(**CASES["cartpole, vector"])) == result(never_stopped())


# -- what must not matter, and what must


@pytest.mark.parametrize(
    "change",
    [
        {"eval_every": 0},
        {"eval_every": 32, "eval_episodes": 5},
        {"video": True, "eval_every": 160},
        {"tensorboard": True},
        {"checkpoint_every": 0},
        {"checkpoint_every": 32, "keep_checkpoints": 1},
        {"log_every": 100},
    ],
    ids=str,
)
def test_looking_does_not_change_what_is_learnt(change, tmp_path, never_stopped):
    assert result(train(tmp_path, **change))[0] == result(never_stopped())[0]


def test_a_seed_decides_the_run(tmp_path, never_stopped):
    assert result(train(tmp_path / "a")) == result(never_stopped())
    assert result(train(tmp_path / "b", seed=2))[0] != result(never_stopped())[0]


def test_the_random_state_of_the_process_does_not_matter(tmp_path, never_stopped):
    random.seed(5)
    torch.manual_seed(5)
    torch.rand(3)
    assert result(train(tmp_path)) == result(never_stopped())


@pytest.mark.parametrize("name", ["moved", "with space", "für_訓練", "x" * 150])
def test_a_run_directory_may_be_moved_and_called_anything(name, tmp_path, never_stopped):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    place = tmp_path / "elsewhere" / name
    shutil.copytree(tmp_path / "run", place)
    shutil.rmtree(tmp_path / "run")
    resume(place)
    assert result(place) == result(never_stopped())
    cfg, policy = runner.open_policy(place, "best")
    assert len(runner.evaluate_policy(policy, cfg, 3, 0)["returns"]) == 3


# -- changing a run


def test_more_steps_may_be_asked_for_and_are_recorded(tmp_path, never_stopped):
    path = train(tmp_path)
    found = resume(path, total_steps=480)
    assert (status(path)["status"], status(path)["step"]) == ("finished", 480)
    (entry,) = record(path)["resumes"]
    assert (entry["step"], entry["changes"]) == (320, {"total_steps": [320, 480]})
    assert runner.read_config(path)["total_steps"] == 480
    assert [name for name in checkpoints(path) if "final" in name] == ["final_000000000480.safetensors"]
    assert found["weights_sha256"] == status(path)["weights_sha256"] != result(never_stopped())[0]
    # no schedule depends on total_steps here, so it is the run that was always that long
    assert found["weights_sha256"] == result(train(tmp_path / "long", total_steps=480))[0]


def test_a_longer_run_killed_at_its_end_still_gets_its_final_checkpoint(tmp_path, never_stopped):
    path = train(tmp_path)
    assert Child(lambda: resume(path, total_steps=480, progress=die_at(480))).wait() < 0
    resume(path)
    assert "final_000000000480.safetensors" in checkpoints(path) and result(path)


@pytest.mark.parametrize("total_steps", [320, 290])  # the last rollout ends at 320 either way
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_run_killed_behind_its_last_step_only_has_to_be_finished(total_steps, backend, tmp_path):
    """No step of the algorithm is left; its environments are closed when it returns, async ones with their workers."""
    changes = {"total_steps": total_steps, "eval_every": 320, "checkpoint_every": 0}
    stepping = {"env.backend": backend, "env.workers": 1, "env.replay": True}

    def life():
        real = Checkpoints.save
        Checkpoints.save = lambda self, kind, step, state, **more: (
            die() if kind == "final" and "owed" not in state["runner"] else real(self, kind, step, state, **more)
        )
        train(tmp_path, name="run", **changes, **stepping)

    assert Child(life).wait() < 0
    assert checkpoints(tmp_path / "run") == ["best_000000000320.safetensors", "final_000000000320.safetensors"]
    found = resume(tmp_path / "run")
    assert found["metrics"]["train/n_updates"] == 40 and found["evaluation"]["step"] == 320
    whole = train(tmp_path, **changes)
    assert result(tmp_path / "run") == result(whole) and checkpoints(tmp_path / "run") == checkpoints(whole)


@pytest.mark.parametrize("total_steps", [320, 290])
def test_a_run_killed_behind_its_final_checkpoint_only_has_to_be_finished(total_steps, tmp_path):
    def life():
        real = Checkpoints.save
        Checkpoints.save = lambda self, kind, *rest, **more: (
            real(self, kind, *rest, **more),
            kind == "final" and die(),
        )
        train(tmp_path, name="run", total_steps=total_steps)

    assert Child(life).wait() < 0 and status(tmp_path / "run")["status"] == "running"
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == result(train(tmp_path, total_steps=total_steps))
    resume(tmp_path / "run")  # and nothing more
    assert len(record(tmp_path / "run")["resumes"]) == 1


@pytest.mark.parametrize("finished", [False, True])
def test_a_resume_that_is_refused_leaves_the_run_as_it_was(finished, tmp_path):
    """What the checkpoint cannot take is only seen when it is tried: a smaller buffer, here."""
    changes = {"algo": "dqn", "algo.buffer_size": 300}
    path = tmp_path / "run"
    if finished:
        train(tmp_path, name="run", **changes)
    else:
        assert Child(lambda: train(tmp_path, name="run", progress=die_at(256), **changes)).wait() < 0
    config, known, metrics = (path / "config.yaml").read_bytes(), record(path), read_metrics(path / "metrics.jsonl")
    with pytest.raises(UserError, match="does not fit"):
        resume(path, algo__buffer_size=100, total_steps=480)
    assert (path / "config.yaml").read_bytes() == config and {**known, "notices": [], "resumes": []} == record(path)
    assert not finished or read_metrics(path / "metrics.jsonl") == metrics
    resume(path, total_steps=480)  # what was refused is forgotten, what is asked for now is done
    assert status(path)["step"] >= 480 and record(path)["resumes"][-1]["changes"] == {"total_steps": [320, 480]}


def test_what_a_run_is_cannot_be_changed(tmp_path):
    path = train(tmp_path)
    before = (path / "run.json").read_bytes()
    for change in ({"seed": 2}, {"env__id": "Acrobot-v1"}, {"algo__num_envs": 4}, {"model__hidden": [4]}):
        with pytest.raises(ConfigError, match="cannot change in a run that has begun"):
            resume(path, **change)
    with pytest.raises(ConfigError, match="total_steps=64: the run is at step 320 already"):
        resume(path, total_steps=64)
    assert (path / "run.json").read_bytes() == before and status(path)["status"] == "finished"


def test_resuming_a_finished_run_changes_nothing_and_gives_its_result(tmp_path):
    path = train(tmp_path, tensorboard=True)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    found = resume(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert found["weights_sha256"] == status(path)["weights_sha256"]
    assert found["evaluation"] == status(path)["evaluation"]
    assert found["metrics"]["train/n_updates"] == 40


def test_other_versions_are_noted_in_one_line(tmp_path, capsys):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    path = tmp_path / "run"
    known = record(path)
    (path / "run.json").write_text(json.dumps({**known, "versions": {**known["versions"], "torch": "2.10.0"}}))
    capsys.readouterr()
    resume(path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"rlx: note: torch {torch.__version__} (was 2.10.0): the result may differ")


def test_a_run_that_gave_up_the_tape_does_not_take_it_up_again(tmp_path, monkeypatch):
    from rlx.engine.learner import Learner

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "_disagreement", lambda *_: "they differ")
        whole = result(train(tmp_path / "whole", "pendulum", **NORMALIZED))
        assert Child(lambda: train(tmp_path, "pendulum", name="run", progress=die_at(160), **NORMALIZED)).wait() < 0
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == whole


def test_a_run_that_trusts_the_tape_goes_on_trusting_it(tmp_path, never_stopped, monkeypatch):
    """Rounding at the clip boundary makes 2 of 9,400 comparisons on Pendulum fail: a resume that meets one must not
    settle on another engine than the run has."""
    from rlx.engine.learner import Learner

    whole = result(never_stopped(**CASES["pendulum"]))
    assert Child(lambda: train(tmp_path, "pendulum", name="run", progress=die_at(160), **NORMALIZED)).wait() < 0
    monkeypatch.setattr(Learner, "_disagreement", lambda *_: "unlucky rounding")
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == whole
