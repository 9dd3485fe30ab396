"""What an algorithm sees of its run: directory, device, clock, named random generators, tracked state."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from rlx.base import global_rngs
from rlx.base.errors import UserError

Values = dict[str, Any]
Metrics = Values | Callable[[], Values]  # a function is called on the spot, but only for a step that is logged


def measured(metrics: Metrics) -> Values:
    """The values that were yielded, or that the function yielded computes."""
    return metrics() if callable(metrics) else metrics


def means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the steps; {} where there was none."""
    return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]} if steps else {}


@dataclass
class Evaluation:
    """What a world makes of a policy now and then; the loop writes it down."""

    metrics: Values  # tags of metrics.jsonl and TensorBoard
    summary: Values  # "score", the more the better, and what it is made of: in status.json and `rlx show`
    gif: tuple[bytes, int, int] | None = None  # and its width and height
    no_film: str | None = None  # why there is none, in one line
    text: str | None = None  # samples, for TensorBoard and samples/


@dataclass
class Exhibit:
    """What was learnt from last, to look at."""

    markdown: str  # for TensorBoard
    html: str  # a page that refers to nothing outside itself


@dataclass
class Saved:
    """The end of another run: its configuration, and the state of what it tracked."""

    config: dict[str, Any]
    tracked: dict[str, Any]
    step: int
    weights_sha256: str


class Stateful(Protocol):
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


class StateMismatch(UserError):
    """A checkpoint that does not fit the objects it is to be restored into; the message is one line."""


