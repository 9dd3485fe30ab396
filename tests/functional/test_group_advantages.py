"""Advantages brought to one scale: over a minibatch, over the completions of a prompt, over their steps."""

import pytest
import torch
from torch.testing import assert_close

from rlx.functional.returns import group_advantage, normalize, process_advantage, soft_overlong, whiten

ROUNDING = {"rtol": 0, "atol": 1e-12}  # float64, the same few numbers added in another order


def test_normalized_advantages_have_mean_0_and_std_1():
    advantage = 3 + 5 * torch.randn(64)
    for ddof in (0, 1):
        result = normalize(advantage, ddof=ddof)
        assert_close(result.mean(), torch.tensor(0.0))
        assert_close(result.std(correction=ddof), torch.tensor(1.0))


def test_normalize_defaults_to_the_sample_std_and_1e_8():
    advantage = torch.randn(5)
    assert_close(normalize(advantage), (advantage - advantage.mean()) / (advantage.std() + 1e-8), **ROUNDING)
    assert_close(normalize(torch.tensor([0.0, 2.0]), eps=1.0, ddof=0), torch.tensor([-0.5, 0.5]))


@pytest.mark.parametrize("ddof", [0, 1])
def test_one_advantage_normalizes_to_0_not_nan(ddof, recwarn):
    assert normalize(torch.tensor([3.7]), ddof=ddof).tolist() == [0.0]
    assert whiten(torch.tensor([3.7]), ddof=ddof).tolist() == [0.0]
    assert not recwarn.list  # std() of one element warns


def test_whiten_by_hand():
    x, mask = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.ones(4)
    for ddof, expected in [(0, [-1.34164, -0.44721, 0.44721, 1.34164]), (1, [-1.16190, -0.38730, 0.38730, 1.16190])]:
        assert whiten(x, mask, ddof=ddof, eps=0.0).tolist() == pytest.approx(expected, abs=5e-6)
    assert_close(whiten(x, mask, ddof=0, eps=0.0), (x - 2.5) / 1.25**0.5, **ROUNDING)
    assert_close(whiten(x, mask, ddof=1, eps=0.0), (x - 2.5) / (5 / 3) ** 0.5, **ROUNDING)


def test_whiten_sees_only_what_the_mask_keeps():
    x, mask = torch.randn(3, 5), torch.rand(3, 5) < 0.6
    hidden = torch.where(mask, x, torch.nan)
    result = whiten(hidden, mask)
    assert_close(result[mask], normalize(x[mask]))
    assert (result[~mask] == 0).all()
    assert_close(whiten(x), normalize(x))


def test_whiten_of_equal_of_one_and_of_no_elements_is_exactly_0():
    x = torch.full((2, 3), 0.1)  # 0.1 + 0.1 + 0.1 is not 0.3
    assert (whiten(x) == 0).all()
    assert (whiten(x, torch.tensor([[1, 0, 0], [0, 0, 0]])) == 0).all()
    assert (whiten(x, torch.zeros(2, 3)) == 0).all()


# Groups


@pytest.mark.parametrize(
    "reward, none, loo, ddof_1, ddof_0",
    [
        ([1, 0, 0, 1], [0.5, -0.5], [0.666667, -0.666667], [0.865875, -0.865875], [0.999800, -0.999800]),
        ([1, 0, 0, 0], [0.75, -0.25], [1, -0.333333], [1.499700, -0.499900], [1.731651, -0.577217]),
    ],
)
def test_group_advantages_by_hand(reward, none, loo, ddof_1, ddof_0):
    reward = torch.tensor([reward], dtype=torch.float64)
    for result, (win, lose) in [
        (group_advantage(reward, "none"), none),
        (group_advantage(reward, "loo"), loo),
        (group_advantage(reward, "group"), ddof_1),
        (group_advantage(reward, "group", ddof=0), ddof_0),
    ]:
        expected = torch.where(reward == 1, win, lose)
        assert_close(result, expected, rtol=0, atol=5e-7)  # printed to six places


def test_loo_is_the_reward_minus_the_mean_of_the_others():
    reward = torch.randn(3, 5)
    expected = torch.empty(3, 5)
    for p in range(3):
        for g in range(5):
            expected[p, g] = reward[p, g] - torch.cat([reward[p, :g], reward[p, g + 1 :]]).mean()
    assert_close(group_advantage(reward, "loo"), expected, **ROUNDING)


