"""Every key of the configuration has an explanation: a comment in its YAML file, and the range of its field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import ROOT, Forks, imported
from composed import composed

from rlx.base.errors import UserError
from rlx.config import registry, schema
from rlx.config.nested import flatten
from rlx.control.config import ControlConfig
from rlx.control.networks import ModelConfig
from rlx.envs.single import EnvConfig
from rlx.explain import comments, keys
from rlx.explain.answer import answer
from rlx.language.model.gpt import GPTConfig

OPTIONS = [(group, option) for group in keys.SECTIONS for option in registry.options(group)]


@pytest.mark.parametrize("group", [*keys.SECTIONS, "top"])
def test_every_key_of_every_file_of_conf_has_an_explanation(group: str) -> None:
    known = keys.every(group)
    assert [key.name for listed in known.values() for key in listed if not key.text] == []
    if group == "top":
        files = [registry.load(registry.conf_dir() / f"{first}.yaml") for first in registry.PRIMARY.values()]
        expected = {name for file in files for name in file} - {"defaults", "hydra"}
    else:
        expected = {f"{group}.{name}" for option in registry.options(group) for name in registry.values(group, option)}
    assert expected <= {*known} and len(expected) > 10


def test_each_file_that_is_no_variant_explains_its_own_keys() -> None:
    """(The files of single environments are explained by gym.yaml, which lists the same keys.)"""
    algos = [path for name, path in registry.options("algo").items() if not keys.is_variant(name)]
    files = [
        *algos,
        registry.options("env")["gym"],
        *(registry.conf_dir() / f"{it}.yaml" for it in ("config", "language")),
    ]
    for path in files:
        for name, one in comments.comments(path).items():
            assert one.text or name.partition(".")[0] in ("defaults", "hydra"), f"{path.name}: {name}"


def test_what_a_preset_or_an_experiment_sets_has_an_explanation() -> None:
    known = keys.every()
    for group in ("preset", "experiment"):
        for option, path in registry.options(group).items():
            for name in flatten({k: v for k, v in registry.load(path).items() if k != "defaults"}):
                open_ended = name.startswith(("env.kwargs.", "hydra")) or name == "stages"  # see docs/language.md
                assert open_ended or name in known, f"{option}: {name}"


def test_a_number_of_an_algorithm_says_what_more_and_less_of_it_do() -> None:
    for key in (key for listed in keys.every("algo").values() for key in listed):
        if key.field and key.field.range.startswith(("a number", "a whole number")):
            assert {"more", "less"} <= {*comments.parts_of(key.text)}, (key.owner, key.name)


@pytest.mark.parametrize("group, option", OPTIONS)
def test_the_range_that_is_read_is_the_one_that_is_checked(group: str, option: str) -> None:
    """Of each field of each dataclass, in the words of the error that a wrong value gets."""
    kinds = {"env": EnvConfig, "model": GPTConfig if option in keys.MODELS else ModelConfig}
    if group == "algo":
        kind = registry.algorithm(keys.implementation(option)).Config
    elif group == "task":
        from rlx.language.family import sections

        kind = sections({"task": {"implementation": keys.implementation(option, "task")}})["task"]
    else:
        kind = kinds[group]
    read = {name: field.range for name, field in keys.fields_of(group, option).items()}
    known = schema.get_type_hints(kind, include_extras=True)
    checked = {name: schema.describe(known[name]) for name in (field.name for field in schema.fields(kind))}
    kwargs = {"wrappers", "kwargs"}  # of an alias of containers, which are written as they are
    assert {k: v for k, v in read.items() if k not in kwargs} == {k: v for k, v in checked.items() if k not in kwargs}


def test_the_range_of_a_key_without_a_section_is_the_one_that_is_checked() -> None:
    known = schema.get_type_hints(ControlConfig, include_extras=True)
    for name, key in keys.top("control").items():
        if name in known and name not in (*keys.SECTIONS, "expect", "logger"):
            assert key.field is not None and key.field.range == schema.describe(known[name])


# -- one page ----------------------------------------------------------------------------------------------------


def test_a_key_is_explained_with_meaning_range_default_effects_and_the_papers_value() -> None:
    page = answer(["algo.clip_coef"])
    assert page[0] == "algo.clip_coef, a key of ppo, ppo_penalty, ppo_surrogate"
    rows = dict(line.split(": ", 1) for line in page[1:8])
    assert rows["what"].startswith("eps: ") and rows["range"] == "a number > 0" and rows["default"] == "0.2"
    assert rows["more"] and rows["less"] and rows["paper"] == ".2"
    for place in rows["where"].split(", "):
        file, _, line = place.partition(":")
        assert "clip_coef" in (ROOT / file).read_text().splitlines()[int(line) - 1]
    setting = next(line for line in page if line.startswith("  0.1: ")).split(": ")[1].split(", ")
    assert {"ppo_breakout", "ppo_pong"} <= {*setting} and all(
        composed(f"preset={name}", f"env={name.removeprefix('ppo_')}")["algo"]["clip_coef"] == 0.1 for name in setting
    )
    assert page[-1].startswith("try it: rlx train algo=ppo algo.clip_coef=")


@pytest.mark.parametrize("word", ["algo.gamma", "gamma", "algo.gamma=0.9", "+algo.gamma"])
def test_a_key_is_known_without_its_section_and_with_a_value_behind_it(word: str) -> None:
    assert any(line.startswith("algo.gamma, a key of ") for line in answer([word]))


def test_a_key_that_nobody_knows_is_one_line_with_what_is_near() -> None:
    with pytest.raises(UserError, match="did you mean 'algo.clip_coef'"):
        answer(["algo.clip_cof"])


MINE = """from pydantic import Field
class Config:
    name: str
    implementation: str
    lr: float
    heat: Annotated[float, Field(gt=0, le=2)]  # how hot it is
    many: SomethingOfMine
