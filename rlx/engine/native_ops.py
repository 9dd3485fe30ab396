"""The second back end of a program: a table of operations that one call of the compiled interpreter runs.

`ROWS` has a function an operation; it appends rows of the struct `Op` of kernels.c, or raises Unsupported for what has
no kernel (the program is then run by numpy). Sizes, strides and addresses are data of the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.engine.kernels import Kernels
from rlx.engine.optim import Adam, Flat, RMSprop
from rlx.engine.program import Operand, Operation, Program, storage

OP = np.dtype([("code", "i8"), ("n", "i8", 3), ("p", "u8", 4), ("s", "i8", (4, 3)), ("k", "i8")])
KINDS = {torch.float32: "f", torch.bool: "b", torch.int64: "i"}


class Unsupported(Exception):
    """There is no kernel for this."""


class OperationTable:
    """The rows of a program, and whatever memory they need besides the program's."""

    def __init__(self, program: Program, kernels: Kernels) -> None:
        self._kernels = kernels
        self._rows: list[tuple] = []
        self._keep: list[Any] = []
        self._product: Tensor | None = None  # what the row before wrote, if that was a product
        for operation in _written_in_place(program):
            row = ROWS.get(operation.name)
            if row is None:
                raise Unsupported(str(operation.options.get("of", operation.name)))
            if operation.out.numel() and not self._is_bias(operation):
                row(self, operation, *operation.operands, **operation.options)
            self._product = operation.out if operation.name in ("mm", "bmm") else None
        self.array = np.array(self._rows, OP)
        self.replay = partial(kernels.run, self.array.ctypes.data, len(self.array))  # valid as long as this table is

    def _is_bias(self, op: Operation) -> bool:
        """Whether it adds one row to the product before, which can begin with it instead."""
        bias = op.operands[-1]
        if op.name != "add" or self._product is not op.out or op.operands[0] is not op.out:
            return False
        if not isinstance(bias, Tensor) or bias.dtype != torch.float32:
            return False
        batch, row, col = (bias if bias.dim() == 3 else bias[None]).expand(self._rows[-1][1]).stride()
        if row != 0 or col != 1 or op.out.shape[-1] == 1:
            return False
        _code, _sizes, places, steps, _extra = self._rows[-1]
        places[3], steps[3] = bias.data_ptr(), [batch, row, col]
        return True

    def row(
        self, kernel: str, sizes: Sequence[int], tensors: Sequence[Tensor | None], strides: Any, extra: int = 0
    ) -> None:
        if kernel not in self._kernels.codes:
            raise Unsupported(kernel)
        places = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        none = 4 - len(places)
        steps = [*map(list, strides), *[[0, 0, 0]] * none]
        self._rows.append((self._kernels.codes[kernel], list(sizes), places + [0] * none, steps, extra))

    def each(self, kernel: str, out: Tensor, *operands: Tensor) -> None:
        """An elementwise kernel over operands that are broadcast to the result's shape."""
        tensors = [out, *(x.expand(out.shape) for x in operands)]
        sizes, strides = _loops(out.shape, [t.stride() for t in tensors], 3)
        self.row(kernel, sizes, tensors, strides, out.numel() == 1 or all(step == [0, 0, 1] for step in strides))

    def along(self, kernel: str, sizes: Sequence[int], tensors: Sequence[Tensor], dim: int, *extra: int) -> None:
        """A kernel whose innermost loop goes along a dimension."""
        others = [d for d in range(len(sizes)) if d != dim]
        outer, steps = _loops([sizes[d] for d in others], [[t.stride(d) for d in others] for t in tensors], 2)
        strides = [[*step, t.stride(dim)] for step, t in zip(steps, tensors)]
        self.row(kernel, [*outer, sizes[dim]], tensors, strides, *extra)

    def number(self, value: Operand, dtype: torch.dtype = torch.float32) -> Tensor:
        """An operand as a tensor of that type: numbers as constants, truth values and whole numbers converted."""
        if not isinstance(value, Tensor):
            constant = torch.tensor(value, dtype=dtype)
            self._keep.append(constant)
            return constant
        if value.dtype == dtype:
            return value
        if dtype != torch.float32:
            raise Unsupported(f"{value.dtype} as {dtype}")
        converted = torch.empty(value.shape, dtype=dtype)
        self._keep.append(converted)
        copy(self, converted, value)
        return converted


