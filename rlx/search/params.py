"""A point of a search's space: {key: value}, on a configuration and on the command line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

NOT_TEXTS = ("null", "true", "false", "nan", "inf")


def placed(config: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these dotted keys set."""
    found = copy.deepcopy(dict(config))
    for key, value in params.items():
        *sections, name = key.split(".")
        part = found
        for section in sections:
            part = part[section]
        part[name] = copy.deepcopy(value)
    return found


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
        escaped = re.sub(r"(\\*)(?:(')|$)", lambda found: 2 * found[1] + (found[2] and "\\'" or ""), value)
        return f"'{escaped}'"
    return str(value)


def said(found: Mapping[str, Any]) -> str:
    """A range in words."""
    if found["type"] == "choice":
        return ", ".join(map(text, found["choices"]))
    step = f", each {found['step']:g}" if found.get("step", 1) != 1 else ""
    return f"{found['low']:g} to {found['high']:g}{', log' if found['log'] else ''}{step}"
