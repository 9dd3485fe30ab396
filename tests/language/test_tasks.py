"""What all tasks promise: the split, demonstrations, rewards, pairs, errors."""

from __future__ import annotations

import random
from importlib import metadata
from typing import Any

import numpy as np
import pytest
from some_tasks import ANSWERED, NAMES, composed, config, noise, rng, task

from rlx.base.errors import ConfigError, UserError
from rlx.config import plugins
from rlx.config.registry import first_comment, options
from rlx.language import tasks
from rlx.language.tasks.base import is_held_out, score

SPLIT = [name for name in ANSWERED if name != "count"]


# -- what all promise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(options("task")))
def test_every_yaml_says_what_it_is_and_comments_its_values(name: str) -> None:
    path = options("task")[name]
    assert len(first_comment(path)) > 20
    values = [line for line in path.read_text().splitlines() if line.startswith(("reward", "max_new", "sft_stop"))]
    assert all(" # " in line for line in values)


def test_a_name_follows_the_digits() -> None:
    assert [task(name).name for name in ("add2", "add3", "add")] == ["add2", "add3", "add4"]
    assert composed("add2", "task.digits=7")["name"] == "add7"


@pytest.mark.parametrize("name", NAMES)
def test_prompts_fit_and_are_a_function_of_the_generator(name: str) -> None:
    it = task(name)
    first, again, other = it.prompts(rng(), 300), it.prompts(rng(), 300), it.prompts(rng(2), 300)
    assert len(first) == 300 and first == again
    assert first != other or set(first) == {""}
    assert max(map(len, first)) <= it.prompt_length
    assert set("".join(first)) <= set(it.alphabet) and set(it.symbols) <= set(it.alphabet)


@pytest.mark.parametrize("name", SPLIT)
def test_no_held_out_prompt_is_ever_handed_out_for_training(name: str) -> None:
    it = task(name)
    assert it.splits
    draw = rng()
    train = [prompt for _ in range(20) for prompt in it.prompts(draw, 500)]
    train += [prompt for prompt, _, _ in it.pairs(draw, 500)]
    texts = it.text(draw, 500)
    train += [text[: text.index("=") + 1] for text in texts]
    held = set(it.prompts(draw, 1_000, held_out=True))
    assert not any(map(is_held_out, train)) and all(map(is_held_out, held))
    assert len(train) >= 10_000 and not held & set(train)


@pytest.mark.parametrize("name", SPLIT)
def test_one_prompt_in_eight_is_held_out(name: str) -> None:
    draws = set(task(name).draw(rng(), 20_000))
    share = np.mean([is_held_out(prompt) for prompt in draws])
    assert share == pytest.approx(1 / 8, abs=4 * np.sqrt(7 / 64 / len(draws)))


@pytest.mark.parametrize("name", ["count", "names", "enumerable"])
def test_a_task_with_few_prompts_does_not_split(name: str) -> None:
    it = task(name)
    assert not it.splits
    assert set(it.prompts(rng(), 500)) == set(it.prompts(rng(2), 500, held_out=True))


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("reward", ["exact", "dense", "mixed"])
def test_a_demonstration_is_right_and_fits(name: str, reward: str) -> None:
    it = task(name, reward=reward)
    for prompt in it.prompts(rng(), 500):
        answer = it.answer(prompt)
        assert len(answer) < it.max_new and set(answer) <= set(it.symbols)
        assert it.reward(prompt, answer, True) == 1.0
        assert it.correct(prompt, answer, True) and it.well_formed(prompt, answer, True)
        assert not it.correct(prompt, answer, False) and not it.well_formed(prompt, answer, False)
        assert it.reward(prompt, answer, False) < 1.0


@pytest.mark.parametrize("name", NAMES)
def test_no_text_upsets_a_verifier(name: str) -> None:
    it, draw = task(name, reward="mixed"), random.Random(1)
    strange = [it.alphabet, "", "\n", "1\n", "٣", "--", "+", "=", "()", "9" * 5_000, "import os", "😀", "\ud800", "\0"]
    for prompt in it.prompts(rng(), 20):
        for _ in range(50):
            text = "".join(draw.choices(strange, k=draw.randrange(4)))
            for ended in (True, False):
                assert 0 <= it.reward(prompt, text, ended) <= 1
                assert isinstance(it.correct(prompt, text, ended), bool)
                assert isinstance(it.well_formed(prompt, text, ended), bool)


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_right_is_well_formed_and_dense_is_1_exactly_there(name: str) -> None:
    exact, dense, mixed = (task(name, reward=reward) for reward in ("exact", "dense", "mixed"))
    seen = set()
    for row in noise(exact):
        right = exact.correct(*row)
        seen.add(right)
        assert exact.reward(*row) == float(right)
        assert (dense.reward(*row) == 1.0) == right
        assert mixed.reward(*row) == (exact.reward(*row) + dense.reward(*row)) / 2
        assert exact.well_formed(*row) or not right
    assert seen == {True, False}


