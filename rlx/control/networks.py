"""Policy and value networks: the usual small MLP, and the usual small CNN for images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rlx.base.errors import ConfigError
from rlx.config import plugins
from rlx.control.distributions import Head, forbid
from rlx.envs.spaces import split_mask


@dataclass
class ModelConfig:
    """What a network looks like (conf/model/*.yaml)."""

    hidden: list[Annotated[int, Field(gt=0, le=100_000)]]  # units of each hidden layer
    activation: Literal["tanh", "relu", "elu", "silu"]
    shared: bool  # one trunk for policy and value, or one each
    orthogonal_init: bool  # gains sqrt(2), 0.01 (policy) and 1 (value); else torch's own
    log_std_init: float  # Gaussian policies
    features: Annotated[int, Field(gt=0, le=100_000)]  # outputs of the CNN (images), or of the encoder
    encoder: str | None = None  # one's own module in front: Encoder(shape, features), obs [N, *shape] -> [N, features]


def encoder_of(name: str) -> type[nn.Module]:
    """The module that model.encoder names. Raises ConfigError."""
    encoder = plugins.load("models", name)
    if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
        raise ConfigError(f"model.encoder={name}: must be a class derived from torch.nn.Module")
    return encoder


SMALLEST_IMAGE = 36  # pixels a side, for the CNN
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def mlp(sizes: list[int], activation: str, last: bool = False) -> nn.Sequential:
    """Linear layers with activations between them, and after the last one if `last`."""
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        layers.append(nn.Linear(fan_in, fan_out))
        if last or index < len(sizes) - 2:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def orthogonal_(network: nn.Module, gains: Mapping[nn.Module, float], generator: torch.Generator) -> None:
    """Orthogonal weights with gain sqrt(2), but for the layers in `gains`; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(module.weight, gains.get(module, math.sqrt(2)), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Pixels(nn.Module):
    """The CNN of Mnih et al. 2015 (Nature 518, methods): uint8 images [N, C, H, W] to `features` numbers."""

    def __init__(self, shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(shape[0], 32, 8, stride=4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        with torch.no_grad():
            try:
                flat = self.convs(torch.zeros(1, *shape)).shape[1]
            except RuntimeError as error:
                raise ValueError(
                    f"images of {shape} are too small for the CNN: {SMALLEST_IMAGE} by {SMALLEST_IMAGE} at least"
                ) from error
        self.out = nn.Sequential(nn.Linear(flat, features), nn.ReLU())

    def forward(self, obs: Tensor) -> Tensor:
        return self.out(self.convs(obs.to(torch.float32) / 255))


class Network(nn.Module):
    """A network whose observations may end in a mask of `masked` actions (see rlx.envs.spaces)."""

    features: nn.Module
    trunk: nn.Module

    def __init__(self, obs_shape: tuple[int, ...], cfg: ModelConfig, masked: int) -> None:
        super().__init__()
        self.masked, self.pixels = masked, len(obs_shape) == 3
        if masked:
            first, *rest = obs_shape
            obs_shape = (first - 1, *rest) if self.pixels else (first - masked,)
        self.shape = obs_shape
        if cfg.encoder is not None:
            self.features, self.width = encoder_of(cfg.encoder)(obs_shape, cfg.features), cfg.features
        elif self.pixels:
            self.features, self.width = Pixels(obs_shape, cfg.features), cfg.features
        else:
            self.features, self.width = nn.Identity(), math.prod(obs_shape)

    def encode(self, obs: Tensor) -> Tensor:
        """Observations, without their mask, through the layers that all outputs have in common."""
        seen = split_mask(obs, self.masked, self.pixels)[0] if self.masked else obs
        if isinstance(self.features, nn.Identity):
            return self.trunk(seen)
        lead = seen.shape[: -len(self.shape)]
        return self.trunk(self.features(seen.reshape(-1, *self.shape)).reshape(*lead, self.width))

    def allowed(self, values: Tensor, obs: Tensor) -> Tensor:
        """Logits or action values where the mask forbids none of them, if there is one."""
        return forbid(values, split_mask(obs, self.masked, self.pixels)[1]) if self.masked else values


class ActorCritic(Network):
    """pi(a|s) and V(s). `forward(obs) -> (params of the head [..., P], value [...])`; with `num_values` the critic has
    that many outputs, one for each action: value [..., num_values]."""

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        head: Head,
        cfg: ModelConfig,
        generator: torch.Generator,
        num_values: int | None = None,
    ) -> None:
        super().__init__(obs_shape, cfg, head.masked)
        self.num_values = num_values
        sizes = [self.width, *cfg.hidden]
        self.trunk = mlp(sizes, cfg.activation, last=True) if cfg.shared and cfg.hidden else nn.Identity()
        own = sizes[-1:] if cfg.shared else sizes
        self.actor = mlp([*own, head.size], cfg.activation)
        self.critic = mlp([*own, num_values or 1], cfg.activation)
        self.log_std = nn.Parameter(torch.full((head.free,), cfg.log_std_init)) if head.free else None
        if cfg.orthogonal_init:
            orthogonal_(self, {self.actor[-1]: 0.01, self.critic[-1]: 1.0}, generator)

    def _params(self, features: Tensor) -> Tensor:
        params = self.actor(features)
        if self.log_std is None:
            return params
        return torch.cat([params, self.log_std.expand_as(params)], -1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encode(obs)
        return self.allowed(self._params(features), obs), self._values(features)

    def _values(self, features: Tensor) -> Tensor:
        values = self.critic(features)
        return values if self.num_values else values.squeeze(-1)

    def value(self, obs: Tensor) -> Tensor:
        """The critic alone, with no gradient into what it shares with the policy."""
        return self._values(self.encode(obs).detach())

    def policy_parameters(self) -> list[nn.Parameter]:
        """All but the critic's own."""
        critic = {id(param) for param in self.critic.parameters()}
        return [param for param in self.parameters() if id(param) not in critic]

    def policy(self, obs: Tensor) -> Tensor:
        """The head's params alone: all that acting needs."""
        return self.allowed(self._params(self.encode(obs)), obs)


class QNetwork(Network):
    """Q(s, a) of a number of actions: `forward(obs) -> [..., num_actions]`, FORBIDDEN where a mask forbids them.

    `dueling`: Q = V + A - mean A, with a stream each for V and A (Wang et al. 2016, arXiv:1511.06581, eq. 9); they have
    the hidden layers in common where the model's trunk is shared.
    """

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        num_actions: int,
        cfg: ModelConfig,
        generator: torch.Generator,
        dueling: bool = False,
        masked: int = 0,
    ) -> None:
        super().__init__(obs_shape, cfg, masked)
        sizes = [self.width, *cfg.hidden]
        self.trunk = mlp(sizes, cfg.activation, last=True) if dueling and cfg.shared and cfg.hidden else nn.Identity()
        own = sizes[-1:] if dueling and cfg.shared else sizes
        self.action_value = mlp([*own, num_actions], cfg.activation)
        self.state_value = mlp([*own, 1], cfg.activation) if dueling else None
        if cfg.orthogonal_init:
            heads = [head for head in (self.action_value, self.state_value) if head is not None]
            orthogonal_(self, {head[-1]: 1.0 for head in heads}, generator)

    def forward(self, obs: Tensor) -> Tensor:
        features = self.encode(obs)
        q = self.action_value(features)
        if self.state_value is not None:
            q = self.state_value(features) + q - q.mean(-1, keepdim=True)
        return self.allowed(q, obs)
