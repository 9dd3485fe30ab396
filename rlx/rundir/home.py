"""The directory of runs. One function decides where that is, for every verb. Imports neither Hydra nor torch.

In this order: --runs-dir or runs_dir= of the command, the environment's RLX_RUNS_DIR, ./conf (config.yaml or
language.yaml of the folder one stands in), ./runs.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rlx.base.errors import UserError
from rlx.base.files.paths import near
from rlx.config import registry

FLAG, KEY, VARIABLE, DEFAULT = "--runs-dir", "runs_dir=", "RLX_RUNS_DIR", "runs"
ACTIONS = ("show", "best", "resume")  # of rlx sweep, on a study that is there
ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)\}")

_chosen: str | None = None  # by the words of the command


def runs_dir() -> Path:
    """Where runs are, and are looked for."""
    return Path(_chosen).expanduser() if _chosen else usual()


def usual() -> Path:
    """The same where the command does not say: what the next one finds."""
    text = ENVIRONMENT.sub(lambda match: os.environ.get(match[1], match[0]), configured())
    return Path(os.environ.get(VARIABLE) or text).expanduser()


def configured() -> str:
    """What ./conf says, as it stands there."""
    if registry.user_conf():
        for name in registry.PRIMARY.values():
            value = registry.begins_with(name)[0].get("runs_dir")
            if isinstance(value, str) and value not in ("", DEFAULT):
                return value
    return DEFAULT


def of(path: Path) -> Path:
    """The directory of runs that a run, a grid or a search is in."""
    place = usual()
    if path.absolute().is_relative_to(place.absolute()):
        return place
    parents = path.absolute().parents
    return near(parents[1 if path.parent.name == "sweeps" else 2])


def take(words: Sequence[str]) -> list[str]:
    """The words of a command without those that say where runs are, which holds from now on. What trains keeps them, as
    runs_dir=DIRECTORY. Raises UserError."""
    global _chosen
    _chosen = None
    rest, kept = list(words), list[str]()
    keeps = rest[:1] == ["train"] or (rest[:1] == ["sweep"] and not set(rest[1:2]) & set(ACTIONS))
    while rest:
        word = rest.pop(0)
        if word == FLAG:
            if not rest or rest[0].startswith("-"):
                raise UserError(f"{FLAG}: needs a value ({FLAG} DIRECTORY)")
            value = rest.pop(0)
        elif word.startswith((f"{FLAG}=", KEY)) and kept[-1:] != ["--where"]:
            value = word.partition("=")[2]
        else:
            kept.append(word)
            continue
        if not value and not (keeps and word.startswith(KEY)):
            raise UserError(f"{word}: needs a directory")
        if keeps:
            kept.append(word if word.startswith(KEY) else f"{KEY}{value}")
        else:
            _chosen = value
    return kept
