"""Each task against an oracle of another kind: int, sorted, Python's eval, numbers by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pytest
from some_tasks import config, noise, rng, task

from rlx.base.errors import ConfigError
from rlx.language.tasks.base import positions

# -- each task against an oracle -------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [1, 2, 3, 25])
def test_add_is_addition_of_whole_numbers(digits: int) -> None:
    it = task("add", digits=digits)
    for prompt in it.prompts(rng(), 500):
        a, b = re.fullmatch(rf"(\d{{{digits}}})\+(\d{{{digits}}})=", prompt).groups()
        assert int(it.answer(prompt)[::-1]) == int(a) + int(b)
        assert len(it.answer(prompt)) == digits + 1 == it.max_new - 1
        assert not it.correct(prompt, str(int(a) + int(b) + 1).zfill(digits + 1)[::-1], True)


def test_every_sum_of_two_digits_is_drawn() -> None:
    assert len(set(task("add", digits=1).draw(rng(), 2_000))) == 100


@pytest.mark.parametrize("name, oracle", [("copy", list), ("reverse", lambda s: list(reversed(s))), ("sort", sorted)])
def test_sequences_come_out_in_their_order(name: str, oracle: Callable[[str], list[str]]) -> None:
    it = task(name, length=9, symbols=13)
    assert it.symbols == "0123456789abc"
    for prompt in it.prompts(rng(), 500):
        assert prompt[-1] == "=" and len(prompt) == 10
        assert list(it.answer(prompt)) == oracle(prompt[:-1])


def test_a_scratch_bit_is_the_parity_of_the_bits_so_far() -> None:
    it = task("parity")
    for prompt in it.prompts(rng(), 300):
        assert it.answer(prompt) == "".join(str(prompt[: i + 1].count("1") % 2) for i in range(len(prompt) - 1))


def test_count_wants_that_many_letters_then_the_end() -> None:
    it = task("count")
    assert set(it.draw(rng(), 1_000)) == {f"{n}=" for n in range(1, 13)}
    for n, m in product(range(1, 13), range(it.max_new)):
        assert it.correct(f"{n}=", "a" * m, True) == (n == m)
        assert it.well_formed(f"{n}=", "a" * m, True) == (m > 0)
    assert it.max_new > 12 + 1 and task("count", max_new=None).max_new > 12 + 1
    with pytest.raises(ConfigError, match="task.max_new=13: must be at least 14, what task=count needs"):
        task("count", max_new=13)


def right_expression(prompt: str, text: str) -> bool:
    """Python's own arithmetic, on what has been looked at character by character."""
    numbers, target = prompt[:-1].split(":")
    if len(text) % 2 == 0 or not all(c in ("123456789" if i % 2 == 0 else "+-*") for i, c in enumerate(text)):
        return False
    return sorted(text[::2]) == sorted(numbers.split(",")) and eval(text) == int(target)


@pytest.mark.parametrize("numbers, operations", [(2, "+-"), (3, "+-"), (3, "+-*"), (4, "+*"), (3, "-")])
def test_countdown_verifies_what_python_computes(numbers: int, operations: str) -> None:
    it = task("countdown", numbers=numbers, operations=operations)
    draw, right = random.Random(1), 0
    for prompt in it.prompts(rng(), 300):
        solutions = set(it.solutions(prompt))
        assert it.answer(prompt) in solutions
        for _ in range(30):
            digits = draw.sample(prompt.split(":")[0].split(","), numbers)
            if draw.random() < 0.2:
                digits[0] = draw.choice("123456789")
            text = "".join(d + draw.choice(operations) for d in digits)[:-1]
            if draw.random() < 0.1:
                text = "".join(draw.choices(it.alphabet, k=len(text)))
            assert it.correct(prompt, text, True) == right_expression(prompt, text) == (text in solutions)
            right += it.correct(prompt, text, True)
    assert right > 300


