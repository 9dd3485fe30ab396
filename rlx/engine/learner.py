"""One gradient step on a small network: gradient, global-norm clip, optimiser - over one flat parameter vector.

The parameters and the optimiser are those of `rlx.engine.optim`; `Learner` puts them together with a loss function and,
where it can, runs the loss from a `Tape`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlx.engine.native_ops import NativeStep, Update
from rlx.engine.optim import OPTIMIZERS, Flat, Optimizer
from rlx.engine.tape import Tape, Untapeable
from rlx.engine.trust import GRADIENTS, Calls, Engine, Trust, disagreement

Loss = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
Index = Tensor | slice | None
VALUES = "values"


class Learner:
    """Minimises `loss(batch) -> (loss, diagnostics)` over `params`, a module's or some of them, by minibatches.

    `engine="auto"` replays a `Tape` for float32 networks on the CPU, by the compiled kernels where there are some, and
    falls back to ordinary torch elsewhere, or if the number of rows is `varying` from step to step: recording each
    would not pay.
    `notice` says why when it had to, and how many calls may have been wrong (see `trust`). Raises FloatingPointError
    when a gradient is not finite: the parameters are then still those of the step before.
    """

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
        varying: bool = False,
    ) -> None:
        self.loss, self.max_grad_norm = loss, max_grad_norm
        self.flat = Flat(params)
        self.optimizer = OPTIMIZERS[optimizer](self.flat.data, eps)
        self.rows: dict[str, np.ndarray] = {}
        self._names: list[str] = []
        self._row_names: list[str] = []
        self._tapes: dict[int, _Arrays] = {}
        self._batch: Mapping[str, Tensor] = {}
        self._arrays: dict[str, np.ndarray] = {}
        data = self.flat.data
        small = data.numel() < 2_000_000
        plain = data.device.type == "cpu" and data.dtype == torch.float32
        asked = "tape" if engine == "native" and not plain else engine
        self._trust = Trust(asked, asked in ("tape", "native") or (small and plain and not varying))
        self._update: Update | None = None

    def step(self, batch: Mapping[str, Tensor], index: Index, lr: float, **hyper: float) -> dict[str, float]:
        """One step on the rows `index` of `batch` (None: all of them); `hyper` reaches the loss as 0-dim tensors.

        Returns the loss's diagnostics of this minibatch, and grad_norm before clipping; those with one value a row
        are in `rows`, until the next step. The keys of `batch` and
        `hyper` must not change from call to call.
        """
        info, norm = self._native_step(batch, index, lr, hyper) or self._step(batch, index, lr, hyper)
        if not norm < float("inf"):
            raise FloatingPointError(f"the gradient is not finite (norm {norm}; {info})")
        return {**info, "grad_norm": norm}

    @property
    def notice(self) -> str:
        return self._trust.notice

    @property
    def engine(self) -> str:
        return self._trust.described

    @property
    def num_steps(self) -> int:
        """Gradient steps taken."""
        return self.optimizer.t

    def state_dict(self) -> dict[str, Any]:
        return {**self.optimizer.state_dict(), **self._trust.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
        self._trust.load_state_dict(state)  # another engine would round differently

    # -- a step, two ways ------------------------------------------------------------------------------------

    def _native_step(
        self, batch: Mapping[str, Tensor], index: Index, lr: float, hyper: Mapping[str, float]
    ) -> tuple[dict[str, float], float] | None:
        """All of it in one call, the diagnostics and the norm; None where that cannot be."""
        tape = self._tape(batch, index, hyper) if self._trust.kernels else None
        if tape is None or tape.step is None:
            return None
        start, rows = None if index is None else 0, None
        if isinstance(index, Tensor):
            if index.dtype != torch.int64 or not index.is_contiguous():
                return None
            rows = index.data_ptr()
        elif index is not None:
            start, _, stride = index.indices(next(iter(batch.values())).shape[0])
            if stride != 1:
                return None
        if not tape.step.takes(batch, start) or not tape.calls.plain():
            return None
        for name, value in hyper.items():
            tape.arrays[name][...] = value
        norm = tape.step.step(rows, start or 0, lr)
        self.rows = tape.rows
        return dict(zip(tape.names, tape.info.tolist())), norm

    def _step(
        self, batch: Mapping[str, Tensor], index: Index, lr: float, hyper: Mapping[str, float]
    ) -> tuple[dict[str, float], float]:
        info = self._gradient(batch, index, hyper)
        if update := self._native_update():
            return info, update(lr)
        norm = float(torch.dot(self.flat.grad, self.flat.grad)) ** 0.5
        if norm < float("inf"):
            if self.max_grad_norm and norm > self.max_grad_norm:
                self.flat.grad.mul_(self.max_grad_norm / (norm + 1e-6))
            self.optimizer.step(self.flat.grad, lr)
        return info, norm

    def _native_update(self) -> Update | None:
        if self._trust.kernels is None:
            return None
        if self._update is None:
            self._update = Update(self._trust.kernels, self.flat, self.optimizer, self.max_grad_norm)
        return self._update

    def _gradient(self, batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> dict[str, float]:
        tape = self._tape(batch, index, hyper) if self._trust.taping else None
        if tape is None:
            return self._by_torch(self._gather(batch, index, hyper))
        self._feed(tape, batch, index, hyper)
        if tape.calls.plain():
            tape.replay()
        elif (complaint := self._disagreement(tape)) is None:
            tape.calls.agreed()
        else:
            self._tapes.clear()
            self._trust.disagrees(complaint)
            return self._by_torch(self._gather(batch, index, hyper))
        self.rows = tape.rows
        return dict(zip(tape.names, tape.info.tolist()))

    def _tape(self, batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> "_Arrays | None":
        """The one for that many rows, recorded if there is none; None where the loss cannot be taped."""
        rows = _count(batch, index)
        if rows in self._tapes:
            return self._tapes[rows]
        try:
            inputs, kernels = self._gather(batch, index, hyper), self._trust.kernels
            recorded = Tape(self._stacked, inputs, self.flat.params, self.flat.grads, kernels)
        except Untapeable as error:
            self._tapes.clear()
            self._trust.refuses(str(error))
            return None
        if len(self._tapes) == self.MOST_TAPES:
            del self._tapes[next(iter(self._tapes))]
        self._trust.lacks(recorded.lacking)
        tape = _Arrays(recorded, self._names, self._row_names, self._trust.calls(str(rows)))
        if recorded.table and (update := self._native_update()):
            tape.step = NativeStep(update, recorded.table, recorded.inputs, rows)
        self._tapes[rows] = tape
        return tape

    def _feed(self, tape: "_Arrays", batch: Mapping[str, Tensor], index: Index, hyper: Mapping[str, float]) -> None:
        arrays = self._as_arrays(batch)
        if isinstance(index, Tensor):
            rows = index.numpy()
            for name, array in arrays.items():
                array.take(rows, 0, tape.arrays[name], "clip")
        else:
            for name, array in arrays.items():
                np.copyto(tape.arrays[name], array if index is None else array[index])
        for name, value in hyper.items():
            tape.arrays[name][...] = value

    def _as_arrays(self, batch: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        if batch is not self._batch:
            self._batch, self._arrays = batch, {name: tensor.numpy() for name, tensor in batch.items()}
        return self._arrays

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
        return loss, torch.stack(list(numbers.values())) if numbers else loss.new_zeros(0), *rows.values()

    def _by_torch(self, inputs: Mapping[str, Tensor]) -> dict[str, float]:
        loss, info, *rows = self._stacked(inputs)
        self.rows = {name: value.cpu().numpy() for name, value in zip(self._row_names, rows, strict=True)}
        grads = torch.autograd.grad(loss, self.flat.params, allow_unused=True)
        for target, grad in zip(self.flat.grads, grads, strict=True):
            target.zero_() if grad is None else target.copy_(grad)
        return dict(zip(self._names, info.tolist(), strict=True))

    def _disagreement(self, tape: "_Arrays") -> str | None:
        """Replay, and say what ordinary torch objects to. The gradient is then the tape's."""
        self.flat.grad.fill_(float("nan"))
        tape.replay()
        got, want = self._results(tape.info.tolist(), tape.rows), self._torch_results(tape.inputs)
        same_names = self._names == tape.names
        nudged = partial(self._nudged, tape)
        gap = disagreement(got, want, nudged, self._trust.tolerance) if same_names else None
        self.flat.grad.copy_(got[GRADIENTS])
        if not same_names:
            return f"the diagnostics were {tape.names} and are {self._names}"
        if gap is None:
            return None
        name, error = gap
        if name != VALUES:
            return f"{name} differ by {error:.1e} of the largest"
        worst = int(((got[VALUES] - want[VALUES]).abs() / (want[VALUES].abs() + 1)).nan_to_num(float("inf")).argmax())
        return f"{tape.names[worst]} is {got[VALUES][worst]:.6g}, ordinary torch says {want[VALUES][worst]:.6g}"

    def _torch_results(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = self._by_torch(inputs).values()
        return self._results(list(values), self.rows)

    def _nudged(self, tape: "_Arrays", factor: float) -> dict[str, Tensor]:
        """Torch's results with parameters times `factor`, a critic's too through which a policy's gradient comes."""
        moved = [self.flat.data, *tape.others]
        before = [tensor.clone() for tensor in moved]
        for tensor in moved:
            tensor.mul_(factor)
        try:
            return self._torch_results(tape.inputs)
        finally:
            for tensor, kept in zip(moved, before, strict=True):
                tensor.copy_(kept)

    def _results(self, values: Sequence[float], rows: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """All that a step leaves behind: the diagnostics together (compared on the scale of the largest), the gradient,
        what is said of each row."""
        of_rows = {f"rows of {name}": torch.from_numpy(array) for name, array in rows.items()}
        return {VALUES: torch.tensor(values), GRADIENTS: self.flat.grad.clone(), **of_rows}


class _Arrays:
    """A tape, its inputs and its diagnostics as numpy arrays."""

    def __init__(self, tape: Tape, names: list[str], row_names: list[str], calls: Calls) -> None:
        self.inputs, self.replay, self.names, self.calls = tape.inputs, tape.replay, names, calls
        self.others = tape.others
        self.arrays = {name: tensor.numpy() for name, tensor in tape.inputs.items()}
        self.info = tape.outputs[1].numpy()
        self.rows = {name: value.numpy() for name, value in zip(row_names, tape.outputs[2:], strict=True)}
        self.step: NativeStep | None = None
        self._tape = tape


def _count(batch: Mapping[str, Tensor], index: Index) -> int:
    whole = next(iter(batch.values())).shape[0]
    return whole if index is None else len(range(*index.indices(whole))) if isinstance(index, slice) else len(index)
