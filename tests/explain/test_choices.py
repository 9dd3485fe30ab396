"""Environments, tasks, presets and the other choices of conf/ have pages, too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rlx.config import registry
from rlx.explain import choices
from rlx.explain.answer import answer

CHOICES = [(group, name) for group in choices.GROUPS for name in registry.options(group) if name != "none"]


def test_every_choice_says_what_it_is_and_how_to_try_it() -> None:
    assert len(CHOICES) > 100
    for group, name in CHOICES:
        page = answer([f"{group}={name}"])
        assert len(page[0]) > len(f"{group}={name}: ") + 10 and page[1].startswith("where: conf/"), name
        words = page[-1].removeprefix("try it: rlx train ").split()
        for key, _, value in (word.partition("=") for word in words):
            assert key == "init" or value in registry.options(key), page[-1]
        chosen = dict(word.split("=") for word in words)
        assert chosen.get(group) == name or (group == "preset" and name == "_".join(chosen.values())), page[-1]


@pytest.mark.parametrize("name, first", [("cartpole", "env=cartpole: CartPole-v1"), ("add2", "task=add2: Addition of")])
def test_a_choice_is_known_by_its_name(name: str, first: str) -> None:
    assert answer([name])[0].startswith(first)


def test_an_environment_names_the_algorithms_that_have_tuned_values_for_it() -> None:
    tuned = next(line for line in answer(["frozenlake"]) if line.startswith("tuned for: "))
    names = re.sub(r" \(.*", "", tuned.removeprefix("tuned for: ")).split(", ")
    assert {"ppo", "q_learning", "expected_sarsa"} <= {*names}
    assert all(registry.preset_owner(name, "frozenlake") for name in names)


def test_a_choice_of_ones_own_says_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf" / "env").mkdir(parents=True)
    (tmp_path / "conf" / "env" / "mine.yaml").write_text("# My own.\nname: mine\nid: ./mine.py:Mine\n")
    monkeypatch.chdir(tmp_path)
    page = answer(["mine"])
    assert page[:2] == ["env=mine: My own.", "where: ./conf/env/mine.yaml:1"] and "  id=./mine.py:Mine" in page