def train(): ...
"""


def test_the_keys_of_a_strangers_files_are_explained_from_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "algos").mkdir()
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "algos" / "mine.py").write_text(MINE)
    text = "# Mine.\nname: mine\nimplementation: mine\nlr: 1\n# one line\n# and another\nmany: '#1' # beside\nheat: 1\n"
    (tmp_path / "conf" / "algo" / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    mine = keys.of("algo", "mine")
    assert mine["heat"].text == "how hot it is" and mine["heat"].field.range == "a number > 0 and <= 2"
    assert mine["many"].text == "beside" and mine["many"].comment.value == "'#1'"
    assert mine["many"].field.range == "SomethingOfMine" and "step size" in mine["lr"].text
    assert any("./algos/mine.py:6" in line for line in answer(["algo.heat"]))


def test_a_comment_stands_beside_its_key_or_above_it(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# of the file\na: 1\n# of b\nb: 'x # y'\nc:  # of c\n  d: [1, 2]  # of d: it\ne: {}\n")
    read = {name: (one.value, one.text) for name, one in comments.comments(file).items()}
    assert read == {
        "a": ("1", ""), "b": ("'x # y'", "of b"), "c": ("", "of c"), "c.d": ("[1, 2]", "of d: it"), "e": ("{}", ""),
    }  # fmt: skip
    assert comments.head(file) == ["of the file"]


# -- rlx train --help ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words, place", [((), "env"), (("algo=grpo", "task=add2"), "task")])
def test_the_help_of_train_says_what_each_key_means(
    words: tuple[str, ...], place: str, forks: Forks, tmp_path: Path
) -> None:
    done = forks("train", *words, "--help", cwd=tmp_path)
    body = done.out.partition("== Or set any value")[2].partition("rlx explain")[0]
    bare = [line for line in body.splitlines() if re.match(r" *\w+: \S", line) and "  # " not in line]
    assert done.code == 0 and [line for line in bare if not line.startswith("experiment")] == []
    assert f"{place}:" in body and re.search(r"^  lr: \S+ +# step size", body, re.MULTILINE)
    assert max(map(len, body.splitlines())) <= 100


def test_a_keys_answer_imports_nothing_slow(tmp_path: Path) -> None:
    assert imported("explain", "algo.lr", cwd=tmp_path)[0] == set()
