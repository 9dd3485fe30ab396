import pytest
import torch
from torch import distributions as D
from torch.testing import assert_close

from rlx.functional.continuous import (
    least_value,
    sac_policy,
    smoothed_action,
    soft_target,
    squash,
    squashed_logprob,
    temperature,
)
from rlx.functional.value import td_target


def test_the_soft_target_by_hand():
    """r + gamma (Q - alpha log pi): 1 + .5 (10 + .2 * 3), and no future behind a termination, NaN included."""
    q, logprob = torch.tensor([10.0, 10.0, torch.nan]), torch.tensor([-3.0, -3.0, 1.0])
    target = soft_target(torch.ones(3), q, logprob, torch.tensor([0, 1, 1]), 0.5, 0.2)
    assert_close(target, torch.tensor([6.3, 1.0, 1.0]))


def test_without_a_temperature_the_soft_target_is_the_plain_one():
    reward, q, logprob, terminated = *torch.randn(3, 50), torch.rand(50) < 0.3
    assert_close(soft_target(reward, q, logprob, terminated, 0.9, 0.0), td_target(reward, q, terminated, 0.9))


def test_the_fixed_point_of_soft_targets_is_the_return_and_the_discounted_entropy():
    """One state for ever, reward 1, a policy of entropy H (log pi = -H): Q = (1 + gamma alpha H) / (1 - gamma)."""
    q = torch.zeros(1)
    for _ in range(500):
        q = soft_target(torch.ones(1), q, torch.tensor([-0.7]), torch.zeros(1), 0.9, 0.5)
    assert_close(q, torch.tensor([(1 + 0.9 * 0.5 * 0.7) / 0.1]))


def test_the_least_value_is_the_smaller_one_and_its_gradient_is_that_critics():
    q = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 9.0]], requires_grad=True)
    least = least_value(q)
    assert least.tolist() == [1.0, 2.0]
    (grad,) = torch.autograd.grad(least.sum(), q)
    assert grad.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert least_value(q[:1]).tolist() == [1.0, 5.0]  # one critic: itself


def test_the_sac_policy_loss_is_least_where_the_policy_is_the_softmax_of_q_over_alpha():
    """E_pi L over all actions of a finite set; its minimum is -alpha log sum exp(Q / alpha)."""
    q, alpha = torch.tensor([1.0, 0.3, -2.0, 0.0]), 0.4

    def expected(logits):
        logprob = logits.log_softmax(-1)
        return (logprob.exp() * sac_policy(logprob, q, alpha)).sum()

    best = (q / alpha).requires_grad_()
    assert_close(expected(best), -alpha * (q / alpha).logsumexp(-1))
    (grad,) = torch.autograd.grad(expected(best), best)
    assert_close(grad, torch.zeros(4))
    assert all(expected(q / alpha + torch.randn(4)) > expected(best) for _ in range(20))


def test_the_temperature_is_moved_by_the_entropy_less_its_target():
    logprob, log_alpha = torch.randn(1000, requires_grad=True), torch.tensor(0.3, requires_grad=True)
    by_alpha, by_policy = torch.autograd.grad(
        temperature(log_alpha, logprob, -2.0).mean(), (log_alpha, logprob), allow_unused=True
    )
    assert_close(by_alpha, -logprob.mean() - (-2.0))  # descending lowers alpha where the entropy is above its target
    assert by_policy is None


def test_a_smoothed_action_is_near_and_inside_the_bounds():
    action, noise = 2 * torch.rand(5000) - 1, torch.randn(5000)
    near = smoothed_action(action, noise, 0.5)
    assert ((near - action).abs() <= 0.5 + 1e-12).all() and near.abs().max() == 1.0
    inside = (noise.abs() < 0.5) & ((action + noise).abs() < 1)
    assert_close(near[inside], (action + noise)[inside])
    assert_close(smoothed_action(action, torch.zeros(5000), 0.5), action)
    assert smoothed_action(torch.tensor([3.0]), torch.tensor([9.0]), 0.5, 0.0, 4.0).tolist() == [3.5]


def test_squash_is_tanh_and_its_gradient_is_right_where_torchs_has_lost_its_digits():
    u = torch.linspace(-19, 19, 2001, dtype=torch.float32, requires_grad=True)
    (grad,) = torch.autograd.grad(squash(u).sum(), u)
    exact = u.detach().double()
    assert_close(squash(u).double(), exact.tanh(), rtol=0, atol=3e-7)  # three units in the last place of a float32
    assert_close(grad.double(), 1 / exact.cosh() ** 2, rtol=1e-5, atol=0)
    (torchs,) = torch.autograd.grad(u.tanh().sum(), u)
    assert torchs[-1] == 0 < grad[-1]


def test_squash_is_finite_with_no_gradient_far_outside():
    u = torch.tensor([-1e30, -50.0, 50.0, 1e30], dtype=torch.float32, requires_grad=True)
    (grad,) = torch.autograd.grad(squash(u).sum(), u)
    assert squash(u).tolist() == [-1.0, -1.0, 1.0, 1.0] and grad.tolist() == [0.0] * 4


def test_a_squashed_log_probability_is_that_of_torch_distributions():
    mean, log_std, noise = torch.randn(3, 200).clamp(-1, 1)  # its own is NaN where tanh is rounded to 1
    before = mean + log_std.exp() * noise
    expected = D.TransformedDistribution(D.Normal(mean, log_std.exp()), D.TanhTransform())
    assert_close(squashed_logprob(before, noise, log_std), expected.log_prob(before.tanh()))


def test_a_squashed_density_integrates_to_1():
    action = torch.linspace(-1, 1, 400_003)[1:-1]
    mean, log_std = torch.tensor(0.4), torch.tensor(-0.5)
    noise = (action.atanh() - mean) / log_std.exp()
    density = squashed_logprob(action.atanh(), noise, log_std.expand_as(action)).exp()
    assert_close(torch.trapezoid(density, action), torch.tensor(1.0), rtol=0, atol=1e-4)  # by 400,000 trapezia


@pytest.mark.parametrize("before", [-40.0, -12.0, 12.0, 40.0])
def test_a_squashed_log_probability_is_finite_and_right_where_tanh_is_1_in_float32(before):
    """There -log(1 - a^2) is infinite; it is 2 |u| - 2 log 2, its derivative 2 sign(u)."""
    u = torch.tensor([before], dtype=torch.float32, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float32)
    logprob = squashed_logprob(u, zero, zero)
    (grad,) = torch.autograd.grad(logprob.sum(), u)
    assert torch.tanh(u).abs().item() == 1.0
    assert logprob.item() == pytest.approx(-0.9189385 + 2 * abs(before) - 1.3862944, rel=1e-6)
    assert grad.item() == pytest.approx(2.0 if before > 0 else -2.0)
