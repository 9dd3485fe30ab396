"""Initialisation and shapes of the policy and value networks."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rlx.control import networks
from rlx.control.distributions import Categorical, Gaussian
from rlx.control.networks import ActorCritic, ModelConfig

torch.set_num_threads(1)


def config(**changes) -> ModelConfig:
    base = ModelConfig([64, 64], "tanh", shared=False, orthogonal_init=True, log_std_init=0.0, features=32)
    return replace(base, **changes)


def make(head=None, shape=(4,), seed: int = 0, **changes) -> ActorCritic:
    return ActorCritic(shape, head or Categorical(3), config(**changes), torch.Generator().manual_seed(seed))


def test_the_initial_policy_is_nearly_uniform() -> None:
    head = Categorical(3)
    params = make(head).policy(torch.randn(500, 4))
    _, entropy = head.logprob_entropy(params, torch.zeros(500, dtype=torch.int64))
    assert float(entropy.detach().min()) > 0.99 * math.log(3)


@pytest.mark.parametrize(("layer", "gain"), [("actor.0", math.sqrt(2)), ("actor.4", 0.01), ("critic.4", 1.0)])
def test_weights_are_orthogonal_with_the_gain_of_their_layer(layer: str, gain: float) -> None:
    weight = dict(make().named_modules())[layer].weight.detach()
    small = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
    torch.testing.assert_close(small, gain**2 * torch.eye(len(small)), rtol=1e-4, atol=1e-5)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = make(seed=1).state_dict()
    torch.manual_seed(6)
    second, other = make(seed=1).state_dict(), make(seed=2).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["actor.0.weight"], other["actor.0.weight"])


def test_separate_trunks_share_no_parameter_and_a_shared_one_serves_both() -> None:
    obs = torch.randn(5, 4)
    for shared in (False, True):
        model = make(shared=shared)
        _, value = model(obs)
        used = torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True)
        names = {name for (name, _), grad in zip(model.named_parameters(), used) if grad is not None}
        assert any(name.startswith("trunk") for name in names) == shared
        assert not any(name.startswith("actor") for name in names)


def test_acting_needs_the_policy_alone() -> None:
    model, obs = make(), torch.randn(5, 4)
    assert torch.equal(model.policy(obs), model(obs)[0])


def test_images_go_through_the_cnn_as_fractions_of_255() -> None:
    model = make(shape=(4, 84, 84), hidden=[], shared=True, activation="relu")
    assert model.features.out[0].in_features == 3136  # 64 x 7 x 7, Mnih et al. 2015
    params, value = model(torch.randint(0, 256, (2, 3, 4, 84, 84), dtype=torch.uint8))
    assert params.shape == (2, 3, 3) and value.shape == (2, 3)


@pytest.mark.parametrize("lead", [(5,), (3, 2), (2, 3, 2), ()])
def test_a_module_of_ones_own_sees_one_dimension_before_an_observation(lead, monkeypatch) -> None:
    class Recurrent(torch.nn.Module):
        """Reads the numbers of an observation one after another; takes [N, d] alone."""

        def __init__(self, shape: tuple[int, ...], features: int) -> None:
            super().__init__()
            self.over = torch.nn.GRU(1, features, batch_first=True)

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            assert obs.dim() == 2
            return self.over(obs.unsqueeze(-1))[0][:, -1]

    monkeypatch.setattr(networks, "encoder_of", lambda name: Recurrent)
    model, obs = make(encoder="mine"), torch.randn(*lead, 4)
    params, value = model(obs)
    assert params.shape == (*lead, 3) and value.shape == lead
    rows = model(obs.reshape(-1, 4))
    torch.testing.assert_close(params.reshape(-1, 3), rows[0])
    torch.testing.assert_close(value.reshape(-1), rows[1])


def test_images_too_small_for_the_cnn_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="36 by 36"):
        make(shape=(3, 20, 20))


def test_the_gaussian_log_std_is_a_parameter_and_not_a_function_of_the_state() -> None:
    head = Gaussian(2)
    params = make(head, log_std_init=-0.5).policy(torch.randn(6, 4))
    assert torch.equal(params[:, 2:], torch.full((6, 2), -0.5))
