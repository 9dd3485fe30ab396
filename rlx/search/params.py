"""A point of a search's space: {key: value}, on a configuration and on the command line."""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

NOT_TEXTS = ("null", "true", "false", "nan", "inf")


def placed(config: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these dotted keys set."""
    filled = copy.deepcopy(dict(config))
    for key, value in params.items():
        *sections, name = key.split(".")
        part = filled
        for section in sections:
            part = part[section]
        part[name] = copy.deepcopy(value)
    return filled


def word(key: str, value: Any) -> str:
    """The override that sets a key to a value."""
    return f"{key}={text(value)}"


def text(value: Any) -> str:
    """A value as Hydra's grammar has it."""
    if isinstance(value, list):
        return f"[{','.join(map(text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{text(key)}:{text(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str) and (not re.fullmatch(r"[A-Za-z_][\w./-]*", value) or value.lower() in NOT_TEXTS):
        escaped = re.sub(r"(\\*)(?:(')|$)", lambda match: 2 * match[1] + (match[2] and "\\'" or ""), value)
        return f"'{escaped}'"
    return str(value)


def said(range_: Mapping[str, Any]) -> str:
    """A range in words."""
    if range_["type"] == "choice":
        return ", ".join(map(text, range_["choices"]))
    step = f", each {range_['step']:g}" if range_.get("step", 1) != 1 else ""
    return f"{range_['low']:g} to {range_['high']:g}{', log' if range_['log'] else ''}{step}"
