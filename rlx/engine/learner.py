"""One gradient step on a small network: gradient, global-norm clip, optimiser - over one flat parameter vector.

The parameters and the optimiser are those of `rlx.engine.optim`; `Learner` puts them together with a loss function and,
where it can, runs the loss from a `Tape`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rlx.engine.optim import OPTIMIZERS, Flat, Optimizer
from rlx.engine.tape import Tape, Untapeable

Loss = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
Engine = Literal["auto", "tape", "torch"]
Index = Tensor | slice | None


class Learner:
    """Minimises `loss(batch) -> (loss, diagnostics)` over `params`, a module's or some of them, by minibatches.

    `engine="auto"` replays a `Tape` for float32 networks on the CPU and falls back to ordinary torch elsewhere;
    `notice` says why when it had to. Raises FloatingPointError when a gradient is not finite: the parameters are
    then still those of the step before.
    """

    CHECKED = 2  # calls of each new tape that are compared with ordinary torch
    MOST_TAPES = 8  # one for each number of rows; the oldest makes room

    def __init__(
        self,
        params: nn.Module | Iterable[nn.Parameter],
        loss: Loss,
        *,
        optimizer: Optimizer = "adam",
        eps: float = 1e-5,
        max_grad_norm: float = 0.0,
        engine: Engine = "auto",
    ) -> None:
        self.loss, self.max_grad_norm = loss, max_grad_norm
        self.flat = Flat(params)
        self.optimizer = OPTIMIZERS[optimizer](self.flat.data, eps)
        self.notice = ""
        self.rows: dict[str, np.ndarray] = {}
        self._names: list[str] = []
        self._row_names: list[str] = []
        self._tapes: dict[int, _Arrays] = {}
        self._compared: dict[int, int] = {}  # calls with that many rows that were compared with ordinary torch
        self._batch: Mapping[str, Tensor] = {}
        self._arrays: dict[str, np.ndarray] = {}
        data = self.flat.data
        small = data.device.type == "cpu" and data.dtype == torch.float32 and data.numel() < 2_000_000
        self._taping = engine == "tape" or (engine == "auto" and small)

    def step(self, batch: Mapping[str, Tensor], index: Index, lr: float, **hyper: float) -> dict[str, float]:
        """One step on the rows `index` of `batch` (None: all of them); `hyper` reaches the loss as 0-dim tensors.

        Returns the loss's diagnostics of this minibatch, and grad_norm before clipping; those with one value a row
        are in `rows`, until the next step. The keys of `batch` and
        `hyper` must not change from call to call.
        """
        info = self._gradient(batch, index, hyper)
        norm = float(torch.dot(self.flat.grad, self.flat.grad)) ** 0.5
        if not norm < float("inf"):
            raise FloatingPointError(f"the gradient is not finite (norm {norm}; {info})")
        if self.max_grad_norm and norm > self.max_grad_norm:
            self.flat.grad.mul_(self.max_grad_norm / (norm + 1e-6))
        self.optimizer.step(self.flat.grad, lr)
        return {**info, "grad_norm": norm}

    @property
    def num_steps(self) -> int:
        """Gradient steps taken."""
        return self.optimizer.t

    def state_dict(self) -> dict[str, Any]:
        compared = {str(rows): calls for rows, calls in self._compared.items()}
        return {**self.optimizer.state_dict(), "taping": self._taping, "compared": compared}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
        # What was found of the tape holds after a resume: another engine would round differently.
        self._taping = self._taping and state["taping"]
        self._compared = {int(rows): calls for rows, calls in state["compared"].items()}

    # -- the gradient, two ways ------------------------------------------------------------------------------

    def _gradient(self, batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> dict[str, float]:
        if not self._taping:
            return self._by_torch(self._gather(batch, index, hyper))
        rows = _count(batch, index)
        tape = self._tapes.get(rows)
        if tape is None:
            if len(self._tapes) == self.MOST_TAPES:
                del self._tapes[next(iter(self._tapes))]
            try:
                inputs = self._gather(batch, index, hyper)
                made = Tape(self._stacked, inputs, self.flat.params, self.flat.grads)
                tape = self._tapes[rows] = _Arrays(made, self._row_names)
            except Untapeable as error:
                self._give_up(str(error))
                return self._gradient(batch, index, hyper)
        self._feed(tape, batch, index, hyper)
        if self._compared.get(rows, 0) < self.CHECKED:
            self._compared[rows] = self._compared.get(rows, 0) + 1
            if (complaint := self._disagreement(tape)) is not None:
                self._give_up(complaint)
                return self._gradient(batch, index, hyper)
        tape.replay()
        self.rows = tape.rows
        return dict(zip(self._names, tape.info.tolist()))

    def _feed(self, tape: _Arrays, batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> None:
        if batch is not self._batch:
            self._batch, self._arrays = batch, {name: tensor.numpy() for name, tensor in batch.items()}
        if isinstance(index, Tensor):
            rows = index.numpy()
            for name, array in self._arrays.items():
                array.take(rows, 0, tape.arrays[name], "clip")
        else:
            for name, array in self._arrays.items():
                np.copyto(tape.arrays[name], array if index is None else array[index])
        for name, value in hyper.items():
            tape.arrays[name][...] = value

    def _gather(self, batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> dict[str, Tensor]:
        device = self.flat.data.device
        scalars = {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in hyper.items()}
        rows = {name: tensor if index is None else tensor[index] for name, tensor in batch.items()}
        return {**rows, **scalars}

    def _stacked(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The loss, its numbers as one tensor, and what it says of each row."""
        loss, info = self.loss(inputs)
        numbers = {name: value.detach() for name, value in info.items() if value.dim() == 0}
        rows = {name: value.detach() for name, value in info.items() if value.dim()}
        self._names, self._row_names = list(numbers), list(rows)
        return loss, torch.stack(list(numbers.values())), *rows.values()

    def _by_torch(self, inputs: Mapping[str, Tensor]) -> dict[str, float]:
        loss, info, *rows = self._stacked(inputs)
        self.rows = {name: value.cpu().numpy() for name, value in zip(self._row_names, rows, strict=True)}
        grads = torch.autograd.grad(loss, self.flat.params, allow_unused=True)
        for target, grad in zip(self.flat.grads, grads, strict=True):
            target.zero_() if grad is None else target.copy_(grad)
        return dict(zip(self._names, info.tolist(), strict=True))

    def _disagreement(self, tape: _Arrays) -> str | None:
        expected_info = self._by_torch(tape.inputs)
        expected = self.flat.grad.clone()
        self.flat.grad.fill_(float("nan"))
        tape.replay()
        got_info = dict(zip(self._names, tape.info.tolist()))
        scale = float(expected.abs().max()) + 1e-12
        error = float((self.flat.grad - expected).abs().max()) / scale
        if not error < 1e-3:
            return f"gradients differ by {error:.1e} of the largest"
        largest = max(1.0, *(abs(value) for value in expected_info.values()))
        for name, value in expected_info.items():
            if not abs(got_info[name] - value) <= 1e-3 * abs(value) + 1e-4 * largest:
                return f"{name} is {got_info[name]!r}, ordinary torch says {value!r}"
        return None

    def _give_up(self, why: str) -> None:
        self._taping, self.notice = False, f"ordinary torch instead of the tape: {why}"
        self._tapes.clear()


class _Arrays:
    """A tape, its inputs and its diagnostics as numpy arrays."""

    def __init__(self, tape: Tape, row_names: list[str]) -> None:
        self.inputs, self.replay = tape.inputs, tape.replay
        self.arrays = {name: tensor.numpy() for name, tensor in tape.inputs.items()}
        self.info = tape.outputs[1].numpy()
        self.rows = {name: value.numpy() for name, value in zip(row_names, tape.outputs[2:], strict=True)}
        self._tape = tape


def _count(batch: Mapping[str, Tensor], index: Index) -> int:
    whole = len(next(iter(batch.values())))
    return whole if index is None else len(range(*index.indices(whole))) if isinstance(index, slice) else len(index)
