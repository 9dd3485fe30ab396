"""ATen operations that have no kernel, in terms of those that have one: what `Tape` records in their place.

The first choice is `RULES`: torch's own decompositions import sympy (half a second, 34 MB), and some end in parts that
have no kernel. They serve for the others.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from rlx.engine.lowering import LOWER

aten: Any = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
LIKE = {
    "ones_like", "zeros_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_empty_strided",
    "new_full",
}  # fmt: skip


@cache
def is_factory(func: Any) -> bool:
    """Whether it reads shapes only: what it makes is constant."""
    tensors = any("Tensor" in str(argument.type) for argument in func._schema.arguments)
    return not tensors or func.overloadpacket._qualified_op_name.split("::")[1] in LIKE


def simpler(func: Any) -> Callable | None:
    """What computes the same from simpler operations; None where it is to be recorded as it is."""
    if str(func) in LOWER or is_factory(func):
        return None
    found = RULES.get(func) or decomposition_table.get(func)
    if found is None and func.has_kernel_for_dispatch_key(COMPOSITE):
        return func.decompose
    return None if func.is_view or func._schema.is_mutable else found


def sign(x: Tensor) -> Tensor:
    return (x > 0).float() - (x < 0).float()


def log1p(x: Tensor) -> Tensor:
    """log(1 + x), with what 1 + x has lost of a small x (Goldberg 1991, theorem 4)."""
    whole = 1 + x
    small = torch.where(whole == 1, x, whole.log() * x / torch.where(whole == 1, 1.0, whole - 1))
    return torch.where(x.abs() < 0.5, small, whole.log())


def atanh(x: Tensor) -> Tensor:
    return 0.5 * (torch.log1p(x) - torch.log1p(-x))


def log_sigmoid_forward(x: Tensor) -> tuple[Tensor, Tensor]:
    return -torch.nn.functional.softplus(-x), x.new_empty(0)


def log_sigmoid_backward(grad: Tensor, x: Tensor, _buffer: Tensor) -> Tensor:
    return grad * torch.sigmoid(-x)


def loss(each: Callable, slope: Callable) -> tuple[Callable, Callable]:
    """The mean (1), the sum (2) or all (0) of a function of x - y, and the gradient."""

    def forward(x: Tensor, y: Tensor, reduction: int = 1, *scale: float) -> Tensor:
        values = each(x - y, *scale)
        return values if reduction == 0 else values.mean() if reduction == 1 else values.sum()

    def backward(grad: Tensor, x: Tensor, y: Tensor, reduction: int, *scale: float) -> Tensor:
        gradient = slope(x - y, *scale) * grad
        return gradient / gradient.numel() if reduction == 1 else gradient

    return forward, backward


def smooth(d: Tensor, beta: float = 1.0) -> Tensor:
    return torch.where(d.abs() < beta, d.square() * (0.5 / beta), d.abs() - 0.5 * beta) if beta else d.abs()


def smooth_slope(d: Tensor, beta: float = 1.0) -> Tensor:
    return (d / beta).clamp(-1.0, 1.0) if beta else sign(d)


def huber(d: Tensor, delta: float = 1.0) -> Tensor:
    return torch.where(d.abs() <= delta, 0.5 * d.square(), delta * (d.abs() - 0.5 * delta))


mse, mse_backward = loss(torch.square, lambda d: 2 * d)
smooth_l1, smooth_l1_backward = loss(smooth, smooth_slope)
huber_loss, huber_backward = loss(huber, lambda d, delta=1.0: d.clamp(-delta, delta))


def softmax(x: Tensor, dim: int, _half: bool) -> Tensor:
    powers = (x - x.amax(dim, True)).exp()
    return powers / powers.sum(dim, True)


def softmax_backward(grad: Tensor, y: Tensor, dim: int, _dtype: Any) -> Tensor:
    return y * (grad - (grad * y).sum(dim, True))


def logsumexp(x: Tensor, dims: Any, keepdim: bool = False) -> Tensor:
    largest = x.amax(dims, True)
    largest = torch.where(largest.abs() == math.inf, 0.0, largest)
    total = (x - largest).exp().sum(dims, keepdim=True).log() + largest
    return total if keepdim else total.squeeze(dims)


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    share = torch.sigmoid(x)
    return grad * share * (1 + x * (1 - share))


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    return torch.where(x > 0, x, x * slope)


def leaky_relu_backward(grad: Tensor, x: Tensor, slope: float, _of_result: bool) -> Tensor:
    return torch.where(x > 0, grad, grad * slope)


def extreme(factor: int) -> Callable:
    """max(x, dim) and min(x, dim): values and where they are."""

    def rule(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        index = aten.argmax(x if factor > 0 else -x, dim, True)
        value = x.gather(dim, index)
        return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))

    return rule


def scatter(x: Tensor, dim: int, index: Tensor, source: Any) -> Tensor:
    """One element of each row: so the gradient of max, min and median goes back."""
    source = source if isinstance(source, Tensor) else torch.full(index.shape, source)
    if not x.dim() or index.shape[dim] != 1 or source.shape != index.shape or x.dtype != torch.float32:
        return NotImplemented
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
    number = target.float()
    counts = number != ignored
    chosen = x.gather(1, target.clamp(min=0).unsqueeze(1)).squeeze(1)
    chosen = torch.where(number < 0, math.nan, chosen)  # torch raises
    losses, total = torch.where(counts, -chosen, 0.0), counts.float().sum()
    if reduction == 0:
        return losses, total
    return losses.sum() / total if reduction == 1 else losses.sum(), total


def nll_loss_backward(
    grad: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int, total: Tensor
) -> Tensor:
    if weight is not None or x.dim() != 2:
        return NotImplemented
    each = torch.where(target.float() != ignored, -(grad / total if reduction == 1 else grad), 0.0)
    return torch.zeros_like(x).scatter_add(1, target.clamp(min=0).unsqueeze(1), each.unsqueeze(1))


RULES: dict[Any, Callable] = {
    aten.mse_loss.default: mse,
    aten.mse_loss_backward.default: mse_backward,
    aten.smooth_l1_loss.default: smooth_l1,
    aten.smooth_l1_loss_backward.default: smooth_l1_backward,
    aten.huber_loss.default: huber_loss,
    aten.huber_loss_backward.default: huber_backward,
    aten._softmax.default: softmax,
    aten._softmax_backward_data.default: softmax_backward,
    aten.logsumexp.default: logsumexp,
    aten.silu_backward.default: silu_backward,
    aten.leaky_relu.default: leaky_relu,
    aten.leaky_relu_backward.default: leaky_relu_backward,
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
