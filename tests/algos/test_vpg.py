"""REINFORCE and VPG: what the weights are, that they have the same mean and falling variance, whole episodes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training import train

from rlx.algos import vpg
from rlx.control.distributions import make_head
from rlx.control.networks import ActorCritic, ModelConfig
from rlx.control.rollout import Rollout
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvFault
from rlx.functional import policy as pg

torch.set_num_threads(1)
WEIGHTS = ("whole_return", "reward_to_go", "baseline", "gae")


def config(weight: str, gamma: float = 0.9, gae_lambda: float = 0.8) -> SimpleNamespace:
    return SimpleNamespace(weight=weight, gamma=gamma, gae_lambda=gae_lambda)


def by_hand(weight: str, gamma: float, lam: float, rewards: list, values: list, cut: bool, last: float) -> list[float]:
    """One episode, from the definitions, with loops; `last` is V of its final observation, used where it was cut."""
    T = len(rewards)
    to_go = [sum(gamma ** (k - t) * rewards[k] for k in range(t, T)) for t in range(T)]
    if weight == "whole_return":
        return [to_go[0]] * T
    if weight == "reward_to_go":
        return to_go
    if weight == "baseline":
        return [u - v for u, v in zip(to_go, values)]
    following = [*values[1:], last if cut else 0.0]
    delta = [r + gamma * after - v for r, after, v in zip(rewards, following, values)]
    return [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, T)) for t in range(T)]


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_weights_are_those_of_the_definitions_episode_by_episode(weight: str) -> None:
    rng = np.random.default_rng(0)
    episodes = [(3, False), (1, False), (4, True), (2, True)]  # length, cut by a limit
    expected, columns = [], {name: [] for name in ("reward", "value", "next_value", "terminated", "done")}
    for length, cut in episodes:
        rewards, values, last = rng.normal(size=length), rng.normal(size=length), rng.normal()
        expected += by_hand(weight, 0.9, 0.8, list(rewards), list(values), cut, last)
        columns["reward"] += list(rewards)
        columns["value"] += list(values)
        columns["next_value"] += [*values[1:], last]
        columns["terminated"] += [False] * (length - 1) + [not cut]
        columns["done"] += [False] * (length - 1) + [True]
    batch = {name: torch.tensor(np.array(column))[:, None] for name, column in columns.items()}
    got, _ = vpg.weights(config(weight), batch)
    torch.testing.assert_close(got[:, 0], torch.tensor(expected, dtype=torch.float64))


# A decision process small enough to enumerate: two steps, two actions, the state is (step, first action).
REWARD = {(0, (0,)): 1.0, (0, (1,)): -0.5, (1, (0, 0)): 2.0, (1, (0, 1)): 0.0, (1, (1, 0)): -1.0, (1, (1, 1)): 3.0}


def enumerate_gradients(weight: str, value: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and total variance of the gradient over all four trajectories, and the true gradient."""
    torch.manual_seed(0)
    logits = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)  # of the start, after 0, after 1
    logprobs = logits.log_softmax(-1)
    grads, probs, expected = [], [], torch.zeros((), dtype=torch.float64)
    for a, b in itertools.product((0, 1), repeat=2):
        logprob = torch.stack([logprobs[0, a], logprobs[1 + a, b]])
        reward = [REWARD[0, (a,)], REWARD[1, (a, b)]]
        column = lambda *x: torch.tensor(x, dtype=torch.float64)[:, None]  # noqa: E731
        batch = {
            "reward": column(*reward), "value": column(value[()], value[(a,)]), "next_value": column(value[(a,)], 9.0),
            "terminated": column(0, 1).bool(), "done": column(0, 1).bool(),
        }  # fmt: skip
        w, _ = vpg.weights(config(weight, gamma=1.0, gae_lambda=1.0), batch)
        loss = pg.policy_gradient(logprob, w[:, 0]).sum()
        grads.append(-torch.autograd.grad(loss, logits, retain_graph=True)[0].flatten())
        probs.append(logprob.sum().exp())
        expected = expected + probs[-1] * sum(reward)
    p = torch.stack(probs).detach()
    stacked = torch.stack(grads)
    mean = (p[:, None] * stacked).sum(0)
    variance = (p[:, None] * (stacked - mean).square()).sum()
    return mean, variance, torch.autograd.grad(expected, logits)[0].flatten()


def true_values() -> dict:
    torch.manual_seed(0)
    p = torch.randn(3, 2, dtype=torch.float64).softmax(-1).tolist()
    after = {(a,): sum(p[1 + a][b] * REWARD[1, (a, b)] for b in (0, 1)) for a in (0, 1)}
    return {**after, (): sum(p[0][a] * (REWARD[0, (a,)] + after[(a,)]) for a in (0, 1))}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("value", [{(): 0.3, (0,): -1.0, (1,): 2.0}, None])
