"""RLHF by PPO, its parts: the reward of a token, advantages, beta, each by hand and against a loop over tokens."""

from types import SimpleNamespace

import pytest
import torch
from rlhf import G, P, cfg, sampled, train
from tiny_lm import policy
from torch.testing import assert_close

from rlx.algos import rlhf_ppo
from rlx.base.errors import ConfigError
from rlx.language.rollout import Groups

pytestmark = pytest.mark.usefixtures("float64")


def first_to_last(mask):
    """(p, g, [t of its tokens]) of each completion."""
    return [(p, g, range(int(mask[p, g].sum()))) for p in range(mask.shape[0]) for g in range(mask.shape[1])]


# -- the reward of a token -----------------------------------------------------------------------------------------


def test_the_rewards_of_a_completion_sum_to_the_score_less_beta_times_its_kl():
    _, groups = sampled()
    score, divergence = torch.randn(P, G), torch.randn(groups.mask.shape).masked_fill(~groups.mask, 0.0)
    reward = rlhf_ppo.token_rewards(score, divergence, groups.mask, 0.3)
    assert_close(reward.sum(-1), score - 0.3 * divergence.sum(-1))
    assert (reward[~groups.mask] == 0).all()


def test_the_score_sits_on_the_last_token_that_was_generated_ended_or_cut():
    mine, groups = sampled()
    score = torch.randn(P, G)
    found = rlhf_ppo.token_rewards(score, torch.zeros(groups.mask.shape), groups.mask, 0.3)
    for p, g, tokens in first_to_last(groups.mask):
        last = groups.tokens[p, g, tokens[-1]]
        assert bool(last == mine.tokenizer.end) == bool(groups.ended[p, g])
        expected = [0.0] * tokens[-1] + [score[p, g].item()]
        assert found[p, g].tolist() == expected + [0.0] * (found.shape[-1] - len(expected))


@pytest.mark.parametrize("how, expected", [("none", [0.5, 2.0]), ("replace", [0.5, -1.5]), ("add", [0.5, 0.5])])
def test_a_completion_without_an_end_is_scored_as_it_is_by_a_value_or_with_it_added(how, expected):
    score, ended = torch.tensor([[0.5, 2.0]]), torch.tensor([[True, False]])
    found = rlhf_ppo.missing_end(cfg(missing_end=how, missing_end_value=-1.5), score, ended)
    assert found.tolist() == [expected]


# -- advantages ----------------------------------------------------------------------------------------------------


def test_gae_over_tokens_by_hand():
    """r = (-.1, .05, 1), V = (.2, .4, .6), gamma 1, lambda .95; what stands behind the last token is not read."""
    mask = torch.tensor([[[1, 1, 1, 0, 0]]]).bool()
    reward, value = torch.tensor([[[-0.1, 0.05, 1.0, 0, 0]]]), torch.tensor([[[0.2, 0.4, 0.6, 9.0, -7.0]]])
    found = rlhf_ppo.token_gae(reward, value, mask, 1.0, 0.95)
    assert_close(found, torch.tensor([[[0.6985, 0.63, 0.4, 0, 0]]]))
    assert_close((found + value)[mask], torch.tensor([0.8985, 1.03, 1.0]))


