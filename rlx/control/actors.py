"""Networks of continuous control: policies whose actions lie in [-1, 1], and critics Q(s, a) of such actions.

-1 and 1 are the bounds of the environment's action space (`Bounds`), whatever those are: networks, replay buffer and
noise know nothing of them.
"""

import copy
import math
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlx.base.errors import ConfigError
from rlx.control.networks import ACTIVATIONS, ModelConfig, Network, mlp, orthogonal_
from rlx.engine.learner import Learner
from rlx.engine.optim import Flat
from rlx.envs.batch import Envs
from rlx.functional.continuous import squash, squashed_logprob

M = TypeVar("M", bound=nn.Module)
LOG_STD = (-20.0, 2.0)  # bounds of a squashed policy's log standard deviation (Haarnoja et al. 2018, their code)


class Bounds:
    """Actions in [-1, 1] <-> those of a Box. Raises ConfigError where a bound is infinite."""

    def __init__(self, envs: Envs) -> None:
        space = envs.action_space
        self.low, high = space.low.astype(np.float32), space.high.astype(np.float32)  # type: ignore[attr-defined]
        self.half = (high - self.low) / 2
        if not np.isfinite(self.half).all():
            raise ConfigError(
                f"env.id={envs.id}: actions are scaled by their bounds, and these lie in [{self.low.min()}, "
                f"{high.max()}] (env.wrappers can bound them; ppo, a2c, trpo and vpg need no bounds)"
            )

    def scaled(self, action: np.ndarray) -> np.ndarray:
        """[..., A] in [-1, 1] -> what the environment takes."""
        return self.low + (action + 1) * self.half


