"""Names -> algorithms and their worlds, and where configuration files live. Nothing is imported until it is chosen.

A third party adds algorithms by the entry-point group `rlx.algos` (name -> module with `Config`, `train` and
`load_policy`, and for language WORLD = "language") and YAML files by `rlx.conf` (any name -> a package whose files are
laid out like conf/: algo/NAME.yaml, env/NAME.yaml, task/NAME.yaml, preset/ALGO_ENV.yaml). Environments are
Gymnasium's: a YAML in env/ names an id. Tasks are modules: see rlx.language.tasks.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rlx.base.errors import ConfigError, choices_hint

CONTROL = ("q_learning", "dqn", "vpg", "actor_critic", "a2c", "trpo", "ppo")
LANGUAGE = ("pretrain", "sft", "reward_model", "rlhf_ppo", "dpo", "grpo")
ALGORITHMS = (*CONTROL, *LANGUAGE)
WORLDS = {"control": "env", "language": "task"}  # the section that says where an algorithm of each world learns
PRIMARY = {"control": "config", "language": "language"}  # and the file that its configuration begins with
BUILT_IN = {name: f"rlx.algos.{name}" for name in ALGORITHMS}
NEEDED = ("Config", "train", "load_policy")  # what an algorithm's module has


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=group)}


def implementations() -> dict[str, str]:
    """Implementation name -> module, built-in and third-party. A plug-in cannot replace a built-in one."""
    return {**{name: point.value for name, point in _entry_points("rlx.algos").items()}, **BUILT_IN}


def algorithm(implementation: str) -> ModuleType:
    """The module that implements an algorithm. Raises ConfigError naming the choices, or what is wrong with it."""
    known = implementations()
    where = f"algo.implementation={implementation}"
    if implementation not in known:
        raise ConfigError(
            f"{where}: no such implementation{choices_hint(implementation, known, where='rlx list algos')}"
        )
    if implementation in BUILT_IN:
        return importlib.import_module(known[implementation])
    try:
        module = importlib.import_module(known[implementation])
    except Exception as error:  # a third party's module may do anything while it is imported
        raise ConfigError(
            f"{where}: the plug-in's module {known[implementation]} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if missing := [name for name in NEEDED if not hasattr(module, name)]:
        raise ConfigError(f"{where}: the plug-in's module {known[implementation]} has no {' and no '.join(missing)}")
    return module


def world_name(implementation: str) -> str:
    """control or language. A plug-in's module is read for its line WORLD = "language", and not imported."""
    if implementation in BUILT_IN or implementation not in (known := implementations()):
        return "language" if implementation in LANGUAGE else "control"
    with contextlib.suppress(Exception):  # a broken plug-in is named when it is chosen
        spec = find_spec(known[implementation])
        text = Path(str(spec and spec.origin)).read_text("utf-8")
        if found := re.search(r"""^WORLD *(?::.*)?= *["'](\w+)["']""", text, re.MULTILINE):
            return found[1] if found[1] in WORLDS else "control"
    return "control"


def world(implementation: str) -> ModuleType:
    """The module of the world that an algorithm learns in: rlx.control.family, rlx.language.family."""
    return importlib.import_module(f"rlx.{world_name(implementation)}.family")


def serving(attribute: str, kind: str) -> list[str]:
    """The built-in implementations whose ACTIONS or OBSERVATIONS (`attribute`) include a kind of Gymnasium space."""
    found = []
    for name in CONTROL:
        kinds = getattr(algorithm(name), attribute, None)
        if kinds is None or kind in kinds:
            found.append(name)
    return found


# -- configuration files ---------------------------------------------------------------------------------------


def conf_dir() -> Path:
    """rlx's own configuration files: inside the wheel, or beside the package in a checkout."""
    here = Path(__file__).resolve().parent.parent  # of rlx
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def user_conf() -> Path | None:
    """./conf of the working directory, unless that is rlx's own or there is none."""
    mine = (Path.cwd() / "conf").resolve()
    return mine if mine.is_dir() and mine != conf_dir().resolve() else None


def conf_dirs(extra: Path | None = None) -> list[Path]:
    """Every directory of configuration files, first match wins: ./conf of the user, rlx's, plug-ins', `extra`.

    ./conf goes behind rlx's own where it holds a config.yaml or language.yaml: that belongs to some other program, or
    would replace rlx's.
    """
    own, mine = conf_dir().resolve(), user_conf()
    found = [own]
    if mine:
        replaces = any((mine / f"{name}.yaml").exists() for name in PRIMARY.values())
        found.insert(1 if replaces else 0, mine)
    for point in _entry_points("rlx.conf").values():
        try:
            spec = find_spec(point.value)
        except Exception:  # a broken plug-in must not break every command
            continue
        found += [Path(place).resolve() for place in (spec.submodule_search_locations or [])] if spec else []
    if extra:
        found.append(extra.resolve())
    return list(dict.fromkeys(found))


def groups() -> list[str]:
    """The configuration groups: algo, env, ... (not hydra, nor sweep: ranges, which no run is composed of)"""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ("hydra", "sweep"))


def options(group: str, extra: Path | None = None) -> dict[str, Path]:
    """The choices of a configuration group and the files they are read from."""
    found: dict[str, Path] = {}
    for directory in conf_dirs(extra):
        for path in sorted((directory / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def values(group: str, name: str, extra: Path | None = None, depth: int = 5) -> dict[str, Any]:
    """The values of a file of a group, laid over those of the files that its defaults list names; {} where there is
    none or it cannot be read."""
    path = options(group, extra).get(name)
    content = load(path) if path else {}
    below: dict[str, Any] = {}
    for item in content.pop("defaults", None) or []:
        if isinstance(item, str) and item != "_self_" and depth:
            below |= values(group, item, extra, depth - 1)
    return {**below, **content}


def load(path: Path) -> dict[str, Any]:
    """A YAML file with keys, read without Hydra; {} for any other."""
    import yaml

    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        found = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return found if isinstance(found, dict) else {}
    return {}


def algorithms_of(world: str, extra: Path | None = None) -> list[str]:
    """The choices of algo= in a world."""
    made = {name: values("algo", name, extra).get("implementation") for name in options("algo", extra)}
    return [name for name, built in made.items() if isinstance(built, str) and world_name(built) == world]


def first_comment(path: Path) -> str:
    """What a configuration file says about itself in its first line."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""
