"""Run a small torch function many times without paying for autograd or the dispatcher.

A 64-64 network at batch 256 needs about 80 us of arithmetic; ordinary torch spends 1,400 us on it, nearly all
in bookkeeping. A `Tape` removes the bookkeeping and leaves the function as it was written:

1. *Record.* The function runs once, for real, under a dispatch mode that notes every ATen operation in order -
   the forward pass, and the backward pass as autograd itself derived it. No derivative is written here. Every tensor
   that was there before and is read counts as changeable: inputs and parameters, but also another learner's
   parameters, a temperature, a buffer, a numpy array. Constant is only what the recording made from numbers alone.
2. *Replay.* The recorded tensors are the work space: the same operations run again over the same memory, as a `Program`
   of typed operations (see `lowering`) that reads parameters and inputs where they live. With `kernels` it is one call
   of their interpreter, what they do not have recorded as simpler operations (see `simpler`); without, or where one
   remains that has none, one straight-line Python function of numpy calls (ATen `out=` calls where numpy has no such
   operation).
3. *Check.* Calls 1, 2, 10, 100 and every 1,000th run both ways (see `trust`); values and gradients must agree, or the
   tape is thrown away, a notice says so, and ordinary torch is used from then on.

What cannot be taped falls back to ordinary torch: other devices and dtypes, random operations, operations whose
result depends on data (`.item()`, boolean indexing), writing into a tensor that existed before (running statistics).
It is refused before it runs: nothing is written and no random number is drawn once more than torch would.
Python numbers are baked into the tape, so a hyper-parameter that changes from call to call must be passed as an input;
a tensor bound anew (`self.scale = 2 * self.scale`) is not seen either (`self.scale.mul_(2)` is). Only the check finds
those. The Python of a function runs when it is recorded and checked, not in every call: it must not count its calls.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlx.engine import recurrence as recurrence  # where there is an engine, discounted sums are the kernels', too
from rlx.engine.kernels import Kernels
from rlx.engine.lowering import lower
from rlx.engine.native_ops import OperationTable, Unsupported
from rlx.engine.numpy_ops import NumpySource
from rlx.engine.program import Operation, Program, storage, tensors
from rlx.engine.simpler import is_factory, simpler
from rlx.engine.trust import Calls, Engine, Trust, disagreement, distance

Function = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


class Untapeable(Exception):
    """The function holds an operation that a replay could not repeat."""


class _Recorder(TorchDispatchMode):
    """Runs every operation and notes it: `calls`, and in `made` the memory that they made. Raises Untapeable before one
    that a replay could not repeat. With `simply`, `simplified` counts those that were run as simpler ones."""

    def __init__(self, simply: bool) -> None:
        super().__init__()
        self.simply, self.simplified = simply, 0
        self.calls: list[tuple[Any, tuple, dict, Any]] = []  # keeps the tensors: no address is used twice
        self.made: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default wraps this class with torch._dynamo: one second and 60 MB of imports

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        self._refuse(func, args, kwargs)
        if self.simply and (rule := simpler(func)):
            with self:
                out = rule(*args, **kwargs)
            if out is not NotImplemented:
                self.simplified += 1
                return out
        read = {storage(tensor) for tensor in _arguments(args, kwargs)}
        now = _detached((args, kwargs), torch.nn.Parameter)  # transpose_ and its kin change the shape of a tensor
        out = func(*args, **kwargs)
        self.calls.append((func, *now, _detached(out)))
        self.made |= {storage(tensor) for tensor in tensors(out)} - read
        return out

    def _refuse(self, func: Any, args: tuple, kwargs: dict) -> None:
        for tensor in _arguments(args, kwargs):
            if tensor.device.type != "cpu" or tensor.layout != torch.strided:
                raise Untapeable(f"{func} reads a tensor that is {tensor.layout} on {tensor.device}")
        unsure = torch.Tag.dynamic_output_shape in func.tags and not (
            str(func) == "aten.index.Tensor" and all(t.dtype != torch.bool for t in tensors(args[1]))
        )
        if unsure or torch.Tag.nondeterministic_seeded in func.tags or torch.Tag.data_dependent_output in func.tags:
            raise Untapeable(f"{func} cannot be replayed")
        if any(storage(tensor) not in self.made for tensor in _written(func, args, kwargs)):
            raise Untapeable(f"{func} writes into a tensor that existed before")


def _arguments(args: tuple, kwargs: dict) -> list[Tensor]:
    return tensors([args, list(kwargs.values())])


def _written(func: Any, args: tuple, kwargs: dict) -> list[Tensor]:
    """The tensors among its arguments that a call changes."""
    arguments = func._schema.arguments
    values = {**dict(zip((argument.name for argument in arguments), args)), **kwargs}
    names = [argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write]
    if "batch_norm" in str(func) and values.get("training"):
        names += ["running_mean", "running_var"]  # its schema is silent about them
    return tensors([values.get(name) for name in names])


def _detached(tree: Any, kept: type | tuple = ()) -> Any:
    """Other tensors of the same memory, but for those of a class that are `kept`."""
    if isinstance(tree, Tensor):
        return tree if isinstance(tree, kept) else tree.detach()
    if isinstance(tree, list | tuple):
        return type(tree)(_detached(item, kept) for item in tree)
    return {key: _detached(item, kept) for key, item in tree.items()} if isinstance(tree, dict) else tree


class Tape:
    """One function recorded for one set of input shapes.

    `function(inputs)` gives a tuple of tensors. `replay()` computes `outputs` anew from what is in `inputs` by then;
    with `params` (the first output must be a 0-dim loss) it also writes d loss / d params into `grads`, tensors
    shaped like the parameters. `program.text` is the replay as text: a line an operation, with memory named after the
    input, or the operation, that it was made for. `others` are the parameters read that are none of `params`, `lacking`
    what has no kernel, where that is why there is no `table`.

    Raises Untapeable where a replay could differ from the function.
    """

    def __init__(
        self,
        function: Function,
        inputs: Mapping[str, Tensor],
        params: Sequence[Tensor] = (),
        grads: Sequence[Tensor] = (),
        kernels: Kernels | None = None,
    ) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self.table: OperationTable | None = None
        self.lacking = ""
        for simply in (True, False) if kernels else (False,):
            recorder = _Recorder(simply)
            try:
                self._record(function, recorder, params, grads, kernels)
            except Exception as error:  # if it is the function's own, ordinary torch will raise it
                if recorder.simplified:
                    continue
                why = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise error if isinstance(error, Untapeable) else Untapeable(why) from error
            if self.table or not recorder.simplified:  # else in vain: the fewer operations the better
                break
        self.replay = self.table.replay if self.table else NumpySource(self.program).compile()

    def _record(
        self,
        function: Function,
        recorder: _Recorder,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        kernels: Kernels | None,
    ) -> None:
        with recorder, _unvalidated():
            outputs, derived = _evaluate(function, self.inputs, params)
        for first, second in zip((*outputs, *derived), sum(_evaluate(function, self.inputs, params), ()), strict=True):
            if first is not None and second is not None and distance(first, second, relative=True) > 1e-5:
                raise Untapeable("the same inputs give another result when it is called again")
        self.outputs = tuple(output.detach() for output in outputs)
        own = {parameter.data_ptr() for parameter in params}
        read = [tensor for _, args, kwargs, _ in recorder.calls for tensor in _arguments(args, kwargs)]
        others = {tensor.data_ptr(): tensor.detach() for tensor in read if isinstance(tensor, torch.nn.Parameter)}
        self.others = [tensor for place, tensor in others.items() if place not in own]
        self._keep = recorder.calls  # the recorded tensors are the buffers: they must outlive the replay
        labels = {tensor.data_ptr(): f"param_{index}" for index, tensor in enumerate(params)}
        labels |= {grad.data_ptr(): f"grad_{index}" for index, grad in enumerate(grads)}
        labels |= {tensor.data_ptr(): name for name, tensor in self.inputs.items()}
        self.program = Program(labels)
        for func, *trees in _live(recorder.calls, recorder.made):
            lower(self.program, func, *map(_detached, trees))
        for grad, value in zip(grads, derived, strict=True):
            self.program.append(Operation("copy", (grad,), (0.0 if value is None else value.detach(),)))
        try:
            self.table = OperationTable(self.program, kernels) if kernels else None
        except Unsupported as operation:
            self.lacking = self.lacking or str(operation)


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Distributions look at the values they are made of, which a replay would not; the check against torch does."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def _evaluate(
    function: Function, inputs: Mapping[str, Tensor], params: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """The outputs, and d outputs[0] / d params."""
    with torch.set_grad_enabled(bool(params)):
        outputs = function(inputs)
        return outputs, torch.autograd.grad(outputs[0], list(params), allow_unused=True) if params else ()


def _live(calls: list, made: set[int]) -> list:
    """The calls that must run again: those that read something that changes - all that they did not make themselves -
    or prepare a buffer that such a call updates in place."""
    changing = {storage(tensor) for _, args, kwargs, _ in calls for tensor in _arguments(args, kwargs)} - made
    live: set[int] = set()
    while True:  # to a fixed point: an in-place update late in the tape makes an early constant live
        before = len(live), len(changing)
        for index, (func, args, kwargs, out) in enumerate(calls):
            touched = [] if is_factory(func) else [storage(t) for t in _arguments(args, kwargs)]
            written = [storage(t) for t in [*tensors(out), *_written(func, args, kwargs)]]
            if any(s in changing for s in touched) or (not func.is_view and any(s in changing for s in written)):
                changing.update(written)
                live.add(index)
        if before == (len(live), len(changing)):
            break
    return [call for index, call in enumerate(calls) if index in live and not _is_alias(call)]


def _is_alias(call: tuple) -> bool:
    """A view of memory that the replay keeps up to date anyway."""
    func, args, _kwargs, out = call
    if func._schema.is_mutable:
        return torch.Tag.inplace_view in func.tags
    sources = {storage(tensor) for tensor in tensors(args)}
    outs = tensors(out)
    return bool(outs) and all(storage(tensor) in sources for tensor in outs)


class Forward:
    """`function(inputs)` without gradients, taped for each set of input shapes where that is possible.

    Calling it returns the outputs; they are overwritten by the next call with the same shapes. `notice` says why
    ordinary torch is used, when it is; with `engine="torch"` it always is. `varying` shapes are not worth a tape.
    Its state belongs into the run's: `run.track(name=forward)`, or in that of the object which owns it.
    """

    may_be_missing = True  # in a checkpoint made before it was tracked

    def __init__(
        self, function: Function, device: torch.device, varying: bool = False, engine: Engine = "auto"
    ) -> None:
        self.function, self.device = function, device
        self._tapes: dict[tuple, Tape] = {}
        self._calls: dict[tuple, Calls] = {}
        self._trust = Trust(engine, device.type == "cpu" and not varying)

    @property
    def notice(self) -> str:
        return self._trust.notice

    @property
    def engine(self) -> str:
        return self._trust.described

    @property
    def kernels(self) -> Kernels | None:
        return self._trust.kernels

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        key, tape = self._tape(inputs)
        if tape is None:
            return self._by_torch({name: tensor.to(self.device) for name, tensor in inputs.items()})
        for name, tensor in inputs.items():
            tape.inputs[name].copy_(tensor)
        if self._calls[key].plain():
            tape.replay()
            return tape.outputs
        return self._compared(key, tape)

    def on_arrays(self, **example: np.ndarray) -> Callable[..., np.ndarray]:
        """The same for numpy arrays of the example's shapes, with as little around it as possible: a function of
        the inputs by position that returns the first output as an array (overwritten by the next call)."""
        inputs = {name: torch.from_numpy(array) for name, array in example.items()}
        key, tape = self._tape(inputs)
        if tape is None:
            return lambda *arrays: self(**dict(zip(example, map(torch.from_numpy, arrays))))[0].numpy(force=True)
        targets, out, replay = [tape.inputs[name].numpy() for name in example], tape.outputs[0].numpy(), tape.replay
        plain = self._calls[key].plain

        def run(*arrays: np.ndarray) -> np.ndarray:
            for target, array in zip(targets, arrays):
                np.copyto(target, array)
            if plain():
                replay()
                return out
            return self._compared(key, tape)[0].numpy()

        return run

    def compiled(self, out: np.ndarray, **example: np.ndarray) -> tuple[Kernels, Tape, Calls] | None:
        """What runs the function for arrays like these, its first output like `out`; None without kernels."""
        key, tape = self._tape({name: torch.from_numpy(array) for name, array in example.items()})
        kernels = self._trust.kernels
        if kernels is None or tape is None or tape.table is None:
            return None
        alike = all(tape.inputs[name].numpy().dtype == array.dtype for name, array in example.items())
        first = tape.outputs[0]
        if not alike or not first.is_contiguous() or (first.numpy().dtype, first.shape) != (out.dtype, out.shape):
            return None
        return kernels, tape, self._calls[key]

    def state_dict(self) -> dict[str, Any]:
        return self._trust.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._trust.load_state_dict(state)

    def _tape(self, inputs: Mapping[str, Tensor]) -> tuple[tuple, Tape | None]:
        """The one for inputs of those shapes, recorded if there is none; None where the function cannot be taped."""
        key = tuple(tensor.shape for tensor in inputs.values())
        return key, self._tapes.get(key) or self._recorded(key, inputs)

    def _recorded(self, key: tuple, inputs: Mapping[str, Tensor]) -> Tape | None:
        if not self._trust.taping:
            return None
        try:
            tape = self._tapes[key] = Tape(self.function, inputs, kernels=self._trust.kernels)
        except Untapeable as error:
            self._tapes.clear()
            self._trust.refuses(str(error))
            return None
        self._trust.lacks(tape.lacking)
        self._calls[key] = self._trust.calls(" ".join("x".join(map(str, shape)) or "1" for shape in key))
        return tape

    def _compared(self, key: tuple, tape: Tape) -> tuple[Tensor, ...]:
        """From what is in the tape's inputs: its outputs if torch agrees with them, else torch's."""
        if not self._trust.taping:  # since a tape of other shapes was found wrong
            return self._by_torch(tape.inputs)
        tape.replay()
        expected = self._by_torch(tape.inputs)
        gap = disagreement(
            _numbered(tape.outputs), _numbered(expected), partial(self._nudged, tape), self._trust.tolerance
        )
        if gap is None:
            self._calls[key].agreed()
            return tape.outputs
        self._tapes.clear()
        self._trust.disagrees(f"the replay differs by {gap[1]:.1e}")
        return expected

    def _nudged(self, tape: Tape, factor: float) -> dict[str, Tensor]:
        inputs = {name: x * factor if x.is_floating_point() else x for name, x in tape.inputs.items()}
        return _numbered(self._by_torch(inputs))

    def _by_torch(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self.function(inputs)


def _numbered(outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"output {index}": output for index, output in enumerate(outputs)}
