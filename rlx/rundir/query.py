"""What the run directories of one question have in common: which they are, and their configurations.

Never imports torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.base import guarded
from rlx.base.errors import UserError, choices_hint, did_you_mean, shown
from rlx.config.keys import ORIGINS
from rlx.config.nested import flatten
from rlx.rundir import reader
from rlx.rundir.layout import CONFIG
from rlx.rundir.provenance import Provenance

FEW = 30  # keys that a hint lists
GLOB = re.compile(r"[*?\[]")


def find(names: Sequence[str]) -> list[Path]:
    """The runs that the words name: runs, directories of runs, patterns of either, latest. Raises UserError."""
    found: list[Path] = []
    for name in names or ("runs",):
        path = Path(name)
        if name == "latest" or name.startswith("latest:"):
            found.append(reader.resolve(name))
        elif path.is_dir():
            found += reader.find(path)
        elif GLOB.search(name):
            found += _matching(name)
        else:
            what = "not a directory" if path.exists() else "no such directory"
            raise UserError(f"{shown(name)}: {what} (a run, or a directory with runs under it; rlx train makes runs/)")
    if not found:
        raise UserError(f"no runs under {', '.join(names) or 'runs'} yet: rlx train algo=ppo env=cartpole")
    return sorted({path.resolve(): path for path in found}.values(), key=natural)


def _matching(pattern: str) -> list[Path]:
    import glob

    found = [path for name in glob.glob(pattern, recursive=True) for path in reader.find(Path(name))]
    if not found:
        raise UserError(f"{pattern}: no run matches (`rlx ls` lists the runs there are)")
    return found


def natural(path: Path) -> list[Any]:
    """The order in which runs began: by name, job 2 of a grid before job 10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


# -- configurations --------------------------------------------------------------------------------------------


def config(path: Path) -> dict[str, Any]:
    """The flat configuration of a run, the runs it starts from by their algorithm; {} where it cannot be read."""
    found = raw_config(path)
    for key in ORIGINS:  # seeds of one experiment start from different runs
        if found.get(key) is not None:
            found[key] = Provenance.read(path).origins.get(key.rpartition(".")[2], {}).get("algo")
    return found


def raw_config(path: Path) -> dict[str, Any]:
    """The flat configuration as config.yaml has it; {} where it cannot be read."""
    return read_config(path)[0]


def read_config(path: Path) -> tuple[dict[str, Any], str | None]:
    """The flat configuration, and why it cannot be read if it cannot."""
    try:
        raw = guarded.yaml_value(path / CONFIG)
    except guarded.Damaged as error:
        return {}, str(error).removeprefix(f"{path}/")
    if not isinstance(raw, dict) or not raw:
        return {}, f"{CONFIG}: unreadable (no configuration)"
    return {key: _plain(value) for key, value in flatten(raw).items()}, None


def _plain(value: Any) -> Any:
    """As JSON has it: a date or bytes as text."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, str | int | float) else str(value)


def identity(found: Mapping[str, Any]) -> str:
    return json.dumps(found, sort_keys=True, default=str)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same everywhere, algo.name first."""
    keys = dict.fromkeys(["algo.name", *(key for found in configs for key in found)])
    return [key for key in keys if len({json.dumps(found.get(key), default=str) for found in configs}) > 1]


def needed(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The first keys that tell all the configurations apart."""
    found: list[str] = []

    def kinds(chosen: list[str]) -> int:
        return len({json.dumps([one.get(key) for key in chosen], default=str) for one in configs})

    for key in keys:
        if kinds([*found, key]) > kinds(found):
            found.append(key)
    return found


def place(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """env or task, its name, and what tells it from another one of that name."""
    kind = "task" if "task.name" in found else "env"
    own = found.get("env.id", found.get("task.implementation"))
    return kind, str(found.get(f"{kind}.name")), str(own)


def place_names(places: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """What each place is called; two of one name by what tells them apart."""
    names = {each: each[1] for each in dict.fromkeys(places)}
    return names if len(set(names.values())) == len(names) else {each: each[2] for each in names}


def full_key(name: str, known: Iterable[str], option: str = "--by", also: Iterable[str] = ()) -> str:
    """algo.weight for weight, algo.name for algo, train/loss for loss; `also` are names that are taken as they are.
    Raises UserError."""
    keys = sorted({*known, *also})
    if name in keys:
        return name
    if f"{name}.name" in keys:
        return f"{name}.name"
    ends = [key for key in keys if key.endswith((f".{name}", f"/{name}"))]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f"{option}={shown(name)}: which of {', '.join(ends)}?")
    short = {key.rpartition(".")[2] for key in keys} if "." not in name else set(keys)
    few = len(short) <= FEW
    hint = choices_hint(name, short) if few else did_you_mean(name, short) or " (rlx show RUN, config.yaml has them)"
    raise UserError(f"{option}={shown(name)}: no run's configuration has this key{hint}")


def value_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else shown(value)
