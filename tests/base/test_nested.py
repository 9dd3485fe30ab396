"""Nested configurations as flat ones."""

from rlx.config.nested import flatten


def test_every_value_has_its_dotted_key() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_an_empty_section_is_nothing_or_a_value() -> None:
    assert flatten({"a": {}, "b": {"c": {}}}) == {}
    assert flatten({"a": {}, "b": {"c": {}}}, empty=True) == {"a": {}, "b.c": {}}
