"""Environments that raise where a forbidden action is taken. Registered as "masked_envs:Name-v0".

In each an episode has 4 steps. What is allowed depends on the state; the best action of all is forbidden in half of the
states, so that the best allowed one is another.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space

REWARD = np.array([0.0, 0.25, 0.5, 1.0])  # of the four actions
ALLOWED = np.array([[1, 1, 1, 0], [1, 0, 0, 1]], np.int8)  # in the two states
BEST = (2, 3)


class Choices(gym.Env):
    """Discrete actions; the mask is in the info. A kind of observation each for vectors, numbers and dictionaries."""

    def __init__(self, kind: str = "vector", wrong: str = "") -> None:
        self.kind, self.wrong = kind, wrong
        spaces: dict[str, Space] = {
            "vector": Box(-1, 1, (2,), np.float32),
            "discrete": Discrete(2),
            "dict": Dict({"b": Box(-1, 1, (1,), np.float32), "a": Discrete(2)}),
            "image": Box(0, 255, (36, 36, 1), np.uint8),
        }
        self.observation_space = spaces[kind]
        self.action_space: Space = Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.t = 0
        return self._next()

    def _next(self) -> tuple[Any, dict]:
        self.state = int(self.np_random.integers(2))
        sign = 2.0 * self.state - 1
        observations = {
            "vector": np.array([sign, 0.5], np.float32),
            "discrete": self.state,
            "dict": {"b": np.array([0.5], np.float32), "a": self.state},
            "image": np.full((36, 36, 1), 255 * self.state, np.uint8),
        }
        return observations[self.kind], self._info()

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self._mask()}

    def _mask(self) -> Any:
        if self.t >= 4:
            return np.zeros(4, np.int8)  # nothing is left to choose
        if self.wrong and self.t == 2:
            return {"none": np.zeros(4, np.int8), "long": np.ones(5, np.int8), "two": np.full(4, 2)}[self.wrong]
        return ALLOWED[self.state]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if not ALLOWED[self.state][action]:
            raise ValueError(f"forbidden: {action} in state {self.state}")
        reward = float(REWARD[action])
        self.t += 1
        obs, info = self._next()
        return obs, reward, self.t >= 4, False, info


class Method(Choices):
    """The mask by a method, with actions counted from 3."""

    def __init__(self, kind: str = "vector") -> None:
        super().__init__(kind)
        self.action_space = Discrete(4, start=3)

    def _info(self) -> dict[str, Any]:
        return {}

    def action_masks(self) -> np.ndarray:
        return self._mask().astype(bool)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return super().step(action - 3)


class Pairs(Choices):
    """MultiDiscrete actions: one of four, and one of two of which the state allows one."""

    def __init__(self, kind: str = "vector") -> None:
        super().__init__(kind)
        self.action_space = MultiDiscrete([4, 2])

    def _mask(self) -> Any:
        return (super()._mask(), np.eye(2, dtype=np.int8)[self.state])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if action[1] != self.state:
            raise ValueError(f"forbidden: {action}")
        return super().step(action[0])


class Items(gym.Env):
    """A data set: an episode is an item, a seeded reset rewinds it. The reward is the item's number."""

    observation_space = Box(0, 10, (1,), np.float32)
    action_space = Discrete(2)

    def __init__(self) -> None:
        self.item = -1
        self.seen: list[int] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.item = 0 if seed is not None else (self.item + 1) % 10
        self.hard = bool((options or {}).get("hard"))
        return self._obs(), {}

    def _obs(self) -> np.ndarray:
        return np.array([self.item], np.float32)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        return self._obs(), float(self.item + 100 * self.hard), True, False, {}


for kind in (Choices, Method, Pairs, Items):
    if f"{kind.__name__}-v0" not in gym.registry:
        gym.register(f"{kind.__name__}-v0", entry_point=kind)
