"""What a tape's replay consists of: recorded ATen operations as lines of numpy, which is faster at small sizes.

`LOWER` names the operations that have such a line; the others stay ATen calls into the recorded output. A lowering
answers NotImplemented where numpy and ATen could differ (other dtypes, options it does not know).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

NUMPY = (
    "abs add argmax concatenate copyto divide dot equal errstate exp expm1 greater greater_equal less less_equal log "
    "logical_and logical_not logical_or maximum minimum multiply negative not_equal sqrt square subtract take tanh"
)


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [tensor for item in tree for tensor in tensors(item)]
    return []


def storage(tensor: Tensor) -> int:
    """The address of a tensor's memory, the same for all views of it."""
    return tensor.untyped_storage().data_ptr()


class Program:
    """Straight-line Python source over named buffers: `labels` (address -> name) says what some of them are called."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {name: getattr(np, name) for name in NUMPY.split()}
        self.names["reduce"] = np.add.reduce
        self._labels, self._operation = dict(labels), "call"
        self._known: dict[tuple, str] = {}

    def emit(self, template: str, *values: Any) -> None:
        self.lines.append(template.format(*(self._name(value) for value in values)))

    def _name(self, value: Any) -> str:
        if isinstance(value, Tensor):
            array = value.detach().numpy()
            place = value.data_ptr(), array.dtype, array.shape, array.strides
            if value.numel() and place in self._known:
                return self._known[place]
            label = self._labels.get(value.data_ptr()) or self._labels.get(storage(value), "other")
            return self._known.setdefault(place, self._bind(label, array))
        if isinstance(value, float | int | bool | None):
            return repr(value) if np.isfinite(value or 0) else f"float('{value}')"
        return self._bind(self._operation if callable(value) else "option", value)

    def _bind(self, label: str, value: Any) -> str:
        name = f"{re.sub(r'[^a-zA-Z0-9]', '_', label)}_{len(self.names)}"
        self.names[name] = value
        return name

    def add(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        self._operation = str(func).split(".")[1]
        for tensor in tensors(out):
            self._labels.setdefault(storage(tensor), self._operation)
        lower = LOWER.get(str(func))
        if lower is None or (kwargs and lower is not _cast) or lower(self, out, *args, **kwargs) is NotImplemented:
            self._aten(func, args, kwargs, out)

    def _aten(self, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
        """The ATen operation itself, into the recorded output."""
        if func._schema.is_mutable:
            run = lambda: func(*args, **kwargs)  # noqa: E731
        else:
            into = _out_overload(func)
            outs = tensors(out)
            if into is not None and len(outs) == 1 and isinstance(out, Tensor):
                run = lambda: into(*args, **kwargs, out=out)  # noqa: E731
            else:

                def run() -> None:
                    for buffer, value in zip(outs, tensors(func(*args, **kwargs)), strict=True):
                        buffer.copy_(value)

        self.emit("{}()", run)

    @property
    def source(self) -> str:
        """The replay function as text, less the arguments that bind its names."""
        body = "\n        ".join(self.lines or ["pass"])
        quiet = "with errstate(all='ignore'):"  # ATen does not warn about overflow and NaN either
        return f"def replay():\n    {quiet}\n        {body}\n"

    def compile(self) -> Callable[[], None]:
        arguments = ", ".join(f"{name}={name}" for name in self.names)  # locals are faster than globals
        scope = dict(self.names)
        exec(self.source.replace("()", f"({arguments})", 1), scope)
        return scope["replay"]


_OUT_NAMES = {"default": ["out", "grad_input"], "Tensor": ["out"], "dim_IntList": ["IntList_out"]}


def _out_overload(func: Any) -> Any:
    packet, name = func.overloadpacket, func._overloadname
    for candidate in [*_OUT_NAMES.get(name, []), f"{name}_out", "out"]:
        if candidate in packet.overloads():
            overload = getattr(packet, candidate)
            names = [argument.name for argument in func._schema.arguments]
            out_names = [argument.name for argument in overload._schema.arguments if not argument.is_out]
            if names == out_names and [a.name for a in overload._schema.arguments if a.is_out] in (["out"],):
                return overload
    return None


# -- one function an operation ---------------------------------------------------------------------------------


def _plain(*values: Any) -> bool:
    """float32 (or bool) all through: with other types numpy and ATen promote differently."""
    return all(v.dtype in (torch.float32, torch.bool) for v in values if isinstance(v, Tensor))


def _flags(name: str) -> Callable:
    """A bitwise operation, where all operands are truth values."""

    def lower(program: Program, out: Tensor, *args: Any) -> Any:
        if not all(isinstance(t, Tensor) and t.dtype == torch.bool for t in (out, *args)):
            return NotImplemented
        return _ufunc(name)(program, out, *args)

    return lower


def _ufunc(name: str) -> Callable:
    def lower(program: Program, out: Tensor, *args: Any) -> Any:
        if not _plain(out, *args):
            return NotImplemented
        slots = ", ".join("{}" for _ in args)
        program.emit(f"{name}({slots}, out={{}})", *args, out)

    return lower


def _binary(name: str) -> Callable:
    """add and sub carry a third argument, alpha, that is refused here."""

    def lower(program: Program, out: Tensor, *args: Any) -> Any:
        return _ufunc(name)(program, out, *args) if len(args) == 2 else NotImplemented

    return lower


def _inplace(name: str) -> Callable:
    def lower(program: Program, out: Tensor, this: Tensor, *rest: Any) -> Any:
        return _binary(name)(program, this, this, *rest)

    return lower


def _clamp(program: Program, out: Tensor, x: Tensor, low: Any = None, high: Any = None) -> Any:
    whole = x.dtype == out.dtype == torch.int64 and all(isinstance(limit, int | None) for limit in (low, high))
    if not (whole or _plain(out, x, low, high)):
        return NotImplemented
    if low is not None:
        program.emit("maximum({}, {}, out={})", x, low, out)
        x = out
    if high is not None:
        program.emit("minimum({}, {}, out={})", x, high, out)


def _where(program: Program, out: Tensor, mask: Tensor, x: Any, y: Tensor) -> Any:
    if not _plain(out, mask, x, y):
        return NotImplemented
    program.emit("copyto({}, {})", out, y)
    program.emit("copyto({}, {}, where={})", out, x, mask)


def _masked_fill_(program: Program, out: Tensor, this: Tensor, mask: Tensor, value: Any) -> Any:
    if not _plain(this, mask, value):
        return NotImplemented
    program.emit("copyto({}, {}, where={})", this, value, mask)


def _masked_fill(program: Program, out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Any:
    return _where(program, out, mask, value, x)


def _addcmul(program: Program, out: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Any:
    if not _plain(out, x, y, z):
        return NotImplemented
    program.emit("multiply({}, {}, {})", y, z, out)
    program.emit("add({0}, {1}, {0})", out, x)


def _cat(program: Program, out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Any:
    if any(part.dtype != out.dtype for part in parts):
        return NotImplemented
    names = ", ".join("{}" for _ in parts)
    program.emit(f"concatenate(({names}), {dim}, {{}})", *parts, out)


def _stack(program: Program, out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Any:
    for part, place in zip(parts, out.unbind(dim), strict=True):
        program.emit("copyto({}, {})", place, part)


def _slice_backward(
    program: Program, out: Tensor, grad: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Any:
    program.emit("copyto({}, 0)", out)
    program.emit("copyto({}, {})", torch.ops.aten.slice.Tensor(out, dim, start, end, step), grad)


def _pow(program: Program, out: Tensor, x: Tensor, exponent: Any) -> Any:
    if not _plain(out, x) or exponent not in (1, 2):
        return NotImplemented
    program.emit("copyto({}, {})" if exponent == 1 else "square({1}, {0})", out, x)


def _mean(program: Program, out: Tensor, x: Tensor, *rest: Any) -> Any:
    if rest or not _plain(out, x) or x.dim() != 1 or x.numel() == 0:
        return NotImplemented
    program.emit("dot({}, {}, {})", x, torch.full_like(x, 1.0 / x.numel()), out)


def _sum(program: Program, out: Tensor, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Any:
    count = x.dtype == torch.bool and out.dtype == torch.int64
    if not (_plain(out, x) or count):
        return NotImplemented
    if not dims or len(dims) != 1 or count:
        axes = tuple(dims) if dims else None
        program.emit("reduce({}, {}, {}, {}, {})", x, axes, np.int64 if count else None, out, keepdim)
        return
    if x.dim() == 2 and x.is_contiguous():  # a product with ones is three times faster than a reduction
        rows = dims[0] in (0, -2)
        ones = torch.ones(x.shape[0 if rows else 1])
        program.emit("dot({}, {}, {})", *((ones, x) if rows else (x, ones)), out.view(-1))
        return
    program.emit("reduce({}, {}, None, {}, {})", x, dims[0], out, keepdim)


LARGE = 2_000_000  # multiplications from which torch is faster with a transposed second factor


def _mm(program: Program, out: Tensor, x: Tensor, y: Tensor) -> Any:
    if not _plain(out, x, y):
        return NotImplemented
    if y.is_contiguous() or len(y) < 64 or len(x) * y.numel() < LARGE:
        program.emit("dot({}, {}, {})", x, y, out)
    else:
        program.emit("{}()", partial(torch.mm, x, y, out=out))


def _addmm(program: Program, out: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Any:
    if not _plain(out, bias, x, y):
        return NotImplemented
    _mm(program, out, x, y)
    program.emit("add({0}, {1}, {0})", out, bias)


def _relu(program: Program, out: Tensor, x: Tensor) -> Any:
    if not _plain(out, x):
        return NotImplemented
    program.emit("maximum({}, {}, out={})", x, _zeros(x.shape), out)  # three times faster than with the number 0


@lru_cache
def _zeros(shape: torch.Size) -> Tensor:
    return torch.zeros(shape)


def _threshold_backward(program: Program, out: Tensor, grad: Tensor, x: Tensor, threshold: Any) -> Any:
    into = torch.ops.aten.threshold_backward.grad_input
    program.emit("{}()", partial(into, grad, x, threshold, grad_input=out))


def _gather(program: Program, out: Tensor, x: Tensor, dim: int, index: Tensor, sparse_grad: bool = False) -> Any:
    columns = x.dim() == 2 and dim in (1, -1) and index.shape == (len(x), 1) and x.is_contiguous()
    if not columns or not _plain(out, x):
        return NotImplemented
    first, place = torch.arange(len(x)) * x.shape[1], torch.empty(len(x), dtype=torch.int64)
    program.emit("add({}, {}, {})", index[:, 0], first, place)
    program.emit("take({}, {}, None, {}, {})", x.view(-1), place, out.view(-1), "clip")


def _amax(program: Program, out: Tensor, x: Tensor, dims: Sequence[int] = (), keepdim: bool = False) -> Any:
    if x.dim() != 2 or list(dims) not in ([1], [-1]) or not 2 <= x.shape[1] <= 8 or not _plain(out, x):
        return NotImplemented
    out = out.view(-1)
    program.emit("maximum({}, {}, out={})", x[:, 0], x[:, 1], out)  # few columns: faster than a reduction
    for column in range(2, x.shape[1]):
        program.emit("maximum({0}, {1}, out={0})", out, x[:, column])


def _tanh_backward(program: Program, out: Tensor, grad: Tensor, y: Tensor) -> Any:
    if not _plain(out, grad, y):
        return NotImplemented
    program.emit("square({}, {})", y, out)
    program.emit("subtract(1.0, {0}, {0})", out)
    program.emit("multiply({0}, {1}, {0})", out, grad)


def _divide(program: Program, out: Tensor, x: Tensor, y: Any, *rest: Any) -> Any:
    """By a whole number too, which ATen rounds to float32 first."""
    if rest or not _plain(out, x) or not (_plain(y) or (isinstance(y, Tensor) and y.dtype == torch.int64)):
        return NotImplemented
    if _plain(y):
        return _binary("divide")(program, out, x, y)
    program.emit("divide({}, {}, {}, dtype={}, casting={})", x, y, out, np.float32, "unsafe")


def _rsub(program: Program, out: Tensor, x: Tensor, other: Any, *rest: Any) -> Any:
    return NotImplemented if rest else _binary("subtract")(program, out, other, x)


def _cast(program: Program, out: Tensor, x: Tensor, **_kwargs: Any) -> Any:
    if not _plain(out, x) or out.dtype != torch.float32:
        return NotImplemented
    program.emit("copyto({}, {})", out, x)


def _argmax(program: Program, out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None or keepdim or not _plain(x):
        return NotImplemented
    program.emit("{}.argmax({}, {})", x, dim, out)  # without numpy's wrapper around it


LOWER: dict[str, Callable] = {
    "aten.addmm.default": _addmm,
    "aten.mm.default": _mm,
    "aten.tanh_backward.default": _tanh_backward,
    "aten.clamp.default": _clamp,
    "aten.clamp.Tensor": _clamp,
    "aten.where.self": _where,
    "aten.masked_fill_.Scalar": _masked_fill_,
    "aten.masked_fill.Scalar": _masked_fill,
    "aten.relu.default": _relu,
    "aten.threshold_backward.default": _threshold_backward,
    "aten.gather.default": _gather,
    "aten.amax.default": _amax,
    "aten.addcmul.default": _addcmul,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice_backward.default": _slice_backward,
    "aten.bitwise_not.default": _flags("logical_not"),
    "aten.pow.Tensor_Scalar": _pow,
    "aten.mean.default": _mean,
    "aten.argmax.default": _argmax,
    "aten.rsub.Scalar": _rsub,
    "aten.bitwise_or.Tensor": _flags("logical_or"),
    "aten.bitwise_and.Tensor": _flags("logical_and"),
    "aten.logical_and.default": _flags("logical_and"),
    "aten.expm1.default": _ufunc("expm1"),
    "aten.sum.dim_IntList": _sum,
    "aten.sum.default": _sum,
    "aten.logical_and_.default": _inplace("logical_and"),
    "aten._to_copy.default": _cast,
    **{f"aten.{name}.default": _ufunc(name) for name in ["exp", "log", "sqrt", "tanh", "abs", "minimum", "maximum"]},
    "aten.neg.default": _ufunc("negative"),
    **{
        f"aten.{name}.{kind}": _binary(ufunc)
        for name, ufunc in {"add": "add", "sub": "subtract", "mul": "multiply"}.items()
        for kind in ("Tensor", "Scalar")
    },
    **{f"aten.div.{kind}": _divide for kind in ("Tensor", "Scalar")},
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
