"""KL divergences, estimated from samples and exact, and the rules that adapt their weight.

Where an estimator enters decides the gradient it gives (one step, actions sampled from pi, exact in
expectation):

    k1 in the loss        0: nothing is penalised
    k2 in the loss        grad KL(pi || ref)
    k3 in the loss        grad KL(ref || pi)
    r k3 in the loss      grad KL(pi || ref), r = pi / pi_old with the gradient through r too
    k1 in the reward      grad KL(pi || ref), over whole sequences also
    k3 in the reward      wrong: it can point away from the gradient; refuse it

Tang & Munos 2025, arXiv:2506.09477.  Nothing here is detached: in PPO's KL(old || new) the learner is the
second argument.
"""

from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes


def k1(logprob: Tensor, ref_logprob: Tensor) -> Tensor:
    """The log-ratio: unbiased for KL(pi || ref) on samples of pi, but often negative.

        k1 = log pi(a) - log ref(a)

    Any shape -> the same shape, in nats.  Schulman 2020, "Approximating KL divergence" (blog).

    >>> k1(tensor([-1.0, -2.0]), tensor([-1.5, -1.0]))
    tensor([ 0.5000, -1.0000])
    """
    check_shapes(logprob=logprob, ref_logprob=ref_logprob)
    return logprob - ref_logprob


def k2(logprob: Tensor, ref_logprob: Tensor) -> Tensor:
    """Half the squared log-ratio: biased as a value, right as a loss.

        k2 = .5 (log pi(a) - log ref(a))^2

    Any shape -> the same shape, in nats.  Schulman 2020, "Approximating KL divergence" (blog).

    >>> k2(tensor([-1.0, -2.0]), tensor([-1.5, -1.0]))
    tensor([0.1250, 0.5000])
    """
    check_shapes(logprob=logprob, ref_logprob=ref_logprob)
    return 0.5 * (logprob - ref_logprob).square()


def k3(logprob: Tensor, ref_logprob: Tensor) -> Tensor:
    """Unbiased for KL(pi || ref) on samples of pi, and never negative.

        d = log ref(a) - log pi(a);   k3 = exp(d) - 1 - d

    Any shape -> the same shape, in nats.  Schulman 2020 (blog); GRPO's: Shao et al. 2024, arXiv:2402.03300,
    eq. 4.

    >>> k3(tensor([-1.0, -2.0]), tensor([-1.5, -1.0]))
    tensor([0.1065, 0.7183])
    """
    check_shapes(logprob=logprob, ref_logprob=ref_logprob)
    difference = ref_logprob - logprob
    return difference.expm1() - difference  # expm1: exactly 0 at d = 0, no cancellation near it


def categorical_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """KL between two categorical distributions.

        KL(pi || ref) = sum_a pi(a) ( log pi(a) - log ref(a) )

    Both [..., A] (logits: unnormalised log-probs) -> [...], in nats.  An action that pi never takes (logit
    -inf) counts 0.

    >>> prob, ref_prob = tensor([[0.5, 0.5], [1.0, 0.0]]), tensor([[0.25, 0.75], [0.25, 0.75]])  # 2 states, 2 actions
    >>> categorical_kl(prob.log(), ref_prob.log())  # .5 log 2 + .5 log(2/3), log 4
    tensor([0.1438, 1.3863])
    """
    check_shapes(logits=logits, ref_logits=ref_logits)
    logprob, ref_logprob = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    prob = logprob.exp()
    return (prob * (logprob - ref_logprob).masked_fill(prob == 0, 0.0)).sum(-1)


def gaussian_kl(mean: Tensor, log_std: Tensor, ref_mean: Tensor, ref_log_std: Tensor) -> Tensor:
    """KL between two diagonal Gaussians, summed over the action's dimensions.

        KL(pi || ref) = sum_i log(sigma_ref / sigma) + (sigma^2 + (mu - mu_ref)^2) / (2 sigma_ref^2) - 1/2

    All four [..., A] (a state-independent log_std: `log_std.expand_as(mean)`) -> [...], in nats.

    >>> zero = tensor([[0.0, 0.0]])  # 1 state, an action of 2 dimensions
    >>> gaussian_kl(tensor([[1.0, 2.0]]), zero, zero, zero)  # .5 (1^2 + 2^2)
    tensor([2.5000])
    """
    check_shapes(mean=mean, log_std=log_std, ref_mean=ref_mean, ref_log_std=ref_log_std)
    log_ratio = log_std - ref_log_std
    distance = (mean - ref_mean) * (-ref_log_std).exp()
    return (0.5 * ((2 * log_ratio).exp() + distance.square() - 1) - log_ratio).sum(-1)


def adaptive_kl_coef(kl_coef: Scalar, kl: Scalar, target: Scalar) -> Scalar:
    """beta of the next iteration of PPO with a KL penalty.

        beta <- 2 beta if KL > 1.5 target;   beta / 2 if KL < target / 1.5;   beta otherwise

    Floats -> float (it is called between iterations), 0-dim tensors -> tensor; kl and target in nats.
    Schulman et al. 2017, arXiv:1707.06347, section 4.

    >>> [adaptive_kl_coef(1.0, kl, target=0.01) for kl in (0.02, 0.01, 0.005)]
    [2.0, 1.0, 0.5]
    """
    return kl_coef * (1 + (kl > 1.5 * target)) / (1 + (kl < target / 1.5))


def adaptive_kl_controller(kl_coef: Scalar, kl: Scalar, target: Scalar, num_samples: Scalar, horizon: Scalar) -> Scalar:
    """beta after `num_samples` more episodes, moved in proportion to a clipped relative error.

        e = clamp(KL / target - 1, -.2, .2);   beta <- beta (1 + e num_samples / horizon)

    Floats -> float, 0-dim tensors -> tensor; KL in nats, summed over a completion's tokens, mean over
    completions.  Ziegler et al. 2019, arXiv:1909.08593, section 2.2; this form is that of their code (horizon
    10_000, target 6).

    >>> round(adaptive_kl_controller(0.15, kl=12.0, target=6.0, num_samples=512, horizon=10_000), 6)
    0.151536
    """
    error = kl / target - 1
    error = error.clamp(-0.2, 0.2) if isinstance(error, Tensor) else min(max(error, -0.2), 0.2)
    return kl_coef * (1 + error * num_samples / horizon)
