"""The completions that are shown: which ones, their numbers, the table in TensorBoard, the page, and at what price."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from language_runs import train
from reading import Reader
from some_tasks import rng
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tiny_lm import policy, run, stir
from tiny_runs import result

from rlx.algos.dpo import summed
from rlx.language import preferences
from rlx.language.ranks import Ranks
from rlx.language.rollout import Groups, collect
from rlx.language.show import completions


def cfg(samples: int, temperature: float = 1.0, **algo: Any) -> Any:
    return SimpleNamespace(samples=samples, algo=SimpleNamespace(temperature=temperature, **algo))


def drawn(temperature: float = 0.7) -> tuple[Any, Groups]:
    it = policy("parity", seed=9, length=6, reward="dense")  # some of its completions end, some are cut
    return it, collect(it, it.task.prompts(rng(), 3), 4, rng(2), temperature, Ranks())


# -- which ones --------------------------------------------------------------------------------------------------


def test_the_group_of_the_largest_spread_is_shown_first_and_whole_from_the_best_to_the_worst() -> None:
    reward = torch.tensor([[0.5, 0.5, 0.5], [0.0, 1.0, 0.4], [0.2, 0.1, 0.3]])
    assert completions.choose(reward, 6) == [(1, [1, 2, 0]), (2, [2, 0, 1])]


@pytest.mark.parametrize("num", range(14))
def test_as_many_completions_are_shown_as_are_asked_for_and_none_twice(num: int) -> None:
    shown = completions.choose(torch.from_numpy(rng().random((3, 4))), num)
    assert sum(len(members) for _, members in shown) == min(num, 12)
    assert all(len(set(members)) == len(members) for _, members in shown)
    assert all(len(members) == 4 for _, members in shown[:-1])  # whole groups


def test_of_a_group_that_does_not_fit_the_best_and_the_worst_are_shown() -> None:
    reward = torch.tensor([[0.3, 0.9, 0.1, 0.5, 0.7]])
    assert completions.choose(reward, 3) == [(0, [1, 3, 2])]
    assert completions.choose(reward, 1) == [(0, [1])]


# -- the numbers -------------------------------------------------------------------------------------------------


def by_hand(model: Any, prompt: torch.Tensor, tokens: torch.Tensor, temperature: float) -> np.ndarray:
    """Log-probs of one completion [length] of one prompt, by numpy's softmax of the logits."""
    z = model(prompt[None], None, tokens[None, None])[0, 0].detach().numpy() / temperature
    p = np.exp(z - z.max(-1, keepdims=True))
    return np.log(p / p.sum(-1, keepdims=True))[np.arange(len(tokens)), tokens.numpy()]


def tips(titles: list[str]) -> list[dict[str, float]]:
    """The numbers of each token of a row."""
    return [{name: float(x) for name, x in (line.rsplit(" ", 1) for line in title.split("\n"))} for title in titles]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kept", [True, False])
def test_the_numbers_of_every_token_are_those_computed_by_hand(kept: bool) -> None:
    it, groups = drawn(temperature=0.7)
    old, reference = copy.deepcopy(it.model), policy("parity", seed=3, length=6).model
    advantage = torch.randn(groups.tokens.shape)
    ref_logprob = torch.zeros(groups.tokens.shape)
    where = [(p, g, int(groups.lengths[p, g])) for p in range(3) for g in range(4)]
    for p, g, n in where:
        row = (groups.prompt[p], groups.tokens[p, g, :n], 0.7)
        ref_logprob[p, g, :n] = torch.from_numpy(by_hand(reference, *row))
    for weight in it.model.parameters():  # the update
        weight.data.add_(0.05 * torch.randn(weight.shape))

    shown = completions.of_groups(cfg(12, 0.7), run(), it, groups, advantage, ref_logprob if kept else None, {})
    assert shown is not None
    told = Reader(shown.html)
    order = [(p, g) for p, members in completions.choose(groups.reward, 12) for g in members]
    assert len(order) == len(told.rows) - 1 == 12
    names = ("advantage", "ratio", "KL") if kept else ("advantage", "ratio")
    for (p, g), cells, titles in zip(order, told.rows[1:], told.titles[1:]):
        n = int(groups.lengths[p, g])
        row = (groups.prompt[p], groups.tokens[p, g, :n], 0.7)
        new, before = by_hand(it.model, *row), by_hand(old, *row)
        gap = ref_logprob[p, g, :n].numpy() - new
        expected = {
            "advantage": advantage[p, g, :n].numpy(), "ratio": np.exp(new - before), "KL": np.expm1(gap) - gap,
        }  # fmt: skip
        numbers = tips(titles)
        assert len(numbers) == n and all(tuple(token) == names for token in numbers)
        for name in names:  # they are shown with three digits behind the point, or four
            digits = 5e-5 if name == "KL" else 5e-4
            assert [token[name] for token in numbers] == pytest.approx(expected[name], abs=1.01 * digits), name
        text = groups.texts[4 * p + g]
        stop = "end" if groups.ended[p, g] else "cut"
        assert [f"{text}{stop}", f"{groups.reward[p, g]:.3f}", f"{expected['advantage'].mean():+.3f}"] == cells[-6:-3]
        assert cells[-3:-1] == ["yes" if groups.ended[p, g] else "no", str(n)]
    assert groups.ended.any() and not groups.ended.all() and len(groups.reward.unique()) > 2


