"""The runs that a run starts from: `init=RUN`, `algo.reward_model=RUN`. What stands for RUN becomes a path before the
new run has a directory, and nothing of the other run is read once the new one has a checkpoint.

RUN is a run directory, latest, or latest:ALGO: the newest finished run (of that algorithm) on the same task.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rlx.base.errors import ConfigError, did_you_mean, shown
from rlx.config import registry
from rlx.run import Saved
from rlx.rundir import checkpoint, reader
from rlx.rundir.checkpoint import CheckpointError
from rlx.rundir.layout import read_config
from rlx.rundir.provenance import Provenance

PLANNED = "stage:"  # before the name of a run that a chain has not made yet


def resolve(raw: Mapping[str, Any], world: ModuleType, command: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration with absolute paths, of the runs that it starts from too, and what run.json says of those.

    Raises ConfigError in one line for a run that is missing, has not finished or does not fit.
    """
    config: dict[str, Any] = copy.deepcopy(dict(raw))
    for key in world.PATHS:  # a resume may be typed somewhere else
        section, _, name = key.rpartition(".")
        if isinstance(path := config[section].get(name), str):
            config[section][name] = str(Path(path).absolute())
    origins: dict[str, Any] = {}
    for key in world.ORIGINS:
        section, _, name = key.rpartition(".")
        part = config[section] if section else config
        value = part.get(name)
        if value is None or str(value).startswith(PLANNED):
            continue
        where = f"{key}={shown(value)}"
        path = _find(str(value), where, name, config, world)
        source = _open(path, where, world.NAME)
        part[name] = str(path)
        world.inherit(config, source, key, where, command)
        origins[name] = {
            "run": str(path),
            "algo": source.config["algo"]["name"],
            "step": source.step,
            "weights_sha256": source.weights_sha256,
        }
    return config, origins


def saved(path: str) -> Saved:
    """The end of the run at `path`. Raises ConfigError."""
    directory = Path(path)
    files = sorted((directory / "checkpoints").glob("final_*.safetensors"), reverse=True)
    if not directory.is_dir():
        raise ConfigError(f"{path}: is gone, and this run, without a checkpoint yet, needs its weights")
    if not files:
        raise ConfigError(f"{path}: has no final checkpoint (rlx resume {path} finishes it)")
    try:
        content = checkpoint.load(files[0])
        tracked = content["state"]["run"]["tracked"]
        return Saved(read_config(directory), tracked, int(content["step"]), str(content["weights_sha256"]))
    except (CheckpointError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _find(value: str, where: str, name: str, raw: Mapping[str, Any], world: ModuleType) -> Path:
    place = world.NAME
    word, _, algo = value.partition(":")
    if word != "latest":
        try:
            return reader.resolve(value).resolve()
        except reader.NotARun as error:
            raise ConfigError(f"{where}: {str(error).removeprefix(f'{value}: ')}") from None
    algos = registry.algorithms_of(next(kind for kind, section in registry.WORLDS.items() if section == place))
    if not algo and name in algos:  # reward_model=latest
        algo = name
    root, files = Path(raw["runs_dir"]), _files(raw, world)
    for path in reader.newest_first(root):
        provenance = Provenance.read(path)
        if (
            getattr(provenance, place) == raw[place]["name"]
            and algo in ("", provenance.algo)
            and reader.state(path) == "finished"
            and (not files or _files(read_config(path), world) == files)
        ):
            return path.resolve()
    of = f"of {algo} " if algo else ""
    on = " ".join([f"{place}={raw[place]['name']}", *(f"{key}={shown(file)}" for key, file in files.items())])
    make = f"rlx train {f'algo={algo} ' if algo else ''}{on}"
    hint = did_you_mean(algo, algos, "latest:") if algo and algo not in algos else f" ({make} makes one)"
    raise ConfigError(f"{where}: no finished run {of}on {on} under {root}{hint}")


def _files(raw: Mapping[str, Any], world: ModuleType) -> dict[str, str]:
    """The files of the place that a configuration learns in: a run on another one is not `latest`."""
    place, keys = world.NAME, (key.partition(".")[2] for key in world.PATHS if key.startswith(f"{world.NAME}."))
    return {f"{place}.{key}": str(raw[place][key]) for key in keys if raw[place].get(key) is not None}


def _open(path: Path, where: str, place: str) -> Saved:
    config = read_config(path)
    if place not in config:
        raise ConfigError(f"{where}: a run of {config['algo'].get('name')} that has no {place}; it needs one that has")
    if (state := reader.state(path)) != "finished":
        raise ConfigError(f"{where}: has not finished, it is {state} (rlx resume {path} goes on with it)")
    try:
        return saved(str(path))
    except ConfigError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix(f'{path}: ')}") from None
