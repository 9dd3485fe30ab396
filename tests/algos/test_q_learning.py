"""Tabular control against exact answers: value iteration, the book's examples, enumeration."""

from __future__ import annotations

import copy
import itertools
import json
import os
import signal
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from composed import composed
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training import train

from rlx.algos import q_learning
from rlx.algos.q_learning import BOOTSTRAP
from rlx.base.errors import ConfigError
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.run import Run
from rlx.rundir.metrics import read_metrics, strip_time
from rlx.tabular.mdp import transition_table, value_iteration
from rlx.tabular.parts import Greedy, Model, Walk, epsilon_greedy
from rlx.training import runner

TARGETS = ["q_learning", "sarsa", "expected_sarsa"]
CHAIN = ("env=grid", "preset=none", "env.kwargs.rows=1", "env.kwargs.columns=5", "env.kwargs.start=[0,0]",
         "env.kwargs.goal=[0,4]", "env.kwargs.forbidden=[]")  # fmt: skip
CHAIN_CONFIG = EnvConfig(
    name="chain", id="rlx/Grid-v0", kwargs={"rows": 1, "columns": 5, "start": [0, 0], "goal": [0, 4], "forbidden": []}
)


class Counter(gym.Env):
    """State t at step t, reward 0, cut after 2 steps; Discrete, without a table."""

    observation_space, action_space = gym.spaces.Discrete(25), gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        return self.t, 0.0, False, False, {}


class Choice(Counter):
    """Reward 1 for action 0."""

    def step(self, action):
        self.t += 1
        return self.t, float(action == 0), False, False, {}


class Halt(Counter):
    """Reward 1, and in state 1 it is over."""

    observation_space = gym.spaces.Discrete(2)

    def step(self, action):
        return 1, 1.0, True, False, {}


def halts(num_envs, **_):
    """The ordinary vector environment of Gymnasium, which resets in the step after the last."""
    return gym.vector.SyncVectorEnv([Halt] * num_envs, autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP)


gym.register("TabularHalt-v0", entry_point=Halt, vector_entry_point=halts)
gym.register("TabularChoice-v0", entry_point=Choice, max_episode_steps=2)
gym.register("TabularCounter-v0", entry_point=Counter, max_episode_steps=2)


def q(run: Run) -> np.ndarray:
    return run.tracked["table"].q.numpy()


# -- targets


@pytest.mark.parametrize("row", [[1.0, 3.0, 2.0, 0.0], [2.0, 2.0, -1.0, 2.0], [0.0] * 4], ids=str)
@pytest.mark.parametrize("epsilon", [0.0, 0.2, 1.0])
def test_the_target_of_expected_sarsa_is_the_mean_of_those_of_sarsa(row, epsilon):
    """Over a grid of uniform numbers that all its steps divide."""
    actions = [epsilon_greedy(row, epsilon, (k + 0.5) / 6000) for k in range(6000)]
    mean = np.mean([BOOTSTRAP["sarsa"](row, row[action], epsilon) for action in actions])
    assert BOOTSTRAP["expected_sarsa"](row, 0, epsilon) == pytest.approx(mean)


@pytest.mark.parametrize("row", [[1.0, 3.0, 2.0], [2.0, 2.0, -1.0]], ids=str)
def test_without_exploration_the_three_targets_are_one(row):
    for k in range(50):
        found = {BOOTSTRAP[target](row, row[epsilon_greedy(row, 0.0, k / 50)], 0.0) for target in TARGETS}
        assert found == {max(row)}


def test_actions_are_chosen_with_the_probabilities_of_epsilon_greedy():
    """Exploring 0.3 / 3 each; the rest shared by the two best."""
    counts = np.bincount([epsilon_greedy([5.0, 1.0, 5.0], 0.3, (k + 0.5) / 6000) for k in range(6000)], minlength=3)
    np.testing.assert_allclose(counts / 6000, [0.1 + 0.35, 0.1, 0.1 + 0.35])
    assert epsilon_greedy([0.0] * 3, 0.3, np.nextafter(0.3, 0)) == 2 == epsilon_greedy([0.0] * 3, 0.3, 1 - 2**-53)


# -- what is learnt


@pytest.mark.parametrize("initial", [0.0, 7.0])
@pytest.mark.parametrize("algo", ["q_learning", "dyna_q"])
def test_on_a_deterministic_chain_q_is_that_of_value_iteration(algo, initial):
    run, _ = train(*CHAIN, f"algo={algo}", "total_steps=6000", "algo.lr=1", "algo.final_epsilon=1", "algo.gamma=0.9",
                   f"algo.initial_value={initial}", "algo.planning_steps=1")  # fmt: skip
    expected = value_iteration(transition_table(CHAIN_CONFIG), 0.9)
    np.testing.assert_allclose(q(run)[:4], expected[:4], rtol=0, atol=1e-6)  # rewards are float32
    assert (q(run)[4] == initial).all()  # nothing is learnt of a terminal state, and nothing read there


