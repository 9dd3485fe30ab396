"""The wrappers that `env.wrappers` may name, applied in the order given (the first one innermost).

An item is a name, or {name: NAME, kwargs: {...}} where the wrapper takes arguments. Names that end in _N take a number
(frame_stack_4). One's own is ./my_wrappers.py:Scale or a module's my_wrappers:Scale, a package adds names by the entry
point group "rlx.wrappers" (see rlx.config.plugins): each is called with the environment and the arguments.

clip_reward is not a wrapper at all: the vectoriser takes the sign of the reward after the raw one is counted,
so that logged returns stay raw. episodic_life ends an episode for the learner at each lost life; the game,
its logged return and its seed go on. Evaluation drops both (TRAINING_ONLY).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers as gw

from rlx.config import plugins

Reset = tuple[Any, dict[str, Any]]
TRAINING_ONLY = ("episodic_life", "clip_reward")


class EpisodicLife(gym.Wrapper):
    """A lost life is a termination; the reset after it goes on with the same game (Mnih et al. 2015).

    `game_over` says whether the last episode end was the game's own. A reset with a seed always starts a new
    game.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.lives = 0
        self.game_over = True

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        lives = info.get("lives", 0)
        self.game_over = terminated or truncated
        # Some games show 0 lives for a few frames before they end: that is no second lost life.
        terminated = terminated or 0 < lives < self.lives
        self.lives = lives
        return obs, reward, terminated, truncated, info

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        if not self.game_over and seed is None:
            obs, _, terminated, truncated, info = self.env.step(0)  # no-op: on to the next life
            if not (terminated or truncated):
                self.lives = info.get("lives", 0)
                return obs, info
        obs, info = self.env.reset(seed=seed, options=options)
        self.game_over = False
        self.lives = info.get("lives", 0)
        return obs, info


class FireReset(gym.Wrapper):
    """Press FIRE after a reset and after a lost life, for the games that wait for it; leaves others alone.

    Without it a policy that never learnt to press FIRE plays to the time limit of 27,000 steps.
    """

    def __init__(self, env: gym.Env):
        super().__init__(env)
        meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
        self.fire = meanings.index("FIRE") if "FIRE" in meanings[:2] else None
        self.lives = 0
        self.waits = False  # a life has been lost: the next action is FIRE, whatever was chosen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        obs, info = self.env.reset(seed=seed, options=options)
        if self.fire is not None:
            pressed, _, terminated, truncated, pressed_info = self.env.step(self.fire)
            if terminated or truncated:
                obs, info = self.env.reset(options=options)
            else:
                obs, info = pressed, pressed_info
        self.lives, self.waits = info.get("lives", 0), False
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        transition = self.env.step(self.fire if self.waits else action)
        lives = transition[-1].get("lives", self.lives)
        self.lives, self.waits = lives, self.fire is not None and 0 < lives < self.lives
        return transition


def _atari(env: gym.Env) -> gym.Env:
    """The usual preprocessing: no-ops up to 30, frame skip 4 with max of two, 84x84 gray, stack 4."""
    return gw.FrameStackObservation(gw.AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84), 4)


def _minigrid(name: str) -> Callable[[gym.Env], gym.Env]:
    def make(env: gym.Env) -> gym.Env:
        import minigrid.wrappers

        return getattr(minigrid.wrappers, name)(env)

    return make


_PLAIN: dict[str, Callable[..., gym.Env]] = {
    "atari": _atari,
    "clip_reward": lambda env: env,
    "episodic_life": EpisodicLife,
    "fire_reset": FireReset,
    "flatten": gw.FlattenObservation,
    "grayscale": gw.GrayscaleObservation,
    "minigrid_flat": _minigrid("FlatObsWrapper"),
    "minigrid_full": _minigrid("FullyObsWrapper"),
    "minigrid_image": _minigrid("ImgObsWrapper"),
    "rescale_action": lambda env: gw.RescaleAction(env, np.float32(-1), np.float32(1)),
    "time_aware": lambda env: gw.TimeAwareObservation(env, normalize_time=True),
}
_NUMBERED: dict[str, Callable[..., gym.Env]] = {
    "frame_stack": gw.FrameStackObservation,
    "repeat_action": lambda env, n: gw.RepeatAction(env, n),
    "resize": lambda env, n: gw.ResizeObservation(env, (n, n)),
}


def name_of(item: str | Mapping[str, Any]) -> str:
    """The name in an item of `env.wrappers`."""
    return item if isinstance(item, str) else item["name"]


def wrapper_names() -> list[str]:
    """Every name `env.wrappers` may hold, plug-ins included, for listings and error messages."""
    return sorted([*_own_names(), *plugins.names("wrappers")])


def _own_names() -> list[str]:
    return [*_PLAIN, *(f"{name}_N" for name in _NUMBERED)]


def find_wrapper(name: str) -> Callable[..., gym.Env]:
    """The wrapper of that name, called with an environment and arguments. Raises ConfigError where there is none."""
    if name in _PLAIN:
        return _PLAIN[name]
    numbered = re.fullmatch(r"(.+)_([1-9]\d{0,3})", name)
    if numbered and numbered[1] in _NUMBERED:
        make, number = _NUMBERED[numbered[1]], int(numbered[2])
        return lambda env, **kwargs: make(env, number, **kwargs)
    return plugins.find("wrappers", name, _own_names).load()


def steps_per_step(names: Iterable[str]) -> int:
    """Bare steps in one wrapped step: a registered time limit counts bare ones."""
    skip = 1
    for name in names:
        if name == "atari":
            skip *= 4
        elif name.startswith("repeat_action_"):
            skip *= int(name.rpartition("_")[2])
    return skip
