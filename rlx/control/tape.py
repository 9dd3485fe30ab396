"""Run a small torch function many times without paying for autograd or the dispatcher.

A 64-64 network at batch 256 needs about 80 us of arithmetic; ordinary torch spends 1,400 us on it, nearly all
in bookkeeping. A `Tape` removes the bookkeeping and leaves the function as it was written:

1. *Record.* The function runs once, for real, under a dispatch mode that notes every ATen operation in order -
   the forward pass, and the backward pass as autograd itself derived it. No derivative is written here.
2. *Replay.* The recorded tensors are the work space: the same operations run again over the same memory, as one
   straight-line Python function of numpy calls (ATen `out=` calls where numpy has no such operation), reading
   parameters and inputs where they live.
3. *Check.* The learner runs the first two calls both ways; value and gradients must agree, or the tape is thrown
   away, a notice says so, and ordinary torch is used from then on.

What cannot be taped falls back to ordinary torch: other devices and dtypes, random operations, operations whose
result depends on data (`.item()`, boolean indexing). Python numbers are baked into the tape, so a hyper-parameter
that changes from call to call must be passed as an input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Function = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]

FACTORIES = {
    "ones_like",
    "zeros_like",
    "empty_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_empty",
    "new_full",
}


NUMPY = (
    "abs add argmax copyto divide dot equal errstate exp expm1 greater greater_equal less less_equal log logical_and "
    "logical_or maximum minimum multiply negative not_equal sqrt square subtract tanh"
)


class Untapeable(Exception):
    """The function holds an operation that a replay could not repeat."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple, dict, Any]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the default wraps this class with torch._dynamo: one second and 60 MB of imports

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [tensor for item in tree for tensor in _tensors(item)]
    return []


def _detached(tree: Any) -> Any:
    if isinstance(tree, Tensor):
        return tree.detach()
    if isinstance(tree, list | tuple):
        return type(tree)(_detached(item) for item in tree)
    return {key: _detached(item) for key, item in tree.items()} if isinstance(tree, dict) else tree


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class Tape:
    """One function recorded for one set of input shapes.

    `function(inputs)` gives a tuple of tensors. `replay()` computes `outputs` anew from what is in `inputs` by then;
    with `params` (the first output must be a 0-dim loss) it also writes d loss / d params into `grads`, tensors
    shaped like the parameters.

    Raises Untapeable where a replay could differ from the function.
    """

    def __init__(
        self,
        function: Function,
        inputs: Mapping[str, Tensor],
        params: Sequence[Tensor] = (),
        grads: Sequence[Tensor] = (),
    ) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        with _Recorder() as recorder, torch.set_grad_enabled(bool(params)):
            outputs = function(self.inputs)
            derived = torch.autograd.grad(outputs[0], list(params), allow_unused=True) if params else ()
        self.outputs = tuple(output.detach() for output in outputs)
        self._keep = recorder.calls  # the recorded tensors are the buffers: they must outlive the replay
        program = _Program()
        for func, *trees in _live(recorder.calls, [*self.inputs.values(), *params]):
            program.add(func, *(_detached(tree) for tree in trees))
        for grad, value in zip(grads, derived, strict=True):
            if value is None:
                grad.zero_()
            else:
                program.emit("copyto({}, {})", grad, value.detach())
        self.replay = program.compile()


def _live(calls: list, sources: Sequence[Tensor]) -> list:
    """The calls that must run again: those that read something that changes, or prepare a buffer that such a
    call updates in place."""
    for func, args, _kwargs, _out in calls:
        unsure = torch.Tag.dynamic_output_shape in func.tags and not (
            str(func) == "aten.index.Tensor" and all(t.dtype != torch.bool for t in _tensors(args[1]))
        )
        if unsure or torch.Tag.nondeterministic_seeded in func.tags or torch.Tag.data_dependent_output in func.tags:
            raise Untapeable(f"{func} cannot be replayed")
    changing = {_storage(tensor) for tensor in sources}
    live: set[int] = set()
    while True:  # to a fixed point: an in-place update late in the tape makes an early constant live
        before = len(live), len(changing)
        for index, (func, args, kwargs, out) in enumerate(calls):
            constant = func.overloadpacket._qualified_op_name.split("::")[1] in FACTORIES  # reads shapes only
            touched = [] if constant else [_storage(t) for t in _tensors([args, list(kwargs.values())])]
            written = [_storage(t) for t in _tensors(out)]
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
        return False
    sources = {_storage(tensor) for tensor in _tensors(args)}
    outs = _tensors(out)
    return bool(outs) and all(_storage(tensor) in sources for tensor in outs)


