"""Bandits: how uncertain arms are tried, and the gradient of a softmax over preferences."""

import torch
from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes


def upper_confidence(value: Tensor, count: Tensor, coef: Scalar) -> Tensor:
    """What an arm may be worth at best: its mean, and more the more rarely it was pulled.

        U(a) = Q(a) + c sqrt(ln t / N(a)),   t = 1 + sum of N

    [..., A], [..., A] -> [..., A]; infinite for an arm that was never pulled.  Auer et al. 2002; Sutton & Barto
    2018, section 2.7.

    >>> upper_confidence(tensor([1.0, 0.5, 0.0]), tensor([4.0, 1.0, 0.0]), coef=1.0)  # ln 6 / 4, ln 6
    tensor([1.6693, 1.8386,    inf])
    """
    check_shapes(value=value, count=count)
    log = (count.sum(-1, keepdim=True) + 1).log()
    return torch.where(count > 0, value + coef * (log / count.clamp(min=1)).sqrt(), torch.inf)


def preference_gradient(preference: Tensor, action: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """The direction in which a softmax over preferences earns more: policy gradient without a network.

        dH(a') = (r - b) ([a' = a] - pi(a')),   pi = softmax(H)

    [..., A], [...], [...], [...] -> [..., A]: the gradient of (r - b) log pi(a).  Williams 1992; Sutton & Barto
    2018, section 2.8.

    >>> preference_gradient(tensor([0.0, 0.0]), tensor(1), reward=tensor(3.0), baseline=tensor(1.0))
    tensor([-1.,  1.])
    """
    check_shapes(action=action, reward=reward, baseline=baseline)
    chosen = torch.zeros_like(preference).scatter(-1, action.unsqueeze(-1), 1.0)
    return (reward - baseline).unsqueeze(-1) * (chosen - preference.softmax(-1))
