"""Policies of Box actions, stacked critics, bounds and noise, each against a formula or a loop."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import distributions as D, nn

from rlx.base.errors import ConfigError
from rlx.control.acting.noise import GaussianNoise, Held, OrnsteinUhlenbeck
from rlx.control.actors import Actor, Bounds, Critics, DeterministicActor, SquashedGaussian, StateDependent, Target
from rlx.control.networks import ModelConfig
from rlx.engine.learner import Learner

torch.set_num_threads(1)


def model(**changes: Any) -> ModelConfig:
    return ModelConfig(
        **{"hidden": [16, 8], "activation": "relu", "shared": False, "orthogonal_init": False, "log_std_init": -1.0,
           "features": 32} | changes
    )  # fmt: skip


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def box(low: Any, high: Any, dtype: Any = np.float32) -> Any:
    space = gym.spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)
    return SimpleNamespace(action_space=space, id="Some-v0", num_envs=1)


# -- bounds


def test_minus_1_and_1_are_the_bounds_and_0_the_middle_of_unequal_ones() -> None:
    bounds = Bounds(box([-2.0, 0.0, -1.0], [2.0, 10.0, -0.5]))
    corners = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]], np.float32)
    assert bounds.scaled(corners).tolist() == [[-2, 0, -1], [0, 5, -0.75], [2, 10, -0.5]]


@pytest.mark.parametrize("low, high", [(-1.0, np.inf), (-np.inf, 0.0), (-np.inf, np.inf)])
def test_infinite_bounds_are_refused_in_one_line(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match=r"^env.id=Some-v0: actions are scaled by their bounds.*inf.*ppo") as error:
        Bounds(box([low, -1.0], [high, 1.0]))
    assert "\n" not in str(error.value)


# -- policies


def test_a_squashed_policy_is_a_gaussian_through_tanh_and_says_its_probability() -> None:
    actor = SquashedGaussian((3,), 2, model(activation="tanh"), generator()).double()
    obs, noise = torch.randn(500, 3).double(), torch.randn(500, 2).double()
    action, logprob = actor(obs, noise)
    mean, log_std = actor.params(obs)
    expected = D.TransformedDistribution(D.Normal(mean, log_std.exp()), D.TanhTransform())
    torch.testing.assert_close(logprob, expected.log_prob(action).sum(-1))
    torch.testing.assert_close(action, actor.sample(obs, noise))
    torch.testing.assert_close(actor.mode(obs), actor.sample(obs, 0 * noise))
    assert log_std.std(0).min() > 0  # it depends on the state


def test_the_log_standard_deviation_of_a_squashed_policy_is_bounded() -> None:
    actor = SquashedGaussian((1,), 1, model(), generator())
    nn.init.constant_(actor.actor[-1].bias, 50.0)
    assert actor.params(torch.zeros(1, 1))[1].item() == 2.0
    nn.init.constant_(actor.actor[-1].bias, -50.0)
    assert actor.params(torch.zeros(1, 1))[1].item() == -20.0
    assert math.isfinite(float(actor(torch.zeros(1, 1), torch.ones(1, 1))[1].detach()))


def test_a_deterministic_policy_explores_around_its_action_and_inside_the_bounds() -> None:
    actor, obs = DeterministicActor((3,), 2, model(), generator(), std=0.5), torch.randn(4000, 3)
    noise = torch.randn(4000, 2)
    action, sample = actor(obs), actor.sample(obs, noise)
    assert torch.equal(actor.mode(obs), action) and action.abs().max() < 1 and sample.abs().max() <= 1
    torch.testing.assert_close(sample, (action + 0.5 * noise).clip(-1, 1))
    assert torch.equal(actor.sample(obs, torch.zeros(4000, 2)), action)


def test_held_noise_gives_the_same_state_the_same_action_and_another_state_another_one() -> None:
    actor, noise = StateDependent((3,), 2, model(), generator()), torch.randn(1, 8, 2)
    obs = torch.randn(2, 3)
    one, again, other = (actor.explore(x[None], noise) for x in (obs[0], obs[0], obs[1]))
    assert torch.equal(one, again) and not torch.equal(one - actor.mode(obs[:1]), other - actor.mode(obs[1:]))


def test_state_dependent_exploration_has_the_distribution_that_its_log_probability_is_of() -> None:
    """Over many draws of the held noise: before the squashing, mean and spread are those of `params`."""
    actor, obs = StateDependent((3,), 2, model(log_std_init=0.0), generator()), torch.randn(1, 3)
    mean, log_std = actor.params(obs)
    u = actor.explore(obs.expand(40_000, -1), torch.randn(40_000, 8, 2)).double().clamp(-0.999999, 0.999999).atanh()
    torch.testing.assert_close(u.mean(0), mean[0].double(), rtol=0, atol=0.02)  # 40,000 draws
    torch.testing.assert_close(u.std(0), log_std[0].exp().double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("kind", [SquashedGaussian, StateDependent, DeterministicActor])
def test_a_policy_begins_near_the_middle_where_layers_are_orthogonal(kind: type[Actor]) -> None:
    more = {"std": 0.1} if kind is DeterministicActor else {}
    actor = kind((3,), 2, model(orthogonal_init=True), generator(), **more)
    assert actor.mode(torch.randn(100, 3)).abs().max() < 0.05


# -- critics


def alone(critics: Critics, i: int, obs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """Critic i, layer by layer."""
    x = torch.cat([obs, action], -1)
    for k, layer in enumerate(critics.layers):
        x = x @ layer.weight[i] + layer.bias[i]
        x = x.relu() if k < len(critics.layers) - 1 else x
    return x.squeeze(-1)


@pytest.mark.parametrize("hidden", [[16, 8], []])
@pytest.mark.parametrize("orthogonal", [False, True])
def test_stacked_critics_are_each_alone_and_all_different(hidden: list[int], orthogonal: bool) -> None:
    critics = Critics((3,), 2, model(hidden=hidden, orthogonal_init=orthogonal), generator(), 3)
    obs, action = torch.randn(7, 3), torch.randn(7, 2)
    q = critics(obs, action)
    assert q.shape == (3, 7)
    for i in range(3):
        torch.testing.assert_close(q[i], alone(critics, i, obs, action))
        assert all(not torch.allclose(q[i], q[j]) for j in range(i))
    torch.testing.assert_close(critics.first(obs, action), q[0])


def test_the_layers_of_critics_begin_as_torchs_or_orthogonal() -> None:
    critics = Critics((3,), 1, model(hidden=[64, 64]), generator(), 2)
    linear = nn.Linear(64, 64)
    second = critics.layers[1].weight
    assert second.abs().max() <= 1 / 8 and float(second.detach().std() / linear.weight.detach().std()) == pytest.approx(
        1, abs=0.05
    )
    critics = Critics((3,), 1, model(hidden=[64, 64], orthogonal_init=True), generator(), 2)
    for weight in critics.layers[1].weight.detach():
        torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(64), rtol=0, atol=1e-5)  # gain sqrt(2), float32


def test_critics_of_images_look_at_them_once() -> None:
    obs, action = torch.randint(0, 256, (2, 1, 36, 36), dtype=torch.uint8), torch.zeros(2, 3)
    critics = Critics((1, 36, 36), 3, model(), generator(), 2)
    q = critics(obs, action)
    assert q.shape == (2, 2) and not torch.equal(q[:, 0], q[:, 1])


def test_a_target_moves_by_tau_and_then_equals_what_it_followed() -> None:
    critics = Critics((3,), 2, model(), generator(), 2)
    target = Target(critics)
    learner = Learner(critics, lambda x: (critics(x["obs"], x["action"]).mean(), {"q": x["obs"].mean()}))
    before = torch.cat([p.flatten() for p in target.network.parameters()])
    for p in critics.parameters():
        p.data.add_(1.0)
    target.follow(learner, 0.1)
    after = torch.cat([p.flatten() for p in target.network.parameters()])
    torch.testing.assert_close(after, before + 0.1)
    target.follow(learner, 1.0)
    obs, action = torch.randn(5, 3), torch.randn(5, 2)
    assert torch.equal(target.network(obs, action), critics(obs, action))
    assert not any(p.requires_grad for p in target.network.parameters())


# -- noise


def test_ornstein_uhlenbeck_noise_has_its_variance_and_its_correlation_and_begins_anew_with_an_episode() -> None:
    noise, rng = OrnsteinUhlenbeck(4000, 1, theta=0.5, dt=0.2), np.random.default_rng(0)
    for _ in range(200):
        x = noise.draw(rng, False).copy()
    y = noise.draw(rng, False)
    keep = 1 - 0.5 * 0.2
    assert float(x.var()) == pytest.approx(0.2 / (1 - keep**2), rel=0.1)  # x' = keep x + sqrt(dt) n
    assert float(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) == pytest.approx(keep, abs=0.02)
    noise.ended([1, 3])
    assert noise.x[[1, 3]].tolist() == [[0.0], [0.0]] and (noise.x[[0, 2]] != 0).all()


def test_held_noise_is_drawn_when_a_collection_begins_and_every_so_many_steps() -> None:
    for every, expected in ((0, [0, 0, 0, 0, 0]), (2, [0, 0, 1, 1, 2])):
        noise, rng = Held(1, 3, 2, every), np.random.default_rng(0)
        seen = [noise.draw(rng, fresh=k == 0).copy() for k in range(5)]
        kinds = [next(j for j in range(k + 1) if np.array_equal(seen[j], x)) for k, x in enumerate(seen)]
        assert [sorted(set(kinds)).index(k) for k in kinds] == expected
        assert not np.array_equal(noise.draw(rng, fresh=True), seen[-1])


@pytest.mark.parametrize(
    "make", [lambda: GaussianNoise(2, 3), lambda: OrnsteinUhlenbeck(2, 3), lambda: Held(2, 4, 3, 5)]
)
def test_noise_goes_on_from_its_state(make: Any) -> None:
    noise, again, rng = make(), make(), np.random.default_rng(0)
    for k in range(7):
        noise.draw(rng, k == 0)
    again.load_state_dict(noise.state_dict())
    other = np.random.default_rng(0)
    other.bit_generator.state = rng.bit_generator.state
    for _ in range(7):
        assert np.array_equal(noise.draw(rng, False), again.draw(other, False))