def test_batch_scale_centres_by_the_group_and_divides_by_the_std_of_all_rewards():
    reward = torch.tensor([[1.0, 0.0], [0.0, 0.0]])  # mean .25; std^2 = (.75^2 + 3 * .25^2) / 3 = .25
    assert_close(group_advantage(reward, "batch", eps=0.0), torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    assert_close(group_advantage(reward, "batch", eps=0.5), torch.tensor([[0.5, -0.5], [0.0, 0.0]]))


def test_group_advantages_forget_a_shift_and_the_std_forgets_the_scale():
    reward = torch.randn(3, 6)
    for scale in ("none", "loo", "group", "batch"):
        assert_close(group_advantage(reward + 7, scale), group_advantage(reward, scale))
    for scale in ("group", "batch"):
        assert_close(group_advantage(3 * reward, scale, eps=0.0), group_advantage(reward, scale, eps=0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", ["none", "loo", "group", "batch"])
def test_equal_rewards_give_exactly_0(scale, dtype):
    reward = torch.tensor([0.1, 1 / 3, 0.7, 1e6 + 0.1], dtype=dtype)[:, None].expand(4, 7)
    assert (group_advantage(reward, scale) == 0).all()
    assert (group_advantage(reward[:1], scale) == 0).all()


def test_a_group_of_one_has_no_advantage_and_loo_refuses_it():
    reward = torch.tensor([[1.0], [3.0]])
    for scale in ("none", "group", "batch"):
        assert (group_advantage(reward, scale) == 0).all()
    assert (group_advantage(reward[:1], "batch") == 0).all()
    with pytest.raises(ValueError, match="scale='loo' needs groups of at least 2"):
        group_advantage(reward, "loo")


def test_an_unknown_scale_names_the_choices():
    with pytest.raises(ValueError, match=r"scale='std': .* none, group, batch, loo"):
        group_advantage(torch.zeros(1, 4), "std")


def test_process_advantages_by_hand():
    reward = torch.tensor([[0.2, 0.8, torch.nan], [1.0, 0.4, 0.6]])
    step_end = torch.tensor([[1, 1, 0], [1, 1, 1]])
    result = process_advantage(reward, step_end, eps=0.0)
    a = 0.4 / 0.1**0.5  # mean .6, std sqrt(.1) = .316228
    assert_close(result, torch.tensor([[-a / 2, a / 2, 0], [a / 2, -a / 2, 0]]), **ROUNDING)
    assert result[0].tolist() == pytest.approx([-0.6325, 0.6325, 0], abs=5e-5)
    normalized = whiten(reward, step_end, eps=0.0)
    assert normalized[0].tolist() == pytest.approx([-1.2649, 0.6325, 0], abs=5e-5)
    assert normalized[1].tolist() == pytest.approx([1.2649, -0.6325, 0], abs=5e-5)


def test_process_advantages_spread_a_step_over_its_tokens():
    """Two completions of 4 tokens; steps end at tokens (1, 3) and (0, 1, 2)."""
    reward, step_end = torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.bool)
    for g, ends, scores in [(0, [1, 3], [0.2, 0.8]), (1, [0, 1, 2], [1.0, 0.4, 0.6])]:
        reward[g, ends], step_end[g, ends] = torch.tensor(scores), True
    by_step = process_advantage(torch.tensor([[0.2, 0.8, 0], [1.0, 0.4, 0.6]]), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    by_token = process_advantage(reward, step_end)
    assert_close(by_token[0], by_step[0, [0, 0, 1, 1]], **ROUNDING)
    assert_close(by_token[1], by_step[1, [0, 1, 2, 2]] * torch.tensor([1, 1, 1, 0]), **ROUNDING)


def test_process_advantages_pool_each_group_alone_and_one_step_each_is_the_outcome():
    reward = torch.randn(3, 4, 1)
    result = process_advantage(reward, torch.ones(3, 4, 1))
    assert_close(result[..., 0], group_advantage(reward[..., 0], "group"))
    equal = process_advantage(torch.full((2, 3, 5), 0.1), torch.ones(2, 3, 5))
    assert (equal == 0).all()


# Length


def test_soft_overlong_by_hand():
    """At most 20 tokens, the last 5 of them paid for: 0 to 15, -.2 for each one more, -1 from 20 on."""
    length = torch.tensor([[0, 14, 15, 16], [17, 20, 21, 99]])
    assert_close(soft_overlong(length, 20, 5), torch.tensor([[0, 0, 0, -0.2], [-0.4, -1, -1, -1]]))
    assert soft_overlong(torch.tensor([3, 4, 5]), 4, 1).tolist() == [0, -1, -1]  # a step
    with pytest.raises(ValueError, match="cache=0: the penalty needs at least 1 token"):
        soft_overlong(length, 20, 0)
