"""Presets: whose values a variant takes, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from composed import composed

from rlx.base.errors import ConfigError
from rlx.config import registry
from rlx.config.nested import flatten
from rlx.launch import arguments
from rlx.launch.composing import compose_all, plain


def test_a_variant_takes_the_tuned_values_of_its_parent_and_not_its_promise() -> None:
    parent, variant = composed("algo=ppo", "env=acrobot"), composed("algo=ppo_penalty", "env=acrobot")
    assert parent.pop("expect")["score"] is not None and set(variant.pop("expect").values()) == {None}
    assert parent.pop("published") and variant.pop("published") is None
    parent["algo"] |= {"name": "ppo_penalty", "objective": "penalty"}
    assert variant == parent
    named = composed("algo=ppo", "env=acrobot", "preset=ppo_penalty_acrobot")
    assert named["algo"] == {**parent["algo"], "name": "ppo", "objective": "clip"}


def test_what_a_variant_changes_stays_changed_under_the_preset_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "preset").mkdir()
    (tmp_path / "conf" / "algo" / "mine.yaml").write_text(
        "defaults: [ppo, _self_]\nname: mine\ngamma: 0.5\nlr: 3e-4\n"  # lr: as ppo.yaml has it
    )
    (tmp_path / "conf" / "algo" / "alone.yaml").write_text("defaults: [ppo, _self_]\nname: alone\npreset_of: null\n")
    (tmp_path / "conf" / "algo" / "lost.yaml").write_text("defaults: [ppo, _self_]\nname: lost\npreset_of: pppo\n")
    (tmp_path / "conf" / "preset" / "mine_acrobot.yaml").write_text("# @package _global_\ntotal_steps: 7\n")
    monkeypatch.chdir(tmp_path)
    with compose_all() as compose:
        mine = plain(compose(["algo=mine", "env=cartpole"]))
        assert mine["algo"]["gamma"] == 0.5 and mine["algo"]["lr"] == 1e-3 and mine["algo"]["num_steps"] == 32
        own = plain(compose(["algo=mine", "env=acrobot"]))  # a preset of one's own stands alone
        assert own["total_steps"] == 7 and not own["env"]["normalize_obs"]
        alone = plain(compose(["algo=alone", "env=cartpole"]))
        assert alone["algo"]["num_steps"] == 256 and "preset_of" not in alone["algo"]
        with pytest.raises(Exception) as caught:
            compose(["algo=lost", "env=cartpole"])
    assert isinstance(caught.value, ConfigError) and "preset_of=pppo: no such algorithm" in str(caught.value)


def test_no_preset_switches_on_what_another_algorithm_stands_for() -> None:
    algos = {name: registry.values("algo", name) for name in registry.options("algo")}
    places = [*registry.options("env"), *registry.options("task")]
    for variant in algos:
        for parent in registry.lineage(variant)[1:]:
            apart = {key for key in algos[variant] if algos[variant][key] != algos[parent].get(key)} - {"name"}
            for place in places:
                tuned = registry.values("preset", f"{parent}_{place}").get("algo") or {}
                assert not apart & set(tuned), (variant, parent, place)


@pytest.mark.parametrize("env", ["cartpole", "mountaincar"])
def test_the_relatives_of_dqn_differ_in_what_their_names_say(env: str) -> None:
    plain = flatten(composed("algo=dqn", f"env={env}"))
    assert not plain["algo.double"] and plain["algo.n_step"] == 1
    for name, key in (("double_dqn", "double"), ("dueling_dqn", "dueling"), ("prioritized_dqn", "prioritized")):
        other = flatten(composed(f"algo={name}", f"env={env}"))
        differing = {one for one in plain if plain[one] != other[one] and not one.startswith(("expect.", "published"))}
        assert differing == {"algo.name", f"algo.{key}"} and plain.keys() == other.keys()


def test_dqn_is_one_step_and_plain_on_every_environment() -> None:
    for env in registry.options("env"):
        tuned = registry.values("preset", f"dqn_{env}").get("algo") or {}
        assert not {"n_step", "double", "dueling", "prioritized"} & set(tuned), env


@pytest.mark.parametrize("word", ["algo=ppo.yaml", "algo=./ppo.yaml", "algo=ppo.yml", "+algo=ppo"])
def test_a_choice_may_be_written_as_its_file(word: str) -> None:
    assert arguments.split([word, "algo.lr=1"]).overrides == ["algo=ppo", "algo.lr=1"]


def test_a_file_that_lies_elsewhere_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ppo.yaml").write_text("name: ppo\n")
    with pytest.raises(ConfigError, match="a choice is a file of ./conf/algo"):
        arguments.split(["algo=./ppo.yaml"])
