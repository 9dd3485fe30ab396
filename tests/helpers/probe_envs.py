"""Probe environments, as "probe_envs:Name-v0": those of rlx check, and some whose values are known."""

from typing import Any

import gymnasium as gym
import numpy as np

from rlx.check.probes import *  # noqa: F403  registers them
from rlx.check.probes import Probe


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


for kind in (Constant, Observation, TwoSteps, Action, Endless):
    name = f"{kind.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, entry_point=kind, max_episode_steps=10 if kind is Endless else None)
