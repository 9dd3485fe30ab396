"""Two examples of Sutton & Barto 2018, each an episode of a step or two, with the mean rewards as a transition table.

"rlx/Bandit-v0", section 2.3, the 10-armed testbed: an arm's value q*(a) is drawn once from N(mean, 1), each pull pays
N(q*(a), noise) and is an episode. `problems` such bandits stand side by side and each pull is at one of them, drawn at
random and seen: with one it is the bandit, with many their mean is the book's curve. `instance` seeds their values.

"rlx/MaximisationBias-v0", example 6.7: from A half of the actions (the first) go left to B, the others end the episode;
both pay 0. From B each of the actions ends it and pays N(mean, noise). The mean is below 0, so right is best, but the
largest of several noisy estimates in B is above it: Q-learning goes left for long.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from rlx.envs.spaces import OneHot


class Noisy(gym.Env):
    """Follows the table `P` (one outcome a pair) and adds N(0, noise) to the rewards where `noisy` [S] says so."""

    def __init__(self, P: dict[int, dict[int, list[tuple]]], start: np.ndarray, noisy: np.ndarray, noise: float):
        if not noise >= 0 or not np.isfinite(noise):
            raise ValueError(f"noise={noise!r}: must be a finite number, at least 0")
        self.P, self.initial_state_distrib, self.noisy, self.noise = P, start, noisy, noise
        self.observation_space, self.action_space = OneHot(len(P)), spaces.Discrete(len(P[0]))
        self._eye = np.eye(len(P), dtype=np.float32)
        self.s = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.s = int(self.np_random.choice(len(self.P), p=self.initial_state_distrib))
        return self._eye[self.s].copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        noise = self.noise * self.np_random.normal() if self.noisy[self.s] else 0.0
        _, self.s, reward, terminated = self.P[self.s][int(action)][0]
        return self._eye[self.s].copy(), float(reward + noise), terminated, False, {}


def whole(name: str, value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= 10_000:
        raise ValueError(f"{name}={value!r}: must be a whole number from {least} to 10,000")
    return value


class Bandit(Noisy):
    """See the module."""

    def __init__(
        self, arms: int = 10, problems: int = 1, instance: int = 1, mean: float = 0.0, noise: float = 1.0
    ) -> None:
        shape = whole("problems", problems, 1), whole("arms", arms, 2)
        value = np.random.default_rng([whole("instance", instance, 0), 2018]).normal(mean, 1.0, shape)
        P = {s: {a: [(1.0, s, float(value[s, a]), True)] for a in range(arms)} for s in range(problems)}
        super().__init__(P, np.full(problems, 1 / problems), np.ones(problems, bool), noise)


class MaximisationBias(Noisy):
    """See the module. States: 0 is A, 1 is B, 2 the end."""

    def __init__(self, actions: int = 10, mean: float = -0.1, noise: float = 1.0) -> None:
        number = range(whole("actions", actions, 2))
        P = {
            0: {a: [(1.0, 1, 0.0, False) if a < actions // 2 else (1.0, 2, 0.0, True)] for a in number},
            1: {a: [(1.0, 2, mean, True)] for a in number},
            2: {a: [(1.0, 2, 0.0, True)] for a in number},
        }
        super().__init__(P, np.array([1.0, 0, 0]), np.array([False, True, False]), noise)


gym.register("rlx/Bandit-v0", entry_point="rlx.envs.textbook:Bandit", max_episode_steps=1)
gym.register("rlx/MaximisationBias-v0", entry_point="rlx.envs.textbook:MaximisationBias", max_episode_steps=2)
