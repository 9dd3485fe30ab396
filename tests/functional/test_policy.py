"""Policy losses, against exact enumeration of small worlds."""

import itertools

import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from rlx.functional.kl import categorical_kl
from rlx.functional.policy import (
    all_actions,
    approx_kl,
    cispo,
    clip_fraction,
    clipped_high,
    clipped_low,
    dual_clip,
    policy_gradient,
    ppo_clip,
    ppo_penalty,
)
from rlx.functional.reduce import reduce_tokens
from rlx.functional.returns import group_advantage


def gradient(loss, *parameters):
    return torch.autograd.grad(loss, parameters, retain_graph=True)


def expected_gradient(logits, weight):
    """E_{a ~ pi} of the gradient of policy_gradient(log pi(a), weight(a)), over every action."""
    logprob = logits.log_softmax(-1)
    return -gradient((logprob.detach().exp() * policy_gradient(logprob, weight)).sum(), logits)[0]


# Policy gradient


def test_the_score_function_gives_the_gradient_of_the_expected_reward():
    logits, reward = torch.randn(4, requires_grad=True), torch.randn(4)
    expected = gradient((logits.softmax(-1) * reward).sum(), logits)[0]
    assert_close(expected_gradient(logits, reward), expected)


def test_a_two_armed_bandit_by_hand():
    logits, reward = torch.tensor([0.3, -0.4], requires_grad=True), torch.tensor([1.0, -2.0])
    p = torch.sigmoid(torch.tensor(0.7))
    expected = p * (1 - p) * 3.0
    assert_close(expected_gradient(logits, reward), torch.stack([expected, -expected]))


@pytest.mark.parametrize("baseline", [-5.0, 0.6, 100.0])
def test_a_baseline_does_not_change_the_mean_gradient(baseline):
    logits, reward = torch.randn(5, requires_grad=True), torch.randn(5)
    assert_close(expected_gradient(logits, reward - baseline), expected_gradient(logits, reward))


def test_a_baseline_changes_the_variance():
    logits, reward = torch.zeros(3, requires_grad=True), torch.tensor([10.0, 11.0, 12.0])

    def second_moment(baseline):
        each = [gradient(policy_gradient(logits.log_softmax(-1), reward - baseline)[a], logits)[0] for a in range(3)]
        return torch.stack(each).square().sum(-1).mean()

    assert second_moment(11.0) < second_moment(0.0) / 100


