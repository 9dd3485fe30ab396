import pytest
import torch
from torch.testing import assert_close

from rlx.functional.policy import ppo_clip
from rlx.functional.reduce import REDUCTIONS, masked_mean, reduce_tokens

LENGTHS = torch.tensor([1, 3])


def batch(B=5, L=7):
    length = torch.tensor([1, 7, 3, 4, 2])[:B]
    return torch.randn(B, L), torch.arange(L) < length[:, None]


def test_reductions_by_hand():
    """A = (1, -1), lengths (1, 3), ratio 1: token losses -1 and +1, +1, +1; the padding does not matter."""
    for width in (3, 4, 9):
        mask = torch.arange(width) < LENGTHS[:, None]
        advantage = torch.tensor([1.0, -1.0])[:, None].expand(2, width)
        loss = ppo_clip(torch.zeros(2, width), torch.zeros(2, width), advantage, 0.2, 0.2)
        result = {how: reduce_tokens(loss, mask, how, max_length=4).item() for how in REDUCTIONS}
        assert result == {"grpo": 0.0, "dapo": 0.5, "dr_grpo": 0.25, "sequence": 1.0}


@pytest.mark.parametrize(
    "how, short, long",
    [("grpo", 1 / 2, 1 / 6), ("dapo", 1 / 4, 1 / 4), ("dr_grpo", 1 / 8, 1 / 8), ("sequence", 1 / 2, 1 / 2)],
)
def test_what_one_token_weighs(how, short, long):
    x, mask = torch.zeros(2, 4, requires_grad=True), torch.arange(4) < LENGTHS[:, None]
    weight = torch.autograd.grad(reduce_tokens(x, mask, how, max_length=4), x)[0]
    assert_close(weight, torch.tensor([[short, 0, 0, 0], [long, long, long, 0]]))


@pytest.mark.parametrize("how", REDUCTIONS)
def test_what_stands_outside_the_mask_is_not_read(how):
    x, mask = batch()
    expected = reduce_tokens(x, mask, how, max_length=7)
    hidden = torch.where(mask, x, torch.nan).requires_grad_()
    result = reduce_tokens(hidden, mask, how, max_length=7)
    assert_close(result, expected)
    assert (torch.autograd.grad(result, hidden)[0][~mask] == 0).all()


@pytest.mark.parametrize("how", REDUCTIONS)
def test_micro_batches_with_the_counts_of_the_whole_batch_add_up_to_it(how):
    x, mask = batch()
    counts = {"num_sequences": 5, "num_tokens": mask.sum()}
    parts = [reduce_tokens(x[i], mask[i], how, max_length=7, **counts) for i in (slice(0, 2), slice(2, 5))]
    assert_close(sum(parts), reduce_tokens(x, mask, how, max_length=7))


def test_token_means_per_micro_batch_are_not_the_token_mean_of_the_batch():
    x, mask = torch.tensor([[-1.0], [1.0]]).expand(2, 3), torch.arange(3) < LENGTHS[:, None]
    assert [reduce_tokens(x[i : i + 1], mask[i : i + 1], "dapo").item() for i in (0, 1)] == [-1.0, 1.0]
    assert reduce_tokens(x, mask, "dapo").item() == 0.5


def test_at_equal_lengths_grpo_dapo_and_dr_grpo_are_the_mean():
    x, mask = torch.randn(3, 4), torch.ones(3, 4)
    for how in ("grpo", "dapo", "dr_grpo"):
        assert_close(reduce_tokens(x, mask, how, max_length=4), x.mean())


def test_an_empty_completion_counts_0_not_nan():
    x, mask = torch.randn(2, 3), torch.tensor([[0, 0, 0], [1, 1, 0]])
    assert_close(reduce_tokens(x, mask, "grpo"), x[1, :2].mean() / 2)
    for how in REDUCTIONS:
        assert reduce_tokens(x, torch.zeros(2, 3), how, max_length=3).item() == 0.0


def test_leading_axes_are_members_reduced_alone():
    x, mask = torch.randn(3, 5, 7), torch.rand(3, 5, 7) < 0.5
    for how in REDUCTIONS:
        each = torch.stack([reduce_tokens(a, m, how, max_length=7) for a, m in zip(x, mask)])
        assert_close(reduce_tokens(x, mask, how, max_length=7), each)


def test_dr_grpo_asks_for_max_length():
    with pytest.raises(ValueError, match=r"dr_grpo.* max_length.*grpo, dapo, sequence"):
        reduce_tokens(*batch(), "dr_grpo")


def test_an_unknown_reduction_names_the_choices():
    with pytest.raises(ValueError, match=r"how='mean': .* grpo, dapo, dr_grpo, sequence"):
        reduce_tokens(*batch(), "mean")


def test_masked_mean_is_the_mean_of_what_the_mask_keeps():
    x, mask = batch()
    hidden = torch.where(mask, x, torch.nan)
    assert_close(masked_mean(hidden, mask), x[mask].mean())
    assert_close(masked_mean(hidden, mask, dim=-1), torch.stack([a[m].mean() for a, m in zip(x, mask)]))
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0.0
