"""The wrappers that `env.wrappers` may name, applied in the order given (the first one innermost).

An item is a name, or {name: NAME, kwargs: {...}} where the wrapper takes arguments. Names that end in _N take a number
(frame_stack_4). One's own is ./my_wrappers.py:Scale or a module's my_wrappers:Scale, a package adds names by the entry
point group "rlx.wrappers" (see rlx.config.plugins): each is called with the environment and the arguments.

clip_reward is not a wrapper at all: the vectoriser takes the sign of the reward after the raw one is counted,
so that logged returns stay raw. episodic_life ends an episode for the learner at each lost life; the game,
its logged return and its seed go on. Evaluation drops both (TRAINING_ONLY).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import wrappers as gw

from rlx.base.errors import ConfigError
from rlx.config import plugins
from rlx.envs.spaces import (
    EnvError,
    channels_last,
    is_image,
    mask_size,
    observation_encoder,
    to_255,
    with_channels,
    with_mask,
)

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


class MaskedObservation(gym.Wrapper):
    """What the learner sees of an environment that says which actions it allows: its observation, and behind it the
    mask of the actions (`info["action_mask"]`, or its method `action_masks()`), 0 or 1 for each.

    At the end of an episode, where nothing is to be chosen, a mask may be missing or all 0.
    """

    def __init__(self, env: gym.Env, where: str):
        super().__init__(env)
        self.action_space = with_mask(env.action_space)
        self.size = mask_size(self.action_space)
        space, self._encode = observation_encoder(env.observation_space, where)
        self.image = space.dtype == np.uint8
        if self.image:
            planes, height, width = space.shape
            if self.size > height * width:
                raise EnvError(f"{where}: a mask of {self.size} actions does not fit into a plane of its images")
            box = gym.spaces.Box(0, 255, (planes + 1, height, width), np.uint8)
            self.observation_space: Any = with_channels(box, "first")
        else:
            self.observation_space = gym.spaces.Tuple((env.observation_space, gym.spaces.MultiBinary(self.size)))
        discrete = isinstance(env.action_space, gym.spaces.Discrete)
        self._choices = [self.size] if discrete else np.ravel(env.action_space.nvec).tolist()  # type: ignore[attr-defined]
        self.mask = np.ones(self.size, np.int8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        obs, info = self.env.reset(seed=seed) if options is None else self.env.reset(seed=seed, options=options)
        self._see(info, False)
        return self._with_mask(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._see(info, bool(terminated or truncated))
        return self._with_mask(obs), reward, terminated, truncated, info

    def sample(self) -> Any:
        """A random action among those that are allowed now."""
        parts = tuple(np.split(self.mask, np.cumsum(self._choices)[:-1]))
        space: Any = self.action_space
        return space.sample(mask=parts[0] if isinstance(space, gym.spaces.Discrete) else parts)

    def _see(self, info: dict[str, Any], over: bool) -> None:
        mask = masks_of(self.env, info)
        if mask is None and not over:
            raise ValueError("the environment gave an action mask before, and gives none now")
        if mask is None:
            mask = np.ones(self.size)
        flat = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple | list) else np.ravel(mask)
        if flat.shape != (self.size,) or not np.isin(flat, (0, 1)).all():
            raise ValueError(f"the action mask must be {self.size} numbers 0 or 1, not {mask!r:.80}")
        self.mask = flat.astype(np.int8)
        if not all(part.any() for part in np.split(self.mask, np.cumsum(self._choices)[:-1])):
            if not over:
                raise ValueError("the action mask allows no action, and the episode has not ended")
            self.mask = np.ones(self.size, np.int8)

    def _with_mask(self, obs: Any) -> Any:
        if not self.image:
            return obs, self.mask
        planes = np.asarray(self._encode(obs) if self._encode else obs)
        plane = np.zeros((1, *planes.shape[1:]), np.uint8)
        plane.reshape(-1)[: self.size] = self.mask
        return np.concatenate([planes, plane])


def masks_of(env: gym.Env, info: dict[str, Any]) -> Any:
    """The action mask of an environment; None where it gives none."""
    if env.has_wrapper_attr("action_masks"):
        return env.get_wrapper_attr("action_masks")()
    return info.get("action_mask")


def random_action(env: gym.Env) -> Any:
    """A random action that the environment allows."""
    return env.sample() if isinstance(env, MaskedObservation) else env.action_space.sample()


def _atari(env: gym.Env) -> gym.Env:
    """The usual preprocessing: no-ops up to 30, frame skip 4 with max of two, 84x84 gray, stack 4."""
    return gw.FrameStackObservation(gw.AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84), 4)


def _on_images(make: Callable[..., gym.Env]) -> Callable[..., gym.Env]:
    """A wrapper of Gymnasium's, which take the channels of an image to be its last dimension."""

    def wrapped(env: gym.Env, *args: Any, **kwargs: Any) -> gym.Env:
        space: Any = env.observation_space
        if is_image(space) and not channels_last(space):
            turned = gym.spaces.Box(np.moveaxis(space.low, 0, -1), np.moveaxis(space.high, 0, -1), dtype=np.uint8)
            env = gw.TransformObservation(env, lambda obs: np.moveaxis(obs, 0, -1), turned)
        flat, made = is_image(space, 2), make(env, *args, **kwargs)
        if is_image(made.observation_space):  # flat ones have become a stack
            made.observation_space = with_channels(made.observation_space, "first" if flat else "last")
        return made

    return wrapped


