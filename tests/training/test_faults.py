"""What goes wrong ends in one line and an exit code, and the last good checkpoint survives it."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import psutil
import pytest
import torch
from command_line import command, environment
from gymnasium.envs.classic_control import CartPoleEnv
from tiny_runs import Child, checkpoints, config, die_at, read_metrics, record, result, resume, status, train
from waiting import until

from rlx.base import signals
from rlx.base.errors import ConfigError
from rlx.base.signals import Interrupted
from rlx.control.show import film
from rlx.engine.learner import Learner
from rlx.rundir.checkpoint import Checkpoints
from rlx.training import loop, runner
from rlx.training.runner import RunFailed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return result(train(tmp_path_factory.mktemp("whole")))


def assert_failed_and_resumable(path, whole, message, step=128):
    """One line in status.json, the traceback there and in rlx.log; the checkpoint before it carries on."""
    found = status(path)
    assert found["status"] == "failed" and re.search(message, found["error"]) and "\n" not in found["error"]
    assert "Traceback" in found["traceback"] and found["traceback"] in (path / "rlx.log").read_text()
    newest = Checkpoints(path / "checkpoints").load()
    assert newest.step == found["checkpoint"] == step and not newest.warnings
    resume(path)
    assert result(path) == whole


# -- the disk


def limited(step, size, until=10**9):
    """A progress callback: from `step` to `until` no file may grow beyond `size(path)`, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def progress(now, _metrics):
        if now == step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size(), limits[1]))
        elif now >= until:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return progress


@pytest.mark.parametrize(
    "name, size, at",
    [
        (r"checkpoints/step_000000000192.safetensors", lambda path: 8_000, 128),
        (r"metrics.jsonl", lambda path: (path / "metrics.jsonl").stat().st_size + 100, 128),
    ],
)
def test_on_a_full_disk_the_run_stops_and_goes_on_when_there_is_room(name, size, at, tmp_path, whole):
    path = tmp_path / "run"
    progress = limited(160, lambda: size(path))
    assert Child(lambda: train(tmp_path, name="run", progress=progress), tmp_path / "err").wait() == 1
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert re.fullmatch(
        rf"rlx: error: cannot write {path}/{name}: File too large \(\d[\d,]* bytes to write, \d[\d,]* free there\)",
        line,
    )
    assert not list(path.rglob(".tmp-*")) and Checkpoints(path / "checkpoints").load().step == at
    assert status(path)["status"] == "failed" or name == "metrics.jsonl"
    resume(path)
    assert result(path) == whole


def test_tensorboard_in_trouble_is_one_warning_and_training_goes_on(tmp_path, whole):
    path = tmp_path / "run"
    room = limited(32, lambda: next(path.glob("events*")).stat().st_size + 1, until=64)
    code = Child(lambda: train(tmp_path, name="run", progress=room, tensorboard=True), tmp_path / "err").wait()
    assert code == 0 and result(path) == whole
    (line,) = (tmp_path / "err").read_text().splitlines()
    assert "TensorBoard" in line


def test_a_heartbeat_that_cannot_be_written_stops_nothing(tmp_path, whole, monkeypatch):
    from rlx.rundir.layout import Status

    real = Status.beat

    def full(status, path, durable=True):
        if status.status == "running" and status.step > 0:
            raise OSError(28, "No space left on device")
        real(status, path, durable)

    monkeypatch.setattr(Status, "beat", full)
    assert result(train(tmp_path)) == whole


