"""The exact oracle against linear programming, enumeration, forward propagation and sampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from rlx.control.evaluate import evaluate
from rlx.envs.single import EnvConfig
from rlx.tabular.mdp import (
    MDP,
    Oracle,
    arrows,
    directions,
    from_table,
    optimum,
    policy_value,
    transition_table,
    value_iteration,
)


def random_mdp(seed: int, S: int = 4, A: int = 3, K: int = 3, limit: int | None = None) -> MDP:
    rng = np.random.default_rng(seed)
    shape = (S, A, K)
    return MDP(
        rng.dirichlet(np.ones(K), (S, A)),
        rng.integers(S, size=shape),
        rng.normal(size=shape),
        rng.random(shape) < 0.2,
        rng.dirichlet(np.ones(S)),
        limit,
    )


def env(id: str, **changes) -> EnvConfig:
    return EnvConfig(name="x", id=id, **changes)


def returns_forward(mdp: MDP, policies: np.ndarray) -> float:
    """Expected return of the policies [T, S], one for each time, by pushing the state distribution forward."""
    alive, total = mdp.start.copy(), 0.0
    for policy in policies:
        after = np.zeros_like(alive)
        for s, a in enumerate(policy):
            for k in range(mdp.prob.shape[2]):
                p = alive[s] * mdp.prob[s, a, k]
                total += p * mdp.reward[s, a, k]
                if not mdp.terminated[s, a, k]:
                    after[mdp.next_state[s, a, k]] += p
        alive = after
    return total


@pytest.mark.parametrize("seed", range(5))
def test_value_iteration_solves_the_linear_program_of_the_discounted_mdp(seed):
    """minimise sum V  subject to  V(s) >= r(s, a) + gamma sum p (1 - terminated) V(s')."""
    mdp, gamma = random_mdp(seed), 0.9
    S, A, K = mdp.prob.shape
    rows, bounds = [], []
    for s, a in itertools.product(range(S), range(A)):
        row = -np.eye(S)[s]
        for k in range(K):
            if not mdp.terminated[s, a, k]:
                row[mdp.next_state[s, a, k]] += gamma * mdp.prob[s, a, k]
        rows.append(row)
        bounds.append(-sum(mdp.prob[s, a, k] * mdp.reward[s, a, k] for k in range(K)))
    program = linprog(np.ones(S), A_ub=np.array(rows), b_ub=bounds, bounds=(None, None))
    np.testing.assert_allclose(value_iteration(mdp, gamma).max(-1), program.x, atol=1e-8)  # the program's own tolerance


@pytest.mark.parametrize("seed", range(3))
def test_value_iteration_finds_the_best_of_all_deterministic_policies(seed):
    mdp, gamma = random_mdp(seed, S=3, A=2), 0.8
    values = []
    for policy in itertools.product(range(2), repeat=3):
        chain, reward = np.zeros((3, 3)), np.zeros(3)
        for s, a in enumerate(policy):
            reward[s] = mdp.prob[s, a] @ mdp.reward[s, a]
            for p, t, over in zip(mdp.prob[s, a], mdp.next_state[s, a], mdp.terminated[s, a]):
                chain[s, t] += p * (not over)
        values.append(np.linalg.solve(np.eye(3) - gamma * chain, reward))
    np.testing.assert_allclose(value_iteration(mdp, gamma).max(-1), np.max(values, 0))


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_that_of_the_best_policy_for_each_time(seed):
    mdp = random_mdp(seed, S=2, A=2, limit=3)
    plans = [np.reshape(plan, (3, 2)) for plan in itertools.product(range(2), repeat=6)]
    assert optimum(mdp) == pytest.approx(max(returns_forward(mdp, plan) for plan in plans))


@pytest.mark.parametrize("seed", range(3))
def test_the_value_of_a_policy_is_the_return_of_its_state_distribution(seed):
    mdp = random_mdp(seed, limit=7)
    policy = np.random.default_rng(seed).integers(3, size=4)
    assert policy_value(mdp, policy) == pytest.approx(returns_forward(mdp, np.tile(policy, (7, 1))))


@pytest.mark.parametrize("id", ["FrozenLake-v1", "Taxi-v4"])
def test_the_value_of_a_policy_is_the_mean_return_of_its_episodes(id):
    mdp = transition_table(env(id))
    policy = value_iteration(mdp, 0.95, 1e-6).argmax(-1)
    returns = evaluate(lambda obs: policy[obs.argmax(-1)], env(id), 400, seed=0, num_envs=20).returns
    error = np.std(returns, ddof=1) / np.sqrt(len(returns))
    assert abs(np.mean(returns) - policy_value(mdp, policy)) < 3 * error


@pytest.mark.parametrize(
    "id, limit, value",
    [
        ("FrozenLake-v1", None, 0.7442),
        ("FrozenLake8x8-v1", None, 0.9132),
        ("CliffWalking-v1", 200, -13),
        ("Taxi-v4", None, 7.93),
        ("rlx/Grid-v0", None, 0.7),
    ],
)
def test_the_known_optima_are_found_and_no_policy_beats_them(id, limit, value):
    mdp = transition_table(env(id, max_episode_steps=limit))
    assert optimum(mdp) == pytest.approx(value, abs=5e-5)  # as published, to four digits
    S, A, _ = mdp.prob.shape
    rng = np.random.default_rng(0)
    for policy in [value_iteration(mdp, 0.99, 1e-6).argmax(-1), *rng.integers(A, size=(5, S))]:
        assert Oracle(mdp).metrics(policy)["exact/regret"] > -1e-9


def test_a_shorter_limit_leaves_less_time():
    """4 steps lead around the red cell: with 3 of them the best is to lose the least, 3 times -0.1."""
    found = [optimum(transition_table(env("rlx/Grid-v0", max_episode_steps=limit))) for limit in (3, 4, 5)]
    assert found == pytest.approx([-0.3, 0.7, 0.7])


def test_the_oracle_follows_the_policy():
    oracle = Oracle(transition_table(env("rlx/Grid-v0")))
    down = np.full(6, 2)
    best = np.array([1, 1, 2, 0, 0, 0])
    for policy, value in [(down, -10.0), (best, 0.7), (best, 0.7), (down, -10.0)]:
        found = oracle.metrics(policy)
        assert found["exact/value"] == pytest.approx(value)
        assert found["exact/regret"] == pytest.approx(0.7 - value)
    policy = best.copy()
    oracle.metrics(policy)
    policy[:] = down  # the caller's array may be overwritten
    assert oracle.metrics(policy)["exact/value"] == pytest.approx(-10)


@pytest.mark.parametrize(
    "config",
    [
        env("CartPole-v1"),
        env("Blackjack-v1"),
        env("Taxi-v4", kwargs={"fickle_passenger": True}),
        env("FrozenLake-v1", wrappers=["repeat_action_2"]),
    ],
    ids=lambda config: config.id,
)
def test_without_a_table_that_tells_everything_there_is_no_oracle(config):
    assert transition_table(config) is None
    assert Oracle(None).metrics(np.zeros(2, int)) == {} and Oracle(None).notice == ""


def test_without_a_time_limit_there_is_a_table_and_a_note_and_no_metric():
    mdp = transition_table(env("CliffWalking-v1"))
    oracle = Oracle(mdp)
    assert mdp is not None and oracle.metrics(np.zeros(48, int)) == {} and "env.max_episode_steps" in oracle.notice
    with pytest.raises(ValueError, match="time limit"):
        optimum(mdp)


def test_probabilities_that_do_not_sum_to_1_are_refused():
    with pytest.raises(ValueError, match="do not sum to 1"):
        from_table({0: {0: [(0.5, 0, 1.0, True)]}}, np.ones(1))


# -- pictures


@pytest.mark.parametrize(
    "config, looks",
    [
        (env("FrozenLake-v1"), "←↓→↑"),
        (env("FrozenLake8x8-v1", kwargs={"is_slippery": False}), "←↓→↑"),
        (env("CliffWalking-v1"), "↑→↓←"),
        (env("CliffWalking-v1", kwargs={"is_slippery": True}), "↑→↓←"),
        (env("rlx/Grid-v0", kwargs={"slip": 0.5}), "↑→↓←"),
    ],
    ids=str,
)
def test_actions_look_like_where_they_lead(config, looks):
    assert "".join(directions(transition_table(config))) == looks


def test_the_picture_of_a_policy_has_letters_arrows_and_dots():
    mdp = transition_table(env("FrozenLake-v1"))
    policy = np.array([0, 1, 2, 3] * 4)
    known = np.ones(16, bool)
    known[9] = False
    assert arrows(mdp, policy, known) == "S←  ↓  →  ↑\n ← H   → H\n ←  ·  → H\nH   ↓  → G"
    assert arrows(transition_table(env("Taxi-v4")), np.zeros(500, int), np.ones(500, bool)) is None
    cliff = transition_table(env("CliffWalking-v1"))
    assert arrows(cliff, np.zeros(48, int), np.ones(48, bool)).splitlines()[3] == "S↑" + " C " * 10 + " G"
