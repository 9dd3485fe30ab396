import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence
from torch.testing import assert_close

from rlx.functional.kl import adaptive_kl_coef, adaptive_kl_controller, categorical_kl, gaussian_kl, k1, k2, k3
from rlx.functional.policy import policy_gradient
from rlx.functional.returns import reward_to_go


def vocabulary(n=5):
    """A policy over n tokens with gradient, and a reference."""
    logits = torch.randn(n, requires_grad=True)
    return logits, logits.log_softmax(-1), torch.randn(n).log_softmax(-1)


def mean_gradient(per_token, logits, logprob):
    """Gradient of the loss's mean over tokens drawn from pi, exactly: the draw itself carries no gradient."""
    return torch.autograd.grad((logprob.detach().exp() * per_token).sum(), logits, retain_graph=True)[0]


def exact_gradient(logits, logprob, ref_logprob):
    """Gradients of KL(pi || ref) and KL(ref || pi)."""
    forward = (ref_logprob.exp() * (ref_logprob - logprob)).sum()
    reverse = (logprob.exp() * (logprob - ref_logprob)).sum()
    return (torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (reverse, forward))


@pytest.mark.parametrize(
    "logprob, ref_logprob, one, two, three", [(-1.0, -1.5, 0.5, 0.125, 0.106531), (-2.0, -1.0, -1.0, 0.5, 0.718282)]
)
def test_the_estimators_by_hand(logprob, ref_logprob, one, two, three):
    pair = torch.tensor([logprob]), torch.tensor([ref_logprob])
    assert k1(*pair).item() == one
    assert k2(*pair).item() == two
    assert k3(*pair).item() == pytest.approx(three, abs=5e-7)


def test_k3_is_unbiased_and_nonnegative():
    for _ in range(20):
        _, logprob, ref_logprob = vocabulary()
        exact = kl_divergence(Categorical(logits=logprob), Categorical(logits=ref_logprob))
        assert (k3(logprob, ref_logprob) >= 0).all()
        assert_close((logprob.exp() * k3(logprob, ref_logprob)).sum(), exact)


def test_k3_is_nonnegative_where_float32_cancels():
    logprob = -torch.rand(1000, dtype=torch.float32)
    ref_logprob = logprob + 1e-4 * torch.randn(1000, dtype=torch.float32)
    assert (k3(logprob, ref_logprob) >= 0).all()
    assert (k3(logprob, logprob) == 0).all()


def test_k1_is_unbiased_and_k2_is_not():
    _, logprob, ref_logprob = vocabulary()
    exact = kl_divergence(Categorical(logits=logprob), Categorical(logits=ref_logprob))
    assert_close((logprob.exp() * k1(logprob, ref_logprob)).sum(), exact)
    assert ((logprob.exp() * k2(logprob, ref_logprob)).sum() - exact).abs() > 0.01


def test_k1_in_the_loss_has_no_mean_gradient():
    logits, logprob, ref_logprob = vocabulary()
    assert_close(mean_gradient(k1(logprob, ref_logprob), logits, logprob), torch.zeros(5))


def test_k2_in_the_loss_has_the_gradient_of_kl_pi_ref():
    logits, logprob, ref_logprob = vocabulary()
    reverse, _ = exact_gradient(logits, logprob, ref_logprob)
    assert_close(mean_gradient(k2(logprob, ref_logprob), logits, logprob), reverse)


def test_k3_in_the_loss_has_the_gradient_of_kl_ref_pi():
    logits, logprob, ref_logprob = vocabulary()
    _, forward = exact_gradient(logits, logprob, ref_logprob)
    assert_close(mean_gradient(k3(logprob, ref_logprob), logits, logprob), forward)


def test_ratio_times_k3_in_the_loss_has_the_gradient_of_kl_pi_ref():
    logits, logprob, ref_logprob = vocabulary()
    reverse, _ = exact_gradient(logits, logprob, ref_logprob)
    ratio = (logprob - logprob.detach()).exp()
    assert_close(mean_gradient(ratio * k3(logprob, ref_logprob), logits, logprob), reverse)


def test_k1_in_the_reward_has_the_gradient_of_kl_pi_ref():
    logits, logprob, ref_logprob = vocabulary()
    reverse, _ = exact_gradient(logits, logprob, ref_logprob)
    assert_close(mean_gradient(policy_gradient(logprob, -k1(logprob, ref_logprob)), logits, logprob), reverse)


def test_k3_in_the_reward_has_the_difference_of_the_two_gradients():
    """So at small KL, where the two agree, nothing is left but the sign of their third-order difference."""
    logits, logprob, ref_logprob = vocabulary()
    reverse, forward = exact_gradient(logits, logprob, ref_logprob)
    result = mean_gradient(policy_gradient(logprob, -k3(logprob, ref_logprob)), logits, logprob)
    assert_close(result, reverse - forward)