def test_countdown_has_several_right_answers_and_takes_any() -> None:
    it = task("countdown")
    assert set(it.solutions("3,7,2:8=")) == {"3-2+7", "3+7-2", "7-2+3", "7+3-2"}
    thirds = {"3+7-2": 3, "7-2+3": 3, "3+7+2": 2, "9-1": 1, "8": 1, "8=": 0, "-2+7+3": 0, "3+7-2+": 0, "(3+7)-2": 0}
    dense = task("countdown", reward="dense")
    for text, credit in thirds.items():
        assert dense.reward("3,7,2:8=", text, True) == credit / 3
        assert dense.well_formed("3,7,2:8=", text, True) == (credit >= 1)
        assert dense.reward("3,7,2:8=", text, False) == 0
    assert not it.well_formed("2,3:6=", "2*3", True)  # an operation this task has not


# -- positions and steps ---------------------------------------------------------------------------------------


def test_right_positions_by_hand() -> None:
    assert positions("531", "531", True) == [True] * 4
    assert positions("531", "521", True) == [True, False, True, True]
    assert positions("531", "531", False) == [True, True, True, False]
    assert positions("531", "5317", False) == [True, True, True, False]
    assert positions("531", "531755", True) == [True] * 3 + [False] * 4
    assert positions("531", "5", True) == [True, False, False, False]
    assert positions("531", "", True) == [False] * 4
    assert positions("", "", True) == [True]


def test_ending_pays_in_the_dense_reward() -> None:
    """The trap: a policy that knows nothing and never ends must earn less than one that ends in time."""
    it, draw = task("sort", reward="dense", max_new=16), random.Random(1)
    mean = {}
    for length, ended in ((8, True), (15, True), (16, False), (3, True)):
        guesses = [(p, "".join(draw.choices(it.symbols, k=length)), ended) for p in it.prompts(rng(), 500)]
        mean[length] = np.mean([it.reward(*guess) for guess in guesses])
    assert mean[8] > 2 * max(mean[3], mean[15], mean[16])


@pytest.mark.parametrize("name", ["copy", "reverse", "sort", "parity"])
def test_steps_are_the_tokens_and_all_right_exactly_if_the_answer_is(name: str) -> None:
    it = task(name)
    for prompt, text, ended in noise(it):
        steps = it.step_rewards(prompt, text, ended)
        assert [index for index, _ in steps] == list(range(len(text) + ended))
        assert {reward for _, reward in steps} <= {0.0, 1.0}
        total = sum(reward for _, reward in steps)
        assert (ended and total == len(steps) == it.length + 1) == it.correct(prompt, text, ended)


@pytest.mark.parametrize("name", ["copy", "reverse", "sort"])
def test_step_rewards_add_up_to_the_dense_reward(name: str) -> None:
    it = task(name, reward="dense")
    for row in noise(it):
        total = sum(reward for _, reward in it.step_rewards(*row))
        assert it.reward(*row) == total / max(it.length + 1, len(row[1]) + row[2])


def test_only_the_bit_that_makes_the_mistake_is_blamed() -> None:
    it = task("parity", length=6)
    assert it.answer("110100=") == "100111"
    assert [r for _, r in it.step_rewards("110100=", "100111", True)] == [1] * 7
    flipped = it.step_rewards("110100=", "101000", True)  # wrong from the third bit on, by one mistake
    assert [r for _, r in flipped] == [1, 1, 0, 1, 1, 1, 1]
    assert it.dense("110100=", "101000", True) == 3 / 7  # the outcome blames all that follows
    assert [r for _, r in it.step_rewards("110100=", "1001110", True)] == [1] * 6 + [0, 0]
    assert [r for _, r in it.step_rewards("110100=", "10=1", False)] == [1, 1, 0, 0]
    assert [r for _, r in it.step_rewards("110100=", "1", True)] == [1, 0]


# -- names -----------------------------------------------------------------------------------------------------


def test_the_rule_of_names_by_hand() -> None:
    it = task("names")
    rule = {
        "baka": 0.0,  # no soft consonant
        "bora": 1 / 4,
        "rona": 2 / 4,
        "lamino": 3 / 4,
        "marlino": 4 / 4,
        "marlinan": 3 / 4 * 6 / 8,  # one too many, and a and n twice
        "llllllll": 0.0,
        "ma": 0.0,  # too short
        "marlinobaku": 0.0,  # too long
    }
    for name, reward in rule.items():
        assert it.reward("", name, True) == pytest.approx(reward)
        assert it.correct("", name, True) == (reward >= 0.7)
    assert it.reward("", "marlino", False) == 0.0


