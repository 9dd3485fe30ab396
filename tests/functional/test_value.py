import math

import pytest
import torch
from torch.testing import assert_close

from rlx.functional.value import (
    double_value,
    explained_variance,
    huber,
    max_value,
    td_error,
    td_target,
    value_loss,
    value_loss_clipped,
)


def test_value_loss_is_half_the_square_so_its_gradient_is_the_error():
    value, return_ = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    loss = value_loss(value, return_)
    assert_close(loss, torch.nn.functional.mse_loss(value, return_, reduction="none") / 2)
    by_value, by_return = torch.autograd.grad(loss.sum(), (value, return_), allow_unused=True)
    assert_close(by_value, value - return_)
    assert by_return is None  # the target is data


def test_clipped_value_loss_by_hand():
    value, old_value, return_ = torch.tensor([1.0]), torch.tensor([1.5]), torch.tensor([0.5])
    # .5 max((1 - .5)^2, (1.3 - .5)^2) = .5 max(.25, .64)
    assert_close(value_loss_clipped(value, old_value, return_, 0.2), torch.tensor([0.32]))


def test_clipped_value_loss_is_the_plain_one_inside_the_clip_and_never_below_it():
    value, old_value, return_ = torch.randn(1000), torch.randn(1000), torch.randn(1000)
    plain, clipped = value_loss(value, return_), value_loss_clipped(value, old_value, return_, 0.5)
    inside = (value - old_value).abs() <= 0.5
    assert inside.any() and (~inside).any()
    assert_close(clipped[inside], plain[inside])
    assert (clipped >= plain).all() and (clipped > plain).any()


def test_a_value_that_moved_too_far_towards_the_return_gets_no_gradient():
    """From 0 to .5 with clip .2 and return 1 (too far: none), to -.5 (away: pulled back)."""
    value = torch.tensor([0.5, -0.5], requires_grad=True)
    old_value, return_ = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = value_loss_clipped(value, old_value, return_, 0.2)
    g = torch.autograd.grad(loss.sum(), (value, old_value, return_), allow_unused=True)
    assert_close(g[0], torch.tensor([0.0, -1.5]))
    assert g[1] is None and g[2] is None
    assert_close(loss, torch.tensor([0.32, 1.125]))


def test_td_target_by_hand():
    reward, next_value = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([10.0, 10.0, torch.nan])
    terminated = torch.tensor([False, True, True])
    assert td_target(reward, next_value, terminated, 0.9).tolist() == [10.0, 1.0, 1.0]
    value = torch.tensor([4.0, 4.0, 4.0])
    assert td_error(reward, value, next_value, terminated, 0.9).tolist() == [6.0, -3.0, -3.0]


def test_a_critic_that_follows_td_errors_finds_the_values_of_a_chain():
    """Five states in a row, reward 1 at the end: V(s) = gamma^(steps left), the fixed point of V += delta."""
    reward, terminated = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]), torch.tensor([0, 0, 0, 0, 1])
    value = torch.randn(5)
    for _ in range(5):
        value = value + td_error(reward, value, value.roll(-1), terminated, 0.9)
    assert_close(value, 0.9 ** torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]))


def test_explained_variance_by_hand():
    return_ = torch.tensor([1.0, 2.0, 3.0, 4.0])  # variance 1.25
    assert explained_variance(return_, return_).item() == 1.0
    assert explained_variance(torch.zeros(4), return_).item() == 0.0  # a constant explains nothing
    assert explained_variance(return_ + 9, return_).item() == 1.0  # a constant error is not variance
    assert explained_variance(-return_, return_).item() == pytest.approx(-3.0)  # Var(2R) = 4 Var(R)
    assert explained_variance(return_.reshape(2, 2) / 2, return_.reshape(2, 2)).item() == pytest.approx(0.75)


def test_explained_variance_of_constant_returns_is_nan():
    assert math.isnan(explained_variance(torch.randn(7), torch.full((7,), 0.1)).item())
    assert math.isnan(explained_variance(torch.randn(1), torch.randn(1)).item())


def test_explained_variance_carries_no_gradient():
    assert not explained_variance(torch.randn(4, requires_grad=True), torch.randn(4)).requires_grad


def test_huber_by_hand_and_as_torch_has_it():
    value, target = torch.tensor([0.5, 1.0, 3.0, -3.0]), torch.zeros(4)
    assert huber(value, target).tolist() == [0.125, 0.5, 2.5, 2.5]
    value, target = 3 * torch.randn(1000), torch.randn(1000)
    for delta in (0.3, 1.0, 5.0):
        expected = torch.nn.functional.huber_loss(value, target, reduction="none", delta=delta)
        assert_close(huber(value, target, delta), expected)


def test_the_gradient_of_huber_is_the_error_clipped_and_none_reaches_the_target():
    value, target = (3 * torch.randn(100)).requires_grad_(), torch.randn(100, requires_grad=True)
    by_value, by_target = torch.autograd.grad(huber(value, target).sum(), (value, target), allow_unused=True)
    assert_close(by_value, (value - target).clamp(-1, 1))
    assert by_target is None


def test_huber_is_half_the_square_where_nothing_is_clipped():
    value, target = torch.randn(50), torch.randn(50)
    assert_close(huber(value, target, delta=100.0), value_loss(value, target))


def test_the_double_value_is_the_target_networks_at_the_online_networks_choice():
    online, target = torch.tensor([[1.0, 2.0, 0.0], [5.0, 4.0, 3.0]]), torch.tensor([[7.0, -1.0, 9.0], [2.0, 8.0, 6.0]])
    assert double_value(online, target).tolist() == [-1.0, 2.0]
    assert max_value(target).tolist() == [9.0, 8.0]
    assert_close(double_value(target, target), max_value(target))  # one network twice: nothing is doubled


def test_the_double_value_is_unbiased_where_the_maximum_is_not():
    """Two estimates of actions all worth 0: the maximum of one is positive, the other's at that place 0 on average."""
    first, second = torch.randn(2, 20_000, 4)
    assert max_value(first).mean().item() > 1.0  # E max of four normals is 1.03
    assert double_value(first, second).mean().item() == pytest.approx(0.0, abs=0.03)  # 4 standard errors


def test_no_gradient_reaches_the_networks_of_a_target():
    online, target = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    assert not max_value(target).requires_grad
    assert not double_value(online, target).requires_grad