@pytest.mark.usefixtures("float64")
def test_the_ratio_is_1_where_nothing_was_learnt() -> None:
    it, groups = drawn(temperature=0.7)
    shown = completions.of_groups(cfg(12, 0.7), run(), it, groups, torch.zeros(groups.tokens.shape), None, {})
    assert shown is not None
    numbers = [token for titles in Reader(shown.html).titles for token in tips(titles)]
    assert numbers and all(token["ratio"] == 1.0 and token["advantage"] == 0.0 for token in numbers)


@pytest.mark.usefixtures("float64")
def test_of_dpo_the_tokens_add_up_to_the_implicit_reward_that_dpo_logs() -> None:
    it = policy("parity", length=6)
    groups = preferences.of_task(it, rng(), 5).batch(torch.arange(5))
    reference = it.frozen()
    stir(it.model, torch.Generator().manual_seed(3))
    shown = completions.of_pairs(cfg(6, 0.7, beta=0.1), run(), it, reference, groups, {})
    assert shown is not None
    told = Reader(shown.html)
    expected = 0.1 * (summed(it.model, groups, 0.7) - summed(reference, groups, 0.7)).detach()
    rows = list(zip(told.rows[1:], told.titles[1:]))
    assert len(rows) == 6
    for i, (cells, titles) in enumerate(rows):
        preferred, implicit = cells[-6:-4]
        assert preferred == ("chosen", "rejected")[i % 2]
        assert float(implicit) == pytest.approx(float(expected[i // 2, i % 2]), abs=5.1e-4)  # three digits
        total = sum(token["implicit reward"] for token in tips(titles))
        assert total == pytest.approx(float(implicit), abs=5.1e-4 * (len(titles) + 1))
    prompts = it.tokenizer.decode(groups.prompt, [groups.prompt.shape[1]] * 5)
    assert [cells[0] for cells, _ in rows[::2]] == prompts[:3]


def test_a_completion_without_an_end_token_is_marked_as_cut_even_among_pairs() -> None:
    it = policy("parity", length=6, model=None)
    tokens, mask = it.completions(["01", "011"], [True, False])
    prompt, _ = it.prompts(["010101"])
    nothing = torch.zeros(1, 2, 3)
    groups = Groups([], [], prompt, None, tokens[None], mask[None], nothing, mask.any(-1)[None], nothing[..., 0], None)
    shown = completions.of_pairs(cfg(2, beta=0.1), run(), it, it.frozen(), groups, {})  # type: ignore[arg-type]
    assert shown is not None
    assert [row[1:] for row in Reader(markdown_to_safe_html(shown.markdown)).rows[1:]] == [
        ["01 end", "chosen", "+0.000", "0.000", "yes", "3"],
        ["011 cut", "rejected", "+0.000", "0.000", "no", "3"],
    ]


@pytest.mark.usefixtures("float64")
def test_what_stands_behind_the_end_of_the_shorter_of_a_pair_counts_nothing() -> None:
    it, other = policy("parity", length=6), policy("parity", seed=3, length=6).model
    tokens, mask = it.completions(["0", "01101"])
    prompt, _ = it.prompts(["010101"])
    ended, nothing = mask.any(-1)[None], torch.zeros(1, 2, 6)
    groups = Groups([], [], prompt, None, tokens[None], mask[None], nothing, ended, nothing[..., 0], nothing[..., 0])
    shown = completions.of_pairs(cfg(2, beta=1.0), run(), it, other, groups, {})
    assert shown is not None
    told = Reader(shown.html)
    gap = by_hand(it.model, prompt[0], tokens[0, :2], 1.0) - by_hand(other, prompt[0], tokens[0, :2], 1.0)
    assert told.rows[1][-5] == f"{gap.sum():+.3f}" and [len(titles) for titles in told.titles[1:]] == [2, 6]


def test_no_gradient_is_prepared_for() -> None:
    it, groups = drawn()
    assert not completions.fresh(it.model, groups, 0, torch.arange(4), 1.0).requires_grad


def test_nothing_is_made_where_no_samples_are_wanted() -> None:
    it, groups = drawn()
    assert completions.of_groups(cfg(0), run(), it, groups, groups.logprob, None, {}) is None


def test_the_page_refers_to_nothing_outside_itself() -> None:
    it, groups = drawn()
    shown = completions.of_groups(cfg(12), run(), it, groups, groups.logprob, groups.logprob, {"kl": 0.1})
    assert shown is not None
    assert not re.search(r"https?:|//|url\(|@import|\bsrc\b|\bhref\b|<script|<link", shown.html)


# -- in a run ----------------------------------------------------------------------------------------------------

RUNS: dict[str, dict[str, Any]] = {
    "grpo": {"algo.kl_coef": 0.04, "algo.num_epochs": 2},
    "rlhf_ppo": {"algo.kl_coef": 0},  # a reference needs init
    "dpo": {"algo.data": "task"},
}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The steps at which something was made to look at."""
    steps: list[int] = []
    real = completions.page

    def page_(cfg: Any, run: Any, *rest: Any) -> Any:
        steps.append(run.step)
        return real(cfg, run, *rest)

    monkeypatch.setattr(completions, "page", page_)
    yield steps


@pytest.mark.parametrize("algo", RUNS)
def test_a_run_that_is_looked_at_is_the_same_run(algo: str, tmp_path: Path, counted: list[int]) -> None:
    seen = train(tmp_path / "a", algo, samples=8, eval_every=4, **RUNS[algo])
    pages = sorted(path.name for path in (seen / "samples").glob("*.html"))
    assert pages == [f"step_{step:09d}.html" for step in (4, 8, 12)] and counted == [4, 8, 12]  # only at evaluations
    for name in pages:
        told = Reader((seen / "samples" / name).read_text("utf-8"))
        assert len(told.rows) == 1 + 8
        assert {f"{int(name[5:14]):,}", "reward" if algo != "dpo" else "rewards/margins"} <= set(told.all)
    assert not list((seen / "samples").glob(".tmp-*"))

    plain = train(tmp_path / "b", algo, samples=0, eval_every=5, **RUNS[algo])
    assert not (plain / "samples").exists()
    (weights, rows), (others, lines) = result(seen), result(plain)
    assert weights == others
    assert [row for row in rows if "loss" in row] == [row for row in lines if "loss" in row]


def test_tensorboard_has_the_table_of_each_evaluation(tmp_path: Path) -> None:
    path = train(tmp_path, "grpo", tensorboard=True, samples=8, eval_every=6)
    written = EventAccumulator(str(path), size_guidance={"tensors": 0}).Reload()
    events = written.Tensors("completions")
    assert [event.step for event in events] == [6, 12]
    assert written.SummaryMetadata("completions").plugin_data.plugin_name == "text"
    for event in events:
        rows = Reader(markdown_to_safe_html(event.tensor_proto.string_val[0])).rows
        assert rows[0] == ["prompt", "completion", "reward", "advantage", "ended", "length"]
        assert len(rows) == 1 + 8 and all(re.fullmatch(r"([01=]+ )?(end|cut)", row[1]) for row in rows[1:])
