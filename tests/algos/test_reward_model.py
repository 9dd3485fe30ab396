"""The reward model: what a comparison teaches, what a tie does not, and what it knows of rankings it never saw."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_lm import algo, gpt, policy, task_config, train
from torch.testing import assert_close

from rlx.algos import reward_model
from rlx.base.errors import ConfigError
from rlx.functional import preference
from rlx.language.reward_head import Scorer

double = pytest.mark.usefixtures("float64")
TINY = {"num_rankings": 12, "group_size": 4, "batch_size": 6, "normalise_on": 64}


def rankings(*rewards, seed=0):
    """Random scores of rankings with these rewards, the best first."""
    reward = torch.tensor(rewards)
    return torch.randn(reward.shape, generator=torch.Generator().manual_seed(seed)), reward


@double
def test_without_ties_the_loss_is_bradley_terry_over_all_pairs():
    score, reward = rankings([4.0, 2.0, 1.0, 0.5], [0.9, 0.8, 0.7, 0.0])
    assert_close(reward_model.loss(algo("algo=reward_model"), score, reward), preference.ranked(score))
    by_hand = reward_model.loss(algo("algo=reward_model"), torch.tensor([[2.0, 1.0, 0.0, -1.0]]), reward[:1])
    assert by_hand.item() == pytest.approx(0.207038, abs=5e-7)


@double
def test_pairs_of_equal_reward_were_not_compared_and_teach_nothing():
    cases = [1.0, 1.0, 0.5, 0.0], [1.0, 0.3, 0.3, 0.3], [0.2, 0.2, 0.2, 0.1], [1.0, 0.0, 0.0, 0.0]
    score, reward = rankings(*cases)
    for row, worth, found in zip(score, reward, reward_model.loss(algo("algo=reward_model"), score, reward)):
        pairs = [(i, j) for i, j in combinations(range(4), 2) if worth[i] > worth[j]]
        expected = sum(torch.log1p((row[j] - row[i]).exp()) for i, j in pairs) / len(pairs)
        assert len(pairs) < 6
        assert_close(found, expected)


@double
def test_a_ranking_of_equal_rewards_alone_is_no_loss_and_no_gradient():
    score, reward = rankings([0.5, 0.5, 0.5])
    score.requires_grad_()
    found = reward_model.loss(algo("algo=reward_model"), score, reward)
    assert found.item() == 0 and (torch.autograd.grad(found.sum(), score)[0] == 0).all()


@double
@pytest.mark.parametrize("kind", ["pairs", "plackett_luce", "best_of"])
def test_of_two_completions_every_loss_is_bradley_terrys(kind):
    score, reward = rankings(*([[1.0, 0.0]] * 7))
    expected = torch.log1p((score[:, 1] - score[:, 0]).exp())
    assert_close(reward_model.loss(algo("algo=reward_model", group_size=2, loss=kind), score, reward), expected)
    by_hand = reward_model.loss(algo("algo=reward_model", loss=kind), torch.tensor([[1.0, -0.5]]), reward[:1])
    assert by_hand.item() == pytest.approx(0.201413, abs=5e-7)


@double
@pytest.mark.parametrize("kind, value", [("plackett_luce", 1.161057), ("best_of", 0.440190)])
def test_the_losses_of_a_whole_ranking_and_of_the_best_alone_by_hand(kind, value):
    score, reward = torch.tensor([[2.0, 1.0, 0.0, -1.0]]), torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert reward_model.loss(algo("algo=reward_model", loss=kind), score, reward).item() == pytest.approx(
        value, abs=5e-7
    )


@double
def test_accuracy_counts_pairs_and_equal_scores_are_half_right():
    """Rewards 1, 1, 0: two pairs were compared. Scores (2, 0, 1): one right; (1, 1, 1): both half; (0, 0, 1): none."""
    reward = torch.tensor([[1.0, 1.0, 0.0]])
    for score, expected in (
        ([2.0, 0.0, 1.0], 0.5),
        ([1.0, 1.0, 1.0], 0.5),
        ([0.0, 0.0, 1.0], 0.0),
        ([2.0, 3.0, 1.0], 1.0),
    ):
        assert reward_model.accuracy(torch.tensor([score]), reward) == expected
    assert reward_model.accuracy(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)) == 0  # not NaN


@double
@pytest.mark.parametrize("kind", ["pairs", "plackett_luce", "best_of"])
def test_the_first_step_is_the_loss_of_the_rankings_that_were_drawn(kind):
    """Loss and gradient norm, from the scores of single completions and a loop over pairs."""
    cfg = algo("algo=reward_model", loss=kind, **{**TINY, "batch_size": 12})  # all of them
    done, history = train(cfg, "count", reward="dense")
    data = done.tracked["data"]
    mine, generator = policy("count", seed=1), torch.Generator().manual_seed(done._entropy("scorer") % 2**63)
    scorer = Scorer.new(SimpleNamespace(model=gpt()), mine, generator)
    rows = torch.stack([scorer(data.batch(torch.tensor([n])))[0] for n in range(12)])
    total = 0.0
    for row, worth in zip(rows, data.reward):
        if kind == "pairs":
            pairs = [(i, j) for i, j in combinations(range(4), 2) if worth[i] > worth[j]]
            total = total + sum(torch.log1p((row[j] - row[i]).exp()) for i, j in pairs) / len(pairs)
        else:
            last = 1 if kind == "best_of" else 4
            total = total + sum(row[i:].exp().sum().log() - row[i] for i in range(last))
    gradient = torch.autograd.grad(total / 12, list(scorer.model.parameters()), allow_unused=True)
    norm = torch.cat([g.flatten() for g in gradient if g is not None]).norm()
    assert history[0]["loss"] == pytest.approx((total / 12).item(), rel=1e-9)
    assert history[0]["grad_norm"] == pytest.approx(norm.item(), rel=1e-9)
    assert history[0]["margin"] == pytest.approx((rows[:, 0] - rows[:, -1]).mean().item(), rel=1e-9)


@double
def test_it_learns_nothing_but_the_scores_and_keeps_the_policy():
    start = policy("count", seed=1).model.state_dict()
    done, _ = train(algo("algo=reward_model", **TINY), "count", steps=5, reward="dense")
    kept = done.tracked["sampler"].state_dict()
    assert all(torch.equal(kept[name], start[name]) for name in start)
    body = done.tracked["scorer"].model.state_dict()
    assert not torch.equal(body["embed"], start["embed"]) and not torch.equal(body["blocks.0.up"], start["blocks.0.up"])


@double
def test_rankings_are_of_samples_of_the_policy_or_the_tasks_own_pairs():
    own = {**TINY, "group_size": 2}
    done, _ = train(algo("algo=reward_model", data="task", **own), "names")
    data = done.tracked["data"]
    mine = policy("names")
    pairs = mine.task.pairs(np.random.default_rng(done._entropy("data")), 12)
    texts = mine.tokenizer.decode(data.tokens.flatten(0, 1), data.mask.flatten(0, 1).sum(-1))
    assert texts == [text for _, chosen, rejected in pairs for text in (chosen, rejected)]
    sampled, _ = train(algo("algo=reward_model", **TINY), "names")
    assert sampled.tracked["data"].reward.shape == (12, 4)


# -- on names ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    """A policy that writes names, and a reward model of its samples: about 2 s."""
    shape = gpt(d_model=32, num_heads=2, num_layers=1, dtype="float32")
    first, _ = train(algo("algo=pretrain", lr=5e-3), "names", steps=60, init=None, model=shape)
    cfg = algo("algo=reward_model", lr=3e-3, num_rankings=256)
    done, history = train(cfg, "names", steps=60, start=first.tracked["policy"].state_dict(), model=shape)
    return SimpleNamespace(algo=cfg, task=task_config("names"), model=shape, seed=1), done, history


def test_it_ranks_samples_it_never_saw(names):
    cfg, done, history = names
    found = reward_model.evaluate(cfg, done, 200, 7)
    assert history[0]["loss"] > 0.6 and history[0]["accuracy"] < 0.7 and history[-1]["accuracy"] > 0.9
    assert found["accuracy"] > 0.85 and found["correlation"] > 0.8
    assert found["rankings"] == 200


def test_fresh_samples_of_the_policy_score_0_on_average_with_standard_deviation_1(names):
    cfg, done, _ = names
    found = reward_model.evaluate(cfg, done, 500, 3)
    assert found["score_mean"] == pytest.approx(0, abs=0.1)  # 2000 samples here, 2048 there
    assert found["score_std"] == pytest.approx(1, abs=0.1)


def test_an_evaluation_depends_on_its_seed_alone(names):
    cfg, done, _ = names
    before = {name: rng.bit_generator.state for name, rng in done._rngs.items()}
    one, two, other = (reward_model.evaluate(cfg, done, 20, seed) for seed in (3, 3, 4))
    assert one == two and one["score_mean"] != other["score_mean"]
    assert before == {name: rng.bit_generator.state for name, rng in done._rngs.items()}


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"group_size": 1}, "group_size=1: a comparison needs at least 2 completions"),
        ({"data": "task"}, "group_size=4: the pairs of data=task have 2"),
        ({"batch_size": 513}, "batch_size=513: must be at most num_rankings=512"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(changes, text):
    with pytest.raises(ConfigError, match=text):
        algo("algo=reward_model", **changes)
