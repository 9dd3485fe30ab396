"""Networks as they act: as in evaluation, also while they learn. Dropout passes everything on; BatchNorm normalises by
its running statistics, since one observation has none of its own, and does not change by acting."""

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from torch import nn

Function = TypeVar("Function", bound=Callable[..., object])

INDIFFERENT = (  # what trains as it evaluates, beside rlx's own modules
    nn.Linear, nn.Conv2d, nn.Flatten, nn.LayerNorm, nn.Identity, nn.Sequential, nn.ModuleList, nn.Tanh, nn.ReLU,
    nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU,
)  # fmt: skip


def acting(network: nn.Module, function: Function) -> Function:
    """The same function, during which the network is in evaluation mode, where that makes a difference to it."""
    parts = [*network.modules()]
    if all(type(part) in INDIFFERENT or type(part).__module__.startswith("rlx.") for part in parts):
        return function

    @wraps(function)
    def as_it_acts(*args: object) -> object:
        before = [part.training for part in parts]
        network.eval()
        try:
            return function(*args)
        finally:
            for part, training in zip(parts, before, strict=True):
                part.training = training

    return as_it_acts  # type: ignore[return-value]
