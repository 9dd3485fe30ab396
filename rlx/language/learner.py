"""The optimiser step of a language model: gradients added up over micro-batches and ranks, clipped, AdamW."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rlx.config.ranges import BelowOne, NonNegative, Positive
from rlx.engine.optim import SGD, Adam, Flat
from rlx.functional import schedules
from rlx.language.ranks import Ranks


@dataclass
class AdamW:
    """The keys that an algorithm's Config has beside its own: what it is called, and those of its optimiser. Loshchilov
    and Hutter 2019, arXiv:1711.05101."""

    name: str
    implementation: str
    lr: Positive
    anneal_lr: bool  # linearly to 0 over total_steps
    adam_beta1: BelowOne
    adam_beta2: BelowOne
    adam_eps: Positive
    weight_decay: NonNegative
    max_grad_norm: NonNegative  # 0: no clipping
    optimizer: Literal["adamw", "sgd"] = field(default="adamw", kw_only=True)

    def rate(self, progress: float) -> float:
        """The learning rate after this share of the run."""
        return self.lr * schedules.linear(progress) if self.anneal_lr else self.lr


class TokenLearner:
    """Minimises the sum of the losses given to `add` over the parameters of a module.

    The losses of a batch's parts must be divided by the whole batch's counts: then they add up to the batch's,
    however it was cut. Raises FloatingPointError when a gradient is not finite: the parameters are then still those of
    the step before.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        optimizer: Literal["adamw", "sgd"] = "adamw",
    ) -> None:
        self.flat, self.ranks, self.max_grad_norm = Flat(module), Ranks(), max_grad_norm
        for parameter, grad in zip(self.flat.params, self.flat.grads):
            parameter.grad = grad
        self._info: dict[str, float] = {}
        self.optimizer = SGD(self.flat.data) if optimizer == "sgd" else Adam(self.flat.data, eps, betas, weight_decay)

    @classmethod
    def of(cls, cfg: AdamW, module: nn.Module) -> "TokenLearner":
        """With the optimiser that a configuration describes."""
        return cls(
            module,
            betas=(cfg.adam_beta1, cfg.adam_beta2),
            eps=cfg.adam_eps,
            weight_decay=cfg.weight_decay,
            max_grad_norm=cfg.max_grad_norm,
            optimizer=cfg.optimizer,
        )

    def add(self, loss: Tensor, info: Mapping[str, Tensor] | None = None) -> None:
        """Add a part's gradient to the step's, and its share of the loss and of the diagnostics `info` (0-dim tensors;
        they add up, but for those whose name ends in /max)."""
        loss.backward()
        seen = {"loss": loss.detach(), **(info or {})}
        numbers = torch.stack([value.detach() for value in seen.values()]).tolist()
        for name, number in zip(seen, numbers):
            before = self._info.get(name)
            self._info[name] = number if before is None else max(before, number) if _is_max(name) else before + number

    def step(self, lr: float) -> dict[str, float]:
        """Take the step and forget the gradient; returns loss and diagnostics of the whole batch, and grad_norm before
        clipping."""
        grad, info = self.ranks.add(self.flat.grad), self._everywhere()
        norm = float(torch.dot(grad, grad)) ** 0.5
        if not norm < float("inf"):
            raise FloatingPointError(f"the gradient is not finite (norm {norm}; {info})")
        if self.max_grad_norm and norm > self.max_grad_norm:
            grad.mul_(self.max_grad_norm / (norm + 1e-6))
        self.optimizer.step(grad, lr)
        grad.zero_()
        self._info = {}
        return {**info, "grad_norm": norm}

    def _everywhere(self) -> dict[str, float]:
        if self.ranks.count == 1:
            return self._info
        rows = self.ranks.gather(
            torch.tensor([list(self._info.values())], dtype=torch.float64, device=self.flat.data.device)
        )
        return {name: float(x.max() if _is_max(name) else x.sum()) for name, x in zip(self._info, rows.T)}

    @property
    def num_steps(self) -> int:
        return self.optimizer.t

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def _is_max(name: str) -> bool:
    return name.endswith("/max")


def minibatches(
    num_epochs: int, rng: np.random.Generator, size: int, count: int, device: torch.device
) -> Iterator[Tensor]:
    """`size` rows in `count` parts, in random order in each epoch."""
    for _ in range(num_epochs):
        yield from torch.from_numpy(rng.permutation(size)).to(device).tensor_split(count)


def parts(rows: slice, most: int) -> Iterator[slice]:
    """These rows in micro-batches of at most `most` (0: in one)."""
    size = rows.stop - rows.start
    for start in range(rows.start, rows.stop, most or size):
        yield slice(start, min(start + (most or size), rows.stop))


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "loss": (
        "The objective of the optimiser's step, mean over the iteration. Healthy: falls for sft, pretrain, "
        "reward_model and dpo; around 0, and without meaning, for grpo and rlhf_ppo. If not: rising for a "
        "supervised one, lower algo.lr; for the others read `reward` instead."
    ),
    "grad_norm": (
        "Global L2 norm of the gradient before clipping, mean over the iteration. Healthy: of one order of "
        "magnitude, around algo.max_grad_norm. If not: far above it in every step, clipping sets the step size: "
        "lower algo.lr; 0, there is no advantage to learn from."
    ),
    "learning_rate": (
        "Step size of the optimiser. Healthy: algo.lr, or falling linearly to 0 with algo.anneal_lr=true. If not: "
        "change algo.lr by factors of 3."
    ),
}