def test_over_a_sequence_only_k1_in_the_reward_has_the_whole_gradient():
    """Two tokens of three, the second given the first: what a token does to the KL after it counts."""
    first, second = torch.randn(3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    a, b = tokens.T
    logprob = torch.stack([first.log_softmax(-1)[a], second.log_softmax(-1)[a, b]])  # [T, 9]
    ref_logprob = torch.stack([torch.randn(3).log_softmax(-1)[a], torch.randn(3, 3).log_softmax(-1)[a, b]])
    prob = logprob.sum(0).exp()
    kl = (prob * k1(logprob, ref_logprob).sum(0)).sum()

    def first_gradient(loss):
        return torch.autograd.grad(loss, first, retain_graph=True)[0]

    def mean(per_token):
        return (prob.detach() * per_token.sum(0)).sum()

    to_go = reward_to_go(-k1(logprob, ref_logprob), torch.zeros(2, 9), 1.0)
    assert_close(first_gradient(mean(policy_gradient(logprob, to_go))), first_gradient(kl))
    partial = first_gradient(mean(k2(logprob, ref_logprob)))
    assert (partial - first_gradient(kl)).norm() > 0.1 * first_gradient(kl).norm()


def test_the_two_gradients_by_hand():
    """pi (.5, .3, .2), ref (.4, .4, .2): grad KL(ref || pi) = pi - ref."""
    logits, ref_logits = (torch.tensor([0.5, 0.3, 0.2]).log().requires_grad_(), torch.tensor([0.4, 0.4, 0.2]).log())
    reverse = torch.autograd.grad(categorical_kl(logits, ref_logits), logits)[0]
    forward = torch.autograd.grad(categorical_kl(ref_logits, logits), logits)[0]
    assert reverse.tolist() == pytest.approx([0.098938, -0.093885, -0.005053], abs=5e-7)
    assert_close(forward, torch.tensor([0.1, -0.1, 0.0]))


def test_categorical_kl_is_that_of_torch_distributions():
    logits, ref_logits = torch.randn(2, 4, 6) * 3, torch.randn(2, 4, 6) * 3
    expected = kl_divergence(Categorical(logits=logits), Categorical(logits=ref_logits))
    assert_close(categorical_kl(logits, ref_logits), expected)
    assert_close(categorical_kl(logits + 5, ref_logits - 7), expected)  # logits need no normalising
    assert_close(categorical_kl(logits, logits), torch.zeros(2, 4))


def test_an_action_masked_out_in_both_counts_0_in_value_and_gradient():
    minus = -torch.inf
    logits, ref_logits = torch.tensor([[0.3, minus, -1.0]]), torch.tensor([[1.0, minus, 0.0]])
    free = logits[:, [0, 2]].clone().requires_grad_()
    logits.requires_grad_()
    result, expected = categorical_kl(logits, ref_logits), categorical_kl(free, ref_logits[:, [0, 2]])
    assert_close(result, expected)
    g, g_free = torch.autograd.grad(result.sum(), logits)[0], torch.autograd.grad(expected.sum(), free)[0]
    assert_close(g[:, [0, 2]], g_free)
    assert g[0, 1] == 0


def test_an_action_only_pi_takes_is_infinitely_far():
    logits, ref_logits = torch.tensor([0.0, 0.0]), torch.tensor([0.0, -torch.inf])
    assert categorical_kl(logits, ref_logits).item() == float("inf")
    assert_close(categorical_kl(ref_logits, logits), torch.tensor(2.0).log())


def test_gaussian_kl_is_that_of_torch_distributions_summed_over_dimensions():
    mean, log_std, ref_mean, ref_log_std = torch.randn(4, 7, 3)
    expected = kl_divergence(
        Independent(Normal(mean, log_std.exp()), 1), Independent(Normal(ref_mean, ref_log_std.exp()), 1)
    )
    assert_close(gaussian_kl(mean, log_std, ref_mean, ref_log_std), expected)
    assert gaussian_kl(mean, log_std, mean, log_std).abs().max() == 0


def test_gaussian_kl_by_hand():
    """Unit variance, means two apart: 2; twice the std at equal means: -log 2 + 3/2."""
    one = torch.ones(1)
    assert_close(gaussian_kl(2 * one, 0 * one, 0 * one, 0 * one), torch.tensor(2.0))
    expected = 1.5 - torch.tensor(2.0).log()
    assert_close(gaussian_kl(0 * one, torch.tensor([2.0]).log(), 0 * one, 0 * one), expected)


def test_the_learner_may_be_either_argument():
    old, new = torch.randn(4), torch.randn(4, requires_grad=True)
    for divergence in (categorical_kl(old, new), categorical_kl(new, old), k3(old, new).sum(), k3(new, old).sum()):
        assert torch.autograd.grad(divergence, new)[0].abs().sum() > 0


# The coefficient


@pytest.mark.parametrize("kl, expected", [(0.016, 1.0), (0.015, 0.5), (0.01, 0.5), (0.0067, 0.5), (0.0066, 0.25)])
def test_the_ppo_penalty_doubles_above_and_halves_below(kl, expected):
    result = adaptive_kl_coef(0.5, kl, target=0.01)
    assert result == expected and type(result) is float
    assert adaptive_kl_coef(torch.tensor(0.5), torch.tensor(kl), 0.01).item() == expected


@pytest.mark.parametrize("kl, expected", [(12.0, 0.151536), (5.4, 0.149232), (6.0, 0.15), (0.0, 0.148464)])
def test_the_controller_of_ziegler_by_hand(kl, expected):
    result = adaptive_kl_controller(0.15, kl, target=6.0, num_samples=512, horizon=10_000)
    assert result == pytest.approx(expected, abs=5e-7) and type(result) is float
    assert adaptive_kl_controller(0.15, torch.tensor(kl), 6.0, 512, 10_000).item() == pytest.approx(result)
