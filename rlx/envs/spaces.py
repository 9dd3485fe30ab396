"""Gymnasium spaces <-> the arrays that learners see.

Observation                          what the learner sees
  Box, any shape and dtype            flat float32 vector
  uint8 image, 2 to 4 dimensions      uint8 [C, H, W] (frame stacks join the channels), its high at 255
  Discrete, MultiDiscrete             one-hot, float32
  MultiBinary                         0/1, float32
  Dict, Tuple of those, no images     their vectors one after another, Dicts in the space's key order
  any, of an environment with masks   behind it 0/1 for each action (see `split_mask`); images: a plane more

Action handed to `step`              what the environment gets
  Discrete      [N] int64, from 0     int, with Discrete.start added
  MultiDiscrete [N, d] int64, from 0  array of the space's dtype, start added
  MultiBinary   [N, d]                int8 array
  Box           [N, d] float32        clipped to the space, its shape and dtype; [-1, 1] of those dimensions whose
                                      bounds a policy would hardly find stands for their range (see `rescaled`)
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from rlx.base.errors import UserError

Encoder = Callable[[Any], Any]


class OneHot(spaces.Box):
    """The unit vectors of n dimensions: a Discrete observation as a network wants it, a Box to everyone."""

    def __init__(self, n: int) -> None:
        super().__init__(0.0, 1.0, (n,), np.float32)
        self.n = n

    def contains(self, x: Any) -> bool:
        return bool(super().contains(x) and np.count_nonzero(x) == 1 and np.max(x) == 1)

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        return np.eye(self.n, dtype=np.float32)[self.np_random.integers(self.n)]


class QuickDiscrete(spaces.Discrete):
    """Gymnasium's, which many environments ask at every step whether an action is valid: there that takes 5 us."""

    def contains(self, x: Any) -> bool:
        return bool(self.start <= x < self.start + self.n) if type(x) is int else super().contains(x)


def quicken(space: spaces.Space) -> None:
    """Make a plain Discrete space a quick one, in place: the environment holds it."""
    if type(space) is spaces.Discrete:
        space.__class__ = QuickDiscrete


KINDS = (OneHot, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary, spaces.Box, spaces.Dict, spaces.Tuple)


def kind_of(space: spaces.Space) -> str:
    """The name of the space of Gymnasium that it is, or is derived from: "Box"; of another its own."""
    return next((known.__name__ for known in KINDS if isinstance(space, known)), type(space).__name__)


class EnvError(UserError):
    """The user asked for an environment that cannot be: one line that begins with the config key."""


class EnvFault(RuntimeError):
    """An environment misbehaved while running: one line that names env, episode and step."""


CHANNELS, MOST_CHANNELS = (1, 3, 4), 32  # usual numbers of them; what a side of an image is above


def is_image(space: spaces.Space, dimensions: int = 3) -> bool:
    """Is it a uint8 Box of so many dimensions?"""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == dimensions


def with_channels(space: spaces.Space, where: str) -> Any:
    """The same image, marked: its channels are the "first" of its dimensions, or the "last"."""
    marked: Any = copy.copy(space)
    marked.channels = where
    return marked


def channels_last(space: spaces.Box) -> bool:
    """Are they in an image of three dimensions? What it is marked with decides, or its shape: height and width are
    alike, or large. Raises ValueError where that is not clear."""
    if marked := getattr(space, "channels", None):
        return bool(marked == "last")
    first, middle, last = space.shape
    if last in CHANNELS or first in CHANNELS:
        return last in CHANNELS
    if (first == middle) != (middle == last):
        return first == middle
    if (first <= MOST_CHANNELS) != (last <= MOST_CHANNELS):
        return last <= MOST_CHANNELS
    raise ValueError(f"which of {list(space.shape)} is the channels of an image? Say env.channels=first or last")


def _image_layout(space: spaces.Box) -> tuple[tuple[int, int, int], Encoder] | None:
    """(C, H, W) and the encoder, or None where the Box is not an image."""
    shape = space.shape
    if space.dtype != np.uint8 or not 2 <= len(shape) <= 4:
        return None
    if len(shape) == 2:
        return (1, *shape), lambda o: o[None]
    if len(shape) == 4:  # a stack of frames: [S, H, W, C] -> [S * C, H, W]
        stack, h, w, c = shape
        chw = (stack * c, h, w)
        return chw, lambda o: np.moveaxis(o, -1, 1).reshape(chw)
    if not channels_last(space):
        return (shape[0], shape[1], shape[2]), np.asarray
    return (shape[2], shape[0], shape[1]), lambda o: o.transpose(2, 0, 1)


