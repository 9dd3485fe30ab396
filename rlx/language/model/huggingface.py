"""A local Hugging Face causal language model and its tokenizer behind the interfaces of `gpt.GPT` and
`tokenizer.Tokenizer`: `model=hf model.path=DIR` (extra hf).

Nothing is downloaded and no code of the model's directory is run: config.json, safetensors and the tokenizer's files
are read. Prompts are repeated for their group when learning and read once when sampling.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlx.base import extras
from rlx.base.errors import ConfigError, UserError, shown

NEVER = -1e9  # the logit of a token that has no text; finite, for entropies


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"model=hf: transformers is not installed ({extras.install('hf')})") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def check(path: str) -> tuple["HFTokenizer", int]:
    """The tokenizer of a directory, and how many tokens its model reads. Raises ConfigError where there is no model to
    read, or not one of that tokenizer."""
    if not (Path(path) / "config.json").is_file():
        raise ConfigError(f"model.path={path}: not the directory of a Hugging Face model (no config.json)")
    tokenizer, config = HFTokenizer(path), _config(path)
    size = getattr(config.get_text_config(), "vocab_size", None)
    if size is not None and tokenizer.known[-1] >= size:
        raise ConfigError(
            f"model.path={path}: its tokenizer has ids up to {tokenizer.known[-1]}, its model only {size} embeddings"
        )
    return tokenizer, _context(config)


def _config(path: str) -> Any:
    try:
        return _transformers().AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"model.path={path}: {' '.join(str(error).split())[:300]}") from None


class HFModel(nn.Module):
    """The model of a directory; `outputs` numbers instead of a token's logits where that is given. Without `weights`
    it is only as large as those, which are loaded later. Tokens but the `known` ones are never sampled (None: all are).

    Logits are those of the model's own forward pass, whatever it does to them: `features` and what sampling goes on
    with are then logits already.
    """

    unknown: Tensor | None

    def __init__(
        self, path: str, outputs: int = 0, weights: bool = True, dtype: str = "float32",
        known: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        auto, options = _transformers(), {"trust_remote_code": False, "attn_implementation": "eager"}
        config = _config(path)
        try:
            if weights:
                self.lm = auto.AutoModelForCausalLM.from_pretrained(
                    path, local_files_only=True, use_safetensors=True, dtype=torch.float32, **options
                )
            else:
                self.lm = auto.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.path={path}: {' '.join(str(error).split())[:300]}") from None
        self.lm.eval()  # no dropout: sampling and learning must agree
        with torch.no_grad():
            two = self.lm(input_ids=torch.tensor([[0, 0], [0, 1]])).logits
        if not _is_causal(*two[:, 0]):
            raise ConfigError(f"model.path={path}: its tokens see those behind them (is_decoder in its config.json?)")
        self.context, self.dtype = _context(config), getattr(torch, dtype)
        self.unembed: nn.Parameter | None = None
        if outputs:
            with torch.no_grad():
                one = self.lm.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long))
            self.d = one.last_hidden_state.shape[-1]  # what a configuration calls it differs
            self.unembed = nn.Parameter(torch.zeros(outputs, self.d))
        unknown = torch.ones(two.shape[-1], dtype=torch.bool)
        unknown[[*range(len(unknown))] if known is None else [i for i in known if i < len(unknown)]] = False
        self.register_buffer("unknown", unknown if unknown.any() else None, persistent=False)
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
        if self.unembed is not None:
            return F.linear(features.float(), self.unembed)
        return features.float() if self.unknown is None else features.float().masked_fill(self.unknown, NEVER)

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

    def save(self, place: Path, facts: Mapping[str, str]) -> None:
        """Into a directory that transformers loads; `facts` say what it is."""
        self.lm.save_pretrained(place)
        (place / "rlx.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")

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
    """The tokenizer of a directory, as `tokenizer.Tokenizer`. A prompt begins with what the tokenizer puts before a
    text; an empty prompt for which that is nothing is the begin token, or the end token.

    `ends` are the tokens that end a completion, those of generation_config.json too; `end` is the one that is learnt.
    `known` are the ids that it has a text for.
    """

    def __init__(self, path: str) -> None:
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._own = _transformers().AutoTokenizer.from_pretrained(path, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"model.path={path}: no tokenizer: {' '.join(str(error).split())[:300]}") from None
        self.path, self.digests = path, _digests(self._own)
        if self._own.eos_token_id is None:
            raise ConfigError(f"model.path={path}: its tokenizer has no end token (eos_token)")
        self.known = sorted(self._own.get_vocab().values())
        self.end = int(self._own.eos_token_id)
        self.ends = tuple(dict.fromkeys([self.end, *_further_ends(path)]))
        begin = self._own.bos_token_id
        self.begin = self.end if begin is None else int(begin)
        plain, whole = self._rows(["a"])[0], self._own("a")["input_ids"]
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        self._prefix: list[int] = whole[: starts[0]] if starts else []

    def prompts(self, prompts: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Ids [P, S] padded on the left, and their mask."""
        rows = [[*self._prefix, *row] or [self.begin] for row in self._encode(prompts)]
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
        rows = [row + [self.end] * bool(end) for row, end in zip(self._encode(completions), ends)]
        width = max(map(len, rows), default=1)
        ids = torch.full((len(rows), width), self.end)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row, dtype=torch.long), True
        return ids, mask

    def decode(self, ids: Any, lengths: Any) -> list[str]:
        return self._text([row[:n].tolist() for row, n in zip(np.asarray(ids), np.asarray(lengths))])

    def save(self, place: Path) -> None:
        self._own.save_pretrained(place)

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without beginning and end."""
        return list(map(len, self._rows(texts)))

    def writes(self, ids: Sequence[int], text: str) -> list[int]:
        """Of each character of the text of these ids: the place of the token with which it is there."""
        places: list[int] = []
        for place, whole in enumerate(self._text([list(ids[: n + 1]) for n in range(len(ids))])):
            while len(places) < len(text) and whole.startswith(text[: len(places) + 1]):
                places.append(place)
        return places + [max(0, len(ids) - 1)] * (len(text) - len(places))

    def check(self, task: Any, context: int) -> None:
        """Raises ConfigError for a task that cannot be read or written with these tokens."""
        prompts, answers = task.some_prompts(), task.answers()
        longest = max(map(len, (self._prefix + row for row in self._encode(prompts))), default=0)
        if longest + task.max_new > context:
            raise ConfigError(
                f"model.path={self.path}: reads {context} tokens; task={task.name} needs {longest + task.max_new} "
                f"(a prompt of {longest} and a completion of task.max_new={task.max_new})"
            )
        rows = self._encode(answers)
        for answer, row, again in zip(answers, rows, self._text(rows)):
            if again != answer:
                raise ConfigError(
                    f"model.path={self.path}: its tokenizer makes {again!r} of the answer {answer!r}, which could "
                    f"never be written (task={task.name})"
                )
            if (end := next((token for token in row if token in self.ends), None)) is not None:
                raise ConfigError(
                    f"model.path={self.path}: the answer {answer!r} has the end token "
                    f"{self._own.convert_ids_to_tokens(end)!r} inside (task={task.name})"
                )

    def _text(self, rows: Sequence[list[int]]) -> list[str]:
        return self._own.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        return self._own(list(texts), add_special_tokens=False)["input_ids"] if texts else []

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        rows, unknown = self._rows(texts), self._own.unk_token_id
        for text, row in zip(texts, rows):
            if unknown is not None and unknown in row:
                raise UserError(f"{shown(text)}: has a character that the model's tokenizer does not know")
        return rows


def _further_ends(path: str) -> list[int]:
    """The end tokens of generation_config.json."""
    try:
        ends = json.loads((Path(path) / "generation_config.json").read_text("utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]


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


def _is_causal(one: Tensor, other: Tensor) -> bool:
    """Are these the same logits, before tokens that differ?"""
    return bool((one - other).abs().amax() <= 1e-3 * (one.amax() - one.amin()))


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 10**9)
