"""Evaluation: pass@k and maj@k against what they estimate, and numbers that depend on the seed alone."""

from itertools import combinations
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_lm import policy

from rlx.language import evaluate
from rlx.language.evaluate import majority, pass_at, report

pytestmark = pytest.mark.usefixtures("float64")
CFG = SimpleNamespace(algo=SimpleNamespace(temperature=0.9))


def test_pass_at_k_is_the_share_of_the_draws_of_k_samples_with_a_right_one():
    """Every subset of k of the n samples, counted."""
    for n in (1, 4, 6):
        for right in range(n + 1):
            samples = [1] * right + [0] * (n - right)
            for k in range(1, n + 1):
                draws = [any(draw) for draw in combinations(samples, k)]
                assert pass_at([right], n, k) == pytest.approx(sum(draws) / len(draws))


def test_pass_at_k_is_unbiased_for_one_minus_all_wrong():
    """A policy that is right with p: over Binomial(n, p), its mean is 1 - (1 - p)^k."""
    n, k = 8, 4
    for p in (0.1, 0.5):
        mean = sum(comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at([c], n, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k)
    assert pass_at([0, 8], 8, 3) == 0.5


def test_maj_at_k_by_hand():
    texts = [
        ["12", "12", "21", "7"],  # 12 wins and is wrong
        ["21", "12", "21", "12"],  # a tie: 21 came first, and is right
        ["7", "12", "12", "12"],
        ["21", "21", "21", "21"],
    ]
    correct = np.array([[text == "21" for text in row] for row in texts], float)
    assert majority(texts, correct, 4) == 2 / 4
    assert majority(texts, correct, 3) == 2 / 4
    assert majority(texts, correct, 1) == 2 / 4  # the first ones: 12, 21, 7, 21
    assert majority(texts[:1], correct[:1], 4) == 0.0
    other = np.array([[text == "12" for text in row] for row in texts], float)
    assert [majority(texts, other, k) for k in (1, 2, 3, 4)] == [0.25, 0.25, 0.5, 0.5]


def test_a_report_by_hand():
    """A policy of four prompts that answers from a list: k = 3 samples of each."""
    said = {"a": "xxy", "b": "xzz", "c": "zzz", "d": "yyx"}  # x is right, z is malformed
    task = SimpleNamespace(
        name="hand",
        prompts=lambda rng, n, held_out: ["a", "b", "c", "d"] if held_out and n == 4 else None,
        reward=lambda prompt, text, ended: 2.0 * (text == "x"),
        correct=lambda prompt, text, ended: text == "x",
        well_formed=lambda prompt, text, ended: text != "z",
    )

    def generate(prompts, size, rng, temperature=1.0):
        assert temperature == (0.9 if rng else 1.0)
        texts = [text for prompt in prompts for text in (said[prompt] if rng else "y")]
        ended = torch.tensor([text != "z" for text in texts])
        return SimpleNamespace(ended=ended, lengths=torch.tensor([3 if text == "z" else 1 for text in texts])), texts

    found = report(SimpleNamespace(task=task, generate=generate), CFG, prompts=4, seed=7, k=3)
    assert found == {
        "greedy_accuracy": 0.0,
        "sampled_accuracy": pytest.approx(4 / 12),
        "reward": pytest.approx(8 / 12),
        "format": pytest.approx(7 / 12),
        "pass_at": {"1": pytest.approx(4 / 12), "2": pytest.approx((1 + 2 / 3 + 0 + 2 / 3) / 4), "3": 0.75},
        "maj_at": {"1": 0.5, "2": 0.5, "3": 0.25},
        "mean_length": pytest.approx((7 * 1 + 5 * 3) / 12),
        "ended": pytest.approx(7 / 12),
        "prompts": 4,
        "seed": 7,
    }


@pytest.mark.parametrize("rows", [4, 12, 40])
def test_the_numbers_are_the_same_twice_and_however_many_are_sampled_at_a_time(monkeypatch, rows):
    mine = policy("parity", length=1)
    whole = report(mine, CFG, prompts=32, seed=3, k=4)
    assert 0 < whole["sampled_accuracy"] < 1 and whole["pass_at"].keys() == {"1", "2", "4"}
    assert report(mine, CFG, prompts=32, seed=3, k=4) == whole
    monkeypatch.setattr(evaluate, "ROWS", rows)
    assert report(mine, CFG, prompts=32, seed=3, k=4) == whole
    assert report(mine, CFG, prompts=32, seed=4, k=4) != whole


def test_a_report_counts_what_its_samples_are():
    """Drawn again with the same generator, and judged one by one."""
    mine, rng = policy("parity", length=1), np.random.default_rng([3, 1])
    asked = mine.task.prompts(rng, 32, held_out=True)
    found, texts = mine.generate(asked, 4, rng, 0.9)
    rows = list(zip([prompt for prompt in asked for _ in range(4)], texts, found.ended.tolist()))
    right = np.array([mine.task.correct(*row) for row in rows]).reshape(32, 4)
    numbers = report(mine, CFG, prompts=32, seed=3, k=4)
    assert numbers["sampled_accuracy"] == numbers["pass_at"]["1"] == right.mean()
    assert numbers["pass_at"]["4"] == right.any(1).mean()
    assert numbers["maj_at"]["1"] == right[:, 0].mean()
    assert numbers["reward"] == pytest.approx(np.mean([mine.task.reward(*row) for row in rows]))
    assert numbers["mean_length"] == float(found.lengths.double().mean())
    greedy = mine.complete(asked)
    expected = [mine.task.correct(prompt, it.text, it.ended) for prompt, it in zip(asked, greedy)]
    assert numbers["greedy_accuracy"] == np.mean(expected)
