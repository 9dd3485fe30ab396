"""What makes a policy try other actions: noise for every step of every lane, with the state of a run.

An actor turns noise into actions (`explore`), so it is of unit size here: what it is multiplied by is the actor's.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import numpy as np

Array = np.ndarray
Kind = Literal["gaussian", "ou"]


class Noise(Protocol):
    shape: tuple[int, ...]  # of what is drawn, lanes first

    def draw(self, rng: np.random.Generator, fresh: bool) -> Array: ...  # for the next step, `fresh` the first of some
    def ended(self, lanes: Iterable[int]) -> None: ...  # there a new episode begins
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class GaussianNoise:
    """N(0, 1) of each dimension, each step anew."""

    def __init__(self, lanes: int, dim: int) -> None:
        self.shape: tuple[int, ...] = (lanes, dim)

    def draw(self, rng: np.random.Generator, fresh: bool) -> Array:
        return rng.standard_normal(self.shape, np.float32)

    def ended(self, lanes: Iterable[int]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class OrnsteinUhlenbeck:
    """Noise that remembers itself, so that actions push the same way for a while.

        x <- x - theta x dt + sqrt(dt) N(0, 1),   x = 0 where an episode begins

    Uhlenbeck and Ornstein 1930; Lillicrap et al. 2016, arXiv:1509.02971, section 3 (theta .15; dt is Baselines' .01).
    """

    def __init__(self, lanes: int, dim: int, theta: float = 0.15, dt: float = 1e-2) -> None:
        self.shape: tuple[int, ...] = (lanes, dim)
        self.theta, self.dt = theta, dt
        self.x = np.zeros(self.shape, np.float32)

    def draw(self, rng: np.random.Generator, fresh: bool) -> Array:
        self.x = self.x * np.float32(1 - self.theta * self.dt)
        self.x += np.float32(self.dt**0.5) * rng.standard_normal(self.shape, np.float32)
        return self.x

    def ended(self, lanes: Iterable[int]) -> None:
        self.x[list(lanes)] = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.x = np.array(state["x"], np.float32).reshape(self.shape)


class Held:
    """N(0, 1) of [F, A] a lane, drawn when a collection begins and every `every` steps of it (0: only then): the noise
    of `StateDependent` policies. Raffin et al. 2022, arXiv:2005.05719."""

    def __init__(self, lanes: int, features: int, dim: int, every: int) -> None:
        self.shape: tuple[int, ...] = (lanes, features, dim)
        self.every, self.age, self.x = every, 0, np.zeros(self.shape, np.float32)

    def draw(self, rng: np.random.Generator, fresh: bool) -> Array:
        if fresh or (self.every and self.age >= self.every):
            self.x, self.age = rng.standard_normal(self.shape, np.float32), 0
        self.age += 1
        return self.x

    def ended(self, lanes: Iterable[int]) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x.copy(), "age": self.age}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.x, self.age = np.array(state["x"], np.float32).reshape(self.shape), int(state["age"])


KINDS: dict[str, type[GaussianNoise] | type[OrnsteinUhlenbeck]] = {"gaussian": GaussianNoise, "ou": OrnsteinUhlenbeck}
