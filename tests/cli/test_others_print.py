"""Standard output holds the answer and nothing else, whatever an environment prints; its draws from the global
generators are the run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, Done, rlx

LOUD = """
import atexit, ctypes, os, random
import gymnasium as gym
import numpy as np

def loud(where):
    print("print in", where)
    os.write(1, f"write in {where}\\n".encode())
    ctypes.CDLL(None).puts(f"puts in {where}".encode())

loud("import")
atexit.register(loud, "exit")

class Loud(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None):
        loud("init")
        self.render_mode = render_mode
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        loud("reset")
        self.left = 3
        return np.zeros(2, np.float32), {}
    def step(self, action):
        loud("step")
        self.left -= 1
        return np.full(2, random.uniform(-1, 1), np.float32), np.random.rand(), self.left == 0, False, {}
    def close(self):
        loud("close")
"""
TRAIN = ["train", "env=gym", "env.id=./loud.py:Loud", "preset=none", *TINY, "total_steps=64", "algo.num_envs=2"]
TRAIN += ["algo.num_steps=16", "algo.num_minibatches=4", "video=false", "model.hidden=[4]", "eval_episodes=1"]


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Done]]:
    here = tmp_path_factory.mktemp("loud")
    (here / "loud.py").write_text(LOUD)
    return here, [ok(rlx(*TRAIN, cwd=here)) for _ in range(2)]


def test_the_answer_of_eval_is_json_whatever_the_environment_prints(two: tuple[Path, list[Done]]) -> None:
    here, (run, _) = two
    first, again = (ok(rlx("eval", run.run, "--episodes=2", "--json", cwd=here)) for _ in range(2))
    assert json.loads(first.out)["n"] == 2
    for kind in ("print", "write", "puts"):
        for where in ("import", "init", "reset", "step", "close", "exit"):
            assert f"{kind} in {where}" in first.err
    assert first.out == again.out  # its global draws are seeded, too


def test_what_an_environment_prints_is_no_part_of_what_train_says(two: tuple[Path, list[Done]]) -> None:
    for done in two[1]:
        assert " in " not in done.out.replace("\nrun: ", "") and done.out.splitlines()[-1] == f"run: {done.run}"


def test_an_environment_that_draws_from_the_global_generators_gives_the_same_run_twice(
    two: tuple[Path, list[Done]],
) -> None:
    here, runs = two
    one, other = (json.loads((here / run.run / "status.json").read_text()) for run in runs)
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["evaluation"] == other["evaluation"]