class _Program:
    """Straight-line Python source over named buffers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {name: getattr(np, name) for name in NUMPY.split()}
        self.names["reduce"] = np.add.reduce

    def emit(self, template: str, *values: Any) -> None:
        self.lines.append(template.format(*(self._name(value) for value in values)))

    def _name(self, value: Any) -> str:
        if isinstance(value, Tensor):
            value = value.detach().numpy()
        elif isinstance(value, float | int | bool | None):
            return repr(value) if np.isfinite(value or 0) else f"float('{value}')"
        name = f"v{len(self.names)}"
        self.names[name] = value
        return name

    def add(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        lower = _LOWER.get(str(func))
        if lower is None or (kwargs and lower is not _cast) or lower(self, out, *args, **kwargs) is NotImplemented:
            self._aten(func, args, kwargs, out)

    def _aten(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """The ATen operation itself, into the recorded output."""
        if func._schema.is_mutable:
            run = lambda: func(*args, **kwargs)  # noqa: E731
        else:
            into = _out_overload(func)
            outs = _tensors(out)
            if into is not None and len(outs) == 1 and isinstance(out, Tensor):
                run = lambda: into(*args, **kwargs, out=out)  # noqa: E731
            else:

                def run() -> None:
                    for buffer, value in zip(outs, _tensors(func(*args, **kwargs)), strict=True):
                        buffer.copy_(value)

        self.emit("{}()", run)

    def compile(self) -> Callable[[], None]:
        body = "\n        ".join(self.lines or ["pass"])
        arguments = ", ".join(f"{name}={name}" for name in self.names)  # locals are faster than globals
        scope = dict(self.names)
        quiet = "with errstate(all='ignore'):"  # ATen does not warn about overflow and NaN either
        exec(f"def replay({arguments}):\n    {quiet}\n        {body}", scope)
        return scope["replay"]


_OUT_NAMES = {"default": ["out", "grad_input"], "Tensor": ["out"], "dim_IntList": ["IntList_out"]}


def _out_overload(func: Any) -> Any:
    packet, name = func.overloadpacket, func._overloadname
    for candidate in [*_OUT_NAMES.get(name, []), f"{name}_out", "out"]:
        if candidate in packet.overloads():
            overload = getattr(packet, candidate)
            mine = [argument.name for argument in func._schema.arguments]
            theirs = [argument.name for argument in overload._schema.arguments if not argument.is_out]
            if mine == theirs and [a.name for a in overload._schema.arguments if a.is_out] in (["out"],):
                return overload
    return None


class Forward:
    """`function(inputs)` without gradients, taped for each set of input shapes where that is possible.

    Calling it returns the outputs; they are overwritten by the next call with the same shapes. `notice` says why
    ordinary torch is used, when it is.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        self.function, self.device, self.notice = function, device, ""
        self._tapes: dict[tuple, Tape] = {}
        self._taping = device.type == "cpu"

    def __call__(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        if not self._taping:
            with torch.no_grad():
                return self.function({name: tensor.to(self.device) for name, tensor in inputs.items()})
        key = tuple(tensor.shape for tensor in inputs.values())
        tape = self._tapes.get(key)
        if tape is None:
            return self._first(key, inputs)
        for name, tensor in inputs.items():
            tape.inputs[name].copy_(tensor)
        tape.replay()
        return tape.outputs

    def on_arrays(self, **example: np.ndarray) -> Callable[..., np.ndarray]:
        """The same for numpy arrays of the example's shapes, with as little around it as possible: a function of
        the inputs by position that returns the first output as an array (overwritten by the next call)."""
        inputs = {name: torch.from_numpy(array) for name, array in example.items()}
        self(**inputs)
        tape = self._tapes.get(tuple(tensor.shape for tensor in inputs.values()))
        if tape is None:
            return lambda *arrays: self(**dict(zip(example, map(torch.from_numpy, arrays))))[0].numpy(force=True)
        targets, out, replay = [tape.inputs[name].numpy() for name in example], tape.outputs[0].numpy(), tape.replay

        def run(*arrays: np.ndarray) -> np.ndarray:
            for target, array in zip(targets, arrays):
                np.copyto(target, array)
            replay()
            return out

        return run

    def _first(self, key: tuple, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        try:
            tape = Tape(self.function, inputs)
        except Untapeable as error:
            self._taping, self.notice = False, f"ordinary torch instead of the tape: {error}"
            return self(**inputs)
        with torch.no_grad():
            expected = self.function(inputs)
        tape.replay()
        for got, want in zip(tape.outputs, expected, strict=True):
            if want.is_floating_point() and not torch.allclose(got, want, rtol=1e-3, atol=1e-4, equal_nan=True):
                self._taping, self.notice = False, "ordinary torch instead of the tape: the replay differs"
                return expected
        self._tapes[key] = tape
        return tape.outputs


# -- what numpy does faster ------------------------------------------------------------------------------------


def _plain(*values: Any) -> bool:
    """float32 (or bool) all through: with other types numpy and ATen promote differently."""
    return all(v.dtype in (torch.float32, torch.bool) for v in values if isinstance(v, Tensor))


def _flags(name: str) -> Callable:
    """A bitwise operation, where all operands are truth values."""

    def lower(program: _Program, out: Tensor, *args: Any) -> Any:
        tensors = (out, *args)
        if not all(isinstance(t, Tensor) and t.dtype == torch.bool for t in tensors):
            return NotImplemented
        return _ufunc(name)(program, out, *args)

    return lower


def _ufunc(name: str) -> Callable:
    def lower(program: _Program, out: Tensor, *args: Any) -> Any:
        if not _plain(out, *args):
            return NotImplemented
        slots = ", ".join("{}" for _ in args)
        program.emit(f"{name}({slots}, out={{}})", *args, out)

    return lower


def _binary(name: str) -> Callable:
    """add and sub carry a third argument, alpha, that is refused here."""

    def lower(program: _Program, out: Tensor, *args: Any) -> Any:
        return _ufunc(name)(program, out, *args) if len(args) == 2 else NotImplemented

    return lower


def _inplace(name: str) -> Callable:
    def lower(program: _Program, out: Tensor, this: Tensor, *rest: Any) -> Any:
        return _binary(name)(program, this, this, *rest)

    return lower


def _clamp(program: _Program, out: Tensor, x: Tensor, low: Any = None, high: Any = None) -> Any:
    if not _plain(out, x, low, high):
        return NotImplemented
    if low is not None:
        program.emit("maximum({}, {}, out={})", x, low, out)
        x = out
    if high is not None:
        program.emit("minimum({}, {}, out={})", x, high, out)


def _where(program: _Program, out: Tensor, mask: Tensor, x: Tensor, y: Tensor) -> Any:
    if not _plain(out, mask, x, y):
        return NotImplemented
    program.emit("copyto({}, {})", out, y)
    program.emit("copyto({}, {}, where={})", out, x, mask)


def _masked_fill_(program: _Program, out: Tensor, this: Tensor, mask: Tensor, value: Any) -> Any:
    if not _plain(this, mask, value):
        return NotImplemented
    program.emit("copyto({}, {}, where={})", this, value, mask)


def _pow(program: _Program, out: Tensor, x: Tensor, exponent: Any) -> Any:
    if not _plain(out, x) or exponent not in (1, 2):
        return NotImplemented
    program.emit("copyto({}, {})" if exponent == 1 else "square({1}, {0})", out, x)


def _mean(program: _Program, out: Tensor, x: Tensor, *rest: Any) -> Any:
    if rest or not _plain(out, x) or x.dim() != 1 or x.numel() == 0:
        return NotImplemented
    program.emit("dot({}, {}, {})", x, torch.full_like(x, 1.0 / x.numel()), out)


def _sum(program: _Program, out: Tensor, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Any:
    if not dims or len(dims) != 1 or not _plain(out, x):
        return NotImplemented
    if x.dim() == 2 and x.is_contiguous():  # a product with ones is three times faster than a reduction
        rows = dims[0] in (0, -2)
        ones = torch.ones(x.shape[0 if rows else 1])
        program.emit("dot({}, {}, {})", *((ones, x) if rows else (x, ones)), out.view(-1))
        return
    program.emit("reduce({}, {}, None, {}, {})", x, dims[0], out, keepdim)


def _mm(program: _Program, out: Tensor, x: Tensor, y: Tensor) -> Any:
    if not _plain(out, x, y):
        return NotImplemented
    program.emit("dot({}, {}, {})", x, y, out)


def _addmm(program: _Program, out: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Any:
    if not _plain(out, bias, x, y):
        return NotImplemented
    program.emit("dot({}, {}, {})", x, y, out)
    program.emit("add({0}, {1}, {0})", out, bias)


def _tanh_backward(program: _Program, out: Tensor, grad: Tensor, y: Tensor) -> Any:
    if not _plain(out, grad, y):
        return NotImplemented
    program.emit("square({}, {})", y, out)
    program.emit("subtract(1.0, {0}, {0})", out)
    program.emit("multiply({0}, {1}, {0})", out, grad)


def _rsub(program: _Program, out: Tensor, x: Tensor, other: Any, *rest: Any) -> Any:
    return NotImplemented if rest else _binary("subtract")(program, out, other, x)


def _cast(program: _Program, out: Tensor, x: Tensor, **_kwargs: Any) -> Any:
    if not _plain(out, x) or out.dtype != torch.float32:
        return NotImplemented
    program.emit("copyto({}, {})", out, x)


def _argmax(program: _Program, out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None or keepdim or not _plain(x):
        return NotImplemented
    program.emit("argmax({}, {}, {})", x, dim, out)


_LOWER: dict[str, Callable] = {
    "aten.addmm.default": _addmm,
    "aten.mm.default": _mm,
    "aten.tanh_backward.default": _tanh_backward,
    "aten.clamp.default": _clamp,
    "aten.clamp.Tensor": _clamp,
    "aten.where.self": _where,
    "aten.masked_fill_.Scalar": _masked_fill_,
    "aten.pow.Tensor_Scalar": _pow,
    "aten.mean.default": _mean,
    "aten.argmax.default": _argmax,
    "aten.rsub.Scalar": _rsub,
    "aten.bitwise_or.Tensor": _flags("logical_or"),
    "aten.bitwise_and.Tensor": _flags("logical_and"),
    "aten.logical_and.default": _flags("logical_and"),
    "aten.expm1.default": _ufunc("expm1"),
    "aten.sum.dim_IntList": _sum,
    "aten.logical_and_.default": _inplace("logical_and"),
    "aten._to_copy.default": _cast,
    **{f"aten.{name}.default": _ufunc(name) for name in ["exp", "log", "sqrt", "tanh", "abs", "minimum", "maximum"]},
    "aten.neg.default": _ufunc("negative"),
    **{
        f"aten.{name}.{kind}": _binary(ufunc)
        for name, ufunc in {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}.items()
        for kind in ("Tensor", "Scalar")
    },
    **{
        f"aten.{name}_.{kind}": _inplace(ufunc)
        for name, ufunc in {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}.items()
        for kind in ("Tensor", "Scalar")
    },
    **{
        f"aten.{name}.{kind}": _binary(ufunc)
        for name, ufunc in {
            "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
        }.items()
        for kind in ("Tensor", "Scalar")
    },
}  # fmt: skip
