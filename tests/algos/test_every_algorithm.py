"""What every algorithm of the control world must do, built-in ones and those that come later: each YAML of conf/algo
that learns in an environment is tested here and by the kit of rlx check (tests/check), the others in
test_every_language_algorithm.py."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import Child, checkpoints, die_at, die_at_env_step, record, result, resume, serves, train
from training import train as learn
from variants import ALIKE, distinct

from rlx.algos import q_learning
from rlx.base.errors import ConfigError
from rlx.config import registry
from rlx.run import Run

ALGORITHMS = sorted(registry.algorithms_of("control"))
DISTINCT = distinct("control")
IMPLEMENTATION = {name: registry.values("algo", name)["implementation"] for name in ALGORITHMS}
TABULAR = [name for name in ALGORITHMS if registry.facts(IMPLEMENTATION[name]).observations == ("Discrete", "OneHot")]
PLANNERS = [name for name in ALGORITHMS if registry.facts(IMPLEMENTATION[name]).needs]  # they take no step
BOX = [name for name in ALGORITHMS if not serves(name, "Discrete")]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

# Enough to learn a probe with certainty, by implementation.
ENOUGH = {
    "ppo": ["total_steps=3000", "algo.num_envs=4", "algo.num_steps=32", "algo.num_minibatches=4", "algo.lr=5e-3"],
    "trpo": ["total_steps=3000", "algo.num_envs=4", "algo.num_steps=64", "algo.num_minibatches=4"],
    "a2c": ["total_steps=4000", "algo.lr=5e-3"],
    "vpg": ["total_steps=4000", "algo.num_steps=200", "algo.lr=2e-2", "algo.critic_epochs=5"],
    "actor_critic": ["total_steps=6000", "algo.lr=3e-3", "algo.critic_lr=5e-3"],
    "dqn": [
        "total_steps=1500", "algo.learning_starts=200", "algo.target_update_every=100", "algo.lr=3e-3",
        "algo.buffer_size=2000", "algo.exploration_fraction=0.5",
    ],
    **dict.fromkeys(
        ("q_learning", "sarsa_lambda", "n_step_sarsa", "double_q_learning", "bandit"), ["total_steps=1000"]
    ),
    "monte_carlo": ["total_steps=2000"],
    "value_iteration": ["total_steps=50"],
    **dict.fromkeys(("sac", "td3"), [
        "total_steps=2000", "algo.learning_starts=200", "algo.batch_size=64", "algo.lr=3e-3", "algo.buffer_size=2000",
    ]),
}  # fmt: skip


def served(algo: str) -> dict[str, str]:
    """An environment that it serves: Discrete observations, episodes that end and that are cut; two actions, or those
    between -1 and 1."""
    return {"env": "gym", "env.name": "signs", "env.id": f"probe_envs:{'Steer' if algo in BOX else 'Signs'}-v0"}


def best_actions(run: Run) -> list[int]:
    """The greedy action at s = -1 and at s = 1 (the two rows of a table, the two one-hot observations); of actions
    between -1 and 1, which of the two best ones, -.5 and .5, is nearest."""
    if "table" in run.tracked:
        return run.tracked["table"].q.argmax(-1).tolist()
    module = run.tracked["policy"]
    with torch.no_grad():
        if hasattr(module, "mode"):
            action = module.mode(torch.eye(2))[:, 0]
            assert (action.abs() - 0.5).abs().max() < 0.25
            return (action > 0).int().tolist()
        policy = getattr(module, "policy", module)
        return policy(torch.eye(2)).argmax(-1).tolist()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of an algorithm, never stopped. Read it only."""
    return cache(lambda algo: train(tmp_path_factory.mktemp("whole"), **served(algo), algo=algo))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_action_follows_the_observation(algo: str) -> None:
    env = ["env=gym", f"env.id='{served(algo)['env.id']}'", "env.name=signs", "preset=none", "model.hidden=[32]"]
    discount = ["algo.gamma=0.9"] if "gamma" in registry.values("algo", algo) else []
    run, _ = learn(f"algo={algo}", *env, *discount, *ENOUGH[IMPLEMENTATION[algo]])
    assert best_actions(run) == [0, 1]


