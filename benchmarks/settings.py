"""What the cells of a folder of docs/results were made with: settings.json beside them.

A preset that changes afterwards would be judged by runs of other values; so a command that adds cells refuses, and the
suite fails, until the folder is made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.config import keys
from rlx.config.nested import flatten
from rlx.launch.composing import compose_all, plain

NAME = "settings.json"
SECTIONS = ("algo", "env", "task", "model", "total_steps")
HOW = ("algo.engine", "env.backend", "env.workers", "env.step_timeout", "env.replay")  # it is computed, not what


def now(words: Sequence[str]) -> dict[str, Any]:
    """The values that `rlx train WORDS` learns with today: its sections, flat, without what differs between seeds and
    machines."""
    with compose_all() as compose:
        raw = plain(compose([word for word in words if "{" not in word]))  # {sft}: the path of another run
    flat = keys.curve(flatten(raw))
    return {key: value for key, value in flat.items() if key.partition(".")[0] in SECTIONS and key not in HOW}


def strayed(folder: Path, values: Mapping[str, Any]) -> list[str]:
    """`algo.lr=0.1 (now 0.2)` for each value that its cells were made with and that is another one today. A key that
    was not there then, or is no more, says nothing."""
    try:
        then = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        return []
    return [f"{key}={then[key]} (now {values[key]})" for key in then if key in values and then[key] != values[key]]


def settle(folder: Path, words: Sequence[str]) -> None:
    """Write down what its cells are made with, the first time. Raises SystemExit where that has changed."""
    values = now(words)
    if changed := strayed(folder, values):
        raise SystemExit(f"{folder} holds cells of other values: {', '.join(changed)}; remove it, or set them back")
    if not (folder / NAME).exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NAME).write_text(json.dumps(values, indent=1) + "\n")
