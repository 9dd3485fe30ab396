"""What a tape's replay consists of, as data: a list of operations over memory that lives as long as the program.

An `Operation` has a name of the table in `lowering`, operands and results with dtype, shape and strides, and options.
`Program.text` prints them, a line each. Two back ends run a program: lines of numpy (`numpy_ops`) and one call of a
compiled interpreter (`native_ops`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Operand = Tensor | float | int | bool


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, list | tuple):
        return [tensor for item in tree for tensor in tensors(item)]
    return []


def storage(tensor: Tensor) -> int:
    """The address of a tensor's memory, the same for all views of it."""
    return tensor.untyped_storage().data_ptr()


@dataclass(frozen=True, slots=True)
class Operation:
    """`outs = name(operands, **options)`. The results' memory may be an operand's, element for element."""

    name: str
    outs: tuple[Tensor, ...]
    operands: tuple[Operand, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    aten: Callable[[], object] | None = None  # the same by ATen, into the same memory

    @property
    def out(self) -> Tensor:
        return self.outs[0]


class Program:
    """Operations in order. `labels` (address -> name) says what some of the memory is called."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self.operations: list[Operation] = []
        self.names = Names(labels)

    def append(self, operation: Operation) -> None:
        for out in operation.outs:
            self.names.label(out, operation.name)
        for tensor in tensors([*operation.operands, *operation.outs]):
            self.names.of(tensor)
        self.operations.append(operation)

    @property
    def text(self) -> str:
        """A line an operation: `tanh_34 [256, 64] = tanh(addmm_32 [256, 64])`."""
        return "\n".join(self._line(operation) for operation in self.operations)

    def _line(self, operation: Operation) -> str:
        options = [f"{name}={value}" for name, value in operation.options.items()]
        inside = ", ".join([*map(self._place, operation.operands), *options])
        return f"{', '.join(map(self._place, operation.outs))} = {operation.name}({inside})"

    def _place(self, value: Operand) -> str:
        if not isinstance(value, Tensor):
            return repr(value)
        kind = "" if value.dtype == torch.float32 else f" {str(value.dtype).removeprefix('torch.')}"
        strides = "" if value.is_contiguous() else f" strides {list(value.stride())}"
        return f"{self.names.of(value)}{kind} {list(value.shape)}{strides}"


class Names:
    """Names of memory: those given, else after the operation that wrote it first."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._labels = dict(labels)
        self._known: dict[tuple, str] = {}
        self._count = 0

    def label(self, tensor: Tensor, operation: str) -> None:
        self._labels.setdefault(storage(tensor), operation)

    def of(self, tensor: Tensor) -> str:
        """One name for the same elements of the same memory."""
        place = tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()
        if not tensor.numel() or place not in self._known:
            label = self._labels.get(tensor.data_ptr()) or self._labels.get(storage(tensor), "other")
            self._known[place] = self.new(label)
        return self._known[place]

    def new(self, label: str) -> str:
        self._count += 1
        return f"{re.sub(r'[^a-zA-Z0-9]', '_', label)}_{self._count}"
