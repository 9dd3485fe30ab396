"""Worker processes: what happens when they die, hang, raise, or lose their parent."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from waiting import PATIENCE

from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvFault

HELPERS = Path(__file__).parents[1] / "helpers"


def config(workers=2, **changes):
    changes = {"id": "fake_envs:Counter-v0", "step_timeout": 20.0, **changes}
    return EnvConfig(name="test", backend="async", workers=workers, **changes)


def workers():
    others = ("resource_tracker", "command_line.py")  # of multiprocessing, and of the tests of the command line
    children = psutil.Process().children(recursive=True)
    return [child for child in children if not any(name in " ".join(child.cmdline()) for name in others)]


def gone(processes, seconds=PATIENCE):
    """All of them end."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.is_running() and not zombie(p.pid)]


def zombie(pid):
    """A process that has ended and that nobody has waited for; or that is not there at all any more."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def steps(envs, n):
    for _ in range(n):
        envs.step(np.zeros(envs.num_envs, int))


def test_a_killed_worker_is_named_with_its_lanes_and_exit_code():
    envs = make_envs(config(3, id="CartPole-v1"), 8, seed=0)
    envs.reset()
    steps(envs, 5)
    envs._workers[2].kill()
    with pytest.raises(EnvFault, match=r"^env worker 2 \(envs 5-7\) died \(exit -9\) at step 5$"):
        steps(envs, 2)
    assert not workers()


@pytest.mark.parametrize("replay", [None, True])
def test_an_environment_that_exits_is_a_dead_worker(replay):
    kwargs = {"length": 9, "fault": "exit"}
    with pytest.raises(EnvFault, match=r"^env worker 0 \(env 0\) died \(exit 7\) at step [02]$"):
        envs = make_envs(config(kwargs=kwargs, replay=replay), 2, seed=0)
        envs.reset()
        steps(envs, 9)
    assert not workers()


@pytest.mark.parametrize("replay", [None, True])
def test_an_environment_that_hangs_is_a_fault_after_the_timeout(replay):
    kwargs = {"length": 9, "fault": "hang"}
    start = time.monotonic()
    with pytest.raises(EnvFault, match=r"^env worker 0 \(env 0\) gave no answer for 1 s (at step 2|to 'probe')$"):
        envs = make_envs(config(kwargs=kwargs, replay=replay, step_timeout=1.0), 2, seed=0)
        envs.reset()
        steps(envs, 9)
    assert time.monotonic() - start < 10
    assert not workers()


def test_an_environment_that_raises_is_a_fault_with_its_text():
    envs = make_envs(config(kwargs={"length": 9, "fault": "raise"}, replay=True), 4, seed=0)
    envs.reset()
    with pytest.raises(EnvFault, match=r"^env 0 \(.*\), episode 0, step 3: step raised ZeroDivisionError: boom$"):
        steps(envs, 9)
    assert not workers()
    with pytest.raises(EnvFault, match="are closed"):
        envs.reset()


def test_close_leaves_no_process():
    envs = make_envs(config(), 4, seed=0)
    envs.reset()
    mine = workers()
    assert len(mine) == 2
    envs.close()
    envs.close()
    assert gone(mine)


def test_workers_outlive_a_signal_to_the_group_and_still_give_their_state():
    envs = make_envs(config(id="CartPole-v1"), 4, seed=0)
    envs.reset()
    steps(envs, 3)
    for worker in envs._workers:
        for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
            os.kill(worker.pid, getattr(signal, name))
    steps(envs, 3)
    assert len(envs.state_dict()["lanes"][3]["actions"]) == 6
    envs.close()


CHILD = """
import sys, time, numpy as np
sys.path.insert(0, {here!r})
from rlx.envs.single import EnvConfig
from rlx.envs.make import make_envs
if __name__ == "__main__":
    kwargs = {kwargs!r}
    cfg = EnvConfig(name="t", id="fake_envs:Counter-v0", kwargs=kwargs, backend="async", workers=2, replay=True)
    envs = make_envs(cfg, 2, seed=0)
    envs.reset()
    print(*[w.pid for w in envs._workers], flush=True)
    while {forever!r}:
        envs.step(np.zeros(2, int))
"""


@pytest.mark.parametrize("how", ["kill -9 while stepping", "kill -9 while a worker hangs", "exit without close"])
def test_no_worker_outlives_its_parent(tmp_path, how):
    kwargs = {"length": 9, "fault": "hang"} if "hangs" in how else {"length": 9}
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(CHILD).format(here=str(HELPERS), kwargs=kwargs, forever="kill" in how))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pids = parent.stdout.readline().split()
    assert len(pids) == 2
    mine = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # one that went with its parent already
            mine.append(psutil.Process(int(pid)))
    if "kill" in how:
        time.sleep(0.3)
        parent.kill()
    parent.wait(20)
    assert gone(mine)