@pytest.mark.parametrize("algo", ["q_learning", "sarsa", "dyna_q"])
def test_the_step_in_which_a_vector_environment_resets_is_no_transition(algo):
    run, _ = train(f"algo={algo}", "env=gym", "env.id=TabularHalt-v0", "env.backend=vector", "preset=none",
                   "total_steps=600", "algo.num_envs=2", "algo.num_steps=100", "algo.lr=1")  # fmt: skip
    table = run.tracked["table"]
    assert q(run).tolist() == [[1, 1], [0, 0]] and not table.visits[1].any()
    assert 0.45 < int(table.visits.sum()) / run.step < 0.55  # every other step


def test_expected_sarsa_finds_the_value_of_its_own_policy():
    """Q of the epsilon-greedy policy around the greedy one, by the linear equations of Bellman."""
    run, _ = train(*CHAIN, "algo=expected_sarsa", "total_steps=12000", "algo.lr=0.5", "algo.epsilon=0.4",
                   "algo.final_epsilon=0.4", "algo.gamma=0.9")  # fmt: skip
    mdp, policy = transition_table(CHAIN_CONFIG), np.full((5, 4), 0.1)
    policy[:, 1] += 0.6  # right
    chain = np.einsum("sak,sakt->sat", mdp.onward, np.eye(5)[mdp.next_state])
    value = np.linalg.solve(np.eye(5) - 0.9 * np.einsum("sa,sat->st", policy, chain), (policy * mdp.mean_reward).sum(1))
    np.testing.assert_allclose(q(run)[:4], mdp.backup(value, 0.9)[:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_a_cut_episode_is_bootstrapped_from_its_true_last_state(target):
    """State 2 is never left, so its value stays 1 and those before it are .9 and .81; taken for terminal they would be
    0, and from the first state of the next episode .9 times that one's."""
    run, _ = train(f"algo={target}", "env=gym", "env.id=TabularCounter-v0", "preset=none", "total_steps=2000",
                   "algo.gamma=0.9", "algo.initial_value=1", "algo.lr=0.5", "algo.num_envs=2")  # fmt: skip
    np.testing.assert_allclose(q(run)[:3], [[0.81] * 2, [0.9] * 2, [1.0] * 2])


def test_sarsa_takes_the_action_it_has_bootstrapped_from_and_a_greedy_one_after_a_cut(monkeypatch):
    steps, real = [], q_learning.update

    def noted(algo, table, step, following, epsilon):
        steps.append((*step, following, table.rows[step[0]][step[1]] == max(table.rows[step[0]])))
        return real(algo, table, step, following, epsilon)

    monkeypatch.setattr(q_learning, "update", noted)
    train("algo=sarsa", "env=gym", "env.id=TabularChoice-v0", "preset=none", "total_steps=200", "algo.num_steps=50",
          "algo.epsilon=0", "algo.final_epsilon=0")  # fmt: skip
    for (_, _, _, s2, _, following, _), (s, a, *_, greedy) in itertools.pairwise(steps):
        assert greedy and ((s, a) == (s2, following) if s2 < 2 else s == 0)
    assert {following for _, _, _, s2, _, following, _ in steps if s2 == 2} == {0, 1}


def test_step_sizes_of_omega_1_make_q_the_mean_of_its_targets():
    """Without a bootstrap (gamma 0) that is the mean reward of each pair, the initial value forgotten."""
    rewards: dict[tuple[int, int], list[float]] = {}
    real = q_learning.update

    def noted(algo, table, step, following, epsilon):
        rewards.setdefault(step[:2], []).append(step[2])
        return real(algo, table, step, following, epsilon)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(q_learning, "update", noted)
        run, _ = train("algo=q_learning", "env=frozenlake", "preset=none", "total_steps=3000", "algo.gamma=0",
                       "algo.lr=1", "algo.lr_power=1", "algo.final_epsilon=1", "algo.initial_value=3")  # fmt: skip
    assert len(rewards) > 30
    for (s, a), seen in rewards.items():
        assert q(run)[s, a] == pytest.approx(np.mean(seen))
        assert run.tracked["table"].visits[s, a] == len(seen)


def path(run: Run, config: EnvConfig) -> list[int]:
    """The states the greedy policy goes through."""
    mdp, greedy, s = transition_table(config), run.tracked["table"].policy(), 36
    states = [s]
    for _ in range(100):
        over, s = mdp.terminated[s, greedy[s], 0], mdp.next_state[s, greedy[s], 0]
        states.append(int(s))
        if over:
            return states
    raise AssertionError(f"the goal is not reached: {states[:20]}")


@pytest.mark.parametrize("seed", [1, 2])
def test_sarsa_walks_far_from_the_cliff_and_q_learning_along_its_edge(seed):
    """Sutton & Barto 2018, example 6.6: epsilon .1 for ever, no discount."""
    setup = ("env=cliffwalking", "preset=none", f"seed={seed}", "total_steps=40000", "algo.epsilon=0.1", "algo.lr=1",
             "algo.final_epsilon=0.1", "algo.gamma=1", "algo.lr_power=0.6", "algo.num_envs=8")  # fmt: skip
    config = EnvConfig(name="cliff", id="CliffWalking-v1", max_episode_steps=200)
    (off, history_off), (on, history_on) = train("algo=q_learning", *setup), train("algo=sarsa", *setup)
    assert path(off, config) == [36, *range(24, 36), 47] and history_off[-1]["exact/value"] == -13
    between = path(on, config)[2:-2]
    assert all(s < 24 for s in between) and history_on[-1]["exact/value"] <= -15
    # The safe way costs two to four steps; exploring beside the cliff costs more.
    assert history_on[-1]["rollout/ep_rew_mean"] > history_off[-1]["rollout/ep_rew_mean"] + 5


def test_planning_saves_real_steps():
    """Sutton & Barto 2018, figure 8.2: the more planning, the fewer steps until the policy is the best one."""
    grid = [f"env.kwargs.{size}" for size in ("rows=6", "columns=9", "start=[2,0]", "goal=[0,8]", "forbidden=[]")]
    needed = dict.fromkeys([0, 5, 20], 0)
    for (planning, total), seed in itertools.product(zip(needed, [6000, 2000, 800]), [1, 2]):
        _, history = train("algo=dyna_q", "env=grid", "preset=none", *grid, f"seed={seed}", f"total_steps={total}",
                           "algo.num_steps=50", "algo.gamma=0.95", "algo.epsilon=0.1", "algo.final_epsilon=0.1",
                           f"algo.planning_steps={planning}")  # fmt: skip
        solved = [row["exact/regret"] < 1e-9 for row in history]
        needed[planning] += 50 * (solved.index(True) + 1 if any(solved) else len(solved))
    assert needed[20] * 1.3 < needed[5] and needed[5] * 2 < needed[0], needed


@pytest.mark.parametrize("algo", ["q_learning", "sarsa", "expected_sarsa", "dyna_q"])
def test_the_preset_solves_the_2x3_grid_exactly(algo):
    _, history = train(f"algo={algo}", "env=grid")
    assert history[-1]["exact/regret"] == pytest.approx(0, abs=1e-9)
    assert all(row["exact/regret"] > -1e-9 for row in history)


def test_dyna_q_crosses_the_slippery_lake():
    _, history = train("algo=dyna_q", "env=frozenlake")
    assert history[-1]["exact/value"] >= 0.73


# -- the model


def test_the_model_keeps_how_often_each_outcome_was_seen_and_comes_back_in_the_same_order():
    model = Model()
    for step, count in [((3, 1, 0.5, 2, False), 3), ((0, 0, -1.0, 3, True), 2), ((3, 1, 0.1, 4, True), 1)]:
        for _ in range(count):
            model.see(step)
    again = Model()
    again.load_state_dict(copy.deepcopy(model.state_dict()))
    draws = []
    for m in (model, again):
        draw = iter(np.random.default_rng(0).random(20_000).tolist()).__next__
        draws.append([m.sample(draw) for _ in range(6000)])
    assert draws[0] == draws[1] and all(type(step[4]) is bool for step in draws[1])
    shares = [
        draws[0].count(step) / 6000 for step in [(3, 1, 0.5, 2, False), (0, 0, -1.0, 3, True), (3, 1, 0.1, 4, True)]
    ]
    np.testing.assert_allclose(shares, [0.375, 0.5, 0.125], atol=4 * 0.5 / np.sqrt(6000))  # four standard errors


def test_an_empty_model_can_be_saved():
    model = Model()
    model.load_state_dict(Model().state_dict())
    assert model.pairs == [] and model.outcomes == {}


def test_episodes_that_cannot_be_saved_are_dropped_with_the_action_chosen_in_them():
    walk = Walk(make_envs(EnvConfig(name="lake", id="FrozenLake-v1", replay=False), 2, seed=1))
    walk.begin()
    walk.end([1, 2])
    assert walk.state_dict()["action"] == walk.action == [None, None]
    kept = Walk(make_envs(EnvConfig(name="lake", id="FrozenLake-v1"), 2, seed=1))
    kept.begin()
    kept.end([1, None])
    assert kept.state_dict()["action"] == kept.action == [1, None]


# -- the policy


def test_the_policy_is_greedy_and_explores_where_it_is_given_random_numbers():
    policy = Greedy(np.array([[0.0, 1.0, 1.0], [5.0, 0.0, 0.0]]), epsilon=0.3)
    obs = np.eye(2, dtype=np.float32)[[0, 1] * 3000]
    assert policy(obs[:2]).tolist() == [1, 0]
    explored = policy(obs, np.random.default_rng(0))[1::2]
    assert abs((explored != 0).mean() - 0.2) < 4 * np.sqrt(0.16 / 3000)


# -- the run


VARIANTS = {
    "q_learning": ["algo=q_learning"],
    "sarsa": ["algo=sarsa", "algo.num_envs=3"],
    "expected_sarsa": ["algo=expected_sarsa", "algo.lr_power=0.6"],
    "dyna_q": ["algo=dyna_q", "algo.planning_steps=2"],
    "dyna sarsa": ["algo=sarsa", "algo.planning_steps=2", "env=taxi"],
    "not replayed": ["algo=sarsa", "env.replay=false", "checkpoint_every=70"],
}
TINY = ["env=frozenlake", "preset=none", "total_steps=840", "algo.num_steps=70", "eval_every=210", "eval_episodes=2",
        "checkpoint_every=280", "video=false", "tensorboard=false", "log_every=1"]  # fmt: skip


def raw(root: Path, *overrides: str) -> dict:
    return composed(*TINY, f"runs_dir={root}", *overrides)


def result(path: Path) -> tuple:
    status = json.loads((path / "status.json").read_text())
    assert status["status"] == "finished"
    metrics = [strip_time(row) for row in read_metrics(path / "metrics.jsonl")]
    return status["weights_sha256"], metrics


def start(root: Path, *overrides: str, progress=lambda *_: None) -> Path:
    return runner.start(raw(root, *overrides), ["rlx"], progress, parent=root, name="run")[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_stopped_again_and_again_equals_one_never_stopped(variant, tmp_path):
    changes = VARIANTS[variant]

    def stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    whole = result(start(tmp_path / "whole", *changes))
    place = tmp_path / "stopped" / "run"
    lives = 1
    try:
        start(tmp_path / "stopped", *changes, progress=stop)
    except runner.Interrupted:
        while json.loads((place / "status.json").read_text())["status"] != "finished":
            lives += 1
            try:
                runner.resume(place, runner.read_config(place), ["rlx"], stop)
            except runner.Interrupted:
                assert lives < 20
    assert result(place) == whole and lives >= 4


def test_a_seed_decides_the_run(tmp_path):
    first, second, other = (
        result(start(tmp_path / name, f"seed={seed}")) for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    assert first == second and first[0] != other[0]


def test_the_run_shows_its_policy_and_its_regret(tmp_path):
    place = start(tmp_path, "algo=q_learning", "total_steps=2100")
    rows = read_metrics(place / "metrics.jsonl")
    assert all(row["exact/regret"] == pytest.approx(row["exact/optimum"] - row["exact/value"])
               for row in rows if "exact/regret" in row)  # fmt: skip
    assert sum("exact/regret" in row for row in rows) == 30
    lines = (place / "policy.txt").read_text("utf-8").splitlines()
    assert len(lines) == 4 and lines[0][0] == "S" and lines[3].endswith("G") and set("".join(lines)) <= set("SHG ←↓→↑·")
    cfg, policy = runner.open_policy(place)
    table = torch.tensor([policy.q.argmax(-1)[s] for s in range(16)])
    assert policy(np.eye(16, dtype=np.float32)).tolist() == table.tolist()


def test_the_policy_stands_in_tensorboard_once_a_step_over_a_resume_too(tmp_path):
    place = start(tmp_path, "algo=q_learning", "total_steps=2100", "tensorboard=true")
    raw = {**runner.read_config(place), "total_steps": 3000}
    runner.resume(place, raw, ["rlx"], lambda *_: None)
    events = EventAccumulator(str(place), size_guidance={"tensors": 0}).Reload().Tensors("policy")
    steps = [event.step for event in events]
    assert steps == sorted(set(steps)) and 2100 in steps and steps[-1] > 2100


def test_environments_it_cannot_serve_are_refused_by_name(tmp_path):
    for env, kind in [("cartpole", "Box observations"), ("pendulum", "Box actions")]:
        with pytest.raises(ConfigError, match=rf"has {kind}; q_learning needs Discrete [^\n]*ones \(use [^\n]*ppo"):
            start(tmp_path / env, "algo=q_learning", f"env={env}")
        assert not (tmp_path / env).exists()


def test_there_is_no_picture_and_no_exact_metric_without_a_table():
    run, history = train("algo=q_learning", "env=gym", "env.id=TabularCounter-v0", "preset=none", "total_steps=1000")
    assert not any(key.startswith("exact/") for row in history for key in row)
