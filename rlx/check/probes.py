"""Probe environments: each has an analytic answer that a correct algorithm finds in seconds.

Registered as "rlx.check.probes:Name-v0". After the probes of Andy Jones, "Debugging RL, without the agonizing pain"
(2021).
"""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space


class Probe(gym.Env):
    """One step an episode unless `steps` says more; observes -1 or 1 if `signs`, else how many steps it has taken."""

    def __init__(self, steps: int = 1, signs: bool = False, action_space: Space | None = None) -> None:
        self.observation_space = Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = action_space or Discrete(2)
        self.steps, self.signs = steps, signs

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.t = 0
        self.sign = float(self.np_random.choice([-1, 1]))
        return self._obs(), {}

    def _obs(self) -> np.ndarray:
        return np.array([self.sign if self.signs else self.t], np.float32)

    def reward(self, action: Any) -> float:
        return 1.0

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self.reward(action)
        self.t += 1
        return self._obs(), reward, self.t >= self.steps, False, {}


class Match(Probe):
    """Reward 1 for action 1 where s = 1 and action 0 where s = -1, else -1."""

    def __init__(self) -> None:
        super().__init__(signs=True)

    def reward(self, action: Any) -> float:
        return 1.0 if (action == 1) == (self.sign > 0) else -1.0


class Aim(Probe):
    """Box actions; reward -(a - 0.5 s)^2 summed over 2 dimensions: the mean action is 0.5 s."""

    def __init__(self) -> None:
        super().__init__(signs=True, action_space=Box(-1, 1, (2,), np.float32))

    def reward(self, action: Any) -> float:
        return -float(np.square(action - 0.5 * self.sign).sum())


class Levers(Probe):
    """MultiDiscrete actions; a point for each of (2, 0, 1) that is chosen."""

    def __init__(self) -> None:
        super().__init__(action_space=MultiDiscrete([3, 2, 4]))

    def reward(self, action: Any) -> float:
        return float((np.asarray(action) == [2, 0, 1]).sum())


class Bits(Probe):
    """MultiBinary actions; a point for each of (1, 0, 1) that is set right."""

    def __init__(self) -> None:
        super().__init__(action_space=MultiBinary(3))

    def reward(self, action: Any) -> float:
        return float((np.asarray(action) == [1, 0, 1]).sum())


class Signs(Match):
    """Match with Discrete observations, in episodes of up to 5 steps: state 0 is s = -1, state 1 is s = 1. Its
    transition table is there for those that plan."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Discrete(2)
        after = [(0.4, 0, False), (0.4, 1, False), (0.1, 0, True), (0.1, 1, True)]
        pays = [[1.0, -1.0], [-1.0, 1.0]]
        self.P = {s: {a: [(p, t, pays[s][a], over) for p, t, over in after] for a in (0, 1)} for s in (0, 1)}
        self.initial_state_distrib = np.array([0.5, 0.5])

    def _obs(self) -> Any:
        return int(self.sign > 0)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        reward = self.reward(action)
        self.t += 1
        self.sign = float(self.np_random.choice([-1, 1]))
        return self._obs(), reward, bool(self.np_random.random() < 0.2), self.t >= 5, {}


class NanReward(gym.RewardWrapper):
    """The reward is NaN from the step `at` on, counted over all episodes."""

    def __init__(self, env: gym.Env, at: int = 40) -> None:
        super().__init__(env)
        self.at, self.count = at, 0

    def reward(self, reward: Any) -> Any:
        self.count += 1
        return float("nan") if self.count >= self.at else reward


for kind in (Match, Aim, Levers, Bits, Signs):
    name = f"{kind.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, entry_point=kind)  # type: ignore[arg-type]
