"""A2C: its returns, its gradient, and that dummy rows and the engine change nothing."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training import train

from rlx.algos import a2c
from rlx.control.distributions import Categorical
from rlx.control.networks import ActorCritic, ModelConfig

torch.set_num_threads(1)
T, N = 6, 3


def config(**changes) -> SimpleNamespace:
    base = {"gamma": 0.9, "gae_lambda": 1.0, "normalize_advantage": False, "vf_coef": 0.5, "ent_coef": 0.01}
    return SimpleNamespace(**{**base, **changes})


def setup(seed: int = 0) -> tuple[ActorCritic, Categorical, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    head = Categorical(2)
    model = ActorCritic((4,), head, ModelConfig([16], "tanh", False, False, 0.0, 32), generator).double()
    rng = np.random.default_rng(seed)
    done = rng.random((T, N)) < 0.3
    terminated = done & (rng.random((T, N)) < 0.5)
    final_value = np.where(done & ~terminated, rng.normal(size=(T, N)), 0.0)
    batch = {
        "obs": torch.tensor(rng.normal(size=(T + 1, N, 4))), "action": torch.tensor(rng.integers(0, 2, (T, N))),
        "reward": torch.tensor(rng.normal(size=(T, N))), "terminated": torch.tensor(terminated),
        "done": torch.tensor(done), "final_value": torch.tensor(final_value),
        "valid": torch.ones((T, N), dtype=torch.bool),
    }  # fmt: skip
    assert done.any() and (done & ~terminated).any() and terminated.any()
    return model, head, batch


def returns_by_hand(batch: dict[str, torch.Tensor], value: np.ndarray, gamma: float) -> np.ndarray:
    """As many rewards as there are until the end of the episode or of the rollout, and the value there."""
    found = np.zeros((T, N))
    for i in range(N):
        for t in range(T):
            factor = 1.0
            for k in range(t, T):
                found[t, i] += factor * float(batch["reward"][k, i])
                factor *= gamma
                if batch["terminated"][k, i]:
                    break
                if batch["done"][k, i]:
                    found[t, i] += factor * float(batch["final_value"][k, i])
                    break
            else:
                found[t, i] += factor * value[T, i]
    return found


def test_with_lambda_1_the_return_is_every_reward_until_the_end_and_the_value_there() -> None:
    model, _, batch = setup()
    value = model(batch["obs"])[1].detach()
    advantage, return_ = a2c.targets(config(), value, batch)
    expected = torch.tensor(returns_by_hand(batch, value.numpy(), 0.9))
    torch.testing.assert_close(return_, expected)
    torch.testing.assert_close(advantage, expected - value[:-1])


def test_the_gradient_is_that_of_the_textbook_loss() -> None:
    model, head, batch = setup()
    got = torch.autograd.grad(a2c.loss(config(), model, head, batch)[0], list(model.parameters()))
    with torch.no_grad():
        value = model(batch["obs"])[1]
    target = torch.tensor(returns_by_hand(batch, value.numpy(), 0.9))
    policy = torch.distributions.Categorical(logits=model.actor(batch["obs"][:-1]))
    v = model.critic(batch["obs"][:-1]).squeeze(-1)
    textbook = (
        -(policy.log_prob(batch["action"]) * (target - value[:-1])).mean()
        + 0.5 * (0.5 * (v - target) ** 2).mean()
        - 0.01 * policy.entropy().mean()
    )
    for a, b in zip(got, torch.autograd.grad(textbook, list(model.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_the_policy_loss_does_not_reach_the_critic() -> None:
    model, head, batch = setup()
    loss, _ = a2c.loss(config(vf_coef=0.0), model, head, batch)
    grads = torch.autograd.grad(loss, list(model.critic.parameters()), allow_unused=True)
    assert all(grad is None or float(grad.abs().max()) == 0 for grad in grads)


@pytest.mark.parametrize("normalize", [False, True])
def test_a_row_that_is_no_transition_weighs_nothing(normalize: bool) -> None:
    model, head, batch = setup()
    batch["valid"][2, 1] = False
    batch["done"][1, 1] = batch["terminated"][1, 1] = True  # such a row comes behind an episode's end
    batch["done"][2, 1] = batch["terminated"][2, 1] = True
    cfg = config(normalize_advantage=normalize)
    grads = []
    for nonsense in (0.0, 1e3):
        batch["reward"][2, 1] = nonsense
        grads.append(torch.autograd.grad(a2c.loss(cfg, model, head, batch)[0], list(model.parameters())))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_the_tape_and_ordinary_torch_learn_the_same() -> None:
    runs = [
        train("experiment=bench_a2c_zoo", "total_steps=4000", "algo.ent_coef=0.01", "env.max_episode_steps=20",
              f"algo.engine={engine}")
        for engine in ("tape", "torch")
    ]  # fmt: skip
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # float32, 100 gradient steps by other kernels
    assert not runs[0][0].notices


def test_each_iteration_is_one_gradient_step_and_the_learning_rate_falls_to_lr_over_their_number() -> None:
    _, history = train("algo=a2c", "env=cartpole", "preset=none", "total_steps=400", "algo.anneal_lr=true")
    assert [metrics["train/n_updates"] for metrics in history] == list(range(1, 11))  # of 8 x 5 steps
    assert history[0]["train/learning_rate"] == pytest.approx(7e-4)
    assert history[-1]["train/learning_rate"] == pytest.approx(7e-5)


def test_a2c_learns_cartpole() -> None:
    # A tenth of the budget of docs/results.
    _, history = train("algo=a2c", "env=cartpole", "seed=1", "total_steps=60_000")
    assert max(metrics["rollout/ep_rew_mean"] for metrics in history[-300:]) >= 150
