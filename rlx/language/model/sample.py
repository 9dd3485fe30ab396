"""Completions of prompts, drawn from the model with the log-probs they were drawn with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Completions:
    """B = P G completions, those of a prompt in a row. `mask` is 1 up to the end token, which is inside."""

    tokens: Tensor  # [B, L] int64; whatever stands behind the end is not to be read
    mask: Tensor  # [B, L] bool
    logprob: Tensor  # [B, L] of each token when it was drawn; 0 outside the mask
    ended: Tensor  # [B] bool; False: cut after max_new tokens

    @property
    def lengths(self) -> Tensor:
        return self.mask.sum(-1)


def noise(rng: np.random.Generator, num: int, max_new: int) -> Tensor:
    """One uniform number a token: all of them at once, so that what a completion draws does not depend on when the
    others end; those of a completion in a row, so that it does not depend on how many are drawn at a time either.
    [max_new, num]."""
    return torch.from_numpy(rng.random((num, max_new), dtype=np.float32)).T.contiguous()


@torch.no_grad()
def generate(
    model: Any,
    prompt: Tensor,
    mask: Tensor | None,
    *,
    size: int,
    max_new: int,
    end: int | Sequence[int],
    uniform: Tensor | None = None,
    temperature: float = 1.0,
) -> Completions:
    """`size` completions of each prompt [P, S], of at most `max_new` tokens, which `end`, or any of those, ends.

    uniform [max_new, P size] from `noise`: token t is drawn by inverting the distribution function at uniform[t];
    None: the most likely token each time. The logits are divided by `temperature`, and so are the log-probs given.
    """
    num = len(prompt)
    features, cache = model.begin(prompt, mask, size, max_new)
    alive = torch.ones(num, size, dtype=torch.bool, device=prompt.device)
    tokens, masks, logprobs = [], [], []
    ends = (end,) if isinstance(end, int) else end
    for t in range(max_new):
        logits = model.logits(features) / temperature
        token, logprob = _draw(logits, None if uniform is None else uniform[t].view(num, size).to(logits.device))
        token, logprob = token.expand(num, size), logprob.expand(num, size)
        tokens.append(token)
        masks.append(alive)
        logprobs.append(logprob.masked_fill(~alive, 0.0))
        for one in ends:
            alive = alive & (token != one)
        if t + 1 == max_new or not alive.any():
            break
        features = model.extend(cache, token, t)
    stacked = [torch.stack(parts, -1).flatten(0, 1) for parts in (tokens, masks, logprobs)]
    return Completions(stacked[0], stacked[1], stacked[2], ~alive.flatten())


def _draw(logits: Tensor, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """One token of each distribution [P, 1 or G, V], and its log-prob."""
    logprob = logits.log_softmax(-1)
    if uniform is None:
        token = logits.argmax(-1)
    else:
        cdf = logprob.exp().cumsum(-1)
        # The last entry, which rounding keeps from being 1, is left out: beyond the others it is the last token.
        token = (cdf[..., :-1] <= uniform.unsqueeze(-1) * cdf[..., -1:]).sum(-1)
    logprob = logprob.expand(*token.shape, -1)
    return token, logprob.gather(-1, token.unsqueeze(-1)).squeeze(-1)