def _stretched(env: gym.Env) -> gym.Env:
    """Images as wrappers take them that need a high of 255: others are stretched to it before, not behind."""
    space: Any = env.observation_space
    if not (is_image(space) or is_image(space, 2)) or (high := int(space.high.max())) in (0, 255):
        return env
    return gw.TransformObservation(env, to_255(high, np.asarray), gym.spaces.Box(0, 255, space.shape, np.uint8))


def _rescale_action(env: gym.Env) -> gym.Env:
    """Actions in [-1, 1] for the Box that the environment takes; Gymnasium's own refuses Boxes of whole numbers."""
    space: Any = env.action_space
    if not (isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.integer)):
        return gw.RescaleAction(env, np.float32(-1), np.float32(1))
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    ours = gym.spaces.Box(-1, 1, space.shape, np.float32)

    def scaled(action: Any) -> Any:
        share = (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
        return np.rint(low + share * (high - low)).astype(space.dtype)

    return gw.TransformAction(env, scaled, ours)


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
    "grayscale": _on_images(lambda env, **how: gw.GrayscaleObservation(_stretched(env), **how)),
    "minigrid_flat": _minigrid("FlatObsWrapper"),
    "minigrid_full": _minigrid("FullyObsWrapper"),
    "minigrid_image": _minigrid("ImgObsWrapper"),
    "rescale_action": _rescale_action,
    "time_aware": lambda env: gw.TimeAwareObservation(env, normalize_time=True),
}
_NUMBERED: dict[str, Callable[..., gym.Env]] = {
    "frame_stack": _on_images(gw.FrameStackObservation),
    "repeat_action": lambda env, n: gw.RepeatAction(env, n),
    "resize": _on_images(lambda env, n: gw.ResizeObservation(_stretched(env), (n, n))),
}


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
    source = plugins.find("wrappers", name, _own_names)
    thing = source.load()
    named = source.distribution or source.file  # by its author as a wrapper; what any module has may be anything
    if not named and not (isinstance(thing, type) and issubclass(thing, gym.Wrapper)):
        raise ConfigError(f"env.wrappers={name}: must be a class derived from gymnasium.Wrapper")
    return thing


def steps_per_step(names: Iterable[str]) -> int:
    """Bare steps in one wrapped step: a registered time limit counts bare ones."""
    skip = 1
    for name in names:
        if name == "atari":
            skip *= 4
        elif name.startswith("repeat_action_"):
            skip *= int(name.rpartition("_")[2])
    return skip
