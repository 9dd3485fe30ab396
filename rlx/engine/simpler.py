"""ATen operations that have no kernel, in terms of those that have one: what `Tape` records in their place.

Most are torch's own decompositions. `RULES` has those that torch gives no kernel-sized parts, or none at all.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from rlx.engine.lowering import LOWER

aten: Any = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def simpler(func: Any) -> Callable | None:
    """What computes the same from simpler operations; None where it is to be recorded as it is."""
    if str(func) in LOWER:
        return None
    found = RULES.get(func) or decomposition_table.get(func)
    if found is None and func.has_kernel_for_dispatch_key(COMPOSITE):
        return func.decompose
    return None if func.is_view or func._schema.is_mutable else found


def sign(x: Tensor) -> Tensor:
    return (x > 0).float() - (x < 0).float()


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), with what 1 + x has lost of a small x (Higham, Accuracy and Stability, problem 1.5)."""
    whole = 1 + x
    return torch.where(whole == 1, x, whole.log() * x / torch.where(whole == 1, 1.0, whole - 1))


def atanh(x: Tensor) -> Tensor:
    return 0.5 * (torch.log1p(x) - torch.log1p(-x))


def log_sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    return -torch.nn.functional.softplus(-x), x.new_empty(0)


def log_sigmoid_backward(grad: Tensor, x: Tensor, _buffer: Tensor) -> Tensor:
    return grad * torch.sigmoid(-x)


def extreme(factor: int) -> Callable:
    """max(x, dim) and min(x, dim): values and where they are."""

    def rule(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        index = aten.argmax(x if factor > 0 else -x, dim, True)
        value = x.gather(dim, index)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))

    return rule


def scatter(x: Tensor, dim: int, index: Tensor, source: Any) -> Tensor:
    """One element of each row: so the gradient of max, min and median goes back."""
    if not x.dim() or index.shape[dim] != 1:
        return NotImplemented
    source = source if isinstance(source, Tensor) else torch.full(index.shape, source)
    there = torch.zeros_like(x).scatter_add(dim, index, torch.ones_like(source))
    return torch.where(there > 0, torch.zeros_like(x).scatter_add(dim, index, source), x)


def norm(x: Tensor, order: Any = 2, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    if order != 2 or dtype is not None:
        return NotImplemented
    return x.square().sum(dims, keepdim=keepdim).sqrt()


def var(x: Tensor, dims: Any = None, *, correction: Any = None, keepdim: bool = False) -> Tensor:
    dims = list(range(x.dim())) if dims is None else dims
    squares = (x - x.mean(dims, keepdim=True)).square()
    total = squares.sum(dims, keepdim=keepdim)
    return total / max(0, x.numel() // max(1, total.numel()) - (1 if correction is None else correction))


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(variance + eps) over the last dimensions, the mean, and 1 over the root."""
    dims = list(range(x.dim() - len(shape), x.dim()))
    mean = x.mean(dims, keepdim=True)
    scale = ((x - mean).square().mean(dims, keepdim=True) + eps).sqrt().reciprocal()
    out = (x - mean) * scale
    out = out if weight is None else out * weight
    return out if bias is None else out + bias, mean, scale


def nll_loss_forward(
    x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int
) -> tuple[Tensor, Tensor]:
    """-x[i, target[i]] of all that are not ignored; reduction: 0 none, 1 mean, 2 sum."""
    if weight is not None or x.dim() != 2:
        return NotImplemented
    counts = target.float() != ignored
    chosen = x.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
    chosen = torch.where(target.float() < 0, math.nan, chosen)  # torch raises
    losses, total = torch.where(counts, -chosen, 0.0), counts.float().sum()
    return (losses, losses.sum() / total, losses.sum())[reduction], total


def nll_loss_backward(
    grad: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int, total: Tensor
) -> Tensor:
    if weight is not None or x.dim() != 2:
        return NotImplemented
    each = torch.where(target.float() != ignored, -(grad / total if reduction == 1 else grad), 0.0)
    return torch.zeros_like(x).scatter_add(1, target.clamp(min=0).unsqueeze(1), each.unsqueeze(1))


RULES: dict[Any, Callable] = {
    aten.sign.default: sign,
    aten.sgn.default: sign,
    aten.log1p.default: log1p,
    aten.atanh.default: atanh,
    aten.log_sigmoid_forward.default: log_sigmoid_forward,
    aten.log_sigmoid_backward.default: log_sigmoid_backward,
    aten.max.dim: extreme(1),
    aten.min.dim: extreme(-1),
    aten.scatter.src: scatter,
    aten.scatter.value: scatter,
    aten.linalg_vector_norm.default: norm,
    aten.var.correction: var,
    aten.native_layer_norm.default: layer_norm,
    aten.nll_loss_forward.default: nll_loss_forward,
    aten.nll_loss_backward.default: nll_loss_backward,
    **{func: func.decompose for func in (aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther)},
}
