"""Probe environments, as "probe_envs:Name-v0": those of rlx check, and some whose values are known."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box

from rlx.check.probes import *  # noqa: F403  registers them
from rlx.check.probes import Aim, Probe, Signs


class Constant(Probe):
    """Reward 1: V = 1."""


class Observation(Probe):
    """Reward is the observation: V(s) = s."""

    def __init__(self) -> None:
        super().__init__(signs=True)

    def reward(self, action: Any) -> float:
        return self.sign


class TwoSteps(Probe):
    """Reward 1 at the second step only: V(0) = gamma, V(1) = 1."""

    def __init__(self) -> None:
        super().__init__(steps=2)

    def reward(self, action: Any) -> float:
        return float(self.t == 1)


class Action(Probe):
    """Reward 1 for action 1, -1 for action 0: pi(1) = 1."""

    def reward(self, action: Any) -> float:
        return 1.0 if action == 1 else -1.0


class Endless(Probe):
    """Reward 1 for ever: V = 1 / (1 - gamma), however soon an episode is truncated. Its observation is constant."""

    def __init__(self) -> None:
        super().__init__(steps=10**9)

    def _obs(self) -> np.ndarray:
        return np.ones(1, np.float32)


class EndlessBox(Endless):
    """The same with an action between -1 and 1 that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-1, 1, (1,), np.float32)


class TwoStepsBox(TwoSteps):
    """TwoSteps with an action between -1 and 1 that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-1, 1, (1,), np.float32)


class AimUnequal(Aim):
    """Reward -(a - m - s / 2)^2 summed, in [-1, 3] by [10, 12], m = (1, 11) the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(np.float32([-1, 10]), np.float32([3, 12]))

    def reward(self, action: Any) -> float:
        assert self.action_space.contains(action), action
        return super().reward(action - np.float32([1, 11]))


class Steer(Signs):
    """Signs with an action between -1 and 1, of which .5 s is the best: reward -(a - .5 s)^2."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-1, 1, (1,), np.float32)

    def reward(self, action: Any) -> float:
        return -float((action[0] - 0.5 * self.sign) ** 2)


class Unbounded(Aim):
    """Aim with actions of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-np.inf, np.inf, (2,), np.float32)


PROBES = (Constant, Observation, TwoSteps, Action, Endless, EndlessBox, TwoStepsBox, AimUnequal, Steer, Unbounded)
for kind in PROBES:
    name = f"{kind.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, entry_point=kind, max_episode_steps=10 if issubclass(kind, Endless) else None)
