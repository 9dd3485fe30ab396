"""A JSON file as an object with known keys."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from rlx.base.errors import ConfigError
from rlx.base.files.document import Document


@dataclass(kw_only=True)
class Part(Document):
    step: int = 0


@dataclass(kw_only=True)
class Whole(Document):
    FILE: ClassVar[str] = "whole.json"
    OPTIONAL: ClassVar[tuple[str, ...]] = ("error",)

    name: str = "nobody"
    score: float | None = None
    error: str | None = None
    part: Part | None = None
    words: list[str] | None = None


KNOWN = '{"later": [1], "name": "a", "part": {"new": 1, "step": 3}, "score": 2, "last": null}'


def test_what_nobody_knows_is_kept_where_it_stood(tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text(KNOWN)
    whole = Whole.read(tmp_path)
    assert (whole.name, whole.score, whole.part, whole.error) == ("a", 2, Part(step=3), None)
    replace(whole, name="b").write(tmp_path)
    assert list(json.loads((tmp_path / "whole.json").read_text()).items()) == list(
        json.loads(KNOWN.replace('"a"', '"b"')).items()
    )


@pytest.mark.parametrize(
    "tree", [{"name": 3}, {"score": "x"}, {"score": True}, {"part": 3}, {"words": [1]}, {"words": "ab"}, {}, [], 7]
)
def test_what_is_missing_or_of_another_type_is_the_default(tree: Any) -> None:
    assert Whole.of(tree) == Whole()


def test_a_value_of_another_type_is_written_back_as_it_was() -> None:
    assert Whole.of({"name": 3, "score": "x"}).to_json() == {"name": 3, "score": "x"}


def test_a_new_one_has_its_keys_in_order_without_those_that_say_nothing() -> None:
    assert list(Whole(part=Part(step=1)).to_json()) == ["name", "score", "part", "words"]
    assert list(Whole(error="e").to_json()) == ["name", "score", "error", "part", "words"]


@pytest.mark.parametrize("text, damaged", [(None, False), ("{", True), ("[]", True), ("7", True), ("{}", False)])
def test_reading_never_raises_and_loading_does(text: str | None, damaged: bool, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "whole.json").write_text(text)
    whole = Whole.read(tmp_path)
    assert whole == Whole() and bool(whole.damage) is damaged and str(tmp_path) not in str(whole.damage)
    if damaged or text is None:
        with pytest.raises(ConfigError, match=r"^[^\n]*whole.json: unreadable \([^\n]*\)$"):
            Whole.load(tmp_path)