def _loops(shape: Sequence[int], strides: Sequence[Sequence[int]], most: int) -> tuple[list[int], list[list[int]]]:
    """Nested loops (outermost first, `most` of them) over elements of that shape: dimensions that every operand runs
    through in one go are joined."""
    dims = [d for d in range(len(shape)) if shape[d] != 1]
    dims.sort(key=lambda d: [-stride[d] for stride in strides])
    loops: list[tuple[int, list[int]]] = []
    for d in dims:
        step = [stride[d] for stride in strides]
        if loops and all(before == now * shape[d] for before, now in zip(loops[-1][1], step)):
            loops[-1] = loops[-1][0] * shape[d], step
        else:
            loops.append((shape[d], step))
    if len(loops) > most:
        raise Unsupported(f"{len(loops)} nested loops")
    loops = [(1, [0] * len(strides))] * (most - len(loops)) + loops
    return [n for n, _ in loops], [list(step) for step in zip(*(step for _, step in loops))]


def _written_in_place(program: Program) -> list[Operation]:
    """The operations, less the copies of products into gradients: those products are written there at once."""
    operations = list(program.operations)
    made: dict[int, int] = {}  # address -> the operation that wrote a product there
    used: dict[int, int] = {}  # address of memory -> how many operations read it
    for index, operation in enumerate(operations):
        for tensor in operation.operands:
            if isinstance(tensor, Tensor):
                used[storage(tensor)] = used.get(storage(tensor), 0) + 1
        if operation.name in ("mm", "bmm"):
            made[operation.out.data_ptr()] = index
    kept: list[Operation | None] = [*operations]
    for index, operation in enumerate(operations):
        if operation.name != "copy" or not isinstance(source := operation.operands[0], Tensor):
            continue
        maker = made.get(source.data_ptr())
        if maker is None or maker > index or used[storage(source)] != 1 or storage(operation.out) in used:
            continue
        if not _layout(source) == _layout(operation.out) == _layout(operations[maker].out):
            continue
        kept[maker] = replace(operations[maker], outs=operation.outs)
        kept[index] = None
    return [operation for operation in kept if operation is not None]


def _layout(tensor: Tensor) -> tuple:
    return tensor.dtype, tensor.shape, tensor.stride()


def _kind(dtype: torch.dtype) -> str:
    if dtype not in KINDS:
        raise Unsupported(str(dtype))
    return KINDS[dtype]


def _float(*tensors: Tensor) -> None:
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        raise Unsupported("a type that is not float32")


# -- one function an operation ---------------------------------------------------------------------------------


def _each(name: str, dtype: torch.dtype | None = None) -> Callable:
    """Element by element; operands are converted to `dtype`, or to the result's."""

    def rows(table: OperationTable, op: Operation, *operands: Operand) -> None:
        kind = dtype or op.out.dtype
        table.each(f"{name}_{_kind(kind)}", op.out, *(table.number(x, kind) for x in operands))

    return rows


def _copy(table: OperationTable, op: Operation, x: Operand) -> None:
    copy(table, op.out, x)


def copy(table: OperationTable, out: Tensor, x: Operand) -> None:
    if isinstance(x, Tensor) and x.dtype != out.dtype and out.dtype == torch.float32:
        table.each(f"float_of_{_kind(x.dtype)}", out, x)
    else:
        table.each(f"copy_{_kind(out.dtype)}", out, table.number(x, out.dtype))


def _where(table: OperationTable, op: Operation, mask: Tensor, x: Operand, y: Operand) -> None:
    _float(op.out)
    if mask.dtype != torch.bool:
        raise Unsupported("a mask that is not of truth values")
    table.each("where_f", op.out, mask, table.number(x), table.number(y))


def _cat(table: OperationTable, op: Operation, *parts: Tensor, dim: int) -> None:
    start, dim = 0, dim % op.out.dim()
    for part in parts:
        if part.numel():
            copy(table, op.out.narrow(dim, start, part.shape[dim]), part)
            start += part.shape[dim]


def _mm(table: OperationTable, op: Operation, x: Tensor, y: Tensor) -> None:
    out, x, y = (t if t.dim() == 3 else t[None] for t in (op.out, x, y))
    _float(out, x, y)
    table.row("product", out.shape, (out, x, y), [t.stride() for t in (out, x, y)], x.shape[2])


