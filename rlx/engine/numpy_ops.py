"""The first back end of a program: a straight-line Python function of numpy calls, faster than ATen at small sizes.

`LINES` has a function an operation, that emits its lines; where numpy would be slower or differ from ATen it answers
NotImplemented, and the line is the ATen call.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.engine.program import Operation, Program

NUMPY = (
    "abs add argmax concatenate copyto divide dot equal errstate exp expm1 greater greater_equal less less_equal log "
    "logical_and logical_not logical_or maximum minimum multiply negative not_equal sqrt square subtract take tanh"
)


class NumpySource:
    """Lines of Python over named arrays."""

    def __init__(self, program: Program) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {name: getattr(np, name) for name in NUMPY.split()}
        self.names["reduce"] = np.add.reduce
        self._program = program
        for operation in program.operations:
            line = LINES.get(operation.name)
            if line is None or line(self, operation, *operation.operands, **operation.options) is NotImplemented:
                self.call(operation)

    def emit(self, template: str, *values: Any) -> None:
        self.lines.append(template.format(*map(self._name, values)))

    def call(self, operation: Operation) -> None:
        """The ATen operation itself."""
        name = f"{operation.options.get('of', operation.name)}_call_{len(self.names)}"
        self.names[name] = operation.aten
        self.lines.append(f"{name}()")

    def _name(self, value: Any) -> str:
        if isinstance(value, Tensor):
            name = self._program.names.of(value)
            self.names[name] = value.detach().numpy()
            return name
        if isinstance(value, float | int | bool | None):
            return repr(value) if np.isfinite(value or 0) else f"float('{value}')"
        name = f"option_{len(self.names)}"
        self.names[name] = value
        return name

    @property
    def text(self) -> str:
        """The replay function as text, less the arguments that bind its names."""
        body = "\n        ".join(self.lines or ["pass"])
        quiet = "with errstate(all='ignore'):"  # ATen does not warn about overflow and NaN either
        return f"def replay():\n    {quiet}\n        {body}\n"

    def compile(self) -> Callable[[], None]:
        arguments = ", ".join(f"{name}={name}" for name in self.names)  # locals are faster than globals
        scope = dict(self.names)
        exec(self.text.replace("()", f"({arguments})", 1), scope)
        return scope["replay"]


# -- one function an operation ---------------------------------------------------------------------------------


def _ufunc(name: str) -> Callable:
    def line(source: NumpySource, op: Operation, *operands: Any) -> Any:
        slots = ", ".join("{}" for _ in operands)
        source.emit(f"{name}({slots}, out={{}})", *operands, op.out)

    return line


def _square(source: NumpySource, op: Operation, x: Any) -> Any:
    source.emit("square({}, {})", x, op.out)


def _copy(source: NumpySource, op: Operation, x: Any) -> Any:
    source.emit("copyto({}, {})", op.out, x)


def _where(source: NumpySource, op: Operation, mask: Tensor, x: Any, y: Any) -> Any:
    if y is not op.out:
        source.emit("copyto({}, {})", op.out, y)
    source.emit("copyto({}, {}, where={})", op.out, x, mask)


def _addcmul(source: NumpySource, op: Operation, x: Tensor, y: Tensor, z: Tensor) -> Any:
    source.emit("multiply({}, {}, {})", y, z, op.out)
    source.emit("add({0}, {1}, {0})", op.out, x)


def _cat(source: NumpySource, op: Operation, *parts: Tensor, dim: int) -> Any:
    names = ", ".join("{}" for _ in parts)
    source.emit(f"concatenate(({names}), {dim}, {{}})", *parts, op.out)


def _mean(source: NumpySource, op: Operation, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Any:
    if x.dim() != 1 or keepdim:
        return NotImplemented
    source.emit("dot({}, {}, {})", x, torch.full_like(x, 1.0 / x.numel()), op.out)


def _sum(source: NumpySource, op: Operation, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Any:
    out, count = op.out, op.out.dtype == torch.int64
    if len(dims) != 1 or count:
        source.emit("reduce({}, {}, {}, {}, {})", x, dims, np.int64 if count else None, out, keepdim)
        return
    if x.dim() == 2 and x.is_contiguous():  # a product with ones is three times faster than a reduction
        rows = dims[0] == 0
        ones = torch.ones(x.shape[0 if rows else 1])
        source.emit("dot({}, {}, {})", *((ones, x) if rows else (x, ones)), out.view(-1))
        return
    source.emit("reduce({}, {}, None, {}, {})", x, dims[0], out, keepdim)


LARGE = 2_000_000  # multiplications from which torch is faster with a transposed second factor


def _mm(source: NumpySource, op: Operation, x: Tensor, y: Tensor) -> Any:
    if not (y.is_contiguous() or len(y) < 64 or len(x) * y.numel() < LARGE):
        return NotImplemented
    source.emit("dot({}, {}, {})", x, y, op.out)


def _relu(source: NumpySource, op: Operation, x: Tensor) -> Any:
    source.emit("maximum({}, {}, out={})", x, _zeros(x.shape), op.out)  # three times faster than with the number 0


@lru_cache
def _zeros(shape: torch.Size) -> Tensor:
    return torch.zeros(shape)


def _gather(source: NumpySource, op: Operation, x: Tensor, index: Tensor, dim: int) -> Any:
    if x.dim() != 2 or dim != 1 or index.shape != (len(x), 1) or not x.is_contiguous():
        return NotImplemented
    first, place = torch.arange(len(x)) * x.shape[1], torch.empty(len(x), dtype=torch.int64)
    source.emit("add({}, {}, {})", index[:, 0], first, place)
    source.emit("take({}, {}, None, {}, {})", x.view(-1), place, op.out.view(-1), "clip")


def _amax(source: NumpySource, op: Operation, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Any:
    if x.dim() != 2 or dims != (1,) or not 2 <= x.shape[1] <= 8:
        return NotImplemented
    out = op.out.view(-1)
    source.emit("maximum({}, {}, out={})", x[:, 0], x[:, 1], out)  # few columns: faster than a reduction
    for column in range(2, x.shape[1]):
        source.emit("maximum({0}, {1}, out={0})", out, x[:, column])


def _tanh_backward(source: NumpySource, op: Operation, grad: Tensor, y: Tensor) -> Any:
    source.emit("square({}, {})", y, op.out)
    source.emit("subtract(1.0, {0}, {0})", op.out)
    source.emit("multiply({0}, {1}, {0})", op.out, grad)


def _divide(source: NumpySource, op: Operation, x: Any, y: Any) -> Any:
    if isinstance(y, Tensor) and y.dtype == torch.int64:
        source.emit("divide({}, {}, {}, dtype={}, casting={})", x, y, op.out, np.float32, "unsafe")
    else:
        source.emit("divide({}, {}, out={})", x, y, op.out)


def _argmax(source: NumpySource, op: Operation, x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Any:
    if keepdim:
        return NotImplemented
    source.emit("{}.argmax({}, {})", x, dims[0], op.out)  # without numpy's wrapper around it


LINES: dict[str, Callable] = {
    **{name: _ufunc(name) for name in ["abs", "exp", "expm1", "log", "sqrt", "tanh", "minimum", "maximum"]},
    **{
        name: _ufunc(ufunc)
        for name, ufunc in {
            "add": "add", "sub": "subtract", "mul": "multiply", "neg": "negative", "eq": "equal", "ne": "not_equal",
            "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "not": "logical_not",
            "and": "logical_and", "or": "logical_or",
        }.items()
    },
    "div": _divide,
    "square": _square,
    "copy": _copy,
    "where": _where,
    "addcmul": _addcmul,
    "tanh_backward": _tanh_backward,
    "relu": _relu,
    "mm": _mm,
    "sum": _sum,
    "mean": _mean,
    "amax": _amax,
    "argmax": _argmax,
    "gather": _gather,
    "cat": _cat,
}  # fmt: skip