def _vector(space: spaces.Space, where: str) -> tuple[np.ndarray, np.ndarray, Encoder]:
    """(low, high, encoder to a 1-D array) of a space that becomes a vector."""
    if isinstance(space, spaces.Box):
        if _image_layout(space):
            raise EnvError(
                f"{where} is an image {space.shape} beside other values; choose one with env.wrappers "
                "(minigrid_image, minigrid_flat, flatten)"
            )
        return space.low.ravel(), space.high.ravel(), lambda o: np.reshape(o, -1)
    if isinstance(space, spaces.MultiBinary):
        size = math.prod(space.shape)
        return np.zeros(size), np.ones(size), lambda o: np.reshape(o, -1)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        choices = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        size = int(choices.sum())
        first, start = np.cumsum(choices) - choices, np.ravel(space.start)

        def one_hot(o: Any) -> np.ndarray:
            k = np.reshape(o, -1) - start
            if (k < 0).any() or (k >= choices).any():
                raise IndexError(f"{o} is outside {space}")
            out = np.zeros(size, np.float32)
            out[first + k] = 1.0
            return out

        return np.zeros(size), np.ones(size), one_hot
    if isinstance(space, spaces.Dict | spaces.Tuple):
        named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        keys, parts = [], []
        for key, inner in named:
            keys.append(key)
            parts.append(_vector(inner, f"{where}[{key!r}]"))
        encoders = [part[2] for part in parts]
        return (
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            lambda o: np.concatenate([encode(o[key]) for key, encode in zip(keys, encoders)]),
        )
    raise EnvError(
        f"{where} is a {kind_of(space)}; rlx takes Box, Discrete, MultiDiscrete, MultiBinary and Dict or Tuple of those"
    )


def _one_hot_rows(n: int, start: int) -> Encoder:
    """One-hot by looking the row up: 20 times faster, for tables that fit into 1 MB."""
    rows = np.eye(n, dtype=np.float32)
    rows.flags.writeable = False

    def one_hot(o: Any) -> np.ndarray:
        if o < start:
            raise IndexError(f"{o} is below {start}")  # -1 would be the last row
        return rows[o - start]

    return one_hot


def observation_encoder(space: spaces.Space, where: str) -> tuple[spaces.Box, Encoder | None]:
    """The space the learner sees and the function into it; None where only the dtype may differ.

    `where` begins the error of an unsupported space.
    """
    if isinstance(space, spaces.Box):
        try:
            image = _image_layout(space)
        except ValueError as error:
            raise EnvError(f"{where}: {error}") from None
        if image:
            return spaces.Box(0, 255, image[0], np.uint8), to_255(int(space.high.max()), image[1])
    low, high, encode = _vector(space, f"{where}: the observation")
    if isinstance(space, spaces.Discrete) and space.n <= 512:
        encode = _one_hot_rows(int(space.n), int(space.start))
    with np.errstate(over="ignore"):  # float64 bounds beyond float32 become infinite
        box = spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
    plain = isinstance(space, spaces.Box) and len(space.shape) == 1
    return box, None if plain else encode


def to_255(high: int, layout: Encoder) -> Encoder:
    """Images whose declared high is not 255 are stretched to it: what the networks divide by."""
    if high in (0, 255):
        return layout
    table = np.rint(np.minimum(np.arange(256) / high, 1) * 255).astype(np.uint8)
    return lambda o: table[layout(np.asarray(o))]


WIDE, NARROW = 10.0, 0.1


def rescaled(space: spaces.Box) -> np.ndarray:
    """Which dimensions of an action are handed over in [-1, 1]: those bounded ones that reach beyond WIDE, do not
    contain 0, or are narrower than NARROW. A policy begins around 0 with a standard deviation of about 1."""
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    far = np.maximum(abs(low), abs(high)) > WIDE
    narrow = np.subtract(high, low, out=np.ones_like(low), where=np.isfinite(high) & np.isfinite(low)) < NARROW
    return np.isfinite(low) & np.isfinite(high) & (far | (low > 0) | (high < 0) | narrow)


def what_to_say(observation: spaces.Space, action: spaces.Space) -> str | None:
    """What rlx makes of the declared spaces that one may not expect, in a line."""
    notes = []
    if isinstance(observation, spaces.Box) and len(observation.shape) >= 3 and not _image_layout(observation):
        kind = f"{observation.dtype} of shape {list(observation.shape)}"
        notes.append(f"observations are {kind}, no uint8 images: they go into the network as flat vectors")
    if isinstance(action, spaces.Box) and (which := rescaled(action)).any():
        some = "actions" if which.all() else f"{which.sum()} of {which.size} numbers of an action"
        low, high = action.low.ravel()[which].min(), action.high.ravel()[which].max()
        notes.append(f"{some} in [{low:g}, {high:g}] are rescaled: the policy acts in [-1, 1]")
    return "; ".join(notes) or None


