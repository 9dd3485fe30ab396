"""The tabular teaching set against closed forms, exact values and one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from composed import composed
from test_q_learning import CHAIN, CHAIN_CONFIG
from training import train

from rlx.base.errors import ConfigError
from rlx.envs.single import EnvConfig
from rlx.run import Run
from rlx.tabular.agent import Step, TabularAgent
from rlx.tabular.mdp import reachable, transition_table, uniform, value_iteration, values_of
from rlx.tabular.parts import Walk
from rlx.training import runner

LAKE = EnvConfig(name="lake", id="FrozenLake-v1")
WALK = EnvConfig(name="walk", **{key: composed("env=random_walk")["env"][key] for key in ("id", "kwargs")})
SHORT = ("env=frozenlake", "preset=none", "total_steps=2000", "algo.num_steps=250", "algo.final_epsilon=0.3")


def q(run: Run) -> np.ndarray:
    return run.tracked["table"].q.numpy()


def v(run: Run) -> np.ndarray:
    return run.tracked["values"].q[:, 0].numpy()


# -- theorems that tie one algorithm to another


@pytest.mark.parametrize(
    "more",
    [(), ("algo.num_envs=3", "algo.lr_power=0.6"), ("env.max_episode_steps=4", "algo.initial_value=0.5")],
    ids=str,
)
@pytest.mark.parametrize("algo", ["n_step_sarsa algo.n_step=1", "sarsa_lambda algo.trace_lambda=0"])
def test_one_step_and_lambda_0_are_sarsa_bit_for_bit(algo, more):
    (one, history), (other, rows) = (train(f"algo={name.split()[0]}", *name.split()[1:], *SHORT, *more)
                                     for name in ("sarsa", algo))  # fmt: skip
    assert (q(one) == q(other)).all() and q(one).any()
    assert [row["rollout/ep_rew_mean"] for row in history] == [row["rollout/ep_rew_mean"] for row in rows]


def episodes(monkeypatch: pytest.MonkeyPatch) -> list[list[Step]]:
    """The episodes that a run on one environment goes through; the last one is not over."""
    seen: list[list[Step]] = [[]]
    real = TabularAgent.steps

    def steps(self, *words, **more):
        for step in real(self, *words, **more):
            seen[-1].append(step)
            if step.done:
                seen.append([])
            yield step

    monkeypatch.setattr(TabularAgent, "steps", steps)
    return seen


@pytest.mark.parametrize("learned", ["action", "state"])
def test_monte_carlo_is_the_mean_of_the_returns_that_followed_first_visits(learned, monkeypatch):
    seen, gamma = episodes(monkeypatch), 0.9
    run, _ = train("algo=monte_carlo", *SHORT, "algo.epsilon=1", "algo.final_epsilon=1", f"algo.gamma={gamma}",
                   "seed=3", f"algo.values={learned}")  # fmt: skip
    returns: dict[tuple[int, int], list[float]] = {}
    for episode in seen[:-1]:
        pairs = [(step.state, step.action) for step in episode]
        for pair in dict.fromkeys(pairs):
            after = episode[pairs.index(pair) :]
            returns.setdefault(pair, []).append(sum(gamma**k * step.reward for k, step in enumerate(after)))
    table = run.tracked["values"].q.numpy() if learned == "state" else q(run)
    assert len(returns) > (10 if learned == "state" else 30) and any(np.mean(each) for each in returns.values())
    for (s, a), values in returns.items():
        assert table[s, a] == pytest.approx(np.mean(values))


def test_an_n_beyond_every_episode_is_monte_carlo_with_a_constant_step_size(monkeypatch):
    """Every visit counts: Q(s, a) += alpha (G - Q(s, a)) in the order of the episode."""
    seen, table = episodes(monkeypatch), np.zeros((16, 4))
    run, _ = train("algo=n_step_sarsa", *SHORT, "algo.n_step=1000", "algo.lr=0.2", "algo.gamma=0.9")
    for episode in seen[:-1]:
        for t, (_, s, a, *_) in enumerate(episode):
            table[s, a] += 0.2 * (sum(0.9**k * step.reward for k, step in enumerate(episode[t:])) - table[s, a])
    np.testing.assert_allclose(q(run), table, atol=1e-12)


@pytest.mark.parametrize("traces", ["accumulating", "replacing"])
def test_a_trace_moves_all_that_led_to_an_error(traces, monkeypatch):
    """The backward view, written out: after each step every pair has alpha delta e, e from its own visits."""
    seen, gamma, lam = episodes(monkeypatch), 0.9, 0.8
    run, _ = train("algo=td_lambda", "env=random_walk", "preset=none", "total_steps=400", "algo.num_steps=400",
                   f"algo.traces={traces}", "algo.lr=0.1", f"algo.gamma={gamma}", f"algo.trace_lambda={lam}",
                   "env.kwargs.columns=5", "env.kwargs.start=[0,2]", "env.kwargs.goal=[0,4]")  # fmt: skip
    value = np.zeros(5)
    for episode in seen:
        for t, step in enumerate(episode):
            after = 0.0 if step.terminated else value[step.next_state]
            delta = step.reward + gamma * after - value[step.state]
            visits: dict[int, list[int]] = {}
            for k, earlier in enumerate(episode[: t + 1]):
                visits.setdefault(earlier.state, []).append(k)
            for state, times in visits.items():
                times = times if traces == "accumulating" else times[-1:]
                value[state] += 0.1 * delta * sum((gamma * lam) ** (t - k) for k in times)
    assert np.abs(value).max() > 0.1
    np.testing.assert_allclose(v(run), value, atol=1e-12)


# -- exact values


def test_the_values_of_the_random_walk_are_those_of_the_book():
    """V(k) = k / 20, the probability to end at the right (Sutton & Barto 2018, example 7.1)."""
    mdp = transition_table(WALK)
    exact = values_of(mdp, uniform(mdp), 1.0)
    np.testing.assert_allclose(exact[1:-1], np.arange(1, 20) / 20)
    assert reachable(mdp).tolist() == [False, *[True] * 19, False]


@pytest.mark.parametrize("words", ["td_lambda", "n_step_sarsa algo.values=state", "monte_carlo algo.values=state"])
def test_predictions_come_to_the_exact_values_of_random_moves(words):
    name, *more = words.split()
    sizes = ("algo.lr=1", "algo.lr_power=0.7") if name != "monte_carlo" else ()
    run, history = train(f"algo={name}", *more, "env=random_walk", "preset=none", "env.kwargs.columns=7",
                         "env.kwargs.start=[0,3]", "env.kwargs.goal=[0,6]", "total_steps=12000", "algo.gamma=1",
                         "algo.epsilon=1", "algo.final_epsilon=1", *sizes)  # fmt: skip
    assert history[-1]["exact/rmse"] < 0.04 < history[0]["exact/rmse"] + 0.03
    np.testing.assert_allclose(v(run)[1:-1], np.arange(1, 6) / 6, atol=0.1)
    assert (q(run).argmax(-1)[1:-1] == 1).all()  # one look-ahead in the table: to the right


@pytest.mark.parametrize("algo", ["value_iteration", "policy_iteration"])
@pytest.mark.parametrize("env, config", [("grid", CHAIN_CONFIG), ("frozenlake", LAKE)])
def test_planning_ends_at_the_exact_optimum(algo, env, config):
    place = CHAIN if env == "grid" else (f"env={env}", "preset=none")
    run, history = train(f"algo={algo}", *place, "algo.gamma=0.9", "total_steps=3000")
    mdp = transition_table(config)
    np.testing.assert_allclose(q(run), value_iteration(mdp, 0.9), atol=1e-7)
    assert run.step < 3000 and run.tracked["table"].done
    deltas = [row["train/delta"] for row in history]
    if algo == "value_iteration":
        assert all(after <= 0.9 * before + 1e-12 for before, after in itertools.pairwise(deltas))  # a contraction
    else:
        improved = [row["train/improved_states"] for row in history if row["train/improved_states"]]
        assert 1 <= len(improved) <= 10 < len(history)


def test_policy_evaluation_solves_bellmans_linear_equations():
    run, history = train("algo=policy_evaluation", "env=frozenlake", "preset=none", "algo.gamma=0.9")
    mdp = transition_table(LAKE)
    exact = values_of(mdp, uniform(mdp), 0.9)
    np.testing.assert_allclose(q(run), mdp.backup(exact, 0.9), atol=1e-7)
    assert history[-1]["exact/rmse"] < 1e-7 and history[-1]["exact/value"] > mdp.start @ exact  # policy improvement


@pytest.mark.parametrize("algo", ["monte_carlo", "sarsa_lambda", "n_step_sarsa", "double_q_learning", "value_iteration",
                                  "policy_iteration"])  # fmt: skip
def test_the_preset_finds_the_way_around_the_red_cell(algo):
    _, history = train(f"algo={algo}", "env=grid", "seed=2")
    assert history[-1]["exact/regret"] == pytest.approx(0, abs=1e-9)


# -- double Q-learning


def test_two_tables_over_estimate_less_than_one_and_leave_the_wrong_way_sooner():
    """Sutton & Barto 2018, example 6.7 and figure 6.5: after 200 steps Q-learning still goes left nine times in ten."""
    bias, left = {}, {}
    for double in (True, False):
        rows = [train("algo=double_q_learning", "env=maximisation_bias", f"algo.double={double}", f"seed={seed}",
                      "total_steps=200", "algo.num_steps=50")[1] for seed in range(1, 9)]  # fmt: skip
        bias[double] = np.mean([[row["exact/overestimation"] for row in history] for history in rows])
        left[double] = np.mean([history[-1]["rollout/ep_len_mean"] - 1 for history in rows])
    assert bias[False] > 0.05 > 3 * bias[True] and left[False] > 0.7 > 0.4 > left[True], (bias, left)


def test_each_of_two_tables_learns_from_half_of_the_steps():
    run, _ = train("algo=double_q_learning", *SHORT, "algo.lr=1", "algo.gamma=0", "algo.epsilon=1")
    one, two = (run.tracked[f"table_{i}"].q.numpy() for i in (1, 2))
    np.testing.assert_allclose(q(run), (one + two) / 2)
    assert (one != two).any()


# -- bandits

BANDIT = ("env=bandit", "preset=none", "total_steps=1500", "algo.num_steps=100")


@pytest.mark.parametrize("algo", ["bandit", "bandit_ucb", "bandit_gradient"])
def test_a_bandit_finds_the_best_arm(algo):
    run, history = train(f"algo={algo}", *BANDIT, "seed=1")
    assert history[-1]["exact/regret"] == 0 and history[-1]["rollout/best_arm_rate"] > 0.8


def test_the_values_of_a_bandit_are_the_means_of_its_rewards(monkeypatch):
    seen = episodes(monkeypatch)
    run, _ = train("algo=bandit", *BANDIT)
    rewards: dict[int, list[float]] = {}
    for (step,) in seen[:-1]:
        rewards.setdefault(step.action, []).append(step.reward)
    assert len(rewards) == 10
    for arm, each in rewards.items():
        assert q(run)[0, arm] == pytest.approx(np.mean(each))


def test_ucb_pulls_every_arm_once_before_any_arm_twice(monkeypatch):
    seen = episodes(monkeypatch)
    train("algo=bandit_ucb", *BANDIT)
    assert sorted(episode[0].action for episode in seen[:10]) == list(range(10))


def test_a_gradient_bandit_without_a_baseline_is_slower_where_all_arms_pay():
    """Sutton & Barto 2018, figure 2.5: values around 4."""
    rates = {}
    for baseline in (True, False):
        rows = [train("algo=bandit_gradient", *BANDIT, "env.kwargs.mean=4", f"algo.baseline={baseline}",
                      f"env.kwargs.instance={k}", "total_steps=800")[1] for k in range(3)]  # fmt: skip
        rates[baseline] = np.mean([history[-1]["rollout/best_arm_rate"] for history in rows])
    assert rates[True] > rates[False] + 0.1, rates


def test_memory_of_an_open_episode_is_saved_and_dropped_where_the_episode_is():
    from rlx.envs.make import make_envs

    for replay, kept in ((True, [[(1, 2, 0.5)], []]), (False, [[], []])):
        walk = Walk(make_envs(EnvConfig(name="lake", id="FrozenLake-v1", replay=replay), 2, seed=1))
        walk.begin()
        walk.memory[0].append((1, 2, 0.5))
        state = walk.state_dict()
        again = Walk(make_envs(EnvConfig(name="lake", id="FrozenLake-v1", replay=replay), 2, seed=1))
        again.load_state_dict(state)
        assert again.memory == walk.memory == kept


def test_v_is_that_of_random_moves_only():
    for algo in ("n_step_sarsa", "monte_carlo"):
        with pytest.raises(ConfigError, match="values=state: V\\(s\\) chooses no action"):
            runner.typed(composed(f"algo={algo}", "env=grid", "algo.values=state", "algo.epsilon=1.0"))


def test_the_gradient_of_preferences_is_that_of_autograd():
    from rlx.functional.bandits import preference_gradient

    preference = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    action, reward, baseline = torch.tensor([0, 1, 2, 0, 1]), torch.randn(5).double(), torch.randn(5).double()
    chosen = preference.log_softmax(-1).gather(-1, action[:, None]).squeeze(-1)
    (expected,) = torch.autograd.grad(((reward - baseline) * chosen).sum(), preference)
    torch.testing.assert_close(preference_gradient(preference.detach(), action, reward, baseline), expected)


def test_the_bound_of_an_arm_falls_with_its_pulls_and_is_its_mean_without_a_bonus():
    from rlx.functional.bandits import upper_confidence

    value, count = torch.zeros(4), torch.tensor([1.0, 2.0, 8.0, 0.0])
    bound = upper_confidence(value, count, 2.0)
    assert bound[:3].tolist() == pytest.approx([2 * np.sqrt(np.log(12) / n) for n in (1, 2, 8)]) and bound[3].isinf()
    assert torch.equal(upper_confidence(value, count.clamp(min=1), 0.0), value)