def test_every_weight_has_the_true_policy_gradient_as_its_mean(weight: str, value: dict | None) -> None:
    mean, _, true = enumerate_gradients(weight, value or true_values())
    torch.testing.assert_close(mean, true)


def test_each_weight_has_less_variance_than_the_one_before() -> None:
    whole, to_go, baseline, gae = (float(enumerate_gradients(weight, true_values())[1]) for weight in WEIGHTS)
    assert whole > to_go > baseline == pytest.approx(gae)


# -- whole episodes ------------------------------------------------------------------------------------------------


def rollout(num_envs: int, num_steps: int, **kwargs) -> Rollout:
    cfg = EnvConfig(name="random", id="CartPole-v1", **kwargs)
    envs = make_envs(cfg, num_envs, seed=0)
    head = make_head(envs.action_space)
    shape = envs.observation_space.shape
    model = ActorCritic(shape, head, ModelConfig([8], "tanh", False, True, 0.0, 32), torch.Generator().manual_seed(0))
    rng, device = np.random.default_rng(0), torch.device("cpu")
    return Rollout(cfg, envs, model, head, num_steps, 0.99, rng, device, whole_episodes=True)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_a_batch_holds_whole_episodes_and_nothing_else(num_envs: int) -> None:
    collector = rollout(num_envs, 30)
    for _ in range(4):
        batch = {name: tensor.clone() for name, tensor in collector.collect().items()}
        valid, done = batch["valid"], batch["done"]
        for i in range(num_envs):
            kept = int(valid[:, i].sum())
            assert valid[:kept, i].all() and not valid[kept:, i].any()  # from the start, without a gap
            assert done[kept - 1, i] and kept >= 30  # to the end of an episode
            assert not done[29 : kept - 1, i].any()  # of the first that ends at or behind step 30
        assert (batch["obs"][0].abs() < 0.05).all()  # begins with a first observation
        assert len(batch["reward"]) == int(valid.sum(0).max())


def test_rows_of_a_long_episode_are_kept_when_the_buffers_grow() -> None:
    short, long = rollout(1, 4), rollout(1, 64)
    a, b = short.collect(), long.collect()
    rows = len(a["reward"])
    assert rows > 8  # the first episode is longer: it has grown more than once
    for name in ("obs", "action", "logprob", "value"):  # the same seed, noise drawn in blocks of one stream
        if name in ("obs",):
            torch.testing.assert_close(a[name][0], b[name][0])
        assert len(a[name]) == rows
    again, _ = short.head.logprob_entropy(a["params"], a["action"])
    torch.testing.assert_close(again, a["logprob"])


def test_steps_behind_the_last_whole_episode_are_counted_and_not_learnt_from() -> None:
    run, history = train("algo=vpg", "env=cartpole", "preset=none", "algo.num_envs=3", "algo.num_steps=20",
                         "algo.critic_epochs=1", "total_steps=300")  # fmt: skip
    assert run.step > 300 and run.step % 3 == 0
    assert sum(metrics["train/batch_size"] for metrics in history) < run.step


@pytest.mark.parametrize(("weight", "moves"), [("reward_to_go", False), ("baseline", True), ("gae", True)])
def test_the_critic_is_fitted_where_it_is_used(weight: str, moves: bool) -> None:
    runs = [
        train("algo=vpg", "env=cartpole", "preset=none", f"algo.weight={weight}", "algo.num_steps=50",
              "algo.critic_epochs=2", f"total_steps={steps}")[0]
        for steps in (1, 200)
    ]  # fmt: skip
    first, second = (torch.cat([p.flatten() for p in run.tracked["policy"].critic.parameters()]) for run in runs)
    assert torch.equal(first, second) is not moves


def test_the_published_log_of_the_simplest_policy_gradient_is_reproduced_in_shape() -> None:
    # 24 in the first epoch, about 60 after 20 of the 50 (docs/results has all of it); one update each.
    _, history = train("experiment=simplest_pg", "total_steps=100_000")
    curve = [metrics["rollout/batch_rew_mean"] for metrics in history]
    assert 15 < curve[0] < 30 and 35 < np.mean(curve[-3:]) < 200
    assert [metrics["train/n_updates"] for metrics in history] == list(range(1, len(history) + 1))
    assert all(metrics["train/batch_size"] >= 5_000 for metrics in history)


def test_an_episode_that_never_ends_ends_the_run_and_is_named(monkeypatch) -> None:
    monkeypatch.setattr("rlx.control.rollout.LONGEST", 300)
    with pytest.raises(EnvFault, match="Pendulum-v1 has not ended after 300 steps .*set env.max_episode_steps"):
        train(
            "algo=vpg", "env=pendulum", "preset=none", "env.max_episode_steps=0", "algo.num_steps=20", "total_steps=9"
        )
