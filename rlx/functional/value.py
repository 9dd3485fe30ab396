"""Values: targets, errors and losses of a critic, and how much of the return it explains."""

import torch
from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes


def td_target(reward: Tensor, next_value: Tensor, terminated: Tensor, gamma: Scalar) -> Tensor:
    """What one step and the value after it say about the value before it.

        y = r + gamma (1 - terminated) V(s')

    Any shape -> the same shape, in units of return.  `next_value` is the value of the TRUE successor: at a
    truncation the final observation's, never the next episode's first.  A truncated step is bootstrapped; a
    terminated one is not, truncated as well or not, and whatever `next_value` holds there (NaN included) is
    not read.  For DQN `next_value` is max_a Q_target(s', a); for double DQN the a is the online net's.
    Sutton & Barto 2018, section 6.1.

    >>> td_target(tensor([1.0, 1.0]), tensor([10.0, 10.0]), terminated=tensor([0, 1]), gamma=0.5)
    tensor([6., 1.])
    """
    check_shapes(reward=reward, next_value=next_value, terminated=terminated)
    target: Tensor = reward + gamma * next_value.masked_fill(terminated.bool(), 0.0)
    return target


def td_error(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, gamma: Scalar) -> Tensor:
    """The surprise of one step.

        delta = r + gamma (1 - terminated) V(s') - V(s)

    Any shape -> the same shape, in units of return; a critic moves along +delta.  Sutton & Barto 2018,
    section 6.1.

    >>> td_error(tensor([1.0, 1.0]), tensor([4.0, 4.0]), tensor([10.0, 10.0]), terminated=tensor([0, 1]), gamma=0.5)
    tensor([ 2., -3.])
    """
    check_shapes(reward=reward, value=value)
    return td_target(reward, next_value, terminated, gamma) - value


def value_loss(value: Tensor, return_: Tensor) -> Tensor:
    """Squared error, halved, so that its gradient is the error.

        L = .5 (V - R)^2

    Any shape -> the same shape; no gradient through R.  The half is counted here, as in Baselines and
    CleanRL; Stable-Baselines3 leaves it out, so its vf_coef .5 is 1.0 here.

    >>> value_loss(tensor([1.0, 3.0]), tensor([0.5, 0.0]))
    tensor([0.1250, 4.5000])
    """
    check_shapes(value=value, return_=return_)
    return 0.5 * (value - return_.detach()).square()


def value_loss_clipped(value: Tensor, old_value: Tensor, return_: Tensor, clip: Scalar) -> Tensor:
    """Squared error, and the value may not gain by moving further than `clip` from where it was.

        L = .5 max( (V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2 )

    Any shape -> the same shape; `clip` in units of return; no gradient through V_old and R.  From OpenAI
    Baselines' ppo2, not in the paper; Stable-Baselines3's clip_range_vf takes the clipped square alone,
    without the max.

    >>> value_loss_clipped(tensor([1.0]), tensor([1.5]), tensor([0.5]), clip=0.2)  # .5 max(.5^2, .8^2)
    tensor([0.3200])
    """
    check_shapes(value=value, old_value=old_value, return_=return_)
    old_value, return_ = old_value.detach(), return_.detach()
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - return_).square(), (clipped - return_).square())


def huber(value: Tensor, target: Tensor, delta: Scalar = 1.0) -> Tensor:
    """Squared error where it is small, absolute error where it is large: its gradient is the error, clipped.

        L = .5 e^2              where |e| <= delta
            delta (|e| - .5 delta)   beyond,   e = V - y

    Any shape -> the same shape; no gradient through y.  Written as c (e - .5 c) with c = clamp(e, -delta, delta).
    Huber 1964; Mnih et al. 2015, Nature 518 (methods: "error clipping").

    >>> huber(tensor([0.5, 3.0]), tensor([0.0, 0.0]))
    tensor([0.1250, 2.5000])
    """
    check_shapes(value=value, target=target)
    error = value - target.detach()
    clipped = error.clamp(-delta, delta)
    return clipped * (error - 0.5 * clipped)


def max_value(target_q: Tensor) -> Tensor:
    """What the best action is worth: DQN's value of a successor.

        V(s') = max_a Q_target(s', a)

    [..., A] -> [...]; no gradient.  Mnih et al. 2015, Nature 518, algorithm 1.

    >>> max_value(tensor([[1.0, 3.0], [5.0, 2.0]]))  # 2 states, 2 actions
    tensor([3., 5.])
    """
    return target_q.detach().amax(-1)


def expected_value(q: Tensor, probability: Tensor) -> Tensor:
    """What a state is worth under a policy, over all its actions.

        V(s) = sum_a pi(a|s) Q(s, a)

    [..., A], [..., A] -> [...].  Sutton & Barto 2018, section 3.5; of a policy it is max_value's where pi is greedy.

    >>> expected_value(tensor([[1.0, 3.0]]), tensor([[0.25, 0.75]]))
    tensor([2.5000])
    """
    check_shapes(q=q, probability=probability)
    return (probability * q).sum(-1)


def double_value(online_q: Tensor, target_q: Tensor) -> Tensor:
    """The action chosen by one network, its value by the other: no maximum over one network's errors.

        V(s') = Q_target(s', argmax_a Q_online(s', a))

    [..., A], [..., A] -> [...]; no gradient.  van Hasselt et al. 2016, arXiv:1509.06461, eq. 4.

    >>> double_value(tensor([[1.0, 3.0], [5.0, 2.0]]), tensor([[10.0, 20.0], [30.0, 40.0]]))  # 2 states, 2 actions
    tensor([20., 30.])
    """
    check_shapes(online_q=online_q, target_q=target_q)
    action = online_q.argmax(-1, keepdim=True)
    return target_q.detach().gather(-1, action).squeeze(-1)


@torch.no_grad()
def explained_variance(value: Tensor, return_: Tensor) -> Tensor:
    """How much of the return's variance the critic predicts.

        EV = 1 - Var(R - V) / Var(R)

    Any shape -> 0-dim: 1 perfect, 0 no better than a constant, below 0 worse; NaN where the return does not
    vary (as in Stable-Baselines3).  No gradient.

    >>> explained_variance(tensor([1.0, 2.0, 3.0]), tensor([2.0, 4.0, 6.0]))  # 1 - (2/3) / (8/3)
    tensor(0.7500)
    """
    check_shapes(value=value, return_=return_)
    variance = (return_ - return_.amax()).var(correction=0)  # exactly 0 for equal returns, not 1e-34
    return torch.where(variance == 0, torch.nan, 1 - (return_ - value).var(correction=0) / variance)
