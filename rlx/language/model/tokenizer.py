"""Characters to token ids and back.

    ids 0..A-1   the characters of the alphabet, in its order
    end    A     ends a completion
    begin  A+1   begins every prompt

A head has A+1 outputs (begin can never be sampled), an embedding A+2 rows. Padding is `begin` before a prompt and
`end` behind a completion (there an id must be one that a head has), so masks go by position, never by id.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.base.errors import UserError, shown


class Tokenizer:
    """UserError where the alphabet is empty or names a character twice."""

    def __init__(self, alphabet: str) -> None:
        twice = next((c for i, c in enumerate(alphabet) if c in alphabet[:i]), None)
        if not alphabet or twice is not None:
            fault = f"has {twice!r} twice" if alphabet else "is empty"
            raise UserError(f"alphabet={shown(alphabet)}: {fault}; it must be a string of different characters")
        self.alphabet = alphabet
        self.end = len(alphabet)
        self.begin = len(alphabet) + 1
        self.ends = (self.end,)
        self.num_outputs = len(alphabet) + 1
        self.num_inputs = len(alphabet) + 2
        self._code = _codes(alphabet)  # id -> code point
        self._id = np.full(int(self._code.max()) + 2, -1, np.int64)  # code point -> id; the last entry: all beyond
        self._id[self._code] = np.arange(len(alphabet))

    def prompts(self, prompts: Sequence[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Prompts -> ids int64 [P, S], mask bool [P, S]; left-padded, `begin` before the first character.

        S = length + 1; length is that of the longest where it is not given, and ValueError where one is longer.
        """
        lengths, tokens = self._encode(prompts)
        S = _width(lengths, length, "prompt") + 1
        ids = np.full((len(prompts), S), self.begin)
        start = (S - lengths)[:, None]
        position = np.arange(S)
        ids[position >= start] = tokens
        return torch.from_numpy(ids), torch.from_numpy(position >= start - 1)

    def completions(
        self, completions: Sequence[str], length: int, ended: Sequence[bool] | np.ndarray | None = None
    ) -> tuple[Tensor, Tensor]:
        """Completions -> ids int64 [B, L], mask bool [B, L]; right-padded, the end token inside the mask.

        Where `ended` is given and False there is no end token. ValueError where one does not fit.
        """
        lengths, tokens = self._encode(completions)
        ends = np.ones(len(completions), bool) if ended is None else np.asarray(ended, bool)
        total = lengths + ends
        _width(total, length, "completion with its end")
        ids = np.full((len(completions), length), self.end)
        position = np.arange(length)
        ids[position < lengths[:, None]] = tokens
        return torch.from_numpy(ids), torch.from_numpy(position < total[:, None])

    def decode(self, ids: Any, lengths: Any) -> list[str]:
        """The characters among the first `lengths` [B] tokens of each row of ids [B, L]; end and begin are left out."""
        ids, lengths = np.asarray(ids), np.asarray(lengths)
        inside = (np.arange(ids.shape[1]) < lengths[:, None]) & (ids < len(self.alphabet))
        text = self._code[ids[inside]].tobytes().decode("utf-32-le", "surrogatepass")
        stops = inside.sum(1).cumsum().tolist()
        return [text[i:j] for i, j in zip([0, *stops], stops)]

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The length of each text [N], and the ids of all their characters, one after the other."""
        joined = "".join(texts)
        tokens = self._id[np.minimum(_codes(joined), len(self._id) - 1)]
        if (tokens < 0).any():
            stranger = joined[int(np.argmax(tokens < 0))]
            raise UserError(f"character {stranger!r} is not in the alphabet {shown(self.alphabet)}")
        return np.fromiter(map(len, texts), np.int64, len(texts)), tokens


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _width(lengths: np.ndarray, length: int | None, what: str) -> int:
    longest = int(lengths.max(initial=0))
    if length is not None and longest > length:
        raise ValueError(f"a {what} has {longest} tokens; {length} is the most")
    return longest if length is None else length
