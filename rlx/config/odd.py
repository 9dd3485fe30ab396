"""Numbers that are allowed and most likely not meant: a line each, never a refusal."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

LARGEST = {"lr": 1.0, "clip": 10.0, "log_std": 10.0}  # of keys with these words in their names
OTHERWISE = 1e6
UNLIMITED = ("max_grad_norm",)  # large: no clipping


def lines(cfg: Any) -> list[str]:
    """What is odd about the algorithm's and the model's numbers."""
    return [
        f"{key}={value:g}: larger than {limit:g}, which hardly any run learns with"
        for section in ("algo", "model")
        for key, value in _numbers(getattr(cfg, section), section)
        if abs(value) > (limit := _largest(key.rpartition(".")[2]))
    ]


def _numbers(section: Any, path: str) -> Iterator[tuple[str, float]]:
    for field in fields(section) if is_dataclass(section) else ():
        value, key = getattr(section, field.name), f"{path}.{field.name}"
        if isinstance(value, float) and field.name not in UNLIMITED:
            yield key, value
        else:
            yield from _numbers(value, key)


def _largest(name: str) -> float:
    words = f"_{name}_"
    return next((limit for word, limit in LARGEST.items() if f"_{word}_" in words), OTHERWISE)
