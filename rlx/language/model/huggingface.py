"""A local Hugging Face causal language model and its tokenizer behind the interfaces of `gpt.GPT` and
`tokenizer.Tokenizer`: `model=hf model.path=DIR` (extra hf).

Nothing is downloaded and no code of the model's directory is run: config.json, safetensors and the tokenizer's files
are read. Prompts are repeated for their group when learning and read once when sampling.
"""

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
    return transformers


def check(path: str) -> None:
    """Raises ConfigError where there is no model to read."""
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise ConfigError(f"model.path={path}: not the directory of a Hugging Face model (no config.json)")
    HFTokenizer(path)


class HFModel(nn.Module):
    """The model of a directory; `outputs` numbers instead of a token's logits where that is given. Without `weights`
    it is only as large as those, which are loaded later."""

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
        self.d, self.context = config.get_text_config().hidden_size, _context(config)
        self.dtype = getattr(torch, dtype)
        self.unembed = nn.Parameter(torch.zeros(outputs, self.d)) if outputs else None

    def features(self, prompt: Tensor, mask: Tensor | None, completion: Tensor, *, last: bool = False) -> Tensor:
        """As `GPT.features`: [P, S], [P, G, L] -> [P, G, L (+ 1), D]."""
        num, size, length = completion.shape
        inputs = completion if last else completion[..., :-1]
        seen = _all(prompt) if mask is None else mask
        tokens = torch.cat([prompt.repeat_interleave(size, 0), inputs.flatten(0, 1)], 1)
        inside = torch.cat([seen.repeat_interleave(size, 0), _all(inputs.flatten(0, 1))], 1)
        hidden = self._body(input_ids=tokens, attention_mask=inside.long(), position_ids=_positions(inside))
        return hidden.last_hidden_state[:, prompt.shape[1] - 1 :].unflatten(0, (num, size))

    def logits(self, features: Tensor) -> Tensor:
        if self.unembed is not None:
            return F.linear(features.float(), self.unembed)
        return self.lm.get_output_embeddings()(features).float()

    def forward(self, prompt: Tensor, mask: Tensor | None, completion: Tensor) -> Tensor:
        return self.logits(self.features(prompt, mask, completion))

    def begin(self, prompt: Tensor, mask: Tensor | None, size: int, length: int) -> tuple[Tensor, Any]:
        """As `GPT.begin`: the prompts are read once and their keys repeated for the group."""
        seen = _all(prompt) if mask is None else mask
        output = self._body(input_ids=prompt, attention_mask=seen.long(), position_ids=_positions(seen), use_cache=True)
        keys = output.past_key_values
        keys.batch_repeat_interleave(size)
        return output.last_hidden_state[:, -1:], [keys, seen.repeat_interleave(size, 0)]

    def extend(self, cache: Any, token: Tensor, t: int) -> Tensor:
        keys, seen = cache
        seen = torch.cat([seen, _all(seen[:, :1])], 1)
        cache[1] = seen
        output = self._body(
            input_ids=token.reshape(-1, 1), attention_mask=seen.long(), position_ids=_positions(seen)[:, -1:],
            past_key_values=keys, use_cache=True,
        )  # fmt: skip
        return output.last_hidden_state[:, 0].view(*token.shape, self.d)

    def _body(self, **inputs: Any) -> Any:
        with torch.autocast(inputs["input_ids"].device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.lm.base_model(**inputs)


class HFTokenizer:
    """The tokenizer of a directory, as `tokenizer.Tokenizer`. A prompt begins with its begin token where it has one;
    an empty prompt is that token, or the end token."""

    def __init__(self, path: str) -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._own = _transformers().AutoTokenizer.from_pretrained(path, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.path={path}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
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


def _all(tokens: Tensor) -> Tensor:
    return torch.ones_like(tokens, dtype=torch.bool)


def _positions(mask: Tensor) -> Tensor:
    return (mask.long().cumsum(-1) - 1).clamp(min=0)


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 10**9)
