"""A decoder-only transformer small enough that a step costs milliseconds, with a group's prompt computed once.

Pre-norm blocks (Radford et al. 2019), layer norm without weights (Ba et al. 2016, arXiv:1607.06450; RMS norm would do,
but on a CPU PyTorch's takes ten times as long backwards), learned or rotary positions (Su et al. 2021,
arXiv:2104.09864), no biases, no dropout.

A batch is P prompts with G completions each. All tokens of a layer go through norms and matrices as the rows of one
matrix; only attention tells prompt from completion: each completion looks at the keys of its group's one prompt and at
its own. Prompts are padded on the left, so that all completions begin in the same column.

Attention is softmax(q k') v written out: on a CPU, at these lengths, PyTorch's fused kernel is several times slower
forwards and backwards.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rlx.config.ranges import Count


@dataclass
class GPTConfig:
    name: Literal["gpt", "hf"]
    num_layers: Annotated[int, Field(ge=1, le=1000)]
    d_model: Annotated[int, Field(ge=1, le=65536)]
    num_heads: Annotated[int, Field(ge=1, le=1024)]
    context: Count | None  # most tokens of a sequence; None: what the task needs
    positions: Literal["learned", "rotary"]
    activation: Literal["relu", "gelu", "relu2"]
    dtype: Literal["float32", "bfloat16"]  # of activations; the weights that are trained are float32
    matmul: Literal["highest", "medium"]  # medium: float32 matrices are multiplied in bfloat16
    path: str | None  # of a local Hugging Face model (name hf)

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model={self.d_model}: must be a multiple of num_heads={self.num_heads}")
        if self.positions == "rotary" and (self.d_model // self.num_heads) % 2:
            raise ValueError(f"d_model={self.d_model}: rotary positions need an even d_model / num_heads")
        if self.name == "hf" and self.path is None:
            raise ValueError("path=null: name=hf needs the directory of a local model (model.path=DIR)")
        if self.name == "gpt" and self.path is not None:
            raise ValueError(f"path={self.path}: only name=hf reads a model from a directory (model=hf)")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu_,  # in place: its gradient needs only what it leaves
    "gelu": F.gelu,
    "relu2": lambda x: F.relu_(x).square(),
}
Pair = tuple[Tensor, Tensor]


class Layer(NamedTuple):
    """The four matrices of a layer, in the type they are multiplied in."""

    qkv: Tensor  # [3 D, D]
    out: Tensor  # [D, D]
    up: Tensor  # [4 D, D]
    down: Tensor  # [D, 4 D]


class Block(nn.Module):
    """The same as parameters. They are applied in `GPT`, which knows what the rows are."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.empty(3 * d, d))
        self.out = nn.Parameter(torch.empty(d, d))
        self.up = nn.Parameter(torch.empty(4 * d, d))
        self.down = nn.Parameter(torch.empty(d, 4 * d))

    def cast(self, dtype: torch.dtype) -> Layer:
        return Layer(*(weight.to(dtype) for weight in (self.qkv, self.out, self.up, self.down)))


@dataclass
class Cache:
    """What sampling goes on with: a pair of keys and values [S + L, d_head, P, H, G] a layer, those of a group's prompt
    repeated for each of its completions. All completions side by side in the last axes: one token of each is then a
    few long vector operations."""

    pairs: list[Pair]
    layers: list[Layer]
    bias: Tensor | None  # [S + L, P, 1, 1]: what nobody may look at
    start: int  # S
    length: Tensor  # [P] tokens of each prompt


