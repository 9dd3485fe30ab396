"""The ranges of a search, in Hydra's override grammar, as plain data.

    algo.lr=tag(log, interval(1e-5, 1e-2))      {"type": "float", "low": 1e-5, "high": 1e-2, "log": true}
    algo.num_epochs=range(2, 12)                {"type": "int", "low": 2, "high": 11, "step": 1, "log": false}
    algo.num_steps=int(interval(16, 256))       {"type": "int", "low": 16, "high": 256, "step": 1, "log": false}
    model.hidden=[64],[64,64]                   {"type": "choice", "choices": [[64], [64, 64]]}

An interval has both its ends, a range stops before its end, as Python's.
"""

import itertools
import math
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
    ValueType,
)

from rlx.base.errors import ConfigError

Range = dict[str, Any]
MOST = 1_000_000_000  # steps of a range of fractions
INNER = 0.381966  # of an interval: a point that is no whole number, where its ends are


def read(override: Override) -> Range:
    """What a word such as algo.lr=interval(0, 1) ranges over. Raises ConfigError."""
    word, value = str(override.input_line), override.value()
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(f"{word}: names are globbed in a grid (rlx train -m); a search takes a,b,c")
    try:
        if isinstance(value, ChoiceSweep):
            return _choice(override, value)
        if isinstance(value, RangeSweep):
            return _range(value)
        if isinstance(value, IntervalSweep):
            return _interval(value)
    except ValueError as fault:
        raise ConfigError(f"{word}: {fault}") from None
    raise ConfigError(f"{word}: not a range (interval(a, b), range(a, b), or a,b,c)")


def _log(tags: set[str]) -> bool:
    if other := sorted(tags - {"log"}):
        raise ValueError(f"the tag {other[0]} means nothing here (tag(log, ...) searches the logarithm)")
    return "log" in tags


def _ends(low: Any, high: Any) -> tuple[Any, Any]:
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end):
            raise ValueError("both ends must be finite numbers")
    if low >= high:
        raise ValueError("the lower end comes first, and below the upper one")
    return low, high


def _interval(value: IntervalSweep) -> Range:
    log, (low, high) = _log(value.tags), _ends(value.start, value.end)
    if log and low <= 0:
        raise ValueError("a logarithm needs a lower end above 0")
    if isinstance(low, int) and isinstance(high, int):
        return {"type": "int", "low": low, "high": high, "step": 1, "log": log}
    return {"type": "float", "low": float(low), "high": float(high), "log": log}


def _range(value: RangeSweep) -> Range:
    log, (low, high) = _log(value.tags), _ends(value.start, value.stop)
    step = value.step
    if step <= 0:
        raise ValueError("the step must be above 0")
    if log and step != 1:
        raise ValueError("a logarithm has no steps")
    if log and low <= 0:
        raise ValueError("a logarithm needs a lower end above 0")
    if all(isinstance(number, int) for number in (low, high, step)):
        return {"type": "int", "low": low, "high": low + (high - 1 - low) // step * step, "step": step, "log": log}
    if log:
        raise ValueError("a logarithm has no steps (interval(a, b) has none)")
    if (high - low) / step > MOST:
        raise ValueError(f"more than {MOST:,} steps (interval(a, b) has none)")
    first, last, by = (Decimal(str(number)) for number in (low, high, step))
    count = math.ceil((last - first) / by) - 1
    return {"type": "float", "low": float(low), "high": float(first + count * by), "step": float(step), "log": False}


def _choice(override: Override, value: ChoiceSweep) -> Range:
    if value.tags:
        raise ValueError("a list of choices has no tags")
    items = [Override._convert_value(item) for item in override.sweep_iterator(Transformer.identity)]  # type: ignore[arg-type]
    choices = [item.text if isinstance(item, QuotedString) else item for item in items]
    if any(isinstance(choice, float) and not math.isfinite(choice) for choice in choices):
        raise ValueError("numbers must be finite")
    if any(one == other for one, other in itertools.combinations(choices, 2)):
        raise ValueError("a choice is listed twice")
    return {"type": "choice", "choices": choices}


def probes(range_: Range) -> list[Any]:
    """The values that are checked before a search begins: each choice; of numbers the ends, and one between."""
    if range_["type"] == "choice":
        return list(range_["choices"])
    low, high = range_["low"], range_["high"]
    if range_["type"] == "float" and "step" not in range_:
        return [low, high, low + INNER * (high - low)]
    return list(dict.fromkeys([low, high]))
