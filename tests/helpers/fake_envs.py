"""Environments small enough to know every answer; importable by worker processes as "fake_envs:Name-v0"."""

import faulthandler
import os
import signal
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Counter(gym.Env):
    """Observes how many steps it has taken and its episode's seed; ends after `length`, or after 2 to 6 steps.

    fault: what happens at step `at` of every episode (any lane), or of the lane that makes `lane` true.
    """

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, length=None, end="terminated", fault=None, at=3, reward=1.0):
        self.length, self.end, self.fault, self.at, self.reward = length, end, fault, at, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.first = self.np_random.random()
        self.stop = self.length or int(self.np_random.integers(2, 7))
        return self._obs(), {}

    def _obs(self):
        return np.array([self.t, self.first], np.float32)

    def step(self, action):
        self.t += 1
        obs, reward = self._obs(), self.reward
        if self.fault and self.t == self.at:
            if self.fault == "raise":
                raise ZeroDivisionError("boom")
            if self.fault == "exit":
                os._exit(7)
            if self.fault == "hang":
                time.sleep(1000)
            if self.fault == "nan":
                obs[1] = np.nan
            if self.fault == "inf reward":
                reward = np.inf
            if self.fault == "shape":
                obs = np.zeros(3, np.float32)
            if self.fault == "four values":
                return obs, reward, False, {}
        over = self.t >= self.stop
        info = {"is_success": self.stop % 2 == 0} if over else {}
        return obs, reward, over and self.end != "truncated", over and self.end != "terminated", info


class Drawn(Counter):
    """Draws the episode's step; or what it is told to do instead."""

    metadata: ClassVar[Any] = {"render_modes": ["rgb_array"]}

    def __init__(self, renders="", render_mode=None, **more):
        super().__init__(**more)
        self.renders, self.render_mode = renders, render_mode

    def render(self):
        if self.renders == "crash":
            faulthandler.disable()  # pytest's
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.renders == "exit":
            os._exit(7)
        if self.renders == "hang":
            time.sleep(1000)
        if self.renders == "noise":
            return np.random.default_rng(self.t).integers(0, 256, (120, 240, 3), np.uint8)
        return np.full((30, 40, 3), self.t, np.uint8)


class Random(Counter):
    """Cannot be replayed: its noise has no seed."""

    def step(self, action):
        obs, *rest = super().step(action)
        obs[1] = np.frombuffer(os.urandom(4), np.uint32)[0] / 2**32
        return obs, *rest


class Spaces(gym.Env):
    """Any spaces; keeps the actions it was given."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space, self.actions = observation_space, action_space, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.now = self.observation_space.sample()
        return self.now, {}

    def step(self, action):
        assert action in self.action_space, repr(action)
        self.actions.append(action)
        self.now = self.observation_space.sample()
        return self.now, 0.0, False, False, {}


class Lives(gym.Env):
    """Three lives of four steps each, reward 5 a step; observes the step within the game."""

    observation_space = Box(0, 100, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.array([0.0], np.float32), {"lives": 3}

    def step(self, action):
        self.t += 1
        lives = 3 - self.t // 4
        return np.array([self.t], np.float32), 5.0, lives == 0, False, {"lives": lives}


class CounterVector(VectorEnv):
    """Counters in one object, in each of the three ways Gymnasium resets them."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    single_observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    single_action_space = Discrete(2)

    def __init__(self, num_envs, mode="NextStep", max_episode_steps=None):
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode(mode)}
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _obs(self):
        return self.t[:, None].astype(np.float32)

    def reset(self, *, seed=None, options=None):
        if options and "reset_mask" in options:
            self.t[options["reset_mask"]] = 0
            return self._obs(), {}
        self.rng = np.random.default_rng(seed)
        self.t = np.zeros(self.num_envs, int)
        self.over = np.zeros(self.num_envs, bool)
        self.length = self.rng.integers(2, 7, self.num_envs)
        return self._obs(), {}

    def step(self, action):
        mode, info = self.metadata["autoreset_mode"], {}
        before = self.over
        self.t = self.t + 1
        over = self.t >= self.length
        reward = np.ones(self.num_envs)
        if mode == AutoresetMode.NEXT_STEP:
            self.t[before], over[before], reward[before] = 0, False, 0.0
        if mode == AutoresetMode.SAME_STEP and over.any():
            info["final_obs"] = np.array([o if end else None for o, end in zip(self._obs(), over)], object)
            self.t[over] = 0
        self.over = over
        return self._obs(), reward, over, np.zeros(self.num_envs, bool), info


SPACES = {
    "Plain": (Box(-1, 1, (3,), np.float32), Discrete(3)),
    "Start": (Discrete(4, start=2), Discrete(3, start=-1)),
    "Multi": (MultiDiscrete([2, 3], start=[1, 0]), MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [2, 3]])),
    "Bits": (MultiBinary((2, 2)), MultiBinary(5)),
    "Dict": (
        Dict(b=Box(-1, 1, (2, 2), np.float64), a=Discrete(3), c=Tuple((MultiBinary(2), Box(0, 9, (), int)))),
        Box(np.array([[-1, -2], [0, -4]]), np.array([[1, 2], [3, 4]]), dtype=np.float64),
    ),
    "Whole": (Box(-1, 1, (1,), np.float32), Box(-2, 3, (2,), np.int32)),
    "Gray": (Box(0, 255, (8, 9), np.uint8), Discrete(2)),
    "Color": (Box(0, 255, (8, 9, 3), np.uint8), Discrete(2)),
    "Picture": (Box(0, 255, (36, 36), np.uint8), Box(-1, 1, (2,), np.float32)),
    "Stack": (Box(0, 255, (4, 8, 9), np.uint8), Discrete(2)),
    "ColorStack": (Box(0, 255, (2, 8, 9, 3), np.uint8), Discrete(2)),
    "Mixed": (Dict(image=Box(0, 255, (8, 9, 3), np.uint8), x=Discrete(2)), Discrete(2)),
    "Text": (gym.spaces.Text(5), Discrete(2)),
    "DictAction": (Box(-1, 1, (3,), np.float32), Dict(a=Discrete(2))),
}


def register():
    here = "fake_envs"
    gym.register("Counter-v0", f"{here}:Counter", max_episode_steps=100)
    gym.register("Drawn-v0", f"{here}:Drawn")
    gym.register("Random-v0", f"{here}:Random")
    gym.register("Lives-v0", f"{here}:Lives")
    gym.register("CounterVector-v0", f"{here}:Counter", vector_entry_point=f"{here}:CounterVector")
    for name, (observation, action) in SPACES.items():
        kwargs = {"observation_space": observation, "action_space": action}
        gym.register(f"Spaces{name}-v0", f"{here}:Spaces", kwargs=kwargs)


if "Counter-v0" not in gym.registry:
    register()
