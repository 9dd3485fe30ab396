"""What a search is asked for beside the words of `rlx train`: trials=50 seeds=3 sampler=tpe. Imports nothing slow."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlx.base.errors import ConfigError, choices_hint, shown

SAMPLERS = ("tpe", "random", "cmaes", "gp", "nsga2")
PRUNERS = ("median", "hyperband", "none")
MOST = {"trials": 100_000, "seeds": 1_000, "jobs": 256}
JOURNAL = "journal"


@dataclass
class Settings:
    """`trials` configurations of `seeds` runs each."""

    trials: int = 50
    seeds: int = 3
    sampler: str = "tpe"
    pruner: str = "median"
    storage: str = JOURNAL  # journal: a file in the study's directory; or the URL of a database
    study: str | None = None  # its name, that of its directory
    jobs: int = 1  # workers here
    sweep: str | None = None  # the file of ranges: conf/sweep/NAME.yaml


NAMES = tuple(Settings.__dataclass_fields__)


def take(words: Iterable[str], allowed: Iterable[str] = NAMES) -> tuple[dict[str, Any], list[str]]:
    """The settings among the words, checked, and the other words. Raises ConfigError."""
    values: dict[str, Any] = {}
    rest: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in allowed:
            values[key] = checked(key, value)
        else:
            rest.append(word)
    return values, rest


def checked(key: str, value: str) -> Any:
    """The value of a setting. Raises ConfigError."""
    if key in MOST:
        number = int(value.replace("_", "")) if re.fullmatch(r"\d[\d_]*", value) else 0
        if not 1 <= number <= MOST[key]:
            raise ConfigError(f"{key}={shown(value)}: must be a whole number from 1 to {MOST[key]}")
        return number
    choices = {"sampler": SAMPLERS, "pruner": PRUNERS}.get(key)
    if choices and value not in choices:
        raise ConfigError(f"{key}={shown(value)}: no such {key}{choices_hint(value, choices)}")
    if key == "study" and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ConfigError(
            f"study={shown(value)}: must be a directory's name: letters, digits, '.', '_' and '-', beginning with a "
            "letter or digit, 100 at most"
        )
    if key == "study" and value == "latest":
        raise ConfigError("study=latest: means the newest study (rlx sweep show latest) and cannot be a study's name")
    if key == "storage" and value != JOURNAL and not re.match(r"[a-z][\w+]*://.", value):
        raise ConfigError(
            f"storage={shown(value)}: must be {JOURNAL} (a file in the study's directory) or the URL of a database "
            "(sqlite:///FILE, postgresql://HOST/NAME, mysql://HOST/NAME)"
        )
    if key == "storage" and re.match(r"sqlite\S*://(/?:memory:.*)?$", value):
        raise ConfigError(f"storage={value}: is lost when the process ends, and other workers cannot see it")
    return value