class Run:
    """One run in progress.

    `step` is the only clock (environment steps; optimiser steps for language models). What is given to `track`
    is saved in every checkpoint and, when the run is resumed, restored on the spot; so are all generators made
    with `rng`. An algorithm therefore builds its objects, tracks them, and loops while `step < total_steps`.
    """

    def __init__(
        self,
        dir: Path,
        device: torch.device,
        seed: int,
        state: Mapping[str, Any] | None = None,
        saved: Callable[[str], Saved] | None = None,
    ) -> None:
        self.dir, self.device, self.seed = Path(dir), device, seed
        self._open_saved = saved
        self.step = 0
        self.notices: list[str] = []
        self.kept: dict[str, Any] = {}  # what a world keeps for its side tasks, each with close(), until the run ends
        self.films = True  # False once one could not be made: no more are tried
        self.exhibit: Callable[[], Exhibit | None] | None = None  # set by the algorithm, called at evaluations
        self.begun: Callable[[], None] | None = None  # called once, when the run has told what it tracks
        self.tracked: dict[str, Stateful] = {}
        self._begins: Mapping[str, Any] = {}  # with what another run has learnt
        self._rngs: dict[str, np.random.Generator] = {}
        # The part of the checkpoint not yet restored. It is released piece by piece: a buffer is not held twice.
        self._saved: dict[str, Any] = dict(state["tracked"]) if state else {}
        self._saved_rngs: dict[str, Any] = dict(state["rngs"]) if state else {}
        self.resumed = state is not None  # it goes on from a checkpoint: then nothing of another run is read
        torch.manual_seed(self._entropy("torch") % 2**63)
        global_rngs.seed(self._entropy("global"))
        if state:
            self.step = int(state["step"])
            torch.set_rng_state(state["torch_rng"])
            if "global_rngs" in state:  # not before they were saved
                global_rngs.load_state(state["global_rngs"])
            if "cuda_rng" in state and device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], device)

    def close(self) -> None:
        for thing in self.kept.values():
            thing.close()
        self.kept = {}

    def saved(self, path: str) -> Saved:
        """The end of the run at `path`: where this one starts from (`init`), or what judges it. Raises UserError."""
        assert self._open_saved is not None and not self.resumed, "only a new run reads another one"
        return self._open_saved(path)

    def begin_with(self, tracked: Mapping[str, Any]) -> None:
        """Let the modules of this new run, once they are tracked, be what those of another run have become, and the
        statistics of its observations; optimisers, buffers and generators begin anew."""
        self._begins = tracked

    def _take_over(self, name: str, thing: Any) -> None:
        saved = self._begins.get(name)
        if saved is None or not (isinstance(thing, torch.nn.Module) or name == "normalizer"):
            return
        own = thing.state_dict()
        if name == "normalizer":
            saved = {**own, "obs": saved.get("obs")}
        else:  # a critic of another kind begins anew
            same = {key: tensor for key, tensor in saved.items() if key in own and own[key].shape == tensor.shape}
            lost = [key for key in {**own, **saved} if key not in same and not key.startswith("critic.")]
            if lost and name != "policy":
                return self.notice(f"{name} of the run that this one starts from does not fit, and begins anew")
            if lost:
                names = ", ".join(lost[:3])
                raise StateMismatch(f"the policy of the run that this one starts from does not fit: {names}")
            saved = {**own, **same}
        thing.load_state_dict(saved)

    def _entropy(self, name: str) -> int:
        words = np.random.SeedSequence([self.seed, zlib.crc32(name.encode())]).generate_state(2, np.uint64)
        return int(words[0])

    def rng(self, name: str) -> np.random.Generator:
        """The run's random generator of that name: its own stream of the run's seed, saved with the run."""
        if name not in self._rngs:
            self._rngs[name] = np.random.default_rng(self._entropy(name))
            if name in self._saved_rngs:
                self._rngs[name].bit_generator.state = self._saved_rngs.pop(name)
        return self._rngs[name]

    def generator(self, name: str) -> torch.Generator:
        """A torch generator seeded from the run's seed and that name, for initialisation (it is not saved)."""
        return torch.Generator().manual_seed(self._entropy(name) % 2**63)

    def track(self, **objects: Stateful) -> None:
        """Save these objects (anything with state_dict and load_state_dict) with the run, and restore them now if
        the run is being resumed. Raises StateMismatch naming an object that the checkpoint does not fit.

        One that `may_be_missing` stays as it is if the checkpoint is from before it was tracked.
        An object whose `replayable`, or that of its `envs`, is False cannot be saved without changing it: see
        `exact_anywhere`.
        """
        for name, thing in objects.items():
            self.tracked[name] = thing
            if not self.resumed:
                self._take_over(name, thing)
                continue
            if name not in self._saved and getattr(thing, "may_be_missing", False):
                continue
            if name not in self._saved:
                names = ", ".join(self._saved) or "nothing more"
                raise StateMismatch(f"the checkpoint holds no '{name}' (it holds: {names})")
            try:
                thing.load_state_dict(self._saved.pop(name))
            except (KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
                line = " ".join(str(error).split()) or type(error).__name__
                raise StateMismatch(f"the checkpoint's '{name}' does not fit: {line[:500]}") from error
        if self.begun is not None:
            begun, self.begun = self.begun, None
            begun()

    @property
    def exact_anywhere(self) -> bool:
        """False where saving the state changes it (an environment that cannot be replayed starts new episodes).

        Then checkpoints may be taken only at steps that the run never stopped would take one at, too.
        """
        return all(
            getattr(thing, "replayable", True) and getattr(getattr(thing, "envs", None), "replayable", True)
            for thing in self.tracked.values()
        )

    def state(self, name: str) -> Any:
        """The state of a tracked object: the live one's, or the checkpoint's if nothing was tracked yet."""
        if name in self.tracked:
            return self.tracked[name].state_dict()
        return self._saved[name]

    def notice(self, text: str) -> None:
        """Something the user should know about this run; shown once and kept in its record."""
        if text and text not in self.notices:
            self.notices.append(text)

    def state_dict(self) -> dict[str, Any]:
        state = {
            "step": self.step,
            "tracked": {**self._saved, **{name: thing.state_dict() for name, thing in self.tracked.items()}},
            "rngs": {**self._saved_rngs, **{name: rng.bit_generator.state for name, rng in self._rngs.items()}},
            "torch_rng": torch.get_rng_state(),
            "global_rngs": global_rngs.state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def parameters(self) -> dict[str, torch.Tensor]:
        """The parameters and buffers of every tracked module, by dotted name."""
        return {
            f"{name}.{key}": tensor
            for name, thing in self.tracked.items()
            if isinstance(thing, torch.nn.Module)
            for key, tensor in thing.state_dict().items()
        }

    def not_finite(self) -> list[str]:
        """The names of the parameters that hold a NaN or an infinity."""
        return [
            f"{name}.{key}"
            for name, thing in self.tracked.items()
            if isinstance(thing, torch.nn.Module)
            for key, tensor in thing.named_parameters()
            if not torch.isfinite(tensor).all()
        ]
