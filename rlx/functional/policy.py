"""Policy losses, per action or per token, and their diagnostics: one `ppo_clip` for CartPole and tokens."""

import torch
from torch import Tensor

from rlx.functional.kl import k3
from rlx.functional.shapes import Scalar, check_shapes


def policy_gradient(logprob: Tensor, weight: Tensor) -> Tensor:
    """Score-function estimator: its gradient is the policy gradient, its value means nothing.

        L = -log pi(a|s) w

    Any shape -> the same shape; no gradient through w.  w = the return of the whole episode, the reward to
    go, or an advantage: each further one has less variance and the same mean.  Williams 1992; Sutton & Barto
    2018, section 13.4.

    >>> policy_gradient(tensor([-0.5, -1.0]), tensor([2.0, -3.0]))
    tensor([ 1., -3.])
    """
    check_shapes(logprob=logprob, weight=weight)
    return -(logprob * weight.detach())


def all_actions(logprob: Tensor, value: Tensor) -> Tensor:
    """The policy gradient without a sampled action: every action, weighed by its probability and value.

        L = - sum_a pi(a|s) Q(s, a)

    [..., A], [..., A] -> [...]; no gradient through Q.  Its gradient is - sum_a grad pi(a|s) Q(s, a), the mean of
    policy_gradient over actions of pi, so no action adds variance; a constant added to Q changes nothing.
    Sutton et al. 2000; Sutton & Barto 2018, section 13.3 (the all-actions method).

    >>> all_actions(tensor([[0.25, 0.75]]).log(), tensor([[4.0, 0.0]]))
    tensor([-1.])
    """
    check_shapes(logprob=logprob, value=value)
    return -(logprob.exp() * value.detach()).sum(-1)


def ppo_clip(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_low: Scalar, clip_high: Scalar) -> Tensor:
    """Clipped surrogate: no gain from taking the ratio further out than the clip.

        r = pi(a|s) / pi_old(a|s);   L = -min( r A, clamp(r, 1 - clip_low, 1 + clip_high) A )

    Any shape -> the same shape; no gradient through old_logprob and A.  At r = 1 the gradient is
    policy_gradient's.  clip_low and clip_high are the epsilons, both floats or both 0-dim tensors; equal in
    PPO, unequal ("clip-higher") in DAPO.  Schulman et al. 2017, arXiv:1707.06347, eq. 7; Yu et al. 2025,
    arXiv:2503.14476.

    >>> ratio, advantage = tensor([1.3, 0.7, 1.3, 0.7]), tensor([1.0, 1.0, -1.0, -1.0])
    >>> ppo_clip(ratio.log(), tensor([0.0, 0.0, 0.0, 0.0]), advantage, 0.2, 0.2)
    tensor([-1.2000, -0.7000,  1.3000,  0.8000])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage)
    ratio, advantage = (logprob - old_logprob.detach()).exp(), advantage.detach()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def dual_clip(loss: Tensor, advantage: Tensor, clip: Scalar) -> Tensor:
    """The clipped surrogate, bounded where the advantage is negative and the ratio runs away.

        L <- min(L, -c A) where A < 0;   L otherwise

    `loss` is `ppo_clip`'s (to be minimised); any shape -> the same shape; c > 1, 3 in the paper.  Ye et al. 2020,
    arXiv:1912.09729, eq. 4.

    >>> dual_clip(tensor([5.0, 2.0, -1.2]), tensor([-1.0, -1.0, 1.0]), 3.0)
    tensor([ 3.0000,  2.0000, -1.2000])
    """
    check_shapes(loss=loss, advantage=advantage)
    advantage = advantage.detach()
    return torch.where(advantage < 0, torch.minimum(loss, -clip * advantage), loss)


def cispo(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_low: Scalar, clip_high: Scalar) -> Tensor:
    """REINFORCE with a clipped importance weight: unlike `ppo_clip` no token ever loses its gradient.

        L = -sg( clamp(r, 1 - clip_low, 1 + clip_high) ) A log pi(a|s),   r = pi(a|s) / pi_old(a|s)

    Any shape -> the same shape; no gradient through the weight and A.  clip_low = 1 leaves no lower bound.  MiniMax
    2025, arXiv:2506.13585, eq. 4; implementations disagree on what the bound is: TRL's `epsilon_high` is
    1 + clip_high.

    >>> logprob, ratio = tensor([-1.0, -1.0, -1.0]), tensor([1.0, 1.5, 0.5])
    >>> cispo(logprob, logprob - ratio.log(), tensor([2.0, 2.0, 2.0]), 0.2, 0.2)
    tensor([2.0000, 2.4000, 1.6000])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage)
    weight = (logprob.detach() - old_logprob.detach()).exp().clamp(1 - clip_low, 1 + clip_high)
    return -(weight * advantage.detach() * logprob)