@pytest.mark.parametrize("algo", DISTINCT)
def test_a_run_killed_again_and_again_equals_one_never_stopped(algo: str, tmp_path, whole) -> None:
    changes = {**served(algo), "algo": algo}
    path = tmp_path / "run"
    lives = [
        lambda: train(tmp_path, name="run", progress=die_at(32), **changes),
        lambda: resume(path, progress=die_at(150)),
        lambda: (die_at_env_step(25), resume(path)),
        lambda: resume(path, progress=die_at(320)),
    ]
    if algo in PLANNERS:
        lives[2] = lambda: resume(path, progress=die_at(200))
    for life in lives:
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    assert result(path) == result(whole(algo)) and checkpoints(path) == checkpoints(whole(algo))
    assert len(record(path)["resumes"]) == 4


@pytest.mark.parametrize("algo", DISTINCT)
def test_a_seed_gives_the_same_run_twice_and_another_seed_another_one(algo: str, tmp_path, whole) -> None:
    """Evaluating more often, and checkpoints, change nothing."""
    changes = {**served(algo), "algo": algo}
    one = result(whole(algo))
    looked_at = result(train(tmp_path, **changes, eval_every=32, checkpoint_every=32))
    kept = [{key: value for key, value in row.items() if not key.startswith("eval/")} for row in looked_at[1]]
    assert looked_at[0] == one[0]
    assert [row for row in kept if len(row) > 1] == [
        row for row in ({k: v for k, v in row.items() if not k.startswith("eval/")} for row in one[1]) if len(row) > 1
    ]
    assert (result(train(tmp_path, **changes, seed=2))[0] != one[0]) == (algo not in PLANNERS)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_metrics_are_json_numbers_and_n_updates_counts(algo: str, whole) -> None:
    rows = [json.loads(line) for line in (whole(algo) / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "time/fps" in row]
    assert all(isinstance(value, int | float) for row in rows for value in row.values())
    assert all(np.isfinite(value) for row in rows for key, value in row.items() if key.startswith("rollout/"))
    assert ("rollout/ep_rew_mean" in trained[-1]) == (algo not in PLANNERS) and trained[-1]["step"] >= 320
    updates = [row["train/n_updates"] for row in trained if "train/n_updates" in row]
    assert updates == sorted(updates) and (updates[-1] > 0)


# -- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", [name for name in ALGORITHMS if name.endswith("dqn")])
def test_box_actions_are_refused_by_name_and_those_that_serve_them_are_named(algo: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=rf"Pendulum-v1 has Box actions; {algo} needs Discrete ones \(use .*ppo.*\)"):
        train(tmp_path / "runs", env="pendulum", algo=algo)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("algo", TABULAR)
def test_a_table_needs_states_that_can_be_counted(algo: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=rf"CartPole-v1 has Box observations; {algo} needs .*\(use (.*)\)") as refused:
        train(tmp_path / "runs", algo=algo)
    assert not (tmp_path / "runs").exists()
    named = str(refused.value).partition("(use ")[2].removesuffix(")").split(", ")
    assert "dqn" in named and "sac" not in named  # those that take its actions, too


@pytest.mark.parametrize("key", ["normalize_obs", "normalize_reward"])
@pytest.mark.parametrize("algo", TABULAR)
def test_a_table_takes_states_and_rewards_as_they_are(algo: str, key: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=rf"env.{key}=true: {algo} needs false"):
        train(tmp_path / "runs", env="grid", algo=algo, **{f"env.{key}": True})
    assert not (tmp_path / "runs").exists()


def test_the_probe_of_this_file_is_served_by_tables() -> None:
    assert q_learning.Config is not None and set(TABULAR) >= {"q_learning", "sarsa", "expected_sarsa", "dyna_q"}


def test_what_stands_for_another_is_of_one_implementation() -> None:
    """And everything else is taken: each implementation of both worlds."""
    for name, reason in ALIKE.items():
        parent = reason.partition(":")[0]
        assert parent not in ALIKE, name
        assert registry.values("algo", name)["implementation"] == registry.values("algo", parent)["implementation"]
    taken = [*DISTINCT, *distinct("language")]
    assert {registry.values("algo", name)["implementation"] for name in taken} == {*registry.implementations()}
