"""Two environments, registered when this module is imported: env.id=rlx_random.envs:Corridor-v0."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """Walk left or right from a random cell; the right end pays 1."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int = 10, render_mode: str | None = None) -> None:
        self.length, self.render_mode = length, render_mode

    def _obs(self) -> np.ndarray:
        return np.array([self.cell / self.length, 1.0], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(1, self.length))
        return self._obs(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.cell += 2 * int(action) - 1
        return self._obs(), float(self.cell == self.length), self.cell in (0, self.length), False, {}


class Crash(Corridor):
    """A Corridor that raises at its `after`-th step, counted over all episodes."""

    def __init__(self, after: int, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.left = after

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("the corridor\nhas collapsed")
        return super().step(action)


class Killed(Corridor):
    """A Corridor whose process is killed at its `after`-th step, unless the file `once` is there; it makes it."""

    def __init__(self, after: int, once: str, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        self.left, self.once = after, Path(once)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        if self.left == 0 and not self.once.exists():
            self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Words(Corridor):
    """An observation that no network takes."""

    observation_space = gym.spaces.Text(8)


class Levers(Corridor):
    """An action that no policy gives."""

    action_space = gym.spaces.Sequence(gym.spaces.Discrete(2))


gym.register("Corridor-v0", Corridor, max_episode_steps=50)
gym.register("Crash-v0", Crash, max_episode_steps=50)
gym.register("Killed-v0", Killed, max_episode_steps=50)
gym.register("Words-v0", Words, max_episode_steps=50)
gym.register("Levers-v0", Levers, max_episode_steps=50)