def test_reward_to_go_has_the_mean_gradient_of_the_whole_return():
    """Two steps, three actions, a reward after each; the second policy depends on the first action."""
    first, second = torch.randn(3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    reward_1, reward_2 = torch.randn(3), torch.randn(3, 3)
    value = whole = to_go = torch.tensor(0.0)
    for a, b in itertools.product(range(3), repeat=2):
        logprob = torch.stack([first.log_softmax(-1)[a], second[a].log_softmax(-1)[b]])
        total = reward_1[a] + reward_2[a, b]
        probability = logprob.sum().exp()
        value = value - probability * total
        whole = whole + probability.detach() * policy_gradient(logprob, total.expand(2)).sum()
        weight = torch.stack([total, reward_2[a, b]])
        to_go = to_go + probability.detach() * policy_gradient(logprob, weight).sum()
    for i, parameter in enumerate((first, second)):
        exact = gradient(value, parameter)[0]
        assert_close(gradient(whole, first, second)[i], exact)
        assert_close(gradient(to_go, first, second)[i], exact)


# PPO-clip


@pytest.mark.parametrize(
    "advantage, ratio, loss, has_gradient",
    [(1.0, 1.3, -1.2, False), (1.0, 0.7, -0.7, True), (-1.0, 1.3, 1.3, True), (-1.0, 0.7, 0.8, False)],
)
def test_ppo_clip_by_hand(advantage, ratio, loss, has_gradient):
    logprob = torch.tensor([ratio]).log().requires_grad_()
    result = ppo_clip(logprob, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.2)
    assert_close(result, torch.tensor([loss]))
    # dL/dlogprob = -A ratio where the clip does not cut it
    assert_close(gradient(result.sum(), logprob)[0], torch.tensor([-advantage * ratio if has_gradient else 0.0]))


def test_ppo_clip_is_the_two_branch_form_of_spinning_up():
    logprob, advantage = torch.randn(1000) * 0.5, torch.randn(1000)
    low, high = 0.2, 0.28
    bound = torch.where(advantage >= 0, (1 + high) * advantage, (1 - low) * advantage)
    expected = -torch.minimum(logprob.exp() * advantage, bound)
    assert_close(ppo_clip(logprob, torch.zeros(1000), advantage, low, high), expected)


def test_clip_low_and_clip_high_are_two_sides():
    """DAPO's .2 / .28: a ratio of 1.25 may still grow, one of .75 may not shrink further."""
    logprob = torch.tensor([1.25, 0.75]).log().requires_grad_()
    advantage = torch.tensor([1.0, -1.0])
    result = ppo_clip(logprob, torch.zeros(2), advantage, 0.2, 0.28)
    assert_close(result, torch.tensor([-1.25, 0.8]))
    assert_close(gradient(result.sum(), logprob)[0], torch.tensor([-1.25, 0.0]))


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_ppo_clip_gradient_on_policy_is_the_policy_gradient(clip):
    logits, advantage = torch.randn(6, 3, requires_grad=True), torch.randn(6)
    logprob = logits.log_softmax(-1)[torch.arange(6), torch.arange(6) % 3]
    expected = gradient(policy_gradient(logprob, advantage).mean(), logits)[0]
    for old_logprob in (logprob.detach(), logprob):  # the old one carries no gradient, detached or not
        loss = ppo_clip(logprob, old_logprob, advantage, clip, clip)
        assert_close(gradient(loss.mean(), logits)[0], expected)
        assert_close(loss, -advantage)
        assert (approx_kl(logprob, old_logprob) == 0).all()
        assert (clip_fraction(logprob, old_logprob, clip, clip) == 0).all()


def test_off_policy_and_unclipped_it_is_importance_sampling():
    """Over every action of pi_old, E[r A] = E_pi[A]: the gradient is that of the expected advantage of pi."""
    logits, old, advantage = (torch.randn(5, requires_grad=True), torch.randn(5).log_softmax(-1), torch.randn(5))
    logprob = logits.log_softmax(-1)
    exact = gradient(-(logprob.exp() * advantage).sum(), logits)[0]
    loss = (old.exp() * ppo_clip(logprob, old, advantage, float("inf"), float("inf"))).sum()
    assert_close(gradient(loss, logits)[0], exact)


def test_no_policy_loss_reaches_the_critic_through_the_advantage_nor_the_old_policy():
    logprob, old, advantage = (torch.randn(4, requires_grad=True) for _ in range(3))
    for loss in (
        ppo_clip(logprob, old, advantage, 0.2, 0.2),
        ppo_penalty(logprob, old, advantage, torch.zeros(4), 0.1),
        policy_gradient(logprob, advantage),
        cispo(logprob, old, advantage, 0.2, 0.2),
        dual_clip(ppo_clip(logprob, old, advantage, 0.2, 0.2), advantage, 3.0),
    ):
        g = torch.autograd.grad(loss.sum(), (logprob, old, advantage), allow_unused=True)
        assert g[0].abs().sum() > 0 and g[1] is None and g[2] is None


# Dual clip and CISPO


@pytest.mark.parametrize(
    "advantage, ratio, loss, slope",
    [(-1.0, 2.0, 2.0, 2.0), (-1.0, 5.0, 3.0, 0.0), (-2.0, 5.0, 6.0, 0.0), (-1.0, 0.5, 0.8, 0.0), (1.0, 5.0, -1.2, 0.0)],
)
def test_dual_clip_by_hand(advantage, ratio, loss, slope):
    """c = 3: a negative advantage costs at most 3 |A|, and from there on has no gradient."""
    logprob, advantage = torch.tensor([ratio]).log().requires_grad_(), torch.tensor([advantage])
    result = dual_clip(ppo_clip(logprob, torch.zeros(1), advantage, 0.2, 0.2), advantage, 3.0)
    assert_close(result, torch.tensor([loss]))
    assert_close(gradient(result.sum(), logprob)[0], torch.tensor([slope]))


def test_dual_clip_is_max_of_min_as_its_paper_has_it():
    """Ye et al. 2020, eq. 4, for A < 0: the objective is max(min(r A, clip(r) A), c A)."""
    logprob, advantage = torch.randn(1000), torch.randn(1000)
    ratio = logprob.exp()
    inner = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    expected = torch.where(advantage < 0, torch.maximum(inner, 2 * advantage), inner)
    result = dual_clip(ppo_clip(logprob, torch.zeros(1000), advantage, 0.2, 0.2), advantage, 2.0)
    assert_close(-result, expected)


@pytest.mark.parametrize("advantage", [1.0, -2.0])
@pytest.mark.parametrize("ratio, weight", [(0.01, 0.7), (0.69, 0.7), (1.0, 1.0), (1.3, 1.3), (9.0, 1.5)])
def test_cispo_weighs_the_score_function_by_the_clipped_ratio_and_never_stops_it(advantage, ratio, weight):
    logprob = torch.tensor([ratio]).log().requires_grad_()
    result = cispo(logprob, torch.zeros(1), torch.tensor([advantage]), 0.3, 0.5)
    assert_close(result, -weight * advantage * logprob)
    assert_close(gradient(result.sum(), logprob)[0], torch.tensor([-weight * advantage]))


def test_cispo_has_the_policy_gradient_on_policy_and_off_policy_where_nothing_is_clipped():
    logits, old, advantage = torch.randn(5, requires_grad=True), torch.randn(5).log_softmax(-1), torch.randn(5)
    logprob = logits.log_softmax(-1)
    on_policy = gradient(cispo(logprob, logprob.detach(), advantage, 0.0, 0.0).sum(), logits)[0]
    assert_close(on_policy, gradient(policy_gradient(logprob, advantage).sum(), logits)[0])
    exact = gradient(-(logprob.exp() * advantage).sum(), logits)[0]
    loss = (old.exp() * cispo(logprob, old, advantage, 1.0, float("inf"))).sum()
    assert_close(gradient(loss, logits)[0], exact)


# PPO-penalty


def test_ppo_penalty_by_hand():
    logprob, old = torch.tensor([0.5, 0.2]).log(), torch.tensor([0.25, 0.4]).log()
    result = ppo_penalty(logprob, old, torch.tensor([3.0, -1.0]), torch.tensor([0.1, 0.2]), 2.0)
    assert_close(result, torch.tensor([-(2 * 3 - 0.2), -(0.5 * -1 - 0.4)]))


def test_ppo_penalty_rests_where_advantage_plus_beta_over_ratio_is_constant():
    """d/dpi(a) of sum pi A - beta KL(old || pi) is A(a) + beta old(a)/pi(a): equal for all a at the best."""
    logits, old, beta = torch.randn(5, requires_grad=True), torch.randn(5).log_softmax(-1), 0.7
    logprob = logits.log_softmax(-1)
    advantage = 1.3 - beta * (old - logprob.detach()).exp()
    kl = categorical_kl(old, logprob).expand(5)
    loss = (old.exp() * ppo_penalty(logprob, old, advantage, kl, beta)).sum()
    assert_close(gradient(loss, logits)[0], torch.zeros(5))


# Diagnostics


def test_clipped_is_where_ppo_clip_has_no_gradient():
    logprob, advantage = (torch.randn(1000) * 0.5).requires_grad_(), torch.randn(1000)
    stopped = gradient(ppo_clip(logprob, torch.zeros(1000), advantage, 0.2, 0.28).sum(), logprob)[0] == 0
    old = torch.zeros(1000)
    low, high = clipped_low(logprob, old, advantage, 0.2), clipped_high(logprob, old, advantage, 0.28)
    assert torch.equal((low + high).bool(), stopped) and (low * high == 0).all()
    assert torch.equal(low.bool(), stopped & (logprob < 0)) and torch.equal(high.bool(), stopped & (logprob > 0))
    assert low.sum() > 100 and high.sum() > 100
    assert not clipped_low(logprob, old, old, 0.2).any() and not clipped_high(logprob, old, old, 0.28).any()


def test_approx_kl_is_unbiased_and_nonnegative():
    old, new = torch.randn(5).log_softmax(-1), torch.randn(5).log_softmax(-1)
    estimate = approx_kl(new, old)
    assert (estimate >= 0).all()
    exact = (old.exp() * (old - new)).sum()  # KL(old || new)
    assert_close((old.exp() * estimate).sum(), exact)
    ratio = (new - old).exp()
    assert_close(estimate, (ratio - 1) - ratio.log())


def test_clip_fraction_counts_ratios_outside_the_clip():
    logprob = torch.tensor([0.7, 0.79, 0.81, 1.0, 1.19, 1.21, 1.27, 1.3]).log()
    zero = torch.zeros(8)
    assert clip_fraction(logprob, zero, 0.2, 0.2).tolist() == [1, 1, 0, 0, 0, 1, 1, 1]
    assert clip_fraction(logprob, zero, 0.2, 0.28).tolist() == [1, 1, 0, 0, 0, 0, 0, 1]
    assert clip_fraction(logprob, zero, 0.3 + 1e-9, 0.2).tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_diagnostics_carry_no_gradient():
    logprob = torch.randn(4, requires_grad=True)
    assert not approx_kl(logprob, torch.zeros(4)).requires_grad
    assert not clip_fraction(logprob, torch.zeros(4), 0.2, 0.2).requires_grad


# Groups, by enumerating every one of them


@pytest.mark.parametrize(
    "scale, ddof, factor, cosine",
    [("none", 1, 0.75, 1.0), ("loo", 1, 1.0, 1.0), ("group", 1, 1.617, 0.99829), ("group", 0, 1.867, 0.99829)],
)
@pytest.mark.parametrize("loss", ["policy_gradient", "ppo_clip"])
def test_what_each_group_advantage_does_to_the_gradient_of_a_3_armed_bandit(scale, ddof, factor, cosine, loss):
    """All 81 groups of G = 4 arms from p = (.5, .3, .2), r = (1, 0, .5); true gradient (.2, -.18, -.02)."""
    logits, reward = torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_(), torch.tensor([1.0, 0.0, 0.5])
    groups = torch.tensor(list(itertools.product(range(3), repeat=4)))
    logprob = logits.log_softmax(-1)[groups]
    weight = logprob.detach().sum(-1).exp()
    advantage = group_advantage(reward[groups], scale, ddof=ddof)
    if loss == "ppo_clip":
        token_loss = ppo_clip(logprob, logprob.detach(), advantage, 0.2, 0.2)
        if scale != "group":
            assert_close((weight * token_loss.mean(-1)).sum(), torch.tensor(0.0))  # the value says nothing
    else:
        token_loss = policy_gradient(logprob, advantage)
    mean = -gradient((weight * token_loss.mean(-1)).sum(), logits)[0]
    true = torch.tensor([0.2, -0.18, -0.02])
    assert_close(gradient((logits.softmax(-1) * reward).sum(), logits)[0], true)
    if cosine == 1.0:
        assert_close(mean, factor * true)
    else:  # the length along the true gradient and the angle to it, printed to three and five places
        assert_close(mean @ true / (true @ true), torch.tensor(factor), rtol=0, atol=5e-4)
        assert_close(cosine_similarity(mean, true, 0), torch.tensor(cosine), rtol=0, atol=5e-6)


def test_the_length_mean_of_grpo_tilts_the_gradient_and_dr_grpo_does_not():
    """A language of two tokens and at most three places: E, aE, aaE, aaa; all 16 groups of two."""
    stop = torch.zeros(3, requires_grad=True)  # logit of the end token at each place
    end, on = torch.nn.functional.logsigmoid(stop), torch.nn.functional.logsigmoid(-stop)
    zero = torch.zeros(())
    logprob = torch.stack(
        [
            torch.stack([end[0], zero, zero]),
            torch.stack([on[0], end[1], zero]),
            torch.stack([on[0], on[1], end[2]]),
            torch.stack([on[0], on[1], on[2]]),
        ]
    )
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    reward = torch.tensor([1.0, 0.0, 1.0, 0.0])
    true = torch.tensor([3.0, -1.0, 1.0]) / 16
    assert_close(gradient((logprob.sum(-1).exp() * reward).sum(), stop)[0], true)
    groups = torch.tensor(list(itertools.product(range(4), repeat=2)))  # [16, 2]
    weight = logprob.detach().sum(-1)[groups].sum(-1).exp()
    advantage = group_advantage(reward[groups], "loo")[..., None].expand(16, 2, 3)

    def mean_gradient(how):
        each = reduce_tokens(policy_gradient(logprob[groups], advantage), mask[groups], how, max_length=3)
        return -gradient((weight * each).sum(), stop)[0]

    assert_close(mean_gradient("sequence"), true)
    assert_close(mean_gradient("dr_grpo"), true / 3)
    assert cosine_similarity(mean_gradient("grpo"), true, 0) < 0.99  # .9840


def test_the_all_actions_gradient_is_the_mean_of_policy_gradients_over_sampled_actions():
    """By enumeration: each action as often as pi draws it; a baseline changes neither."""
    logits, value = torch.randn(4, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, 3, dtype=torch.float64)
    probability = logits.softmax(-1).detach()
    sampled = policy_gradient(logits.log_softmax(-1), value) * probability
    (expected,) = torch.autograd.grad(sampled.sum(), logits)
    for q in (value, value - (probability * value).sum(-1, keepdim=True)):
        (gradient,) = torch.autograd.grad(all_actions(logits.log_softmax(-1), q).sum(), logits)
        torch.testing.assert_close(gradient, expected)