class Actor(Network):
    """A policy: an MLP behind the layers that see observations, `size` outputs."""

    def __init__(self, obs_shape: tuple[int, ...], size: int, cfg: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(obs_shape, cfg, 0)
        self.trunk = nn.Identity()
        self.actor = mlp([self.width, *cfg.hidden, size], cfg.activation)
        if cfg.orthogonal_init:
            orthogonal_(self, {self.actor[-1]: 0.01}, generator)


class DeterministicActor(Actor):
    """a = tanh(f(s)); a sample is that and Gaussian noise of standard deviation `std`, clipped."""

    def __init__(
        self, obs_shape: tuple[int, ...], dim: int, cfg: ModelConfig, generator: torch.Generator, std: float
    ) -> None:
        super().__init__(obs_shape, dim, cfg, generator)
        self.std = std

    def forward(self, obs: Tensor) -> Tensor:
        return squash(self.actor(self.encode(obs)))

    mode = forward

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        return (self(obs) + self.std * noise).clamp(-1, 1)

    explore = sample


class SquashedGaussian(Actor):
    """a = tanh(mean(s) + std(s) noise), noise ~ N(0, 1) [..., A] drawn beforehand."""

    def __init__(self, obs_shape: tuple[int, ...], dim: int, cfg: ModelConfig, generator: torch.Generator) -> None:
        super().__init__(obs_shape, 2 * dim, cfg, generator)
        self.dim = dim

    def params(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, before the squashing."""
        mean, log_std = self.actor(self.encode(obs)).split(self.dim, -1)
        return mean, log_std.clamp(*LOG_STD)

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [..., A] and their log-probabilities [...]."""
        mean, log_std = self.params(obs)
        before = mean + log_std.exp() * noise
        return squash(before), squashed_logprob(before, noise, log_std).sum(-1)

    def mode(self, obs: Tensor) -> Tensor:
        """The squashed mean."""
        return squash(self.params(obs)[0])

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = self.params(obs)
        return squash(mean + log_std.exp() * noise)

    def explore(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self.sample(obs, noise)


class StateDependent(SquashedGaussian):
    """Generalised state-dependent exploration: the noise is a function of the state, and that function is held.

        u = mean(s) + f(s) E,   E ~ N(0, S^2) [F, A];   std(s)^2 = f(s)^2 S^2,   f the last hidden layer

    Raffin et al. 2022, arXiv:2005.05719. No gradient reaches f through std(s), and the mean lies in [-2, 2], as in
    Stable-Baselines3. In a loss each sample has noise of its own, which is the same distribution.
    """

    def __init__(self, obs_shape: tuple[int, ...], dim: int, cfg: ModelConfig, generator: torch.Generator) -> None:
        Actor.__init__(self, obs_shape, dim, cfg, generator)
        self.dim, self.num_features = dim, int(self.actor[-1].in_features)  # type: ignore[arg-type]
        self.log_std = nn.Parameter(torch.full((self.num_features, dim), cfg.log_std_init))

    def _mean(self, features: Tensor) -> Tensor:
        return self.actor[-1](features).clamp(-2, 2)

    def params(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.actor[:-1](self.encode(obs))
        variance = features.detach().square() @ (2 * self.log_std).exp()
        return self._mean(features), 0.5 * torch.log(variance + 1e-6)

    def mode(self, obs: Tensor) -> Tensor:
        return squash(self._mean(self.actor[:-1](self.encode(obs))))

    def explore(self, obs: Tensor, noise: Tensor) -> Tensor:
        """With noise [N, F, A]."""
        features = self.actor[:-1](self.encode(obs))
        return squash(self._mean(features) + (features[:, None] @ (self.log_std.exp() * noise))[:, 0])


class Stacked(nn.Module):
    """C linear layers as one product: x [C, B, in] (or [1, B, in], the same for all) -> [C, B, out]."""

    def __init__(self, count: int, fan_in: int, fan_out: int, gain: float | None, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(fan_in)
        self.weight = nn.Parameter(torch.empty(count, fan_in, fan_out))
        self.bias = nn.Parameter(torch.zeros(count, 1, fan_out))
        if gain is None:  # torch's own
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)
        else:
            for weight in self.weight.data:
                nn.init.orthogonal_(weight.T, gain, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.expand(len(self.weight), -1, -1), self.weight)

    def first(self, x: Tensor) -> Tensor:
        """The first of the layers alone: [B, in] -> [B, out]."""
        return torch.addmm(self.bias[0, 0], x, self.weight[0])


class Critics(Network):
    """Q(s, a) of `count` critics in one pass: obs [B, ...], action [B, A] -> [count, B]. What sees images is common to
    all of them."""

    def __init__(
        self, obs_shape: tuple[int, ...], dim: int, cfg: ModelConfig, generator: torch.Generator, count: int
    ) -> None:
        super().__init__(obs_shape, cfg, 0)
        self.trunk = nn.Identity()
        if cfg.orthogonal_init:
            orthogonal_(self, {}, generator)
        sizes = [self.width + dim, *cfg.hidden, 1]
        self.activation = ACTIVATIONS[cfg.activation]()
        gains = [math.sqrt(2)] * len(cfg.hidden) + [1.0] if cfg.orthogonal_init else [None] * (len(cfg.hidden) + 1)
        self.layers = nn.ModuleList(
            Stacked(count, fan_in, fan_out, gain, generator)
            for fan_in, fan_out, gain in zip(sizes, sizes[1:], gains, strict=False)
        )

    def _joined(self, obs: Tensor, action: Tensor) -> Tensor:
        return torch.cat([self.encode(obs), action], -1)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        x = self._joined(obs, action)[None]
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x).squeeze(-1)

    def first(self, obs: Tensor, action: Tensor) -> Tensor:
        """The first critic alone: [B]."""
        x = self._joined(obs, action)
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer.first(x))  # type: ignore[operator]
        return last.first(x).squeeze(-1)  # type: ignore[operator]


class Target(Generic[M]):
    """A copy of a network that follows it: theta_target <- (1 - tau) theta_target + tau theta, one operation over flat
    parameters."""

    def __init__(self, network: M) -> None:
        self.network: M = copy.deepcopy(network).requires_grad_(False)
        self._flat = Flat(self.network)

    def follow(self, learner: Learner, tau: float) -> None:
        """The network whose parameters the learner has."""
        self._flat.data.lerp_(learner.flat.data, tau)
