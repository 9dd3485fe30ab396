"""What an algorithm sees of its run: directory, device, clock, named random generators, tracked state."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

Metrics = dict[str, Any]


class Stateful(Protocol):
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


class Run:
    """One run in progress.

    `step` is the only clock (environment steps; optimiser steps for language models). What is given to `track`
    is saved in every checkpoint and, when the run is resumed, restored on the spot; so are all generators made
    with `rng`. An algorithm therefore builds its objects, tracks them, and loops while `step < total_steps`.
    """

    def __init__(self, dir: Path, device: torch.device, seed: int, state: Mapping[str, Any] | None = None) -> None:
        self.dir, self.device, self.seed = Path(dir), device, seed
        self.step = 0
        self.notices: list[str] = []
        self.tracked: dict[str, Stateful] = {}
        self._rngs: dict[str, np.random.Generator] = {}
        self._state = dict(state) if state else None
        torch.manual_seed(self._entropy("torch") % 2**63)
        if self._state:
            self.step = int(self._state["step"])
            torch.set_rng_state(self._state["torch_rng"])

    def _entropy(self, name: str) -> int:
        words = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())]).generate_state(2, np.uint64)
        return int(words[0])

    def rng(self, name: str) -> np.random.Generator:
        """The run's random generator of that name: its own stream of the run's seed, saved with the run."""
        if name not in self._rngs:
            self._rngs[name] = np.random.default_rng(self._entropy(name))
            if self._state and name in self._state["rngs"]:
                self._rngs[name].bit_generator.state = self._state["rngs"][name]
        return self._rngs[name]

    def generator(self, name: str) -> torch.Generator:
        """A torch generator seeded from the run's seed and that name, for initialisation (it is not saved)."""
        return torch.Generator().manual_seed(self._entropy(name) % 2**63)

    def track(self, **objects: Stateful) -> None:
        """Save these objects (anything with state_dict and load_state_dict) with the run, and restore them now if
        the run is being resumed. Raises KeyError naming an object the checkpoint does not hold."""
        for name, thing in objects.items():
            self.tracked[name] = thing
            if self._state is not None:
                if name not in self._state["tracked"]:
                    raise KeyError(f"the checkpoint holds no '{name}' (it holds: {', '.join(self._state['tracked'])})")
                thing.load_state_dict(self._state["tracked"][name])

    def state(self, name: str) -> Any:
        """The state of a tracked object: the live one's, or the checkpoint's if nothing was tracked yet."""
        if name in self.tracked:
            return self.tracked[name].state_dict()
        return (self._state or {"tracked": {}})["tracked"][name]

    def notice(self, text: str) -> None:
        """Something the user should know about this run; shown once and kept in its record."""
        if text and text not in self.notices:
            self.notices.append(text)

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "tracked": {name: thing.state_dict() for name, thing in self.tracked.items()},
            "rngs": {name: rng.bit_generator.state for name, rng in self._rngs.items()},
            "torch_rng": torch.get_rng_state(),
        }

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters and buffers of every tracked module, by dotted name."""
        return {
            f"{name}.{key}": tensor
            for name, thing in self.tracked.items()
            if isinstance(thing, torch.nn.Module)
            for key, tensor in thing.state_dict().items()
        }
