"""Optimisers over one flat parameter vector: a handful of operations a step, however many layers there are.

`Flat` lays a module's parameters end to end in memory. `Adam` is Kingma and Ba 2015, arXiv:1412.6980, algorithm 1
(torch.optim is not used: its first import costs a second and 60 MB, its step 60 us).
"""

import gc
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


class Flat:
    """Parameters (a module's, or some of them) and their gradients as views of two flat vectors (`.data`, `.grad`).

    A parameter lives in one place: one that another Flat in use already holds is refused with a ValueError, or that one
    would go on with a vector which no network reads any more.
    """

    _in_use: ClassVar[weakref.WeakSet["Flat"]] = weakref.WeakSet()

    def __init__(self, params: nn.Module | Iterable[nn.Parameter]) -> None:
        named = params.named_parameters() if isinstance(params, nn.Module) else enumerate(params)
        params = self._free({id(param): (name, param) for name, param in named})
        self.data = torch.cat([p.detach().reshape(-1) for p in params])
        self.grad = torch.zeros_like(self.data)
        sizes = [p.numel() for p in params]
        self.params, self.grads = params, []
        for p, data, grad in zip(params, self.data.split(sizes), self.grad.split(sizes), strict=True):
            p.data = data.view_as(p)
            self.grads.append(grad.view_as(p))
        self._in_use.add(self)

    def _free(self, named: Mapping[int, tuple[str | int, nn.Parameter]]) -> list[nn.Parameter]:
        """Those parameters, each once. Raises ValueError if one is another Flat's."""
        if self._taken(named):
            gc.collect()  # a learner thrown away may be waiting for this
        if taken := self._taken(named):
            name, param = named[taken[0]]
            raise ValueError(
                f"parameter {name}, shape {tuple(param.shape)}, belongs to another learner: give shared parameters to "
                "one learner that minimises the sum of the losses, or each learner its own module"
            )
        return [param for _, param in named.values()]

    def _taken(self, ids: Iterable[int]) -> list[int]:
        owned = {id(param) for flat in self._in_use for param in flat.params}
        return [key for key in ids if key in owned]


class Adam:
    """Adam on one flat vector.

        m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Kingma and Ba 2015, arXiv:1412.6980, algorithm 1. With a weight decay w, p -= lr w p as well, before the step:
    AdamW, Loshchilov and Hutter 2019, arXiv:1711.05101. One kernel for all of it, the one that
    torch.optim.Adam(fused=True) runs.
    """

    def __init__(
        self, data: Tensor, eps: float = 1e-5, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0
    ) -> None:
        self.data, self.eps, self.betas, self.weight_decay = data, eps, betas, weight_decay
        self.m, self.v = torch.zeros_like(data), torch.zeros_like(data)
        self.t = 0  # steps taken
        self._t = torch.zeros((), device=data.device)

    def step(self, grad: Tensor, lr: float) -> None:
        self.t += 1
        self._t.fill_(self.t)
        torch._fused_adamw_(
            [self.data], [grad], [self.m], [self.v], [], [self._t],
            lr=lr, beta1=self.betas[0], beta2=self.betas[1], weight_decay=self.weight_decay, eps=self.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {"m": self.m, "v": self.v, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.m.copy_(state["m"])
        self.v.copy_(state["v"])
        self.t = int(state["t"])


class RMSprop:
    """RMSprop on one flat vector, as torch.optim.RMSprop has it.

        v = alpha v + (1 - alpha) g^2;  p -= lr g / (sqrt(v) + eps);   v starts at 0

    Tieleman and Hinton 2012, lecture 6.5.
    """

    initial = 0.0

    def __init__(self, data: Tensor, eps: float = 1e-5, alpha: float = 0.99) -> None:
        self.data, self.eps, self.alpha, self.t = data, eps, alpha, 0
        self.v = torch.full_like(data, self.initial)
        self._root = torch.empty_like(data)

    def step(self, grad: Tensor, lr: float) -> None:
        self.t += 1
        self.v.mul_(self.alpha).addcmul_(grad, grad, value=1 - self.alpha)
        self.data.addcdiv_(grad, self._denominator(), value=-lr)

    def _denominator(self) -> Tensor:
        return torch.sqrt(self.v, out=self._root).add_(self.eps)

    def state_dict(self) -> dict[str, Any]:
        return {"v": self.v, "t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.v.copy_(state["v"])
        self.t = int(state["t"])


class RMSpropTF(RMSprop):
    """RMSprop with the epsilon inside the root and v starting at 1: TensorFlow 1, and so the A2C of OpenAI Baselines.

    p -= lr g / sqrt(v + eps)
    """

    initial = 1.0

    def _denominator(self) -> Tensor:
        return torch.add(self.v, self.eps, out=self._root).sqrt_()


class SGD(RMSprop):
    """Plain gradient descent: p -= lr g.

    RMSprop whose mean square stays 1: the compiled kernels take it as that. Robbins and Monro 1951.
    """

    initial = 1.0

    def __init__(self, data: Tensor, eps: float = 0.0) -> None:
        super().__init__(data, eps=0.0, alpha=1.0)

    def step(self, grad: Tensor, lr: float) -> None:
        self.t += 1
        self.data.add_(grad, alpha=-lr)

    def state_dict(self) -> dict[str, Any]:
        return {"t": self.t}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.t = int(state["t"])


Optimizer = Literal["adam", "rmsprop", "rmsprop_tf", "sgd"]
OPTIMIZERS: dict[str, Callable[..., Adam | RMSprop]] = {
    "adam": Adam, "rmsprop": RMSprop, "rmsprop_tf": RMSpropTF, "sgd": SGD,
}  # fmt: skip