def test_the_corpus_of_names_leaves_room_above_it() -> None:
    it = task("names")
    corpus = it.text(rng(), 20_000)
    assert corpus[:50] == it.text(rng(), 20_000)[:50]
    assert all(it.well_formed("", name, True) and len(name) < it.max_new for name in corpus)
    rewards = np.array([it.reward("", name, True) for name in corpus])
    soft = np.array([sum(map(name.count, "lmnr")) for name in corpus])
    assert 0.25 < rewards.mean() < 0.31 and rewards.std() > 0.15
    assert 0.005 < np.mean(rewards >= 0.7) < 0.05  # few are good, but there are some
    assert np.mean(soft > 3) < 0.02 and len(set(corpus)) > 10_000
    assert not hasattr(it, "answer")


def test_a_proxy_fitted_to_the_corpus_can_be_over_optimised() -> None:
    """Bradley-Terry on letter counts, right about most pairs. Changing names letter by letter to what it likes best
    raises the true reward first, then lowers it below where it began."""
    it = task("names")

    def features(name: str) -> np.ndarray:
        return np.array([name.count(letter) for letter in it.alphabet] + [len(name)])

    difference = np.array([features(better) - features(worse) for _, better, worse in it.pairs(rng(), 3_000)])
    w = np.zeros(27)
    for _ in range(300):
        w += 0.5 * (difference.T @ (1 / (1 + np.exp(difference @ w))) / len(difference) - 1e-3 * w)
    assert np.mean(difference @ w > 0) > 0.85
    liked = dict(zip(it.alphabet, w))
    best = max(liked, key=liked.get)
    names, curve = it.text(rng(2), 300), []
    for _ in range(9):
        curve.append(np.mean([it.reward("", name, True) for name in names]))
        names = [name.replace(min(name, key=liked.get), best, 1) for name in names]
    assert best in "lmnr"
    assert max(curve) > 1.5 * curve[0] and curve[-1] < curve[0] / 2


# -- enumerable ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letters, L", [(4, 4), (2, 1), (3, 5)])
def test_all_completions_have_probability_1_together(letters: int, L: int) -> None:
    it = task("enumerable", letters=letters, max_new=L)
    found = it.all_completions()
    assert len(found) == len(set(found)) == sum(letters**n for n in range(L)) + letters**L
    end = 0.3  # of a policy that ends with this probability, each letter equally likely else
    mass = sum(((1 - end) / letters) ** len(text) * (end if ended else 1.0) for text, ended in found)
    assert mass == pytest.approx(1.0, rel=1e-12)
    tokens = [text + "." * ended for text, ended in found]
    assert all(len(t) == L or t.endswith(".") for t in tokens)
    assert not any(a != b and b.startswith(a) for a in tokens for b in tokens)  # no one begins another


def test_the_reward_table_is_sparse_and_never_changes() -> None:
    it = task("enumerable")
    rewards = {row: it.reward("", *row) for row in it.all_completions()}
    values = np.array(list(rewards.values()))
    assert len(values) == 341 and values.min() == 0.0 and values.max() == 1.0 and (values == 1.0).sum() == 1
    assert 0.05 < np.mean(values > 0) < 0.15
    assert max(rewards, key=rewards.get) == ("abbd", False)
    g = (Decimal(5).sqrt() - 1) / 2  # g^2 = 1 - g, so that k g + k^2 g^2 and g (k - k^2) have the same fraction
    x = np.array([float((g * (k - k * k)) % 1 + (k > 1)) for k in range(341)])
    assert values == pytest.approx(np.maximum(0, 1 - 10 * (x.max() - x)), abs=1e-9)
    exact = task("enumerable", reward="exact")
    assert [row for row in rewards if exact.reward("", *row)] == [("abbd", False)]
    assert it.reward("", "abcda", False) == it.reward("", "x", True) == it.reward("", "abcd", True) == 0.0


@pytest.mark.parametrize("changes, fault", [({"max_new": None}, "max_new=null"), ({"letters": 20}, "letters=20: too")])
def test_what_cannot_be_enumerated_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        config("enumerable", **changes)
