"""Names -> algorithms, and where configuration files live. Nothing is imported until it is chosen.

A third party adds algorithms by the entry-point group `rlx.algos` (name -> module with `Config`, `train` and
`load_policy`) and YAML files by `rlx.conf` (any name -> a package whose files are laid out like conf/: algo/NAME.yaml,
env/NAME.yaml, preset/ALGO_ENV.yaml). Environments are Gymnasium's: a YAML in env/ names an id.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from rlx.errors import ConfigError, did_you_mean

BUILT_IN = {"ppo": "rlx.algos.ppo"}


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=group)}


def implementations() -> dict[str, str]:
    """Implementation name -> module, built-in and third-party."""
    return {**BUILT_IN, **{name: point.value for name, point in _entry_points("rlx.algos").items()}}


def algorithm(implementation: str) -> ModuleType:
    """The module that implements an algorithm. Raises ConfigError naming the choices."""
    known = implementations()
    if implementation not in known:
        hint = did_you_mean(implementation, known)
        there = ", ".join(sorted(known))
        raise ConfigError(f"algo.implementation={implementation}: no such implementation{hint} (there are: {there})")
    return importlib.import_module(known[implementation])


def conf_dir() -> Path:
    """rlx's own configuration files: inside the wheel, or beside the package in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def conf_dirs() -> list[Path]:
    """Every directory of configuration files, first match wins: ./conf of the user, rlx's, plug-ins'."""
    found = [Path.cwd() / "conf"] if (Path.cwd() / "conf").is_dir() else []
    found.append(conf_dir())
    for point in _entry_points("rlx.conf").values():
        spec = find_spec(point.value)
        found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return list(dict.fromkeys(path.resolve() for path in found))


def options(group: str) -> dict[str, Path]:
    """The choices of a configuration group and the files they are read from."""
    found: dict[str, Path] = {}
    for directory in conf_dirs():
        for path in sorted((directory / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))
