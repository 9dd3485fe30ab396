"""Characters to tokens: against arrays written by hand, and against one character at a time."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from rlx.base.errors import UserError
from rlx.language.model.tokenizer import Tokenizer

ALPHABETS = ["0123456789+=", "ab", " \n\t\0", "äößé£", "αβγ→", "a𝄞😀b", "\ud800x"]


def test_ids_are_the_characters_then_end_then_begin() -> None:
    tokenizer = Tokenizer("ab=")
    assert (tokenizer.end, tokenizer.begin) == (3, 4)
    assert (tokenizer.num_outputs, tokenizer.num_inputs) == (4, 5)  # begin is no output: it can never be sampled


def test_prompts_are_left_padded_behind_begin() -> None:
    ids, mask = Tokenizer("ab=").prompts(["ab=", "b", ""])
    assert ids.dtype == torch.int64 and mask.dtype == torch.bool
    assert ids.tolist() == [[4, 0, 1, 2], [4, 4, 4, 1], [4, 4, 4, 4]]
    assert mask.tolist() == [[True] * 4, [False, False, True, True], [False, False, False, True]]


def test_a_longer_width_only_adds_padding_on_the_left() -> None:
    tokenizer = Tokenizer("ab=")
    ids, mask = tokenizer.prompts(["ab=", "b"])
    wide, wide_mask = tokenizer.prompts(["ab=", "b"], length=6)
    assert wide.shape == (2, 7)
    assert torch.equal(wide[:, 3:], ids) and torch.equal(wide_mask[:, 3:], mask)
    assert (wide[:, :3] == tokenizer.begin).all() and not wide_mask[:, :3].any()


def test_completions_are_right_padded_with_the_end_inside_the_mask() -> None:
    ids, mask = Tokenizer("ab=").completions(["ab", ""], 4)
    assert ids.tolist() == [[0, 1, 3, 3], [3, 3, 3, 3]]
    assert mask.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_a_completion_that_has_not_ended_has_no_end_token() -> None:
    ids, mask = Tokenizer("ab=").completions(["ab=", "b"], 3, ended=[False, True])
    assert ids.tolist() == [[0, 1, 2], [1, 3, 3]]
    assert mask.tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=ascii)
def test_encoding_is_a_lookup_of_each_character_and_decoding_inverts_it(alphabet: str) -> None:
    tokenizer, draw = Tokenizer(alphabet), random.Random(1)
    texts = ["".join(draw.choices(alphabet, k=draw.randrange(7))) for _ in range(100)]
    ids, mask = tokenizer.completions(texts, 8)
    for text, row, inside in zip(texts, ids.tolist(), mask.tolist()):
        assert row[: len(text) + 1] == [alphabet.index(c) for c in text] + [len(alphabet)]
        assert inside == [i <= len(text) for i in range(8)]
    assert tokenizer.decode(ids, mask.sum(1)) == texts
    prompts, mask = tokenizer.prompts(texts)
    for text, row, inside in zip(texts, prompts.tolist(), mask.tolist()):
        tokens = [token for token, here in zip(row, inside) if here]
        assert tokens == [tokenizer.begin] + [alphabet.index(c) for c in text]


def test_every_id_of_a_completion_is_an_output_of_the_head() -> None:
    """Log-probs are gathered at padding too, before the mask."""
    tokenizer = Tokenizer("ab=")
    assert int(tokenizer.completions(["ab=", "", "b"], 6)[0].max()) < tokenizer.num_outputs


def test_decode_reads_no_further_than_the_length() -> None:
    tokenizer = Tokenizer("ab=")
    assert tokenizer.decode(np.array([[0, 1, 2], [0, 1, 3], [3, 0, 0]]), [2, 3, 1]) == ["ab", "ab", ""]


def test_an_empty_batch_has_no_rows() -> None:
    tokenizer = Tokenizer("ab")
    assert tokenizer.prompts([])[0].shape == (0, 1)
    assert tokenizer.completions([], 3)[0].shape == (0, 3)
    assert tokenizer.decode(np.zeros((0, 3), np.int64), []) == []


@pytest.mark.parametrize("stranger", ["x", "\0", "é", "→", "😀", "\uffff"])
def test_a_character_outside_the_alphabet_is_named_with_the_alphabet(stranger: str) -> None:
    with pytest.raises(UserError) as error:
        Tokenizer("ab=").prompts(["ab", f"a{stranger}b"])
    assert str(error.value) == f"character {stranger!r} is not in the alphabet ab="


@pytest.mark.parametrize("alphabet, fault", [("", "alphabet='': is empty"), ("abca", "alphabet=abca: has 'a' twice")])
def test_an_alphabet_has_different_characters(alphabet: str, fault: str) -> None:
    with pytest.raises(UserError, match=f"^{fault}"):
        Tokenizer(alphabet)


def test_what_does_not_fit_is_refused_not_cut() -> None:
    tokenizer = Tokenizer("ab")
    with pytest.raises(ValueError, match="3 tokens; 2 is the most"):
        tokenizer.completions(["ab"], 2)
    with pytest.raises(ValueError, match="2 tokens; 1 is the most"):
        tokenizer.prompts(["ab"], length=1)
