"""A policy for observations as an environment gives them, and with actions as it takes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from rlx.base.errors import UserError
from rlx.config.schema import Algo
from rlx.control.config import ControlConfig
from rlx.control.policy import make_one
from rlx.envs.spaces import ActionDecoder, mask_size, observation_encoder


class RawPolicy:
    """`policy(obs) -> action`, for one observation or a batch: an array with a dimension more, of Discrete spaces a
    list of numbers, of Dict and Tuple spaces a list. What wrappers of the configuration make of an observation is what
    the policy takes. It acts without chance, or as drawn from `rng`."""

    def __init__(self, policy: Any, cfg: ControlConfig[Algo]) -> None:
        envs = make_one(cfg.judged_in)
        envs.close()
        where = f"env.id={cfg.env.id}"
        self.policy, self.where, self.space = policy, where, envs.raw_observation_space
        self.action_space, self.masked = envs.raw_action_space, mask_size(envs.action_space)
        self._image = envs.observation_space.dtype == np.uint8
        if self.masked and self._image:  # the mask is a plane of it
            self.space = envs.envs[0].env.observation_space  # type: ignore[attr-defined]
        _, self._encode = observation_encoder(self.space, where)
        self._decode = ActionDecoder(self.action_space, where).decode

    def __call__(self, obs: Any, rng: np.random.Generator | None = None, mask: Any = None) -> Any:
        """The action, or an array of one for each observation. `mask`: which actions are allowed (all), where the
        environment says so. Raises UserError for what is no observation of the environment."""
        single = self._is_one(obs)
        rows = [obs] if single else list(obs)
        if not rows:
            raise UserError(f"{self.where}: an empty batch of observations")
        batch = np.stack([self._encoded(row) for row in rows])
        if self.masked:
            batch = self._with_mask(batch, mask)
        actions = self._decode(np.asarray(self.policy(np.ascontiguousarray(batch), rng)))
        return actions[0] if single else np.asarray(actions)

    def _is_one(self, obs: Any) -> bool:
        if isinstance(self.space, spaces.Dict):
            return isinstance(obs, Mapping)
        if isinstance(self.space, spaces.Tuple):
            return isinstance(obs, tuple)
        shape, own = np.shape(obs), self.space.shape or ()
        if shape != own and shape[1:] != own:
            raise UserError(f"{self.where}: an observation is {list(own)} (a batch [N, ...]), this is {list(shape)}")
        return shape == own

    def _encoded(self, obs: Any) -> np.ndarray:
        if not isinstance(self.space, spaces.Dict | spaces.Tuple):
            obs = np.asarray(obs, dtype=self.space.dtype)
        try:
            row = self._encode(obs) if self._encode else obs
            return np.asarray(row, np.uint8 if self._image else np.float32)
        except (IndexError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self.where}: no observation of {self.space}: {error}") from None

    def _with_mask(self, batch: np.ndarray, mask: Any) -> np.ndarray:
        allowed = np.ones((len(batch), self.masked)) if mask is None else np.reshape(mask, (len(batch), self.masked))
        if not self._image:
            return np.concatenate([batch, allowed.astype(batch.dtype)], -1)
        plane = np.zeros((len(batch), 1, *batch.shape[2:]), batch.dtype)
        plane.reshape(len(batch), -1)[:, : self.masked] = allowed
        return np.concatenate([batch, plane], 1)
