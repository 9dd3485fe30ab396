"""Action distributions as pure functions of the network's output `params`.

One class for each kind of action space, all with the same five methods; a policy network ends in `size` numbers,
and the head says what they mean. Sampling is a deterministic function of `params` and of noise drawn beforehand
(one draw for a whole rollout), so acting needs neither distribution objects nor a log-probability.
Leading dimensions are free: params [..., size], action [..., *action_shape], logprob and entropy [...].
"""

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlx.envs.spaces import kind_of, mask_size
from rlx.functional import kl as kl_


class Head(Protocol):
    size: int  # network outputs
    masked: int  # numbers of an observation that say which of them are allowed; 0: all are
    free: int  # state-independent parameters appended to them (log standard deviations)
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray: ...
    def sample(self, params: Tensor, noise: Tensor) -> Tensor: ...
    def mode(self, params: Tensor) -> Tensor: ...
    def logprob_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]: ...
    def kl(self, params: Tensor, ref_params: Tensor) -> Tensor: ...


def _gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return -np.log(rng.standard_exponential(shape, dtype=np.float32))


FORBIDDEN = -1e9  # the logit, or value, of an action that the mask forbids: finite, so that 0 times it is 0


def forbid(values: Tensor, mask: Tensor) -> Tensor:
    """Logits or action values [..., n] with FORBIDDEN where mask [..., n] is 0; no gradient reaches those."""
    mask = mask.to(values.dtype)
    return values * mask + (1 - mask) * FORBIDDEN


class Categorical:
    """Discrete(n): logits. A sample is argmax(logits + Gumbel noise) (Gumbel 1954; Maddison et al. 2014)."""

    free = 0
    action_shape: tuple[int, ...] = ()
    action_dtype = torch.int64

    def __init__(self, n: int, masked: int = 0) -> None:
        self.size = n
        self.masked = masked

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return _gumbel(rng, (*shape, self.size))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return (params + noise).argmax(-1)

    def mode(self, params: Tensor) -> Tensor:
        return params.argmax(-1)

    def logprob_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = F.log_softmax(params, -1)
        logprob = logprobs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return logprob, -(logprobs.exp() * logprobs).sum(-1)

    def kl(self, params: Tensor, ref_params: Tensor) -> Tensor:
        return kl_.categorical_kl(params, ref_params)


class MultiCategorical:
    """MultiDiscrete(nvec): independent categoricals side by side; log-probability and entropy are sums."""

    free = 0
    action_dtype = torch.int64

    def __init__(self, nvec: list[int], masked: int = 0) -> None:
        self.masked = masked
        self.parts = [Categorical(n) for n in nvec]
        self.size = sum(nvec)
        self.nvec = list(nvec)
        self.action_shape: tuple[int, ...] = (len(nvec),)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return _gumbel(rng, (*shape, self.size))

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return self.mode(params + noise)

    def mode(self, params: Tensor) -> Tensor:
        return torch.stack([part.argmax(-1) for part in params.split(self.nvec, -1)], -1)

    def logprob_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        each = [
            head.logprob_entropy(part, a)
            for head, part, a in zip(self.parts, params.split(self.nvec, -1), action.unbind(-1), strict=True)
        ]
        return sum_(logprob for logprob, _ in each), sum_(entropy for _, entropy in each)

    def kl(self, params: Tensor, ref_params: Tensor) -> Tensor:
        pairs = zip(params.split(self.nvec, -1), ref_params.split(self.nvec, -1), strict=True)
        return sum_(kl_.categorical_kl(a, b) for a, b in pairs)


class Bernoulli:
    """MultiBinary(n): one logit for each bit. A sample is logit + logistic noise > 0."""

    free = masked = 0
    action_dtype = torch.int64

    def __init__(self, n: int) -> None:
        self.size = n
        self.action_shape: tuple[int, ...] = (n,)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.logistic(size=(*shape, self.size)).astype(np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return self.mode(params + noise)

    def mode(self, params: Tensor) -> Tensor:
        return (params > 0).long()

    def logprob_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        on, off = F.logsigmoid(params), F.logsigmoid(-params)
        bit = action.to(params.dtype)
        return (bit * on + (1 - bit) * off).sum(-1), -(on.exp() * on + off.exp() * off).sum(-1)

    def kl(self, params: Tensor, ref_params: Tensor) -> Tensor:
        on, off = F.logsigmoid(params), F.logsigmoid(-params)
        ref_on, ref_off = F.logsigmoid(ref_params), F.logsigmoid(-ref_params)
        return (on.exp() * (on - ref_on) + off.exp() * (off - ref_off)).sum(-1)


class Gaussian:
    """Box(d): params = mean, log std; std does not depend on the state. Log-probabilities are of the unclipped
    action and are summed over its dimensions."""

    action_dtype = torch.float32
    masked = 0

    def __init__(self, dim: int) -> None:
        self.size = self.free = self.dim = dim
        self.action_shape: tuple[int, ...] = (dim,)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, self.dim), dtype=np.float32)

    def _split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = params.split(self.dim, -1)
        return mean, log_std

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self._split(params)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        return self._split(params)[0]

    def logprob_entropy(self, params: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self._split(params)
        z = (action - mean) * (-log_std).exp()
        logprob = (-0.5 * z.square() - log_std).sum(-1) - 0.5 * self.dim * math.log(2 * math.pi)
        return logprob, log_std.sum(-1) + 0.5 * self.dim * (1 + math.log(2 * math.pi))

    def kl(self, params: Tensor, ref_params: Tensor) -> Tensor:
        return kl_.gaussian_kl(*self._split(params), *self._split(ref_params))


def sum_(terms: Any) -> Tensor:
    """The sum of several tensors, without the 0 that Python's sum starts from."""
    first, *rest = terms
    for term in rest:
        first = first + term
    return first


def make_head(space: Any) -> Head:
    """The head for a Gymnasium action space. Raises ValueError for one that has none."""
    kind = kind_of(space)
    if kind == "Discrete":
        return Categorical(int(space.n), mask_size(space))
    if kind == "MultiDiscrete":
        return MultiCategorical([int(n) for n in np.asarray(space.nvec).reshape(-1)], mask_size(space))
    if kind == "MultiBinary":
        return Bernoulli(int(np.prod(space.shape)))
    if kind == "Box":
        return Gaussian(int(np.prod(space.shape)))
    raise ValueError(f"no policy for {kind} actions (there are: Discrete, MultiDiscrete, MultiBinary, Box)")