class GPT(nn.Module):
    """`num_tokens` tokens can be predicted; tokens from there to `num_inputs` can only be read (the beginning)."""

    def __init__(
        self, cfg: GPTConfig, num_tokens: int, num_inputs: int, context: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.cfg, self.context, self.num_tokens = cfg, context, num_tokens
        self.heads, self.d = cfg.num_heads, cfg.d_model
        self.dtype = getattr(torch, cfg.dtype)
        self.act = ACTIVATIONS[cfg.activation]
        self.embed = nn.Parameter(torch.empty(num_inputs, self.d))
        self.rotation: Tensor
        if cfg.positions == "learned":
            self.position = nn.Parameter(torch.empty(context, self.d))
        else:
            self.register_buffer("rotation", _rotation(context, self.d // self.heads), persistent=False)
        self.blocks = nn.ModuleList(Block(self.d) for _ in range(cfg.num_layers))
        self.unembed = nn.Parameter(torch.empty(num_tokens, self.d))
        for name, weight in self.named_parameters():
            residual = name.endswith(("out", "down"))  # their sum over the layers keeps its variance
            std = 0.02 / math.sqrt(2 * cfg.num_layers) if residual else 0.02
            nn.init.normal_(
                weight, std=std if "blocks" not in name or residual else 0.5 / self.d**0.5, generator=generator
            )

    # -- learning --------------------------------------------------------------------------------------------------

    def features(self, prompt: Tensor, mask: Tensor | None, completion: Tensor, *, last: bool = False) -> Tensor:
        """What the model knows before each token of the completions, and after the last one if `last`.

        prompt [P, S] and its mask (None: no padding), completion [P, G, L] -> [P, G, L (+ 1), D], normalised.
        """
        num, size, _ = completion.shape
        inputs = completion if last else completion[..., :-1]
        steps = inputs.shape[-1]
        rows, bias, own_bias = (
            num * prompt.shape[1],
            _bias(mask, self.dtype),
            _causal(steps, prompt.device, self.dtype),
        )
        causal = _causal(prompt.shape[1], prompt.device, self.dtype)
        at = _lengths(prompt, mask)[:, None] + torch.arange(steps, device=prompt.device)  # [P, T]
        x = torch.cat([self._embed(prompt, _positions(prompt, mask)), self._embed(inputs, at[:, None])])
        for layer in self._layers():
            q, k, v = self._heads(layer, x)  # each [rows, H, d_head]
            if self.cfg.positions == "rotary":
                here = _positions(prompt, mask).expand_as(prompt).flatten()
                turn = torch.cat([here, at[:, None].expand(num, size, steps).flatten()])
                q, k = self._turn(q, turn), self._turn(k, turn)
            pq, pk, pv = (_prompts(part[:rows], num) for part in (q, k, v))
            cq, ck, cv = (_completions(part[rows:], num, size) for part in (q, k, v))
            seen = _attend(pq, pk, pv, bias, causal)
            attended = _attend_both(cq, ck, cv, pk, pv, bias, own_bias)
            mixed = torch.cat(
                [
                    seen.permute(0, 2, 1, 3).reshape(rows, -1),
                    attended.permute(0, 2, 3, 1, 4).reshape(len(x) - rows, self.d),
                ]
            )
            x = self._finish(layer, x, mixed)
        first = x[:rows].view(num, 1, -1, self.d)[:, :, -1:].expand(num, size, 1, self.d)
        return _norm(torch.cat([first, x[rows:].view(num, size, steps, self.d)], 2))

    def logits(self, features: Tensor) -> Tensor:
        """[..., D] -> [..., num_tokens], in float32 at least."""
        return F.linear(features, self.unembed.to(self.dtype)).to(torch.promote_types(self.dtype, torch.float32))

    def forward(self, prompt: Tensor, mask: Tensor | None, completion: Tensor) -> Tensor:
        """Logits of each token of the completions: [P, G, L, num_tokens]."""
        return self.logits(self.features(prompt, mask, completion))

    # -- sampling --------------------------------------------------------------------------------------------------

    def begin(self, prompt: Tensor, mask: Tensor | None, size: int, length: int) -> tuple[Tensor, Cache]:
        """Read the prompts once; room for `size` completions of each with up to `length` tokens.

        -> the features before their first token [P, 1, D], and the cache that `extend` goes on with.
        """
        num, start = prompt.shape
        bias, here = _bias(mask, self.dtype), _positions(prompt, mask)
        causal = _causal(start, prompt.device, self.dtype)
        x, layers, pairs = self._embed(prompt, here), self._layers(), []
        for layer in layers:
            q, k, v = self._heads(layer, x)
            if self.cfg.positions == "rotary":
                turn = here.expand_as(prompt).flatten()
                q, k = self._turn(q, turn), self._turn(k, turn)
            q, k, v = (_prompts(part, num) for part in (q, k, v))
            keys, values = x.new_empty(2, start + length, self.d // self.heads, num, self.heads, size)
            keys[:start], values[:start] = (part.permute(2, 3, 0, 1).unsqueeze(-1) for part in (k, v))
            pairs.append((keys, values))
            x = self._finish(layer, x, _attend(q, k, v, bias, causal).permute(0, 2, 1, 3).reshape(len(x), -1))
        wide = None if bias is None else F.pad(bias, (0, length)).permute(3, 0, 1, 2)
        return _norm(x.view(num, -1, self.d)[:, -1:]), Cache(pairs, layers, wide, start, _lengths(prompt, mask))

    def extend(self, cache: Cache, token: Tensor, t: int) -> Tensor:
        """Token t of every completion, [P, G] -> the features after it [P, G, D]."""
        num, size = token.shape
        at, new = cache.length[:, None] + t, cache.start + t
        bias = None if cache.bias is None else cache.bias[: new + 1]
        x = self._embed(token, at)
        for layer, (keys, values) in zip(cache.layers, cache.pairs):
            q, k, v = self._heads(layer, x)
            if self.cfg.positions == "rotary":
                turn = at.expand(num, size).flatten()
                q, k = self._turn(q, turn), self._turn(k, turn)
            q, k, v = (part.unflatten(0, (num, size)).permute(3, 0, 2, 1) for part in (q, k, v))  # [d_head, P, H, G]
            keys[new], values[new] = k, v
            attended = _decode(q.contiguous(), keys[: new + 1], values[: new + 1], bias)
            x = self._finish(layer, x, attended.permute(1, 3, 2, 0).reshape(len(x), -1))
        return _norm(x.view(num, size, self.d))

    # -- parts of a layer ------------------------------------------------------------------------------------------

    def _layers(self) -> list[Layer]:
        return [block.cast(self.dtype) for block in self.blocks]  # type: ignore[operator]

    def _embed(self, tokens: Tensor, at: Tensor) -> Tensor:
        """[..., T] -> rows [N, D]; `at` are the tokens' positions, or broadcast to them."""
        x = F.embedding(tokens, self.embed)
        if self.cfg.positions == "learned":
            x = x + F.embedding(at, self.position)
        return x.to(self.dtype).view(-1, self.d)

    def _heads(self, layer: Layer, x: Tensor) -> list[Tensor]:
        rows = F.linear(_norm(x), layer.qkv)
        return [part.unflatten(-1, (self.heads, -1)) for part in rows.split(self.d, -1)]

    def _finish(self, layer: Layer, x: Tensor, mixed: Tensor) -> Tensor:
        x = x + F.linear(mixed, layer.out)
        return x + F.linear(self.act(F.linear(_norm(x), layer.up)), layer.down)

    def _turn(self, x: Tensor, at: Tensor) -> Tensor:
        """Rotary positions of rows [N, H, d_head] at their positions [N]."""
        cos, sin = self.rotation[:, at].unsqueeze(2).to(x.dtype)
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _prompts(rows: Tensor, num: int) -> Tensor:
    """[num S, H, d_head] -> [num, H, S, d_head]."""
    return rows.unflatten(0, (num, -1)).transpose(1, 2)


def _completions(rows: Tensor, num: int, size: int) -> Tensor:
    """[P G T, H, d_head] -> [P, H, G, T, d_head]."""
    return rows.unflatten(0, (num, size, len(rows) // (num * size))).permute(0, 3, 1, 2, 4)


def _scores(q: Tensor, k: Tensor, bias: Tensor) -> Tensor:
    """q k' / sqrt(d_head) + bias in one call: [..., T, d_head], [..., S, d_head], [T, S] -> [..., T, S]."""
    many, scale = math.prod(q.shape[:-2]), q.shape[-1] ** -0.5
    rows = bias.expand(many, q.shape[-2], k.shape[-2])
    keys = k.reshape(many, *k.shape[-2:]).transpose(1, 2)
    return torch.baddbmm(rows, q.reshape(many, *q.shape[-2:]), keys, alpha=scale).view(*q.shape[:-1], k.shape[-2])


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: Tensor) -> Tensor:
    score = _scores(q, k, causal)
    return (score if bias is None else score + bias).softmax(-1) @ v


def _attend_both(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, bias: Tensor | None, own: Tensor) -> Tensor:
    """Completions q, k, v [P, H, G, T, d_head] over their prompts pk, pv [P, H, S, d_head] and over themselves."""
    num, heads, size, steps, d = q.shape
    past = _scores(q.reshape(num, heads, size * steps, d), pk, own.new_zeros(1, 1))
    past = (past if bias is None else past + bias).view(num, heads, size, steps, pk.shape[2])
    weight = torch.cat([past, _scores(q, k, own)], -1).softmax(-1)
    seen, own_weight = weight.split([pk.shape[2], steps], -1)
    return (seen.reshape(num, heads, size * steps, pk.shape[2]) @ pv).view_as(q) + own_weight @ v


def _decode(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """One token of each completion over all before it: q [d_head, P, H, G], k and v [S + t, d_head, P, H, G]."""
    score = (k * (q * q.shape[0] ** -0.5)).sum(1)  # [S + t, P, H, G]
    if bias is not None:
        score = score + bias
    return (score.softmax(0).unsqueeze(1) * v).sum(0)


def _lengths(prompt: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.full((len(prompt),), prompt.shape[1], device=prompt.device)
    return mask.sum(-1)


def _positions(prompt: Tensor, mask: Tensor | None) -> Tensor:
    """[1 or P, S]: counted from a prompt's first token; the padding before it is at 0."""
    if mask is None:
        return torch.arange(prompt.shape[1], device=prompt.device)[None]
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _bias(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Added to the scores [P, H, ., S]: what nobody may look at."""
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -1e9)[:, None, None]


def _causal(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.full((size, size), -1e9, device=device, dtype=dtype).triu_(1)


def _rotation(context: int, d_head: int) -> Tensor:
    """Cosines and sines [2, context, d_head / 2]."""
    angle = torch.outer(torch.arange(context), 10_000 ** (-torch.arange(0, d_head, 2) / d_head))
    return torch.stack([angle.cos(), angle.sin()])
