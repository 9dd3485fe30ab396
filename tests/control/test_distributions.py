"""Every head against torch.distributions, and its samples against its own probabilities."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, distributions as D

from rlx.control.distributions import Bernoulli, Categorical, Gaussian, Head, MultiCategorical, make_head

torch.set_num_threads(1)


def reference(head: Head, params: Tensor) -> D.Distribution:
    if isinstance(head, Categorical):
        return D.Categorical(logits=params)
    if isinstance(head, Bernoulli):
        return D.Independent(D.Bernoulli(logits=params), 1)
    assert isinstance(head, Gaussian)
    mean, log_std = params.split(head.dim, -1)
    return D.Independent(D.Normal(mean, log_std.exp()), 1)


def params_of(head: Head, *shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, head.size + head.free, dtype=torch.float64)


HEADS: list[Head] = [Categorical(4), Bernoulli(3), Gaussian(2)]


@pytest.mark.parametrize("head", HEADS, ids=lambda h: type(h).__name__)
def test_logprob_entropy_and_kl_are_those_of_torch_distributions(head: Head) -> None:
    params, other = params_of(head, 5, 7), params_of(head, 5, 7).flip(0)
    expected = reference(head, params)
    action = expected.sample()
    logprob, entropy = head.logprob_entropy(params, action)
    torch.testing.assert_close(logprob, expected.log_prob(action))
    torch.testing.assert_close(entropy, expected.entropy())
    torch.testing.assert_close(head.kl(params, other), D.kl_divergence(expected, reference(head, other)))


def test_multi_categorical_is_the_sum_of_its_parts() -> None:
    head = MultiCategorical([2, 3, 4])
    params, other = params_of(head, 6), params_of(head, 6).flip(0)
    action = torch.stack([torch.arange(6) % n for n in (2, 3, 4)], -1)
    logprob, entropy = head.logprob_entropy(params, action)
    parts = [D.Categorical(logits=p) for p in params.split([2, 3, 4], -1)]
    torch.testing.assert_close(logprob, sum(p.log_prob(a) for p, a in zip(parts, action.unbind(-1))))
    torch.testing.assert_close(entropy, sum(p.entropy() for p in parts))
    others = [D.Categorical(logits=p) for p in other.split([2, 3, 4], -1)]
    torch.testing.assert_close(head.kl(params, other), sum(D.kl_divergence(a, b) for a, b in zip(parts, others)))


@pytest.mark.parametrize(
    "head", [Categorical(3), MultiCategorical([2, 2]), Bernoulli(2)], ids=lambda h: type(h).__name__
)
def test_samples_come_with_the_probability_that_logprob_says(head: Head) -> None:
    n = 200_000
    params = params_of(head, 1).float()
    noise = torch.from_numpy(head.noise(np.random.default_rng(0), (n,)))
    actions = head.sample(params.expand(n, -1), noise)
    values, counts = actions.reshape(n, -1).unique(dim=0, return_counts=True)
    for value, count in zip(values, counts):
        logprob, _ = head.logprob_entropy(params, value.reshape(1, *head.action_shape))
        p = float(logprob.exp())
        assert abs(float(count) / n - p) < 5 * (p * (1 - p) / n) ** 0.5  # five standard errors


def test_gaussian_samples_have_the_mean_and_spread_of_the_params() -> None:
    head, n = Gaussian(2), 100_000
    params = torch.tensor([[1.0, -2.0, 0.0, -1.0]])
    sample = head.sample(params.expand(n, -1), torch.from_numpy(head.noise(np.random.default_rng(0), (n,))))
    torch.testing.assert_close(sample.mean(0), torch.tensor([1.0, -2.0]), rtol=0, atol=0.02)
    torch.testing.assert_close(sample.std(0), torch.tensor([1.0, 0.3679]), rtol=0.02, atol=0)


def test_the_entropy_of_a_unit_gaussian_is_1_4189_a_dimension() -> None:
    _, entropy = Gaussian(3).logprob_entropy(torch.zeros(6), torch.zeros(3))
    assert float(entropy) == pytest.approx(3 * 1.4189385)


def test_the_mode_is_the_most_probable_action() -> None:
    params = torch.tensor([0.1, 2.0, -1.0])
    assert int(Categorical(3).mode(params)) == 1
    assert Bernoulli(3).mode(params).tolist() == [1, 1, 0]
    assert MultiCategorical([2, 1]).mode(params).tolist() == [1, 0]
    assert Gaussian(1).mode(torch.tensor([0.7, 3.0])).tolist() == pytest.approx([0.7])


def test_every_supported_space_has_its_head_and_others_are_refused() -> None:
    spaces = gym.spaces
    assert isinstance(make_head(spaces.Discrete(3)), Categorical)
    assert isinstance(make_head(spaces.MultiDiscrete([2, 3])), MultiCategorical)
    assert isinstance(make_head(spaces.MultiBinary(3)), Bernoulli)
    assert make_head(spaces.Box(-1, 1, (2, 3))).size == 6
    with pytest.raises(ValueError, match="Text"):
        make_head(spaces.Text(3))
