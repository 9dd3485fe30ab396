"""Continuous control: soft and smoothed targets, SAC's two losses, squashed actions and their density."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from rlx.functional.shapes import Scalar, check_shapes
from rlx.functional.value import td_target


def least_value(q: Tensor) -> Tensor:
    """What the most pessimistic of several critics says (clipped double Q-learning).

        Q(s, a) = min_i Q_i(s, a)

    [C, ...] -> [...], one row a critic; the gradient is that critic's.  Fujimoto et al. 2018, arXiv:1802.09477, eq. 10.

    >>> least_value(tensor([[1.0, 5.0], [3.0, 2.0]]))  # 2 critics, 2 states
    tensor([1., 2.])
    """
    least: Tensor
    least, *others = q.unbind(0)
    for other in others:
        least = torch.minimum(least, other)
    return least


def soft_target(
    reward: Tensor, next_q: Tensor, next_logprob: Tensor, terminated: Tensor, gamma: Scalar, alpha: Scalar
) -> Tensor:
    """The Bellman target of a policy that is paid for its entropy as well.

        y = r + gamma (1 - terminated) (Q_target(s', a') - alpha log pi(a'|s')),   a' ~ pi(.|s')

    Any shape -> the same shape, in units of return; see `td_target` for what a truncation and a termination are.  The
    first action's own entropy is no part of Q.  Haarnoja et al. 2018, arXiv:1812.05905, eq. 3 and 6.

    >>> logprob = tensor([-2.0, -2.0])
    >>> soft_target(tensor([1.0, 1.0]), tensor([10.0, 10.0]), logprob, tensor([0, 1]), gamma=0.5, alpha=1.0)
    tensor([7., 1.])
    """
    check_shapes(next_q=next_q, next_logprob=next_logprob)
    return td_target(reward, next_q - alpha * next_logprob, terminated, gamma)


def sac_policy(logprob: Tensor, q: Tensor, alpha: Scalar) -> Tensor:
    """Soft policy improvement: towards the actions of high value, as randomly as alpha pays for.

        L = alpha log pi(a|s) - Q(s, a),   a = f(s, noise)

    Any shape -> the same shape; the gradient goes through the reparameterised action of both terms.  In expectation
    alpha KL(pi || exp(Q / alpha) / Z), less a constant.  Haarnoja et al. 2018, arXiv:1812.05905, eq. 7 and 9.

    >>> sac_policy(tensor([-1.0, 0.5]), tensor([2.0, 2.0]), alpha=0.2)
    tensor([-2.2000, -1.9000])
    """
    check_shapes(logprob=logprob, q=q)
    loss: Tensor = alpha * logprob - q
    return loss


def temperature(log_alpha: Tensor, logprob: Tensor, target_entropy: Scalar) -> Tensor:
    """The dual of a lower bound on the entropy: alpha falls while the policy is more random than it must be.

        L = -log alpha (log pi(a|s) + H)

    log_alpha is 0-dim, logprob any shape -> the same shape; no gradient through logprob.  Its gradient is the entropy
    less H.  Haarnoja et al. 2018, arXiv:1812.05905, eq. 18, with log alpha for alpha as in the authors' code.

    >>> temperature(tensor(0.5), tensor([-3.0, 1.0]), target_entropy=-1.0)
    tensor([2., -0.])
    """
    loss: Tensor = -log_alpha * (logprob.detach() + target_entropy)
    return loss


def smoothed_action(action: Tensor, noise: Tensor, clip: Scalar, low: Scalar = -1.0, high: Scalar = 1.0) -> Tensor:
    """An action near the target policy's: a peak of Q as narrow as the noise is averaged away.

        a~ = clamp(a + clamp(noise, -clip, clip), low, high)

    Any shape -> the same shape; clip in units of action.  Fujimoto et al. 2018, arXiv:1802.09477, eq. 14 and
    algorithm 1.

    >>> smoothed_action(tensor([0.0, 0.9, 0.0]), tensor([0.1, 0.3, -2.0]), clip=0.5)
    tensor([ 0.1000,  1.0000, -0.5000])
    """
    check_shapes(action=action, noise=noise)
    return (action + noise.clamp(-clip, clip)).clamp(low, high)


def squash(before: Tensor) -> Tensor:
    """tanh, with a gradient that is right to the last digits wherever it is: into (-1, 1).

        tanh(u) = 1 - 2 / (exp(2 u) + 1)

    Any shape -> the same shape.  The derivative of torch's own, 1 - tanh(u)^2, has lost its digits in float32 at
    |u| = 8 and is 0 from 9 on: a policy that has come there cannot come back.  Beyond 20 the gradient is 0 here.

    >>> squash(tensor([0.0, 0.5, 30.0]))
    tensor([0.0000, 0.4621, 1.0000])
    """
    return 1 - 2 / ((2 * before.clamp(-20, 20)).exp() + 1)


def squashed_logprob(before: Tensor, noise: Tensor, log_std: Tensor) -> Tensor:
    """Log-density of a = tanh(u), u = mean + std noise with noise ~ N(0, 1), of each dimension.

        log pi(a) = -noise^2 / 2 - log std - log(2 pi) / 2 - log(1 - tanh(u)^2)
        log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u))

    `before` is u; any shape -> the same shape, to be summed over an action's dimensions.  The second line is exact
    where tanh(u) is rounded to 1, too: no epsilon inside a logarithm, no infinity.  Haarnoja et al. 2018,
    arXiv:1801.01290, appendix C.

    >>> squashed_logprob(tensor([0.0, 20.0]), tensor([0.0, 0.0]), tensor([0.0, 0.0]))  # -.9189, and 2 (20 - log 2) more
    tensor([-0.9189, 37.6948])
    """
    check_shapes(before=before, noise=noise, log_std=log_std)
    gaussian = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    squashing = 2 * (math.log(2) - before - F.softplus(-2 * before))
    return gaussian - squashing
