"""Configurations as `rlx train` composes them. Hydra takes a seventh of a second for one, so the files that words
choose are composed once, and a plain key=value is set by hand."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from rlx.config import registry
from rlx.launch.composing import compose_all, plain

REFERRED = ("env.id", "task.digits", "task.file")  # other keys refer to these, or the YAML files have no value for them
GROUPS = {*registry.groups()}


@cache
def by_hydra(*words: str) -> dict[str, Any]:
    """Read it only."""
    with compose_all() as compose:
        return plain(compose(list(words)))


def composed(*words: str) -> dict[str, Any]:
    """The configuration, resolved, as data of one's own."""
    keys = [word.partition("=")[0] for word in words]
    chooses = [key in GROUPS or key in REFERRED or key[0] in "+~" for key in keys]
    raw = copy.deepcopy(by_hydra(*(word for word, first in zip(words, chooses) if first)))
    values = [word for word, first in zip(words, chooses) if not first]
    for override in OverridesParser.create().parse_overrides(values):
        *sections, name = override.key_or_group.split(".")
        part = raw
        for section in sections:
            part = part.get(section) if isinstance(part, dict) else {}
        value = override.value()
        if not isinstance(part, dict) or name not in part or isinstance(value, dict) or "${" in str(value):
            return copy.deepcopy(by_hydra(*words))  # it knows what that means, or what is wrong with it
        part[name] = value
    return raw