@pytest.mark.parametrize("gamma, gae_lambda", [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_gae_over_tokens_is_that_of_a_loop_over_each_completion(gamma, gae_lambda):
    _, groups = sampled()
    reward, value = torch.randn(groups.mask.shape), torch.randn(groups.mask.shape)
    found = rlhf_ppo.token_gae(reward.masked_fill(~groups.mask, 0.0), value, groups.mask, gamma, gae_lambda)
    for p, g, tokens in first_to_last(groups.mask):
        after, r, v = 0.0, reward[p, g].tolist(), [*value[p, g, : len(tokens)].tolist(), 0.0]  # over: worth nothing
        for t in reversed(tokens):
            after = r[t] + gamma * v[t + 1] - v[t] + gamma * gae_lambda * after
            assert found[p, g, t].item() == pytest.approx(after)
    assert (found[~groups.mask] == 0).all()


def test_advantages_are_whitened_over_the_tokens_of_the_minibatch_with_ddof_0():
    """(1, 2, 3, 4) spread over two completions of lengths 1 and 3, beside a third that is in another minibatch."""
    _, groups = sampled()
    small = groups.select(torch.tensor([0, 1]))
    length = small.mask.shape[-1]
    mask = torch.arange(length) < torch.tensor([[1], [2], [3], [2]])
    advantage = torch.full((2, G, length), 7.7)
    advantage[0, 0, 0], advantage[1, 0, :3] = 1.0, torch.tensor([2.0, 3.0, 4.0])
    some = Groups(**{**vars(small), "mask": mask.view(2, G, length)})
    batch = dict.fromkeys(("logprob", "value", "return_"), torch.zeros(2, G, length))
    rows = rlhf_ppo.rows_of(some, {**batch, "advantage": advantage}, torch.tensor([2, 0]), cfg())
    assert_close(
        rows["advantage"][rows["mask"]], torch.tensor([-0.447214, 0.447214, 1.341641, -1.341641]), atol=1e-6, rtol=0
    )  # printed to six places; eps 1e-8
    assert (rows["advantage"][~rows["mask"]] == 0).all()
    assert torch.equal(rows["mask"], mask[[2, 0]])


def test_the_rows_of_a_minibatch_are_completions_with_their_own_prompts():
    _, groups = sampled()
    index = torch.tensor([7, 3, 5, 0])
    numbers = torch.arange(8.0).view(P, G, 1).expand(groups.mask.shape)
    batch = dict.fromkeys(("logprob", "value", "return_", "advantage"), numbers)
    rows = rlhf_ppo.rows_of(groups, batch, index, cfg())
    assert rows["value"][:, 0].tolist() == index.tolist()
    assert torch.equal(rows["tokens"], groups.tokens.flatten(0, 1)[index])
    assert torch.equal(rows["prompt"], groups.prompt[[3, 1, 2, 0]])
    assert torch.equal(rows["prompt_mask"], groups.prompt_mask[[3, 1, 2, 0]])


# -- beta ----------------------------------------------------------------------------------------------------------


def test_beta_follows_the_kl_by_hand():
    for kl, expected in ((12.0, 0.151536), (5.4, 0.149232), (6.0, 0.15)):
        beta = rlhf_ppo.AdaptiveKLController(cfg(kl_coef=0.15, kl_target=6.0, kl_horizon=10_000))
        beta.adapt(kl, 512)
        assert beta.coef == pytest.approx(expected, abs=5e-7)
    fixed = rlhf_ppo.AdaptiveKLController(cfg(kl_coef=0.15, kl_target=0))
    fixed.adapt(12.0, 512)
    assert fixed.coef == 0.15


def test_beta_of_an_iteration_is_that_which_the_kl_of_the_one_before_left():
    done, history = train(cfg(kl_target=0.5, kl_horizon=100, lr=1e-2), steps=24)
    beta = 0.15
    assert len(history) == 6  # of four epochs each
    for metrics in history:
        assert metrics["kl_coef"] == pytest.approx(beta, rel=1e-12)
        error = min(max(metrics["objective/kl"] / 0.5 - 1, -0.2), 0.2)
        beta *= 1 + error * P * G / 100
        spent = metrics["kl_coef"] * metrics["objective/kl"]
        assert metrics["objective/rlhf_reward"] == pytest.approx(metrics["objective/scores"] - spent)
        assert metrics["objective/non_score_reward"] == pytest.approx(-spent)
    assert history[0]["objective/kl"] == pytest.approx(0, abs=1e-12)  # the policy is the reference
    assert history[-1]["objective/kl"] > 0.1 and beta != 0.15
    assert done.tracked["kl_coef"].coef == pytest.approx(beta)


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"num_minibatches": 16}, r"num_minibatches=16: must be at most num_prompts \* group_size = 8"),
        ({"value_init": "reward_model"}, "value_init=reward_model: there is none"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(changes, text):
    with pytest.raises(ConfigError, match=text):
        cfg(**changes)


def test_without_a_penalty_no_policy_is_needed_to_start_from():
    task = policy("count").task
    rlhf_ppo.check(SimpleNamespace(init=None, algo=cfg(kl_coef=0)), task)
    rlhf_ppo.check(SimpleNamespace(init="run", algo=cfg()), task)
    with pytest.raises(ConfigError, match=r"^init=null: rlhf_ppo stays near a reference \(init=latest:pretrain, or"):
        rlhf_ppo.check(SimpleNamespace(init=None, algo=cfg()), task)