class ActionDecoder:
    """Batches of learner actions into what single environments take.

    space: the action space the learner sees, flat and counted from 0
    shape: of one action; dtype: what `step` computes with; log_dtype: the smallest that holds it exactly
    """

    def __init__(self, space: spaces.Space, where: str):
        start: Any
        self.shape: tuple[int, ...] = ()
        self.dtype: Any = np.dtype(np.int64)
        self.decode: Callable[[np.ndarray], Sequence[Any]]
        if isinstance(space, spaces.Discrete):
            start = int(space.start)
            self.space: spaces.Space = spaces.Discrete(int(space.n)) if start else space
            self.log_dtype = np.min_scalar_type(int(space.n) - 1)
            self.decode = (lambda a: (a.astype(np.int64) + start).tolist()) if start else lambda a: a.tolist()
        elif isinstance(space, spaces.MultiDiscrete):
            self.shape = (math.prod(space.shape),)
            start = np.ravel(space.start)
            plain = len(space.shape) == 1 and not start.any()
            self.space = space if plain else spaces.MultiDiscrete(space.nvec.ravel())
            self.log_dtype = np.min_scalar_type(int(space.nvec.max()) - 1)
            self.decode = lambda a: list((a + start).astype(space.dtype).reshape(-1, *space.shape))
        elif isinstance(space, spaces.MultiBinary):
            self.shape = (math.prod(space.shape),)
            self.space = space if len(space.shape) == 1 else spaces.MultiBinary(self.shape[0])
            self.log_dtype = self.dtype = np.dtype(np.int8)
            self.decode = lambda a: list(a.astype(np.int8).reshape(-1, *space.shape))
        elif isinstance(space, spaces.Box):
            low, high = space.low.ravel(), space.high.ravel()
            self.shape = low.shape
            self.space = space if len(space.shape) == 1 else spaces.Box(low, high, dtype=space.dtype.type)
            self.log_dtype = self.dtype = np.dtype(np.float32)
            whole = np.issubdtype(space.dtype, np.integer)
            which = rescaled(space)
            if scales := bool(which.any()):
                below, above = (np.where(which, one, bound.astype(np.float32)) for one, bound in ((-1, low), (1, high)))
                self.space = spaces.Box(below.astype(np.float32), above.astype(np.float32))
                middle, half = (low / 2 + high / 2)[which], (high / 2 - low / 2)[which]

            def clip(a: np.ndarray) -> list[np.ndarray]:
                if scales:
                    a = a.astype(np.float64)
                    a[:, which] = middle + half * a[:, which]
                a = np.minimum(np.maximum(a, low), high)  # a new array: environments may keep their action
                a = np.rint(a) if whole else a
                return list(a.astype(space.dtype, copy=False).reshape(-1, *space.shape))

            self.decode = clip
        else:
            raise EnvError(
                f"{where}: the action is a {kind_of(space)}; rlx takes Discrete, MultiDiscrete, MultiBinary and Box"
            )
        if mask_size(space):
            self.space = with_mask(self.space)


def num_states(envs: Any) -> int:
    """Of environments whose observations are one-hot vectors of a Discrete space and nothing more: how many states."""
    space = getattr(envs, "raw_observation_space", None)
    return int(space.n) if isinstance(space, spaces.Discrete) and envs.observation_space.shape == (space.n,) else 0


# -- action masks ----------------------------------------------------------------------------------------------


def with_mask(space: spaces.Space) -> spaces.Space:
    """The same Discrete or MultiDiscrete space, marked: observations end in a mask of its actions."""
    marked = copy.copy(space)
    marked.masked = True  # type: ignore[attr-defined]
    return marked


def mask_size(space: spaces.Space) -> int:
    """How many numbers of an observation are the mask: one an action, of MultiDiscrete one a choice; 0 without."""
    if not getattr(space, "masked", False):
        return 0
    return int(space.n if isinstance(space, spaces.Discrete) else space.nvec.sum())  # type: ignore[attr-defined]


def split_mask(obs: Any, size: int, image: bool = False) -> tuple[Any, Any]:
    """Observations (arrays or tensors) without the mask, and the mask [..., size]: the last numbers of vectors
    [..., d], the first pixels of the last plane of images [..., C, H, W]."""
    if not image:
        return obs[..., :-size], obs[..., -size:]
    return obs[..., :-1, :, :], obs[..., -1, :, :].reshape(*obs.shape[:-3], -1)[..., :size]


def all_finite(x: np.ndarray) -> bool:
    """No NaN and no infinity in the 1-D array x: one cheap dot product where the squares stay finite."""
    if x.size <= 4096 and math.isfinite(x.dot(x)):
        return True
    return bool(np.isfinite(x).all())
