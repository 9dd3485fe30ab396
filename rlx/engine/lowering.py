"""From a recorded ATen call to operations of a program: one function an ATen operation, in the table `LOWER`.

A lowering answers None where the operation's meaning would not be the same (other dtypes, options it does not know):
the call is then kept as it is, as an operation named "aten", that only ATen can run.

    abs exp expm1 log neg sigmoid silu sqrt square tanh relu not   of one operand, element by element
    add sub mul div minimum maximum, eq ne lt le gt ge, and or     of two, broadcast
    tanh_backward relu_backward sigmoid_backward                   (gradient, y or x)
    copy (casts), clamp (x, low, high), where (mask, x, y), addcmul (x, y, z), softplus, softplus_backward
    mm, bmm                                                        matrix products
    sum mean amax argmax std_mean log_softmax log_softmax_backward over dims
    cat (parts), gather and scatter_add along a dim
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlx.engine.program import Operation, Program, tensors

Lowered = list[Operation] | None


def lower(program: Program, func: Any, args: tuple, kwargs: dict, out: Any) -> None:
    """Append what one recorded call does to a program."""
    rule, call = LOWER.get(str(func)), _into(func, args, kwargs, out)
    operations = rule(out, *args, **kwargs) if rule and (not kwargs or rule in WITH_KEYWORDS) else None
    name = str(func).split(".")[1]
    for tensor in tensors(out):
        program.names.label(tensor, name)
    if operations is None:
        operations = [Operation("aten", tuple(tensors(out)), tuple(tensors(list(args))), {"of": name})]
    for operation in operations:
        whole = call if len(operations) == 1 else None
        program.append(replace(operation, aten=operation.aten or whole))


def _into(func: Any, args: tuple, kwargs: dict, out: Any) -> Callable[[], object]:
    """The ATen operation itself, into the recorded output."""
    if func._schema.is_mutable:
        return lambda: func(*args, **kwargs)
    into, outs = _out_overload(func), tensors(out)
    if into is not None and isinstance(out, Tensor) and out.dim():  # some losses write elements before their mean there
        return lambda: into(*args, **kwargs, out=out)

    def run() -> None:
        for buffer, value in zip(outs, tensors(func(*args, **kwargs)), strict=True):
            buffer.copy_(value)

    return run


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


def _operation(name: str, out: Tensor, *operands: Any, **options: Any) -> list[Operation]:
    return [Operation(name, (out,), operands, options)]


def _elementwise(name: str, count: int) -> Callable:
    """Of `count` operands: add and sub may carry one more, alpha, that is refused here."""

    def rule(out: Tensor, *args: Any) -> Lowered:
        return _operation(name, out, *args) if len(args) == count and _plain(out, *args) else None

    return rule


def _inplace(name: str) -> Callable:
    rule = _elementwise(name, 2)
    return lambda out, this, *rest: rule(this, this, *rest)


def _flags(name: str, inplace: bool = False) -> Callable:
    """A bitwise operation, where all operands are truth values."""

    def rule(out: Tensor, *args: Any) -> Lowered:
        flags = all(isinstance(t, Tensor) and t.dtype == torch.bool for t in (out, *args))
        return _operation(name, args[0] if inplace else out, *args) if flags else None

    return rule


def _clamp(out: Tensor, x: Tensor, low: Any = None, high: Any = None) -> Lowered:
    whole = x.dtype == out.dtype == torch.int64 and all(isinstance(limit, int | None) for limit in (low, high))
    if not (whole or _plain(out, x, low, high)):
        return None
    limits = [("maximum", low), ("minimum", high)]
    operations = []
    for name, limit in limits:
        if limit is not None:
            operations += _operation(name, out, x, limit)
            x = out
    return operations


def _where(out: Tensor, mask: Tensor, x: Any, y: Any) -> Lowered:
    return _operation("where", out, mask, x, y) if _plain(out, mask, x, y) else None


def _masked_fill_(out: Tensor, this: Tensor, mask: Tensor, value: Any) -> Lowered:
    return _where(this, mask, value, this)


def _masked_fill(out: Tensor, x: Tensor, mask: Tensor, value: Any) -> Lowered:
    return _where(out, mask, value, x)


def _cat(out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Lowered:
    return _operation("cat", out, *parts, dim=dim) if all(part.dtype == out.dtype for part in parts) else None


def _stack(out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> Lowered:
    pairs = zip(out.unbind(dim), parts, strict=True)
    return [operation for place, part in pairs for operation in _operation("copy", place, part)]


def _slice_backward(
    out: Tensor, grad: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int
) -> Lowered:
    place = torch.ops.aten.slice.Tensor(out, dim, start, end, step)
    return [*_operation("copy", out, 0), *_operation("copy", place, grad)]


def _pow(out: Tensor, x: Tensor, exponent: Any) -> Lowered:
    if not _plain(out, x) or exponent not in (1, 2):
        return None
    return _operation("copy" if exponent == 1 else "square", out, x)


def _dims(x: Tensor, dims: Sequence[int] | int | None) -> tuple[int, ...]:
    """All of them if none is named."""
    named = [dims] if isinstance(dims, int) else dims or range(x.dim())
    return tuple(sorted(dim % max(x.dim(), 1) for dim in named))


def _mean(out: Tensor, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Lowered:
    if not _plain(out, x) or x.dtype == torch.bool or x.numel() == 0:
        return None
    return _operation("mean", out, x, dims=_dims(x, dims), keepdim=keepdim)


def _sum(out: Tensor, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False) -> Lowered:
    count = x.dtype == torch.bool and out.dtype == torch.int64
    if not (_plain(out, x) or count):
        return None
    return _operation("sum", out, x, dims=_dims(x, dims), keepdim=keepdim)


def _extreme(name: str) -> Callable:
    def rule(out: Tensor, x: Tensor, dims: Sequence[int] = (), keepdim: bool = False) -> Lowered:
        return _operation(name, out, x, dims=_dims(x, dims), keepdim=keepdim) if _plain(out, x) else None

    return rule


def _argmax(out: Tensor, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Lowered:
    return _operation("argmax", out, x, dims=_dims(x, dim), keepdim=keepdim) if dim is not None and _plain(x) else None


def _std(out: Any, x: Tensor, dims: Any = None, *, correction: Any = None, keepdim: bool = False) -> Lowered:
    if not _plain(x, *tensors(out)) or isinstance(correction, float):
        return None
    by = 1 if correction is None else int(correction)
    options = {"dims": _dims(x, dims), "keepdim": keepdim, "correction": by}
    return [Operation("std_mean", tuple(tensors(out)), (x,), options)]


def _mm(out: Tensor, x: Tensor, y: Tensor) -> Lowered:
    return [Operation("mm", (out,), (x, y), aten=lambda: torch.mm(x, y, out=out))] if _plain(out, x, y) else None


def _addmm(out: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Lowered:
    product = _mm(out, x, y)
    return [*product, *_operation("add", out, out, bias)] if product and _plain(bias) else None


def _bmm(out: Tensor, x: Tensor, y: Tensor) -> Lowered:
    return [Operation("bmm", (out,), (x, y), aten=lambda: torch.bmm(x, y, out=out))] if _plain(out, x, y) else None


def _baddbmm(out: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> Lowered:
    product = _bmm(out, x, y)
    return [*product, *_operation("add", out, out, bias)] if product and _plain(bias) else None


def _threshold_backward(out: Tensor, grad: Tensor, x: Tensor, threshold: Any) -> Lowered:
    if threshold != 0 or not _plain(out, grad, x):
        return None
    return _operation("relu_backward", out, grad, x)


def _along(name: str) -> Callable:
    """gather(x, dim, index) and scatter_add(x, dim, index, source)."""

    def rule(out: Tensor, x: Tensor, dim: int, index: Tensor, *rest: Any, **_: Any) -> Lowered:
        source = [value for value in rest if isinstance(value, Tensor)]
        return _operation(name, out, x, index, *source, dim=dim % x.dim()) if x.dim() and _plain(out, x) else None

    return rule


def _softmax(name: str) -> Callable:
    """log_softmax(x, dim, half_to_float) and its backward(grad, y, dim, dtype)."""
    count = 2 if name.endswith("backward") else 1

    def rule(out: Tensor, *args: Any) -> Lowered:
        operands, dim = args[:count], args[count]
        return _operation(name, out, *operands, dim=dim % out.dim()) if out.dim() and _plain(out, *operands) else None

    return rule


def _softplus(name: str, count: int) -> Callable:
    """As torch has it by default: beta 1, threshold 20."""

    def rule(out: Tensor, *args: Any) -> Lowered:
        default = tuple(args[count:]) in ((), (1,), (1, 20))
        return _operation(name, out, *args[:count]) if default and _plain(out, *args[:count]) else None

    return rule


def _divide(out: Tensor, x: Any, y: Any, *rest: Any) -> Lowered:
    """By a whole number too, which ATen rounds to float32 first."""
    whole = isinstance(y, Tensor) and y.dtype == torch.int64
    return _operation("div", out, x, y) if not rest and _plain(out, x) and (whole or _plain(y)) else None


def _rsub(out: Tensor, x: Tensor, other: Any, *rest: Any) -> Lowered:
    return _operation("sub", out, other, x) if not rest and _plain(out, x, other) else None


def _cast(out: Tensor, x: Tensor, **_: Any) -> Lowered:
    known = _plain(out, x) or x.dtype == torch.int64
    return _operation("copy", out, x) if known and out.dtype == torch.float32 else None


UNARY = "abs exp expm1 log neg relu sigmoid silu sqrt tanh"
BINARY = "add sub mul div eq ne lt le gt ge"
LOWER: dict[str, Callable] = {
    **{f"aten.{name}.default": _elementwise(name, 1) for name in UNARY.split()},
    **{f"aten.{name}.{kind}": _elementwise(name, 2) for name in BINARY.split() for kind in ("Tensor", "Scalar")},
    **{f"aten.{name}_.{kind}": _inplace(name) for name in BINARY.split()[:4] for kind in ("Tensor", "Scalar")},
    **{f"aten.div.{kind}": _divide for kind in ("Tensor", "Scalar")},
    **{f"aten.{name}.default": _elementwise(name, 2) for name in ("minimum", "maximum")},
    **{f"aten.{name}.default": _elementwise(name, 2) for name in ("tanh_backward", "sigmoid_backward")},
    "aten.rsub.Scalar": _rsub,
    "aten.reciprocal.default": lambda out, x: _divide(out, 1.0, x) if _plain(x) else None,
    "aten.addcmul.default": _elementwise("addcmul", 3),
    "aten.threshold_backward.default": _threshold_backward,
    "aten.softplus.default": _softplus("softplus", 1),
    "aten.softplus_backward.default": _softplus("softplus_backward", 2),
    "aten.clamp.default": _clamp,
    "aten.clamp.Tensor": _clamp,
    "aten.clamp_min.default": lambda out, x, low: _clamp(out, x, low),
    "aten.where.self": _where,
    "aten.masked_fill_.Scalar": _masked_fill_,
    "aten.masked_fill.Scalar": _masked_fill,
    "aten.pow.Tensor_Scalar": _pow,
    "aten._to_copy.default": _cast,
    "aten.clone.default": _cast,
    "aten.bitwise_not.default": _flags("not"),
    **{f"aten.{name}.Tensor": _flags("or") for name in ("bitwise_or", "__or__")},
    **{f"aten.{name}.Tensor": _flags("and") for name in ("bitwise_and", "__and__")},
    "aten.logical_and.default": _flags("and"),
    "aten.logical_and_.default": _flags("and", inplace=True),
    "aten.mm.default": _mm,
    "aten.addmm.default": _addmm,
    "aten.bmm.default": _bmm,
    "aten.baddbmm.default": _baddbmm,
    "aten.sum.default": _sum,
    "aten.sum.dim_IntList": _sum,
    "aten.mean.default": _mean,
    "aten.mean.dim": _mean,
    "aten.amax.default": _extreme("amax"),
    "aten.amin.default": _extreme("amin"),
    "aten.argmax.default": _argmax,
    "aten.std.correction": _std,
    "aten.std_mean.correction": _std,
    "aten._log_softmax.default": _softmax("log_softmax"),
    "aten._log_softmax_backward_data.default": _softmax("log_softmax_backward"),
    "aten.gather.default": _along("gather"),
    "aten.scatter_add.default": _along("scatter_add"),
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.slice_backward.default": _slice_backward,
}
WITH_KEYWORDS = (_cast, _std)
