"""What the run directories of one question have in common: which they are, and their configurations.

Never imports torch.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError, choices_hint, did_you_mean, shown
from rlx.base.files import guarded
from rlx.config.keys import ORIGINS
from rlx.config.nested import flatten
from rlx.rundir import home, reader
from rlx.rundir.layout import CONFIG
from rlx.rundir.provenance import Provenance

FEW = 30  # keys that a hint lists
GLOB = re.compile(r"[*?\[]")


def find(names: Sequence[str]) -> list[Path]:
    """The runs that the words name: runs, directories of runs, patterns of either, latest. Raises UserError."""
    runs: list[Path] = []
    for name in names or (str(home.runs_dir()),):
        path = Path(name)
        if name == "latest" or name.startswith("latest:"):
            runs.append(reader.resolve(name))
        elif path.is_dir():
            runs += reader.find(path)
        elif GLOB.search(name):
            runs += _matching(name)
        else:
            what = "not a directory" if path.exists() else "no such directory"
            raise UserError(f"{shown(name)}: {what} (a run, or a directory with runs under it; rlx train makes runs/)")
    if not runs:
        raise UserError(f"no runs under {', '.join(names) or home.runs_dir()} yet: rlx train algo=ppo env=cartpole")
    return sorted({path.resolve(): path for path in runs}.values(), key=natural)


def _matching(pattern: str) -> list[Path]:
    import glob

    runs = [path for name in glob.glob(pattern, recursive=True) for path in reader.find(Path(name))]
    if not runs:
        raise UserError(f"{pattern}: no run matches (`rlx ls` lists the runs there are)")
    return runs


def natural(path: Path) -> list[Any]:
    """The order in which runs began: by name, job 2 of a grid before job 10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


# -- configurations --------------------------------------------------------------------------------------------


def config(path: Path) -> dict[str, Any]:
    """The flat configuration of a run, the runs it starts from by their algorithm, and `code` where it ran code that
    is not rlx's; {} where it cannot be read."""
    values = raw_config(path)
    if values and (code := Provenance.read(path).code_digest):
        values["code"] = code
    for key in ORIGINS:  # seeds of one experiment start from different runs
        if values.get(key) is not None:
            values[key] = Provenance.read(path).origins.get(key.rpartition(".")[2], {}).get("algo")
    return values


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


def identity(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same everywhere, algo.name first."""
    keys = dict.fromkeys(["algo.name", *(key for one in configs for key in one)])
    return [key for key in keys if len({json.dumps(one.get(key), default=str) for one in configs}) > 1]


def needed(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """The first keys that tell all the configurations apart."""
    first_keys: list[str] = []

    def kinds(chosen: list[str]) -> int:
        return len({json.dumps([one.get(key) for key in chosen], default=str) for one in configs})

    for key in keys:
        if kinds([*first_keys, key]) > kinds(first_keys):
            first_keys.append(key)
    return first_keys


def place(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """env or task, its name, and what tells it from another one of that name."""
    kind = "task" if "task.name" in values else "env"
    own = values.get("env.id", values.get("task.implementation"))
    return kind, str(values.get(f"{kind}.name")), str(own)


def place_names(places: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """What each place is called; two of one name by what tells them apart."""
    names = {each: each[1] for each in dict.fromkeys(places)}
    return names if len(set(names.values())) == len(names) else {each: each[2] for each in names}


def full_key(name: str, names: Iterable[str], option: str = "--by", also: Iterable[str] = ()) -> str:
    """algo.weight for weight, algo.name for algo, train/loss for loss; `also` are names that are taken as they are.
    Raises UserError."""
    keys = sorted({*names, *also})
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
