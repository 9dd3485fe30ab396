"""Nested configurations as flat ones: {"algo.lr": 1e-3, ...}."""

from collections.abc import Mapping
from typing import Any


def flatten(tree: Mapping[Any, Any], prefix: str = "", empty: bool = False) -> dict[str, Any]:
    """Every value by its dotted key. A section without keys is nothing, or with `empty` a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and (value or not empty):
            flat |= flatten(value, f"{prefix}{key}.", empty)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def merged(below: Mapping[Any, Any], above: Mapping[Any, Any]) -> dict[Any, Any]:
    """`above` laid over `below`, section by section."""
    both = {
        key: merged(below[key], value) if isinstance(value, Mapping) and isinstance(below.get(key), Mapping) else value
        for key, value in above.items()
    }
    return {**below, **both}