@pytest.mark.parametrize("name", [*ANSWERED, "names"])
@pytest.mark.parametrize("reward", ["exact", "dense", "mixed"])
def test_chosen_scores_higher_than_rejected(name: str, reward: str) -> None:
    it = task(name, reward=reward)
    pairs = it.pairs(rng(), 200)
    assert len(pairs) == 200 and pairs == it.pairs(rng(), 200)
    for prompt, chosen, rejected in pairs:
        assert len(rejected) < it.max_new and set(rejected) <= set(it.symbols)
        assert it.reward(prompt, chosen, True) > it.reward(prompt, rejected, True)


@pytest.mark.parametrize("name", [name for name in ANSWERED if name != "count"])
def test_a_rejected_answer_differs_in_one_character(name: str) -> None:
    for _, chosen, rejected in task(name).pairs(rng(), 200):
        assert len(chosen) == len(rejected) and sum(a != b for a, b in zip(chosen, rejected)) == 1


@pytest.mark.parametrize("name", ANSWERED)
def test_the_corpus_is_prompts_with_their_answers(name: str) -> None:
    it = task(name)
    texts = it.text(rng(), 100)
    assert texts == [prompt + it.answer(prompt) for prompt in it.prompts(rng(), 100)]


# -- scoring, choosing -----------------------------------------------------------------------------------------


def test_score_is_reward_correct_and_format_of_each() -> None:
    it = task("add2", reward="mixed")
    scores = score(it, ["37+58="] * 4, ["590", "580", "59", "590"], [True, True, True, False])
    assert scores["reward"].tolist() == pytest.approx([1, 0.375, 0.25, 0.375])
    assert scores["correct"].tolist() == [1, 0, 0, 0]
    assert scores["format"].tolist() == [1, 1, 0, 0]
    assert {array.dtype for array in scores.values()} == {np.dtype(np.float64)}


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), None, "1", [1.0], 1j])
def test_a_reward_that_is_no_number_is_refused_with_its_prompt(reward: Any) -> None:
    it = task("add2")
    it.reward = lambda prompt, completion, ended: reward
    with pytest.raises(UserError) as error:
        score(it, ["37+58="], ["590"], [True])
    assert str(error.value).startswith("task=add2: the reward of completion 590 to prompt 37+58= is ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ANSWERED)
def test_room_that_is_too_small_is_refused(name: str) -> None:
    least = task(name, max_new=None).max_new
    assert task(name, max_new=least + 3).max_new == least + 3
    with pytest.raises(ConfigError, match=rf"^task.max_new={least - 1}: must be at least {least}, .*[^\n]$"):
        task(name, max_new=least - 1)


@pytest.mark.parametrize(
    "part, there",
    [
        ("answer", set(ANSWERED)),
        ("text", {*ANSWERED, "names"}),
        ("pairs", {*ANSWERED, "names"}),
        ("step_rewards", {"copy", "reverse", "sort", "parity"}),
    ],
)
def test_a_task_has_a_part_or_lacks_the_attribute(part: str, there: set[str]) -> None:
    assert {name for name in NAMES if hasattr(task(name), part)} == there


def test_an_unknown_implementation_is_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match="^task.implementation=parrity: no such task; did you mean 'parity'"):
        tasks.task_module("parrity")


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "mine": "rlx.language.tasks.add",
        "add": "json",  # cannot replace a built-in one
        "other": "json",
        "gone": "no_such_module",
    }
    points = {name: metadata.EntryPoint(name, module, "rlx.tasks") for name, module in modules.items()}
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "rlx.tasks" else {})
    assert tasks.task_module("mine").Task is tasks.task_module("add").Task
    with pytest.raises(ConfigError, match="module json has no Config and no Task$"):
        tasks.task_module("other")
    with pytest.raises(ConfigError, match="^task.implementation=gone: no module no_such_module in an installed"):
        tasks.task_module("gone")


def test_prompts_that_do_not_split_end_in_an_error_not_a_loop() -> None:
    class Stuck(tasks.task_module("add").Task):
        def draw(self, rng: np.random.Generator, n: int) -> list[str]:
            return ["00+01="] * n

    it = Stuck(config("add2"))
    with pytest.raises(UserError, match=r"^task=add2: one side of its split has too few prompts \(0 of 5\)$"):
        it.prompts(rng(), 5, held_out=not is_held_out("00+01="))
