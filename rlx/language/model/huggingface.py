"""A local Hugging Face causal language model and its tokenizer behind the interfaces of `gpt.GPT` and
`tokenizer.Tokenizer`: `model=hf model.path=DIR` (extra hf).

Nothing is downloaded and no code of the model's directory is run: config.json, safetensors and the tokenizer's files
are read. Prompts are repeated for their group when learning and read once when sampling.
"""

import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlx.base import extras
from rlx.base.errors import ConfigError, UserError, shown


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"model=hf: transformers is not installed ({extras.install('hf')})") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def check(path: str) -> None:
    """Raises ConfigError where there is no model to read."""
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise ConfigError(f"model.path={path}: not the directory of a Hugging Face model (no config.json)")
    HFTokenizer(path)


class HFModel(nn.Module):
    """The model of a directory; `outputs` numbers instead of a token's logits where that is given. Without `weights`
    it is only as large as those, which are loaded later.

    Logits are those of the model's own forward pass, whatever it does to them: `features` and what sampling goes on
    with are then logits already.
    """

    def __init__(self, path: str, outputs: int = 0, weights: bool = True, dtype: str = "float32") -> None:
        super().__init__()
        auto, options = _transformers(), {"trust_remote_code": False, "attn_implementation": "eager"}
        try:
            config = auto.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            if weights:
                self.lm = auto.AutoModelForCausalLM.from_pretrained(
                    path, local_files_only=True, use_safetensors=True, dtype=torch.float32, **options
                )
            else:
                self.lm = auto.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.path={path}: {' '.join(str(error).split())[:300]}") from None
        self.lm.eval()  # no dropout: sampling and learning must agree
        if not _is_causal(self.lm):
            raise ConfigError(f"model.path={path}: its tokens see those behind them (is_decoder in its config.json?)")
        self.context, self.dtype = _context(config), getattr(torch, dtype)
        self.unembed: nn.Parameter | None = None
        if outputs:
            with torch.no_grad():
                one = self.lm.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long))
            self.d = one.last_hidden_state.shape[-1]  # what a configuration calls it differs
            self.unembed = nn.Parameter(torch.zeros(outputs, self.d))
        self._takes = frozenset(inspect.signature(self.lm.forward).parameters)
        self._caches: bool | None = None  # does what it keeps of a prompt serve padded prompts? None: not tried yet

    def features(self, prompt: Tensor, mask: Tensor | None, completion: Tensor, *, last: bool = False) -> Tensor:
        """As `GPT.features`: [P, S], [P, G, L] -> [P, G, L (+ 1), D or V].

        Each sequence begins at the left, and its padding stands behind it, where no earlier token looks: positions and
        masks are then those that the model gives a sequence alone.
        """
        num, size, _ = completion.shape
        inputs = completion if last else completion[..., :-1]
        tokens = torch.cat([prompt.repeat_interleave(size, 0), inputs.flatten(0, 1)], 1)
        at = torch.arange(prompt.shape[1] - 1, tokens.shape[1], device=tokens.device)  # before the first token on
        if mask is None:
            return self._forward(tokens, int(at[0]))[:, -len(at) :].unflatten(0, (num, size))
        padding = (~mask).sum(-1).repeat_interleave(size)[:, None]  # [P G, 1]
        tokens = tokens.gather(1, (torch.arange(tokens.shape[1], device=tokens.device) + padding) % tokens.shape[1])
        first = int(at[0] - padding.max())
        every = self._forward(tokens, first)
        index = (at - padding - first)[..., None].expand(-1, -1, every.shape[-1])
        return every.gather(1, index).unflatten(0, (num, size))

    def logits(self, features: Tensor) -> Tensor:
        return features.float() if self.unembed is None else F.linear(features.float(), self.unembed)

    def forward(self, prompt: Tensor, mask: Tensor | None, completion: Tensor) -> Tensor:
        return self.logits(self.features(prompt, mask, completion))

    def begin(self, prompt: Tensor, mask: Tensor | None, size: int, length: int) -> tuple[Tensor, Any]:
        """As `GPT.begin`: the prompts are read once and their keys repeated for the group."""
        if self._caches is None:
            self._caches = self._try_cache(prompt.device)
        if not self._caches:
            cache = [prompt, mask, prompt.new_zeros(len(prompt), size, 0)]
            return self.features(prompt, mask, prompt.new_zeros(len(prompt), 1, 1))[:, :, -1], cache
        return self._begin(prompt, mask, size)

    def extend(self, cache: Any, token: Tensor, t: int) -> Tensor:
        if self._caches:
            return self._extend(cache, token)
        cache[2] = torch.cat([cache[2], token[..., None]], -1)
        return self.features(*cache, last=True)[:, :, -1]

    # -- with what is kept of the tokens before ----------------------------------------------------------------------

    def _begin(self, prompt: Tensor, mask: Tensor | None, size: int) -> tuple[Tensor, Any]:
        seen = _all(prompt) if mask is None else mask
        output = self._call(
            input_ids=prompt, attention_mask=seen.long(), position_ids=_positions(seen), use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        keys = output.past_key_values
        keys.batch_repeat_interleave(size)
        return output.logits[:, -1:], [keys, seen.repeat_interleave(size, 0)]

    def _extend(self, cache: Any, token: Tensor) -> Tensor:
        keys, seen = cache
        seen = torch.cat([seen, _all(seen[:, :1])], 1)
        output = self._call(
            input_ids=token.reshape(-1, 1), attention_mask=seen.long(), position_ids=_positions(seen)[:, -1:],
            past_key_values=keys, use_cache=True,
        )  # fmt: skip
        cache[:] = output.past_key_values, seen
        return output.logits[:, -1].unflatten(0, token.shape)

    @torch.no_grad()
    def _try_cache(self, device: torch.device) -> bool:
        """Do padding, positions and cache, which architectures have in their own ways or not at all, leave a few tokens
        the logits that they have without any? Sampling computes all tokens anew each time where they do not."""
        tokens = (7 * torch.arange(16, device=device) % self.lm.get_input_embeddings().weight.shape[0]).view(2, 8)
        prompt, completion = tokens[:, :5], tokens[:, None, 5:].expand(-1, 2, -1)
        mask = torch.arange(5, device=device) >= torch.tensor([[0], [2]], device=device)
        precision, dtype = torch.get_float32_matmul_precision(), self.dtype
        torch.set_float32_matmul_precision("highest")
        self.dtype = torch.float32  # rounding is no disagreement
        try:
            expected = self.features(prompt, mask, completion, last=True)
            logits, cache = self._begin(prompt, mask, 2)
            seen = [logits.expand_as(expected[:, :, 0])]
            seen += [self._extend(cache, completion[..., t]) for t in range(completion.shape[-1])]
        except Exception:  # an architecture may refuse any of this in any way
            return False
        finally:
            torch.set_float32_matmul_precision(precision)
            self.dtype = dtype
        spread = expected.amax() - expected.amin()
        return bool((torch.stack(seen, 2) - expected).abs().amax() <= 1e-3 * spread)

    def _forward(self, tokens: Tensor, first: int) -> Tensor:
        """Logits, or what they are made of, of all tokens from the place `first` on at least: [B, T'] -> [B, .., V]."""
        if self.unembed is not None:
            with self._precision(tokens):
                return self.lm.base_model(input_ids=tokens).last_hidden_state[:, first:]
        logits = self._call(input_ids=tokens, use_cache=False, logits_to_keep=tokens.shape[1] - first).logits
        return logits[:, first - tokens.shape[1] :]

    def _call(self, **inputs: Any) -> Any:
        """The model's own forward pass, with those of the inputs that it takes."""
        with self._precision(inputs["input_ids"]):
            return self.lm(**{name: value for name, value in inputs.items() if name in self._takes})

    def _precision(self, tokens: Tensor) -> torch.autocast:
        return torch.autocast(tokens.device.type, self.dtype, enabled=self.dtype != torch.float32)


class HFTokenizer:
    """The tokenizer of a directory, as `tokenizer.Tokenizer`. A prompt begins with its begin token where it has one;
    an empty prompt is that token, or the end token."""

    def __init__(self, path: str) -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._own = _transformers().AutoTokenizer.from_pretrained(path, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.path={path}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
        self.path, self.digests = path, _digests(self._own)
        if self._own.eos_token_id is None:
            raise ConfigError(f"model.path={path}: its tokenizer has no end token (eos_token)")
        self.end = int(self._own.eos_token_id)
        begin = self._own.bos_token_id
        self.begin = self.end if begin is None else int(begin)
        self._prefix = [] if begin is None else [self.begin]

    def prompts(self, prompts: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids [P, S] padded on the left, and their mask."""
        rows = [[*self._prefix, *self._encode(prompt)] or [self.begin] for prompt in prompts]
        width = max(map(len, rows), default=1)
        ids = torch.full((len(rows), width), self.begin)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), True
        return ids, mask

    def completions(
        self, completions: Sequence[str], length: int, ended: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids [B, L] padded on the right, end tokens inside, and their mask. L is what the longest needs: `length`
        counts characters, and a token may be more than one or less."""
        ends = [True] * len(completions) if ended is None else ended
        rows = [self._encode(text) + [self.end] * bool(end) for text, end in zip(completions, ends)]
        width = max(map(len, rows), default=1)
        ids = torch.full((len(rows), width), self.end)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), True
        return ids, mask

    def decode(self, ids: Any, lengths: Any) -> list[str]:
        rows = [row[:n].tolist() for row, n in zip(np.asarray(ids), np.asarray(lengths))]
        return self._own.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._own(text, add_special_tokens=False)["input_ids"]
        if self._own.unk_token_id is not None and self._own.unk_token_id in tokens:
            raise UserError(f"{shown(text)}: has a character that the model's tokenizer does not know")
        return tokens


def _digests(own: Any) -> dict[str, str]:
    """sha256 of the ids of a tokenizer's tokens, and of all that it does."""
    ids = json.dumps([sorted(own.get_vocab().items()), own.bos_token_id, own.eos_token_id])
    backend = getattr(own, "backend_tokenizer", None)
    whole = ids + (backend.to_str() if backend else type(own).__name__)
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in (("ids", ids), ("whole", whole))}


def _all(tokens: Tensor) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool)


def _positions(mask: Tensor) -> Tensor:
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def _is_causal(lm: Any) -> bool:
    """Does a token leave the logits before it as they are?"""
    one, other = lm(input_ids=torch.tensor([[0, 0], [0, 1]])).logits[:, 0]
    return bool((one - other).abs().amax() <= 1e-3 * (one.amax() - one.amin()))


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 10**9)