@pytest.mark.parametrize("runs_dir", ["file", "file/below", "/proc/none"])
def test_a_place_that_cannot_hold_runs_is_one_line(runs_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^runs_dir=[^\n]*cannot create [^\n]*$"):
        train(tmp_path, runs_dir=str(tmp_path / runs_dir) if runs_dir[0] != "/" else runs_dir)


def test_a_directory_that_cannot_be_locked_is_one_line(tmp_path):
    path = train(tmp_path)
    (path / ".lock").unlink()
    (path / ".lock").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be locked"):
        resume(path)


def test_nobody_reading_the_terminal_does_not_matter(tmp_path, whole):
    def gone(*_):
        raise BrokenPipeError

    path, _ = runner.start(config(tmp_path), ["rlx"], gone, announce=gone)
    assert result(path) == whole


# -- the environment


def after(count, fault):
    """CartPole's step, with `fault(result)` from the count-th call on."""
    real, left = CartPoleEnv.step, [count]

    def step(self, action):
        left[0] -= 1
        found = real(self, action)
        return fault(found) if left[0] < 0 else found

    return step


def raises(_found):
    raise ZeroDivisionError("boom")


def nan(found):
    found[0][2] = float("nan")
    return found


@pytest.mark.parametrize(
    "fault, message", [(raises, "step raised ZeroDivisionError: boom"), (nan, "is nan at index 2")]
)
def test_an_environment_that_fails_fails_the_run_and_is_named(fault, message, tmp_path, monkeypatch):
    whole = result(train(tmp_path / "whole", eval_every=0))
    monkeypatch.setattr(CartPoleEnv, "step", after(190, fault))  # the probe takes up to 40
    with pytest.raises(RunFailed, match=message):
        train(tmp_path, name="run", eval_every=0)
    monkeypatch.undo()
    assert_failed_and_resumable(tmp_path / "run", whole, f"EnvFault: env [01] .*{message}")


def test_a_dead_worker_fails_the_run_and_leaves_no_process(tmp_path):
    changes = {"env.backend": "async", "env.workers": 2, "eval_every": 0, "env.replay": True}

    def workers():
        there = [child for child in psutil.Process().children(recursive=True) if child not in before]
        return [child for child in there if "spawn_main" in " ".join(child.cmdline())]

    def kill(step, _metrics):
        if step == 160:
            workers()[0].kill()

    before = psutil.Process().children(recursive=True)
    with pytest.raises(RunFailed, match=r"env worker \d \(env \d\) died \(exit -9\)"):
        train(tmp_path, name="run", progress=kill, **changes)
    assert not workers()
    assert_failed_and_resumable(tmp_path / "run", result(train(tmp_path / "whole", eval_every=0)), "died")


def test_workers_leave_when_the_run_is_killed(tmp_path):
    changes = {"env.backend": "async", "env.workers": 2, "eval_every": 0, "env.replay": True}
    pids = tmp_path / "pids"

    def progress(_step, _metrics):
        pids.write_text(" ".join(str(child.pid) for child in psutil.Process().children(recursive=True)))
        os.kill(os.getpid(), signal.SIGKILL)

    assert Child(lambda: train(tmp_path, name="run", progress=progress, **changes)).wait() == -9
    found = [int(pid) for pid in pids.read_text().split()]

    def lives(pid):
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    until(lambda: not any(lives(pid) for pid in found))  # no orphans
    assert len(found) >= 2


def test_a_new_run_that_its_algorithm_refuses_has_failed(tmp_path, monkeypatch):
    """Exit 2, and not a run that seems to have been killed."""
    from rlx.algos import ppo

    def refuses(_cfg, _run):
        raise ConfigError("algo.x=1: no")
        yield

    monkeypatch.setattr(ppo, "train", refuses)
    with pytest.raises(ConfigError):
        train(tmp_path, name="run")
    assert (status(tmp_path / "run")["status"], status(tmp_path / "run")["error"]) == ("failed", "algo.x=1: no")


# -- the numbers


def poisoned(step, value=float("nan")):
    """Learner.step, with a weight that becomes NaN once the optimiser has taken `step` steps."""
    real = Learner.step

    def call(self, *args, **kwargs):
        found = real(self, *args, **kwargs)
        if self.num_steps == step:
            self.flat.data[0] = value
        return found

    return call


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(value, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(Learner, "step", poisoned(4 * 160 // 32, value))  # the last step of the iteration
    with pytest.raises(RunFailed, match=r"FloatingPointError: policy\..* is not finite at step \d+: no checkpoint"):
        train(tmp_path, name="run", checkpoint_every=32)
    monkeypatch.undo()
    path = tmp_path / "run"
    for name in checkpoints(path):
        state = Checkpoints(path / "checkpoints").load(str(int(name[-24:-12]))).state["run"]["tracked"]["policy"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())
    assert_failed_and_resumable(path, whole, "is not finite at step 160", step=128)


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_applied(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(Learner, "step", poisoned(4 * 128 // 32 + 1))
    with pytest.raises(RunFailed, match="FloatingPointError: the gradient is not finite"):
        train(tmp_path, name="run")
    monkeypatch.undo()
    assert_failed_and_resumable(tmp_path / "run", whole, "the gradient is not finite")


def test_a_video_that_cannot_be_made_is_a_notice(tmp_path, whole, monkeypatch, capsys):
    from rlx.control.show import recording

    def fails(*_args, **_kwargs):
        raise RuntimeError("no display\nat all")

    monkeypatch.setattr(recording, "record", fails)
    path = train(tmp_path, video=True)
    assert result(path) == whole and record(path)["notices"] == ["no video: no display"]
    assert capsys.readouterr().err == "rlx: note: no video: no display\n" and record(path)["failed"] == {"films": 1}


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize(
    "renders, says",
    [
        ("crash", "the process that renders it was killed by SIGSEGV"),
        ("exit", "the process that renders it ended with exit code 7"),
        ("hang", "it took longer than 2 s"),
    ],
)
def test_a_renderer_that_crashes_or_hangs_costs_the_film_and_not_the_run(
    start, renders, says, tmp_path, monkeypatch, capsys
):
    if (start, renders) == ("spawn", "exit"):
        pytest.skip("as with the other two")
    monkeypatch.setattr(film, "START", start)
    monkeypatch.setattr(film, "SECONDS", 2.0 if start == "fork" or renders == "hang" else 60.0)
    changes = {"env.id": "fake_envs:Drawn-v0", "env.kwargs": {"renders": renders}, "tensorboard": True}
    path = train(tmp_path, name="run", video=True, **changes)
    assert status(path)["status"] == "finished" and status(path)["evaluation"]["step"] == 320
    assert record(path)["notices"] == [f"no video: {says}"] and record(path)["failed"] == {"films": 1}
    assert [line for line in capsys.readouterr().err.splitlines() if "video" in line] == [
        f"rlx: note: no video: {says}"
    ]
    assert multiprocessing.active_children() == []
    assert result(path)[0] == result(train(tmp_path, name="without", **changes))[0]


# -- two processes


def waits(step, seconds=600.0):
    """A progress callback that stays at a step until it is killed."""
    return lambda now, _metrics: time.sleep(seconds) if now == step else None


def test_a_run_in_progress_cannot_be_resumed_and_who_runs_it_is_named(tmp_path, whole):
    path = tmp_path / "run"
    child = Child(lambda: train(tmp_path, name="run", progress=waits(160)))
    until(lambda: (path / "metrics.jsonl").exists() and len(read_metrics(path / "metrics.jsonl")) >= 6)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(ConfigError, match=rf"^{path}: process {child.pid} on {os.uname().nodename} is running it$"):
        resume(path, total_steps=999)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    child.kill()  # the lock goes with the process
    child.wait()
    resume(path)
    assert result(path) == whole


def test_of_many_that_resume_a_run_at_once_one_wins(tmp_path, whole):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    path = tmp_path / "run"
    children = [Child(lambda: resume(path, progress=waits(256)), tmp_path / f"err{k}") for k in range(8)]
    codes = {}

    def losers_are_done():
        for child in children:
            if child.pid not in codes:
                found, code = os.waitpid(child.pid, os.WNOHANG)
                if found:
                    codes[child.pid] = os.waitstatus_to_exitcode(code)
        return len(codes) == 7

    until(losers_are_done)
    (winner,) = [child for child in children if child.pid not in codes]
    assert set(codes.values()) == {2}
    for child in children:
        if child is not winner:
            text = (tmp_path / f"err{children.index(child)}").read_text()
            assert re.fullmatch(rf"rlx: error: {path}: process {winner.pid} on \S+ is running it\n", text)
    until(lambda: len(record(path)["resumes"]) == 1)  # it has the lock, and may not have signed yet
    winner.kill()
    winner.wait()
    resume(path)
    assert result(path) == whole and len(record(path)["resumes"]) == 2


def test_of_many_that_start_a_run_of_one_name_one_wins_and_unnamed_ones_all_do(tmp_path, whole):
    named = [Child(lambda: train(tmp_path, name="run"), tmp_path / "err") for _ in range(6)]
    assert sorted(child.wait() for child in named) == [0, 2, 2, 2, 2, 2]
    assert result(tmp_path / "run") == whole
    unnamed = [Child(lambda: train(tmp_path / "auto")) for _ in range(6)]
    assert [child.wait() for child in unnamed] == [0] * 6
    assert len(list((tmp_path / "auto" / "cartpole" / "ppo").iterdir())) == 6


# -- damage to the rest of a run directory


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2", b"- 1", b"{}", b"7"])
def test_a_damaged_file_is_one_line(name, content, tmp_path):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    (tmp_path / "run" / name).write_bytes(content)
    try:
        resume(tmp_path / "run")
    except ConfigError as error:
        assert name in str(error) and "\n" not in str(error)
    else:
        assert (name, content) == ("run.json", b"{}")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2", b"- 1", b"{}", b"7", b'{"status": 3, "pid": "x"}'])
def test_a_damaged_status_does_not_matter(content, tmp_path, whole):
    from rlx.rundir import reader

    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    (tmp_path / "run" / "status.json").write_bytes(content)
    assert json.dumps(reader.show(tmp_path / "run"))
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == whole


def test_a_config_that_would_run_code_is_refused(tmp_path):
    path = train(tmp_path)
    text = (path / "config.yaml").read_text()
    for evil in ("x: !!python/object/apply:os.system ['touch canary']\n", "_target_: os.system\n"):
        (path / "config.yaml").write_text(text + evil)
        with pytest.raises(ConfigError):
            runner.open_policy(path)
    assert not os.path.exists("canary")


# -- between opening the run and the loop, and out of it


@pytest.mark.parametrize("error", [AttributeError("no stream"), KeyboardInterrupt(), SystemExit(3), ConfigError("no")])
def test_whatever_fails_before_the_first_step_ends_in_a_status(error, tmp_path):
    def announce(*_):
        raise error

    with pytest.raises(type(error)):
        runner.start(config(tmp_path), ["rlx"], print, announce=announce, parent=tmp_path, name="run")
    assert status(tmp_path / "run")["status"] == "failed" and type(error).__name__ in status(tmp_path / "run")["error"]
    assert Child(lambda: train(tmp_path, name="killed", progress=die_at(160))).wait() < 0
    with pytest.raises(type(error)):
        runner.resume(tmp_path / "killed", runner.read_config(tmp_path / "killed"), ["rlx"], print, announce=announce)
    now = status(tmp_path / "killed")["status"]
    assert now == ("running" if isinstance(error, ConfigError) else "failed")  # the input was wrong: nothing changed


def test_streams_that_are_closed_stop_nothing_and_no_file_takes_their_number(tmp_path):
    def closed():
        for number in (0, 1, 2):
            os.close(number)

    words = ["train", "total_steps=512", "algo.num_steps=64", "video=false", "tensorboard=false", "runs_dir=r"]
    done = subprocess.run(command(*words), cwd=tmp_path, env=environment(), preexec_fn=closed)
    (path,) = [file.parent for file in tmp_path.rglob("status.json")]
    assert (done.returncode, status(path)["status"]) == (0, "finished")


def interrupts(_found):
    raise KeyboardInterrupt


def test_a_keyboard_interrupt_of_an_environment_is_no_signal(tmp_path, monkeypatch):
    whole = result(train(tmp_path / "whole", eval_every=0))
    monkeypatch.setattr(CartPoleEnv, "step", after(190, interrupts))
    with pytest.raises(RunFailed, match="KeyboardInterrupt: raised by the environment or the algorithm"):
        train(tmp_path, name="run", eval_every=0)
    monkeypatch.undo()
    assert_failed_and_resumable(tmp_path / "run", whole, "KeyboardInterrupt")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_run_at_once_where_an_environment_hangs(number, tmp_path, monkeypatch):
    def hangs(_found):
        (tmp_path / "hangs").touch()
        time.sleep(600)

    path, whole = tmp_path / "run", result(train(tmp_path / "whole", eval_every=0))
    monkeypatch.setattr(CartPoleEnv, "step", after(190, hangs))
    child = Child(lambda: train(tmp_path, name="run", eval_every=0))
    until((tmp_path / "hangs").exists)
    child.kill(number)
    time.sleep(0.2)
    child.kill(number)
    assert child.wait(30) == 128 + number
    name = signal.Signals(number).name
    line = f"stopped at once by a second {name}, at step 128 (the newest checkpoint is of step 128)"
    assert (status(path)["status"], status(path)["error"]) == ("interrupted", line)
    monkeypatch.undo()
    resume(path)
    assert result(path) == whole


@pytest.mark.parametrize("place", ["an iteration", "a long iteration", "an evaluation"])
def test_one_sigterm_ends_a_run_whose_iteration_or_evaluation_does_not_end(place, tmp_path, monkeypatch):
    """`timeout 40` took four minutes. What a long iteration or an evaluation begins with is not lost."""
    from rlx.control import evaluate

    def hangs(*_args, **_kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)

    whole = result(train(tmp_path / "whole", checkpoint_every=0))
    monkeypatch.setattr(signals, "GRACE", 0.2)
    if place == "an evaluation":
        monkeypatch.setattr(evaluate, "evaluate", hangs)
    else:
        monkeypatch.setattr(CartPoleEnv, "step", after(190, hangs))
    if place == "a long iteration":
        monkeypatch.setattr(loop, "GRACE", 1.0)
        pauses = iter([0.0] * 150 + [1.5] + [0.0] * 1000)
        monkeypatch.setattr(CartPoleEnv, "step", after(0, lambda found: time.sleep(next(pauses)) or found))
        monkeypatch.setattr(CartPoleEnv, "step", after(190, hangs))
    changes = {"eval_every": 96 if place == "an evaluation" else 0, "checkpoint_every": 0}
    with pytest.raises(Interrupted) as stop:
        train(tmp_path, name="run", **changes)
    saved = {"an iteration": None, "a long iteration": 128, "an evaluation": 96}[place]
    assert (stop.value.code, stop.value.saved, status(tmp_path / "run")["status"]) == (143, saved, "interrupted")
    assert "stopped at once by SIGTERM (0.2 s in an iteration), at step" in str(stop.value)
    monkeypatch.undo()
    resume(tmp_path / "run", eval_every=96)
    assert result(tmp_path / "run")[0] == whole[0]
    assert place != "an evaluation" or result(tmp_path / "run") == whole


# -- the disk, before and between runs


def refused(tmp_path, work):
    """Exit 2 and one line, on a disk that takes no file of 100 bytes."""

    def full():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        sys.stderr.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            work()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert Child(full, tmp_path / "err").wait() == 2
    (line,) = (tmp_path / "err").read_text().splitlines()
    return line


def test_on_a_full_disk_no_run_is_begun_and_nothing_is_left_of_it(tmp_path):
    line = refused(tmp_path, lambda: train(tmp_path / "runs"))
    what = r"cannot write \S+run\.json: File too large \([^\n]+ free there\)"
    assert re.fullmatch(rf"rlx: error: runs_dir=\S+ {what}", line)
    assert not [*tmp_path.rglob("*_s1")]


def test_on_a_full_disk_a_resume_says_the_same_and_changes_nothing(tmp_path, whole):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    path = tmp_path / "run"
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    line = refused(tmp_path, lambda: resume(path))
    assert re.fullmatch(rf"rlx: error: cannot write {path}/run\.json: File too large \([^\n]+ free there\)", line)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    resume(path)
    assert result(path) == whole


def test_a_directory_of_a_temporary_name_stops_no_resume(tmp_path, whole):
    assert Child(lambda: train(tmp_path, name="run", progress=die_at(160))).wait() < 0
    for place in (tmp_path / "run", tmp_path / "run" / "checkpoints"):
        (place / ".tmp-x").mkdir()
    resume(tmp_path / "run")
    assert result(tmp_path / "run") == whole


def test_a_buffer_on_disk_is_measured_by_the_files_that_it_takes(tmp_path, monkeypatch):
    """A few rows are files of 64 MiB all the same."""
    changes = {"algo": "dqn", "algo.buffer_ram_mb": 0.0, "total_steps": 64, "eval_every": 0}
    path = train(tmp_path, name="run", **changes)
    taken = sum(file.stat().st_size for file in (path / "buffer").iterdir())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage._replace(free=taken - 1))
    with pytest.raises(ConfigError, match=r"^algo\.buffer_size=200: 0\.\d GB on disk, and in \S+ 0\.1 GB are free$"):
        train(tmp_path, name="other", **changes)
    assert not (tmp_path / "other").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _place: usage._replace(free=taken))
    resume(path, total_steps=96)  # a half of its files is there
    assert status(path)["step"] == 96


# -- side tasks


def test_an_evaluation_that_fails_is_a_warning_and_a_count_and_training_goes_on(tmp_path, monkeypatch, capsys):
    """An environment that can exist only once."""
    from rlx.control import evaluate

    whole, _ = result(train(tmp_path / "whole", eval_every=0))
    real = evaluate.evaluate
    calls = []

    def fails(*args, **kwargs):
        calls.append(1)
        if len(calls) != 2:
            raise RuntimeError("there is\none already")
        return real(*args, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate", fails)
    path = train(tmp_path, name="run")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "evaluation" in line]
    reason = "failed (RuntimeError: there is one already); training goes on"
    assert warnings == [f"rlx: warning: the evaluation at step {step} {reason}" for step in (96, 288, 320)]
    assert result(path)[0] == whole and record(path)["failed"] == {"evaluations": 3}
    assert status(path)["evaluation"] is None and "best_000000000192.safetensors" in checkpoints(path)
    resume(path, total_steps=352)
    assert record(path)["failed"] == {"evaluations": 4}


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(0)])
def test_an_evaluation_that_is_required_ends_the_run_with_a_checkpoint_of_that_step(error, tmp_path, monkeypatch):
    from rlx.control import evaluate

    def fails(*_args, **_kwargs):
        raise error

    whole = result(train(tmp_path / "whole"))
    monkeypatch.setattr(evaluate, "evaluate", fails)
    with pytest.raises(RunFailed, match=type(error).__name__):
        train(tmp_path, name="run", eval_required=True)
    monkeypatch.undo()
    assert_failed_and_resumable(tmp_path / "run", whole, type(error).__name__, step=64)


def test_an_evaluation_that_kills_the_process_is_owed_and_redone_with_the_same_rows(tmp_path, whole, monkeypatch):
    """After the last step, too: 320 steps were lost to it."""
    from rlx.control import evaluate

    real, path = evaluate.evaluate, tmp_path / "run"

    def crashes_at(number):
        calls = []

        def crashes(*args, **kwargs):
            calls.append(1)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        monkeypatch.setattr(evaluate, "evaluate", crashes)

    # At 96, 192; and, as a resume begins with what is owed, at 192, 288, 320.
    lives = {192: (2, lambda: train(tmp_path, name="run")), 320: (3, lambda: resume(path))}
    for step, (number, life) in lives.items():
        crashes_at(number)
        assert Child(life).wait() == -signal.SIGKILL
        newest = Checkpoints(path / "checkpoints").load()
        assert newest.step == step and "owed" in newest.state["runner"]
    monkeypatch.undo()
    resume(path)
    assert result(path) == whole and "owed" not in Checkpoints(path / "checkpoints").load().state["runner"]


# -- what an environment returns


class Odd(CartPoleEnv):
    """CartPole, one thing that a step or a reset returns replaced at its `at`-th step."""

    def __init__(self, what="", at=1):
        super().__init__()
        self.what, self.at, self.steps = what, at, 0

    def reset(self, **how):
        obs, info = super().reset(**how)
        return obs, None if self.what == "reset info" else info

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        if self.steps < self.at:
            return obs, reward, terminated, truncated, info
        if self.what == "exit":
            sys.exit(0)
        if self.what == "secrets":
            raise RuntimeError("\x1b[31mred\x1b]0;title\x07 token=abcdef")
        if self.what == "panic":
            raise BaseException("of a library")
        if self.what == "os._exit":
            os._exit(0)
        odd = {
            "reward (1,)": {"reward": np.ones(1)}, "reward text": {"reward": "1.5"}, "reward None": {"reward": None},
            "reward 1e39": {"reward": 1e39}, "terminated (1,)": {"terminated": np.zeros(1, bool)},
            "terminated None": {"terminated": None}, "truncated NaN": {"truncated": float("nan")},
            "terminated text": {"terminated": "no"}, "info": {"info": None},
            "is_success": {"info": {"is_success": np.zeros(1, bool)}}, "observation NaN": {"obs": obs * np.nan},
            "observation 1e39": {"obs": [1e39] * 4}, "observation complex": {"obs": obs * 1j},
        }  # fmt: skip
        now = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated, "info": info}
        if self.what.startswith("episode"):  # what is looked at when one ends
            now |= {"terminated": True, "info": None if "info" in self.what else {"success": "no"}}
        return tuple((now | odd.get(self.what, {})).values())

    def close(self):
        if self.what == "close raises":
            raise OSError("no\ndisplay")
        if self.what == "close hangs":
            time.sleep(600)


LATE = [
    "reward text", "reward None", "terminated None", "truncated NaN", "terminated text", "exit", "reward 1e39", "panic",
    "observation NaN", "observation 1e39",
]  # fmt: skip
EARLY = [*LATE, "reward (1,)", "terminated (1,)", "info", "is_success", "reset info", "observation complex"]
RAISED = {"exit": "SystemExit", "panic": "BaseException", "episode info": "info", "episode success": "success"}


@pytest.fixture
def odd():
    gym.register("Odd-v0", Odd, max_episode_steps=50)
    yield {"env": "gym", "env.name": "odd", "env.id": "Odd-v0", "eval_every": 0}
    del gym.registry["Odd-v0"]


@pytest.mark.parametrize("what", EARLY)
def test_what_an_environment_must_not_return_is_named_before_the_run_exists(what, odd, tmp_path):
    name = what.split()[-2] if what.startswith("reset") else what.split()[0]
    with pytest.raises(ConfigError, match=r"^env\.id=Odd-v0: (step 1|reset) of a trial before the run: .*") as refused:
        train(tmp_path, name="run", **odd, **{"env.kwargs": {"what": what}})
    assert RAISED.get(name, name) in str(refused.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", [*LATE, "episode info", "episode success"])
def test_what_an_environment_returns_later_is_named_with_episode_and_step(what, odd, tmp_path):
    changes = {"env.kwargs": {"what": what, "at": 60}, "env.replay": True}
    with pytest.raises(RunFailed, match=r"EnvFault: env [01] \(Odd-v0\), episode \d+, step \d+: ") as failed:
        train(tmp_path, name="run", **odd, **changes)
    assert RAISED.get(what, what.split()[0]) in str(failed.value)


def test_an_error_text_does_nothing_to_a_terminal_and_keeps_no_secret(odd, tmp_path):
    changes = {"env.kwargs": {"what": "secrets", "at": 60}, "env.replay": True}
    with pytest.raises(RunFailed) as failed:
        train(tmp_path, name="run", **odd, **changes)
    assert str(failed.value).isprintable() and r"\x1b[31mred" in str(failed.value)
    assert status(tmp_path / "run")["error"].isprintable()
    assert not any(b"abcdef" in file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())


@pytest.mark.parametrize("at", [1, 60])
def test_an_environment_that_leaves_the_process_is_no_success(at, odd, tmp_path):
    changes = {"env.kwargs": {"what": "os._exit", "at": at}, "env.replay": True}
    assert Child(lambda: train(tmp_path, name="run", **odd, **changes), tmp_path / "err").wait() == (
        2 if at == 1 else 1
    )
    where = "env.id=Odd-v0: step 1 " if at == 1 else r"EnvFault: env [01] \(Odd-v0\), episode \d+, step \d+: "
    assert re.search(rf"error: {where}.*SystemExit", (tmp_path / "err").read_text())
    assert at == 1 or status(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize("what", ["close raises", "close hangs"])
def test_a_close_that_goes_wrong_is_a_warning(what, odd, tmp_path, whole, monkeypatch, capsys):
    from rlx.envs import sync

    monkeypatch.setattr(sync, "CLOSE_SECONDS", 0.1)
    path = train(tmp_path, **odd, **{"env.kwargs": {"what": what}})
    assert status(path)["status"] == "finished"
    assert "rlx: warning: close of Odd-v0: " in capsys.readouterr().err