def ppo_penalty(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, kl: Tensor, kl_coef: Scalar) -> Tensor:
    """Surrogate with a KL penalty.

        r = pi(a|s) / pi_old(a|s);   L = -( r A - beta KL(pi_old || pi) )

    Any shape -> the same shape; no gradient through old_logprob and A.  `kl` carries gradient:
    `categorical_kl(old, new)`, `gaussian_kl(old, new)`, or the estimate `k3(old_logprob, logprob)`.  beta
    follows `kl.adaptive_kl_coef`.  Schulman et al. 2017, arXiv:1707.06347, eq. 8.

    >>> ratio, kl = tensor([1.3, 0.7]), tensor([0.1, 0.2])
    >>> ppo_penalty(ratio.log(), tensor([0.0, 0.0]), tensor([1.0, -1.0]), kl, kl_coef=0.5)
    tensor([-1.2500,  0.8000])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage, kl=kl)
    ratio = (logprob - old_logprob.detach()).exp()
    loss: Tensor = -(ratio * advantage.detach() - kl_coef * kl)
    return loss


@torch.no_grad()
def approx_kl(logprob: Tensor, old_logprob: Tensor) -> Tensor:
    """Estimate of KL(pi_old || pi) from actions of pi_old: k3, never negative.

        r = pi(a|s) / pi_old(a|s);   KL ~ (r - 1) - log r

    Any shape -> the same shape, in nats; no gradient.  Schulman 2020, "Approximating KL divergence" (blog).

    >>> approx_kl(tensor([1.0, 2.0, 0.5]).log(), tensor([0.0, 0.0, 0.0]))  # 0, 1 - log 2, log 2 - .5
    tensor([0.0000, 0.3069, 0.1931])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob)
    return k3(old_logprob, logprob)


@torch.no_grad()
def clip_fraction(logprob: Tensor, old_logprob: Tensor, clip_low: Scalar, clip_high: Scalar) -> Tensor:
    """1 where the ratio is outside the clip, else 0.

        r < 1 - clip_low  or  r > 1 + clip_high

    Any shape -> the same shape; its mean is CleanRL's and Stable-Baselines3's clip fraction.  No gradient.
    The sign of the advantage is not asked, though it decides on which side the gradient is cut.

    >>> clip_fraction(tensor([1.0, 1.3, 0.7]).log(), tensor([0.0, 0.0, 0.0]), 0.2, 0.2)
    tensor([0., 1., 1.])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob)
    ratio = (logprob - old_logprob).exp()
    clipped: Tensor = ((ratio < 1 - clip_low) | (ratio > 1 + clip_high)).to(ratio.dtype)
    return clipped


@torch.no_grad()
def clipped_low(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_low: Scalar) -> Tensor:
    """1 where `ppo_clip` cuts the gradient below, else 0.

        A < 0  and  r < 1 - clip_low

    Any shape -> the same shape; its mean is TRL's clip_ratio/low_mean.  No gradient.

    >>> clipped_low(tensor([0.7, 0.7, 1.3]).log(), tensor([0.0, 0.0, 0.0]), tensor([1.0, -1.0, -1.0]), 0.2)
    tensor([0., 1., 0.])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage)
    ratio = (logprob - old_logprob).exp()
    clipped: Tensor = ((ratio < 1 - clip_low) & (advantage < 0)).to(ratio.dtype)
    return clipped


@torch.no_grad()
def clipped_high(logprob: Tensor, old_logprob: Tensor, advantage: Tensor, clip_high: Scalar) -> Tensor:
    """1 where `ppo_clip` cuts the gradient above, else 0.

        A > 0  and  r > 1 + clip_high

    Any shape -> the same shape; its mean is TRL's clip_ratio/high_mean.  No gradient.

    >>> clipped_high(tensor([1.3, 1.3, 0.7]).log(), tensor([0.0, 0.0, 0.0]), tensor([1.0, -1.0, 1.0]), 0.2)
    tensor([1., 0., 0.])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage)
    ratio = (logprob - old_logprob).exp()
    clipped: Tensor = ((ratio > 1 + clip_high) & (advantage > 0)).to(ratio.dtype)
    return clipped
