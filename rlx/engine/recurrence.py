"""Discounted sums (GAE above all) in one call of the compiled kernels, for whoever calls rlx.functional.returns.

A sum of 32 steps is 30 operations of torch and 120 us. The kernels do the same float32 operations in the same order:
every bit is equal, which a comparison with torch proves before the first use (torch rounds a * b + c once or twice, as
its build for the CPU has it). Gradients, transforms, recordings, other types and devices are left to torch.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from rlx.engine import kernels
from rlx.functional import returns


def recurrence(x: Tensor, decay: Tensor) -> Tensor | None:
    """See `functional.returns.linear_recurrence`; None where this is for torch to do."""
    return _run(x, decay) if _plain(x, decay) and _agrees() else None


def _plain(*tensors: Tensor) -> bool:
    """Numbers in memory that nobody watches."""
    watched = torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack()
    if watched or forward_ad._current_level >= 0:
        return False
    return all(type(t) is Tensor and t.dtype == torch.float32 and t.is_cpu and not t.requires_grad for t in tensors)


def _run(x: Tensor, decay: Tensor) -> Tensor | None:
    if (loaded := kernels.load()) is None or not x.numel():
        return None
    y, c = (t.clone(memory_format=torch.contiguous_format) for t in (x, decay))
    loaded.recurrence(y.data_ptr(), c.data_ptr(), len(y), y.numel() // len(y))
    return y


@lru_cache
def _agrees() -> bool:
    """Whether every bit is torch's."""
    generator = torch.Generator().manual_seed(0)
    x, decay = torch.randn(2, 70, 37, generator=generator)
    y = _run(x, decay)
    return y is not None and torch.equal(y, returns._by_doubling(x, decay))


returns.shortcuts[:] = [recurrence]
