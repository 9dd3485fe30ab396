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
    """
    check_shapes(reward=reward, next_value=next_value, terminated=terminated)
    return reward + gamma * next_value.masked_fill(terminated.bool(), 0.0)


def td_error(reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, gamma: Scalar) -> Tensor:
    """The surprise of one step.

        delta = r + gamma (1 - terminated) V(s') - V(s)

    Any shape -> the same shape, in units of return; a critic moves along +delta.  Sutton & Barto 2018,
    section 6.1.
    """
    check_shapes(reward=reward, value=value)
    return td_target(reward, next_value, terminated, gamma) - value


def value_loss(value: Tensor, return_: Tensor) -> Tensor:
    """Squared error, halved, so that its gradient is the error.

        L = .5 (V - R)^2

    Any shape -> the same shape; no gradient through R.  The half is counted here, as in Baselines and
    CleanRL; Stable-Baselines3 leaves it out, so its vf_coef .5 is 1.0 here.
    """
    check_shapes(value=value, return_=return_)
    return 0.5 * (value - return_.detach()).square()


def value_loss_clipped(value: Tensor, old_value: Tensor, return_: Tensor, clip: Scalar) -> Tensor:
    """Squared error, and the value may not gain by moving further than `clip` from where it was.

        L = .5 max( (V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2 )

    Any shape -> the same shape; `clip` in units of return; no gradient through V_old and R.  From OpenAI
    Baselines' ppo2, not in the paper; Stable-Baselines3's clip_range_vf takes the clipped square alone,
    without the max.
    """
    check_shapes(value=value, old_value=old_value, return_=return_)
    old_value, return_ = old_value.detach(), return_.detach()
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - return_).square(), (clipped - return_).square())


@torch.no_grad()
def explained_variance(value: Tensor, return_: Tensor) -> Tensor:
    """How much of the return's variance the critic predicts.

        EV = 1 - Var(R - V) / Var(R)

    Any shape -> 0-dim: 1 perfect, 0 no better than a constant, below 0 worse; NaN where the return does not
    vary (as in Stable-Baselines3).  No gradient.
    """
    check_shapes(value=value, return_=return_)
    variance = (return_ - return_.amax()).var(correction=0)  # exactly 0 for equal returns, not 1e-34
    return torch.where(variance == 0, torch.nan, 1 - (return_ - value).var(correction=0) / variance)