def _reduced(kernel: str, divide: bool = False) -> Callable:
    """Over `dims`: loops kept, kept, reduced."""

    def rows(table: OperationTable, op: Operation, x: Tensor, dims: Sequence[int], keepdim: bool) -> None:
        name = "count" if kernel == "sum" and op.out.dtype == torch.int64 else kernel
        if name != "count":
            x = table.number(x)
            _float(*[op.out] * (name != "argmax"))
        elif x.dtype != torch.bool:
            raise Unsupported("a sum of whole numbers")
        kept = [d for d in range(x.dim()) if d not in dims]
        out_strides = [op.out.stride(d) for d in kept] if keepdim else op.out.stride()
        sizes, x_strides = [x.shape[d] for d in kept], [x.stride(d) for d in kept]
        outer, (out_steps, x_steps) = _loops(sizes, [out_strides, x_strides], 2)
        (inner,), ((step,),) = _loops([x.shape[d] for d in dims], [[x.stride(d) for d in dims]], 1)
        if inner * x.numel() == 0:
            raise Unsupported("a reduction of nothing")
        table.row(name, [*outer, inner], (op.out, x), [[*out_steps, 0], [*x_steps, step]], inner if divide else 1)

    return rows


def _std_mean(
    table: OperationTable, op: Operation, x: Tensor, dims: Sequence[int], keepdim: bool, correction: int
) -> None:
    if len(dims) != x.dim() or not x.is_contiguous() or x.numel() < 2:
        raise Unsupported("the deviation of a part")
    _float(x, *op.outs)
    std, mean = (*op.outs, None)[:2]
    steps = [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
    table.row("std_mean", [1, 1, x.numel()], (std, x, mean), steps, correction)


def _softmax(name: str) -> Callable:
    def rows(table: OperationTable, op: Operation, *operands: Tensor, dim: int) -> None:
        _float(op.out, *operands)
        table.along(name, op.out.shape, (op.out, *operands), dim)

    return rows


def _indexed(table: OperationTable, kernel: str, out: Tensor, x: Tensor, index: Tensor, dim: int, length: int) -> None:
    """out and x by an index along a dimension; in the others all three have the index's lengths."""
    if index.dtype != torch.int64 or not index.numel():
        raise Unsupported("an index that is not of int64")
    _float(out, x)
    table.along(kernel, index.shape, (out, x, index), dim, length)


def _gather(table: OperationTable, op: Operation, x: Tensor, index: Tensor, dim: int) -> None:
    _indexed(table, "gather", op.out, x, index, dim, x.shape[dim])


def _scatter_add(table: OperationTable, op: Operation, x: Tensor, index: Tensor, source: Tensor, dim: int) -> None:
    if x.data_ptr() != op.out.data_ptr():
        copy(table, op.out, x)
    _indexed(table, "scatter_add", op.out, source, index, dim, x.shape[dim])


SAME = (  # the operands have the result's type
    "abs exp expm1 log neg relu sigmoid silu softplus sqrt square tanh add sub mul div addcmul minimum maximum "
    "not and or tanh_backward relu_backward sigmoid_backward softplus_backward"
)
ROWS: dict[str, Callable] = {
    **{name: _each(name) for name in SAME.split()},
    **{name: _each(name, torch.float32) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "copy": _copy,
    "where": _where,
    "cat": _cat,
    "mm": _mm,
    "bmm": _mm,
    "sum": _reduced("sum"),
    "mean": _reduced("sum", divide=True),
    "amax": _reduced("amax"),
    "amin": _reduced("amin"),
    "argmax": _reduced("argmax"),
    "std_mean": _std_mean,
    "log_softmax": _softmax("log_softmax"),
    "log_softmax_backward": _softmax("log_softmax_backward"),
    "gather": _gather,
    "scatter_add": _scatter_add,
}


# -- a gradient step ---------------------------------------------------------------------------------------------

FEED = np.dtype([("from", "u8"), ("to", "u8"), ("bytes", "i8"), ("rows", "i8"), ("size", "i8")])
STEP = np.dtype(
    [(name, "u8") for name in ("ops", "num_ops", "feeds", "num_feeds", "rows", "param", "grad", "m", "v")]
    + [("size", "i8"), ("optimizer", "i8")]
    + [(name, "f8") for name in ("beta1", "beta2", "eps", "weight_decay", "max_grad_norm")]
)
OPTIMIZERS = {"Adam": 0, "RMSprop": 1, "RMSpropTF": 2, "SGD": 1}


class Update:
    """Clipping and the optimiser in one call: `update(lr)` gives the norm of the gradient, which stays as it is; one
    that is not finite changes nothing."""

    def __init__(self, kernels: Kernels, flat: Flat, optimizer: Adam | RMSprop, max_grad_norm: float) -> None:
        self.kernels, self.optimizer = kernels, optimizer
        self.struct = np.zeros((), STEP)
        values = {
            "param": flat.data, "grad": flat.grad, "m": getattr(optimizer, "m", None), "v": optimizer.v,
            "size": flat.data.numel(), "optimizer": OPTIMIZERS[type(optimizer).__name__],
            "beta1": 0.0, "beta2": 0.0, "eps": optimizer.eps, "max_grad_norm": max_grad_norm,
        }  # fmt: skip
        if isinstance(optimizer, Adam):
            values |= {"beta1": optimizer.betas[0], "beta2": optimizer.betas[1]}
            values["weight_decay"] = optimizer.weight_decay
        else:
            values["beta2"] = optimizer.alpha
        for name, value in values.items():
            if value is not None:
                self.struct[name] = value.data_ptr() if isinstance(value, Tensor) else value
        self._address = self.struct.ctypes.data

    def __call__(self, lr: float) -> float:
        return self._counted(self.kernels.update(self._address, lr, self.optimizer.t + 1))

    def _counted(self, norm: float) -> float:
        if norm < float("inf"):
            self.optimizer.t += 1
        return norm


class NativeStep(Update):
    """A whole gradient step in one call: rows of a batch into the program's inputs, the program, the update."""

    def __init__(self, update: Update, table: OperationTable, inputs: Mapping[str, Tensor], rows: int) -> None:
        self.kernels, self.optimizer, self._inputs = update.kernels, update.optimizer, inputs
        self._table, self._rows = table, rows
        self.struct = update.struct.copy()
        self.struct["ops"], self.struct["num_ops"] = table.array.ctypes.data, len(table.array)
        self.struct["rows"] = rows
        self._address = self.struct.ctypes.data
        self._batch: Mapping[str, Tensor] = {}
        self._layout: list[tuple] = []
        self._last = -1  # the last row that may be the first of those needed; negative: there is none
        self._whole = False  # whether the batch is as the inputs are

    def takes(self, batch: Mapping[str, Tensor], start: int | None) -> bool:
        """Whether its rows can be read as they lie in memory: those from `start` on, or each tensor whole (None)."""
        if batch is not self._batch:
            self._attach(batch)
        return self._whole if start is None else start <= self._last

    def _attach(self, batch: Mapping[str, Tensor]) -> None:
        self._batch = batch
        layout = [(name, t.dtype, t.shape, t.is_contiguous() and t.is_cpu) for name, t in batch.items()]
        if layout != self._layout:
            self._layout, targets = layout, [self._inputs[name] for name in batch]
            first = [
                (x.shape[0], t.shape[0]) if x.dim() and t.dim() else (1, 1) for x, t in zip(targets, batch.values())
            ]
            feeds = [(0, x.data_ptr(), x.nbytes // max(n, 1), m, x.nbytes) for x, (n, m) in zip(targets, first)]
            self._feeds = np.array(feeds, FEED)
            self._from = self._feeds["from"]
            self.struct["feeds"], self.struct["num_feeds"] = self._feeds.ctypes.data, len(batch)
            alike = all(
                plain and dtype == x.dtype and shape[1:] == x.shape[1:]
                for (_, dtype, shape, plain), x in zip(layout, targets)
            )
            self._whole = alike and all(n == m for n, m in first)
            even = alike and all(n == self._rows for n, _ in first)
            self._last = min(m for _, m in first) - self._rows if even else -1
        self._from[:] = [t.data_ptr() for t in batch.values()]

    def step(self, index: int | None, start: int, lr: float) -> float:
        """Of the rows whose numbers (int64) are at the address `index`, or of those from `start` on."""
        return self._counted(self.kernels.step(self._address, index, start, lr, self.optimizer.t + 1))
