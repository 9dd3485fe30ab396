"""Returns and advantages. Time first: [T, ...], one column per environment (or per completion).

Two masks, two jobs: `terminated` kills the bootstrap (the future is worth 0), `done` = terminated or
truncated stops the sum (the next row belongs to another episode).  Masks are bool or 0/1 floats.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes
from rlx.functional.value import td_error, td_target

GROUP_SCALES = ("none", "group", "batch", "loo")
# Faster ways to the same bits, where they apply (else None): rlx.engine.recurrence is one.
shortcuts: list[Callable[[Tensor, Tensor], Tensor | None]] = []


def linear_recurrence(x: Tensor, decay: Tensor) -> Tensor:
    """The backward recurrence all discounted sums share, in log2(T) vectorised steps.

        y_t = x_t + c_t y_{t+1},   y_T = 0

    x, decay [T, ...] -> y [T, ...].  Where c_t = 0 nothing behind it is read, NaN and infinity included.
    A scan by doubling: after k steps y_t is summed over 2^k rows and c_t is the product of their decays.
    Hillis & Steele 1986; Blelloch 1990, "Prefix sums and their applications".

    >>> linear_recurrence(tensor([1.0, 2.0, 3.0]), tensor([0.5, 0.5, 0.5]))
    tensor([2.7500, 3.5000, 3.0000])
    """
    check_shapes(x=x, decay=decay)
    for shortcut in shortcuts:
        if (y := shortcut(x, decay)) is not None:
            return y
    return _by_doubling(x, decay)


def _by_doubling(x: Tensor, decay: Tensor) -> Tensor:
    """By torch: what defines the bits."""
    y, c, reach = x, decay, 1
    while reach < x.shape[0]:
        weight = c[: x.shape[0] - reach]
        further = y[reach:].masked_fill(weight == 0, 0.0)  # 0 * inf would be NaN
        y = torch.cat([torch.addcmul(y[:-reach], weight, further), y[-reach:]])
        c = c[:-reach] * c[reach:]  # the last rows are complete already: their decay is not needed again
        reach *= 2
    return y


def reward_to_go(reward: Tensor, done: Tensor, gamma: Scalar) -> Tensor:
    """Discounted sum of the rewards from here to the end of the episode (or of the rows).

        u_t = r_t + gamma (1 - done_t) u_{t+1}

    [T, ...] -> [T, ...]; nothing is bootstrapped.  Sutton & Barto 2018, eq. 3.8.

    >>> reward = tensor([[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]])  # 3 steps of 2 environments
    >>> reward_to_go(reward, done=tensor([[0, 1], [0, 0], [0, 0]]), gamma=0.5)
    tensor([[3., 1.],
            [4., 4.],
            [4., 4.]])
    """
    check_shapes(reward=reward, done=done)
    return linear_recurrence(reward, gamma * (1 - done.to(reward.dtype)))


def discounted_return(reward: Tensor, gamma: Scalar) -> Tensor:
    """Return of one whole episode.

        G = sum_t gamma^t r_{t+1}

    [T, ...], one episode a column, T >= 1 -> [...].  Sutton & Barto 2018, eq. 3.8.

    >>> discounted_return(tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]), gamma=0.5)  # 3 steps, 2 episodes
    tensor([ 3., 30.])
    """
    return reward_to_go(reward, torch.zeros_like(reward), gamma)[0]


def whole_return(reward: Tensor, done: Tensor, gamma: Scalar) -> Tensor:
    """The return of its whole episode, at every step: what REINFORCE weighs all of the episode's actions with.

        w_t = G = sum_k gamma^k r_k,   k counted from the episode's first row

    [T, ...] -> [T, ...]; nothing is bootstrapped.  Williams 1992; Sutton & Barto 2018, section 13.3 (which goes
    on to the reward to go: what was earned before an action does not depend on it).

    >>> whole_return(tensor([1.0, 2.0, 4.0]), done=tensor([0, 1, 0]), gamma=0.5)
    tensor([2., 2., 4.])
    """
    to_go = reward_to_go(reward, done, gamma)
    rows = torch.arange(len(done), device=done.device).view(-1, *[1] * (done.ndim - 1)).expand_as(done)
    begins = torch.cat([torch.ones_like(done[:1]), done[:-1]]).bool()
    return to_go.gather(0, torch.where(begins, rows, 0).cummax(0).values)


def n_step_return(
    reward: Tensor, next_value: Tensor, terminated: Tensor, done: Tensor, gamma: Scalar, n: int
) -> Tensor:
    """n rewards and the value after them; where the episode or the rows end sooner, the value there.

        R_t = sum_{k<n} gamma^k r_{t+k} + gamma^n (1 - terminated_{t+n-1}) V(s_{t+n})

    All [T, ...] -> [T, ...]; next_value_t = V(true successor of step t).  n = 1 is the TD target; n >= T is
    A2C's return.  ValueError: n < 1.  Sutton & Barto 2018, eq. 7.1.

    >>> reward, next_value, terminated = tensor([1.0, 1.0, 1.0]), tensor([10.0, 20.0, 30.0]), tensor([0, 0, 1])
    >>> n_step_return(reward, next_value, terminated, done=terminated, gamma=0.5, n=2)  # the first: 1 + .5 + .25 20
    tensor([6.5000, 1.5000, 1.0000])
    """
    if n < 1:
        raise ValueError(f"n={n}: a return needs at least 1 step")
    check_shapes(reward=reward, next_value=next_value, terminated=terminated, done=done)
    shortest = target = td_target(reward, next_value, terminated, gamma)
    for _ in range(min(n, reward.shape[0]) - 1):  # each pass lengthens every window by one step
        longer = reward[:-1] + gamma * target[1:]
        target = torch.cat([torch.where(done[:-1].bool(), shortest[:-1], longer), shortest[-1:]])
    return target


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: Scalar,
    gae_lambda: Scalar,
) -> Tensor:
    """Generalised advantage estimation; the returns to train the critic on are advantage + value.

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    All [T, ...] -> [T, ...].  next_value_t is the value of the TRUE successor of step t (at a truncation the
    final observation, never the next episode's first).  lambda 0 is the TD error, lambda 1 is
    return - V.  Schulman et al. 2015, arXiv:1506.02438, eq. 16; Schulman et al. 2017, arXiv:1707.06347.

    >>> reward, value, next_value = tensor([-0.1, 0.05, 1.0]), tensor([0.2, 0.4, 0.6]), tensor([0.4, 0.6, 7.0])
    >>> end = tensor([0, 0, 1])  # 3 steps; the last one terminates: 7 is not read
    >>> gae(reward, value, next_value, terminated=end, done=end, gamma=1.0, gae_lambda=0.95)
    tensor([0.6985, 0.6300, 0.4000])
    """
    check_shapes(reward=reward, done=done)
    delta = td_error(reward, value, next_value, terminated, gamma)
    return linear_recurrence(delta, gamma * gae_lambda * (1 - done.to(delta.dtype)))


def normalize(advantage: Tensor, *, ddof: int = 1, eps: Scalar = 1e-8) -> Tensor:
    """Mean 0 and standard deviation 1 over all elements: the advantages of one minibatch.

        (A - mean A) / (std A + eps)

    Any shape -> the same shape.  ddof 1 is PyTorch's, CleanRL's and Stable-Baselines3's, 0 the population's.
    One element gives 0, not NaN.

    >>> normalize(tensor([1.0, 2.0, 4.0]))  # mean 2.3333, std 1.5275
    tensor([-0.8729, -0.2182,  1.0911])
    """
    std, mean = torch.std_mean(advantage, correction=min(ddof, advantage.numel() - 1))
    normalized: Tensor = (advantage - mean) / (std + eps)
    return normalized


def whiten(
    advantage: Tensor,
    mask: Tensor | None = None,
    *,
    ddof: int = 1,
    eps: Scalar = 1e-8,
    dim: int | tuple[int, ...] | None = None,
) -> Tensor:
    """`normalize` over the positions whose mask is 1; 0 at the others, whatever they hold (NaN included).

        m (A - mean A) / (std A + eps),   n = sum m,   std^2 = sum m (A - mean A)^2 / (n - ddof)

    Same shape -> the same shape, over the axes `dim` (None: all).  Equal elements, one element or none give
    exactly 0.  OpenAI's code (Ziegler et al. 2019, arXiv:1909.08593) has ddof 0 and eps under the root; its
    whitening without the shift is this plus the mean.

    >>> whiten(tensor([1.0, 2.0, 3.0, 4.0, 99.0]), mask=tensor([1, 1, 1, 1, 0]), ddof=0)  # mean 2.5, std 1.1180
    tensor([-1.3416, -0.4472,  0.4472,  1.3416,  0.0000])
    """
    kept = torch.ones_like(advantage, dtype=torch.bool) if mask is None else mask.bool()
    check_shapes(advantage=advantage, mask=kept)
    axes = tuple(range(advantage.ndim)) if dim is None else dim
    count = kept.sum(axes, keepdim=True)
    # Measured from one of its own elements, equal ones are 0 before rounding can part them from their mean.
    origin = advantage.masked_fill(~kept, -math.inf).amax(axes, keepdim=True)
    x = (advantage - origin).masked_fill(~kept, 0.0)
    x = (x - x.sum(axes, keepdim=True) / count).masked_fill(~kept, 0.0)  # an empty pool's 0 / 0 as well
    variance = x.square().sum(axes, keepdim=True) / (count - ddof).clamp(min=1)
    whitened: Tensor = x / (variance.sqrt() + eps)
    return whitened


def group_advantage(reward: Tensor, scale: str = "group", ddof: int = 1, eps: Scalar = 1e-4) -> Tensor:
    """Each completion against the others of its prompt: the group's mean is the baseline.

        none    R - mean                        Dr. GRPO; its mean is (G-1)/G of the policy gradient
        loo     (R - mean) G / (G-1)            RLOO: the mean of the OTHERS is the baseline; unbiased
        group   (R - mean) / (std + eps)        GRPO; std over the group
        batch   (R - mean) / (std + eps)        std of all rewards of the batch

    [..., P, G] (P prompts, G completions each) -> the same shape.  A group of equal rewards gives exactly 0.
    ValueError: unknown scale, loo with G = 1.  Shao et al. 2024, arXiv:2402.03300, section 4.1.2; Liu et al.
    2025, arXiv:2503.20783; Ahmadian et al. 2024, arXiv:2402.14740; batch as in TRL's scale_rewards.

    >>> group_advantage(tensor([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]]))  # 2 prompts, 4 completions each
    tensor([[ 0.8659, -0.8659, -0.8659,  0.8659],
            [ 1.4997, -0.4999, -0.4999, -0.4999]])
    """
    if scale not in GROUP_SCALES:
        raise ValueError(f"scale={scale!r}: no such scale; choose one of {', '.join(GROUP_SCALES)}")
    size = reward.shape[-1]
    if scale == "loo" and size < 2:
        raise ValueError(f"scale='loo' needs groups of at least 2 (group_size={size}): one has no others")
    centred = reward - reward[..., :1]  # equal rewards are 0 before rounding can part them from their mean
    centred = centred - centred.mean(-1, keepdim=True)
    if scale == "none":
        return centred
    if scale == "loo":
        return centred * (size / (size - 1))
    axes = (-1,) if scale == "group" else (-2, -1)
    count = math.prod(reward.shape[axis] for axis in axes)
    scaled: Tensor = centred / (reward.std(axes, correction=min(ddof, count - 1), keepdim=True) + eps)
    return scaled


def process_advantage(reward: Tensor, step_end: Tensor, ddof: int = 1, eps: Scalar = 1e-4) -> Tensor:
    """GRPO with a reward per step: what the steps still to end will bring, against all steps of the group.

        r~ = (r - mean) / (std + eps), over all steps of all G completions
        A_t = sum of r~ of the steps that end at or after t

    reward, step_end [..., G, L]: the step rewards lie where step_end is 1, at each step's last token ->
    [..., G, L], one advantage a token.  The same lines serve one column per step (step_end 0 on the padding).
    Tokens behind the last step get 0; completions of more steps weigh more in the mean.
    Shao et al. 2024, arXiv:2402.03300, section 4.1.3.

    >>> reward = tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]])  # 2 completions of 3 tokens: steps of 2 and 1 tokens
    >>> process_advantage(reward, step_end=tensor([[0, 1, 1], [0, 1, 1]]))  # r~ = -1.4997, .4999; .4999, .4999
    tensor([[-0.9998, -0.9998,  0.4999],
            [ 0.9998,  0.9998,  0.4999]])
    """
    check_shapes(reward=reward, step_end=step_end)
    step = whiten(reward, step_end, ddof=ddof, eps=eps, dim=(-2, -1))
    return step.flip(-1).cumsum(-1).flip(-1)


def soft_overlong(length: Tensor, max_length: Scalar, cache: Scalar) -> Tensor:
    """Added to the reward of a completion that comes near the limit.

        0 up to max_length - cache;   (max_length - cache - length) / cache up to max_length;   -1 beyond

    Lengths in tokens, any shape -> the same shape, float.  ValueError: cache < 1.  Yu et al. 2025, arXiv:2503.14476,
    eq. 13.

    >>> soft_overlong(tensor([80, 90, 100, 110]), max_length=100, cache=20)
    tensor([ 0.0000, -0.5000, -1.0000, -1.0000])
    """
    if cache < 1:
        raise ValueError(f"cache={cache}: the penalty needs at least 1 token to grow in")
    penalty: Tensor = ((max_length - cache - length) / cache).clamp(-1.0, 0.0)
    return penalty
