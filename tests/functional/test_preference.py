import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from rlx.functional.preference import best_of, bradley_terry, dpo, plackett_luce, ranked

LOG_2 = torch.tensor(math.log(2), dtype=torch.float64)
RANKING = [2.0, 1.0, 0.0, -1.0]


def test_preference_losses_by_hand():
    assert bradley_terry(torch.tensor([1.0]), torch.tensor([-0.5])).item() == pytest.approx(0.201413, abs=5e-7)
    score = torch.tensor(RANKING)
    assert ranked(score).item() == pytest.approx(0.207038, abs=5e-7)
    assert plackett_luce(score).item() == pytest.approx(1.161057, abs=5e-7)
    assert best_of(score).item() == pytest.approx(0.440190, abs=5e-7)


def test_bradley_terry_at_equal_scores_is_log_2_and_blind_to_a_shift():
    chosen, rejected = torch.randn(5), torch.randn(5)
    assert_close(bradley_terry(chosen, chosen), LOG_2.expand(5))
    assert_close(bradley_terry(chosen + 40, rejected + 40), bradley_terry(chosen, rejected))


def test_bradley_terry_is_a_probability():
    chosen, rejected = torch.randn(5), torch.randn(5)
    wins, loses = (-bradley_terry(chosen, rejected)).exp(), (-bradley_terry(rejected, chosen)).exp()
    assert_close(wins + loses, torch.ones(5))
    assert_close(wins / loses, (chosen - rejected).exp())  # the odds


def test_bradley_terry_does_not_overflow():
    margin = torch.tensor([-1e4, 30.0, 1e4], requires_grad=True)
    loss = bradley_terry(margin, torch.zeros(3))
    assert_close(loss, torch.tensor([1e4, math.log1p(math.exp(-30)), 0.0]), rtol=1e-12, atol=0)  # e^-30 is 9e-14
    assert torch.autograd.grad(loss.sum(), margin)[0].isfinite().all()


def test_ranked_is_the_mean_over_all_pairs_better_first():
    score = torch.randn(3, 5)
    pairs = [bradley_terry(score[:, i], score[:, j]) for i, j in itertools.combinations(range(5), 2)]
    assert len(pairs) == 10
    assert_close(ranked(score), torch.stack(pairs).mean(0))


def test_all_rankings_of_two_are_bradley_terry():
    score = torch.randn(6, 2)
    expected = bradley_terry(score[:, 0], score[:, 1])
    for loss in (ranked, plackett_luce, best_of):
        assert_close(loss(score), expected)


def test_ranked_refuses_a_ranking_of_one():
    with pytest.raises(ValueError, match="at least 2 scores in the last axis, not 1"):
        ranked(torch.zeros(3, 1))


def test_plackett_luce_is_a_distribution_over_rankings():
    score = torch.randn(4)
    losses = [plackett_luce(score[list(order)]) for order in itertools.permutations(range(4))]
    assert_close((-torch.stack(losses)).exp().sum(), torch.tensor(1.0))
    assert_close(plackett_luce(torch.full((4,), 3.0)), torch.tensor(float(math.factorial(4))).log())


def test_best_of_is_cross_entropy_with_the_first_as_its_class():
    score = torch.randn(6, 4)
    expected = torch.nn.functional.cross_entropy(score, torch.zeros(6, dtype=torch.long), reduction="none")
    assert_close(best_of(score), expected)


def test_plackett_luce_is_the_best_then_the_best_of_the_rest():
    score = torch.randn(6, 4)
    assert_close(plackett_luce(score), sum(best_of(score[:, k:]) for k in range(4)))


def test_dpo_by_hand():
    """Log-ratios +2 and -1, beta .1: -log sigmoid(.3)."""
    result = dpo(*(torch.tensor([x]) for x in (-3.0, -6.0, -5.0, -5.0)), beta=0.1)
    assert result.item() == pytest.approx(0.554355, abs=5e-7)
    assert result.item() == pytest.approx(math.log1p(math.exp(-0.3)))


def test_dpo_at_the_reference_is_log_2():
    chosen, rejected = -50 * torch.rand(7), -50 * torch.rand(7)
    assert_close(dpo(chosen, rejected, chosen, rejected, beta=0.1), LOG_2.expand(7))


def test_the_gradient_of_dpo_raises_the_chosen_and_lowers_the_rejected_by_how_wrong_it_is():
    pair = torch.randn(2, 6, requires_grad=True)
    ref = torch.randn(2, 6, requires_grad=True)
    loss = dpo(pair[0], pair[1], ref[0], ref[1], beta=0.3)
    g, g_ref = torch.autograd.grad(loss.sum(), (pair, ref), allow_unused=True)
    wrong = torch.sigmoid(-0.3 * ((pair[0] - ref[0]) - (pair[1] - ref[1])))
    assert_close(g, torch.stack([-0.3 * wrong, 0.3 * wrong]))
    assert g_ref is None  # the reference is data


def test_pairs_that_were_not_compared_count_nothing_in_a_ranking():
    score = torch.randn(5, 4, dtype=torch.float64)
    everything = torch.ones(5, 4, 4, dtype=torch.bool)
    assert_close(ranked(score, compared=everything), ranked(score))
    one = torch.zeros(5, 4, 4, dtype=torch.bool)
    one[:, 1, 3] = True
    one[:, 3, 1] = True  # read above the diagonal only
    assert_close(ranked(score, compared=one), bradley_terry(score[:, 1], score[:, 3]))
    assert ranked(score, compared=~everything).tolist() == [0.0] * 5
