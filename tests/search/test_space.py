"""Ranges: Hydra's grammar read into plain data, and back into words."""

from __future__ import annotations

import random

import pytest

from rlx.base.errors import ConfigError
from rlx.launch import arguments, search_space
from rlx.search import params, settings


def read(text: str) -> search_space.Range:
    (override,) = arguments.overrides([f"algo.x={text}"], True)
    return search_space.read(override)


@pytest.mark.parametrize("text", ["2,12", "12", "1,10,2", "1,11,2", "3,4", "0,9,4"])
def test_a_range_of_whole_numbers_is_pythons(text: str) -> None:
    found = read(f"range({text})")
    values = list(range(*map(int, text.split(","))))
    if len(values) > 1:
        assert (found["type"], found["low"], found["high"]) == ("int", values[0], values[-1])
        assert list(range(found["low"], found["high"] + 1, found["step"])) == values


def test_a_range_of_fractions_stops_before_its_end() -> None:
    assert read("range(0.1, 0.5, 0.1)") == {"type": "float", "low": 0.1, "high": 0.4, "step": 0.1, "log": False}


def test_intervals_keep_both_ends_and_the_logarithm() -> None:
    assert read("tag(log, interval(1e-5, 1e-2))") == {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
    assert read("interval(.1,.3)") == {"type": "float", "low": 0.1, "high": 0.3, "log": False}
    assert read("int(interval(2, 8))") == {"type": "int", "low": 2, "high": 8, "step": 1, "log": False}
    assert read("tag(log, int(interval(1, 100)))") == {"type": "int", "low": 1, "high": 100, "step": 1, "log": True}


def test_lists_are_choices_of_any_kind() -> None:
    assert read("0,0.01")["choices"] == [0, 0.01]
    assert read("[64],[64,64]")["choices"] == [[64], [64, 64]]
    assert read("relu,'a b',true,null")["choices"] == ["relu", "a b", True, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("interval(2,1)", "lower end comes first"),
        ("interval(1,1)", "lower end comes first"),
        ("interval(0,inf)", "finite"),
        ("tag(log,interval(0,1))", "above 0"),
        ("tag(log,range(1,9,2))", "no steps"),
        ("tag(loog,interval(1,2))", "loog"),
        ("range(5,2)", "lower end comes first"),
        ("range(1,5,-1)", "above 0"),
        ("range(0.1,1,1e-300)", "more than 1,000,000,000 steps"),
        ("1,1", "twice"),
        ("1,true", "twice"),
        ("nan,1", "finite"),
        ("glob(*)", "grid"),
    ],
)
def test_a_range_that_is_none_is_one_line_that_names_it(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(text)
    line = str(error.value)
    assert line.startswith(f"algo.x={text}: ") and said in line and "\n" not in line


@pytest.mark.parametrize(
    "value",
    [1, -2, 1e-5, 0.1, 1e22, True, None, "relu", "a b", "it's", "1e-3", "null", "", "a\\b", "a\\", "a\\'b", "größe",
     [64, 64], [[1], "x"], {"a": [1, None]}],
)  # fmt: skip
def test_the_word_of_a_value_is_read_back_as_that_value(value: object) -> None:
    (override,) = arguments.overrides([params.word("algo.x", value)])
    assert override.value() == value and type(override.value()) is type(value)


def test_the_word_of_any_float_is_read_back_exactly() -> None:
    rng = random.Random(1)
    for _ in range(300):
        value = rng.uniform(-1, 1) * 10 ** rng.uniform(-300, 300)
        (override,) = arguments.overrides([params.word("algo.x", value)])
        assert override.value() == value


def test_the_probes_hold_the_ends_every_choice_and_a_fraction() -> None:
    assert set(search_space.probes(read("a,b,c"))) == {"a", "b", "c"}
    assert search_space.probes(read("range(2,12)")) == [2, 11]
    low, high, inner = search_space.probes(read("interval(2,12)"))
    assert (low, high) == (2, 12) and low < inner < high and inner != round(inner)


@pytest.mark.parametrize(
    "word",
    ["trials=0", "trials=x", "trials=1.5", "seeds=-1", "jobs=0", "sampler=tpee", "pruner=", "study=../x", "study=.x",
     "study=latest",
     "storage=foo", "storage=sqlite://", "storage=sqlite:///:memory:"],
)  # fmt: skip
def test_a_wrong_setting_is_one_line_with_key_and_value(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings.take([word])
    assert str(error.value).startswith(word.partition("=")[0] + "=") and "\n" not in str(error.value)


def test_settings_are_told_from_the_words_of_a_run() -> None:
    found, rest = settings.take(["env=cartpole", "trials=1_000", "seed=3", "seeds=2", "storage=sqlite:///a.db"])
    assert found == {"trials": 1000, "seeds": 2, "storage": "sqlite:///a.db"}
    assert rest == ["env=cartpole", "seed=3"]
