"""Names -> algorithms and their worlds, and where configuration files live. Nothing is imported until it is chosen.

What lies in rlx/algos with `Config` and `train` at module level is an algorithm; it may have `load_policy`, and state
facts (rlx.config.facts). A third party adds algorithms by the entry-point group `rlx.algos` (name -> a module of the
same form) and YAML files by `rlx.conf` (any name -> a package whose files are laid out like conf/: algo/NAME.yaml,
env/NAME.yaml, task/NAME.yaml, preset/ALGO_ENV.yaml). Environments are Gymnasium's: a YAML in env/ names an id. Tasks
are modules: see rlx.language.tasks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rlx.base.errors import ConfigError, choices_hint
from rlx.config.facts import Facts, Outline, fault, outline

WORLDS = {"control": "env", "language": "task"}  # the section that says where an algorithm of each world learns
PRIMARY = {"control": "config", "language": "language"}  # and the file that its configuration begins with
NEEDED = ("Config", "train")  # what an algorithm's module has
ALGOS = Path(__file__).resolve().parent.parent / "algos"


def _entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return _installed(group, tuple(sys.path))


@functools.cache
def _installed(group: str, _path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """Read once: it opens a file of every installed distribution, and a command asks ten times."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def _built_in(name: str) -> bool:
    """Is it one of rlx/algos? (A file that is no Python is taken for one: what is wrong with it is said when it is
    chosen.)"""
    path = ALGOS / f"{name}.py"
    try:
        return name.isidentifier() and path.is_file() and not _missing(outline(path))
    except (SyntaxError, ValueError):
        return True


def _missing(file: Outline) -> list[str]:
    return [name for name in NEEDED if name not in file.names]


def implementations() -> dict[str, str]:
    """Implementation name -> module, built-in and third-party. A plug-in cannot replace a built-in one."""
    own = sorted(path.stem for path in ALGOS.glob("*.py") if _built_in(path.stem))
    plug_ins = {name: point.value for name, point in _entry_points("rlx.algos").items()}
    return {**plug_ins, **{name: f"rlx.algos.{name}" for name in own}}


def module_name(implementation: str) -> str | None:
    """The module of an algorithm; None where there is none."""
    if _built_in(implementation):
        return f"rlx.algos.{implementation}"
    point = _entry_points("rlx.algos").get(implementation)
    return point.value if point else None


def algorithm(implementation: str) -> ModuleType:
    """The module that implements an algorithm. Raises ConfigError naming the choices, or what is wrong with it."""
    where = f"algo.implementation={implementation}"
    name = module_name(implementation)
    if name is None:
        if implementation.isidentifier() and (ALGOS / f"{implementation}.py").is_file():
            missing = _missing(outline(ALGOS / f"{implementation}.py"))
            raise ConfigError(f"{where}: rlx/algos/{implementation}.py has no {' and no '.join(missing)}")
        hint = choices_hint(implementation, implementations(), where="rlx list algos")
        raise ConfigError(f"{where}: no such implementation{hint}")
    if _built_in(implementation):
        module = importlib.import_module(name)
    else:
        module = _plug_in(name, where)
    if wrong := _wrong_facts(implementation, module):
        raise ConfigError(f"{where}: {name}: {wrong}")
    return module


def _plug_in(name: str, where: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a third party's module may do anything while it is imported
        raise ConfigError(
            f"{where}: the plug-in's module {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if missing := [needed for needed in NEEDED if not hasattr(module, needed)]:
        raise ConfigError(f"{where}: the plug-in's module {name} has no {' and no '.join(missing)}")
    return module


def _wrong_facts(implementation: str, module: ModuleType) -> str | None:
    for name, value in _stated(implementation).items():
        if what := fault(name, value):
            return f"{name.upper()} {what}"
    if dataclasses.is_dataclass(module.Config):
        keys = [field.name for field in dataclasses.fields(module.Config)]
        for key in _stated(implementation).get("frozen", ()):
            if key not in keys:
                return f"FROZEN: Config has no {key}"
    return None


# -- facts -----------------------------------------------------------------------------------------------------


def _stated(implementation: str) -> dict[str, Any]:
    """The facts that an algorithm's file states; {} where it cannot be read, which is said when it is chosen."""
    with contextlib.suppress(Exception):  # a third party's package may do anything
        if _built_in(implementation):
            return outline(ALGOS / f"{implementation}.py").facts
        if (name := module_name(implementation)) and (spec := find_spec(name)):
            return outline(Path(str(spec.origin))).facts
    return {}


def facts(implementation: str) -> Facts:
    """What an algorithm says about itself. It is read, and not imported."""
    return Facts.of(_stated(implementation))


def world_name(implementation: str) -> str:
    """control or language."""
    return facts(implementation).world


def world(implementation: str) -> ModuleType:
    """The module of the world that an algorithm learns in: rlx.control.family, rlx.language.family."""
    return importlib.import_module(f"rlx.{world_name(implementation)}.family")


def serving(attribute: str, kind: str) -> list[str]:
    """The built-in implementations whose `actions` or `observations` include a kind of Gymnasium space."""
    built_in = {name: facts(name) for name in implementations() if _built_in(name)}
    return [
        name
        for name, about in built_in.items()
        if about.world == "control" and ((kinds := getattr(about, attribute)) is None or kind in kinds)
    ]


# -- configuration files ---------------------------------------------------------------------------------------


def conf_dir() -> Path:
    """rlx's own configuration files: inside the wheel, or beside the package in a checkout."""
    here = Path(__file__).resolve().parent.parent  # of rlx
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def user_conf() -> Path | None:
    """./conf of the working directory, unless that is rlx's own or there is none."""
    folder = (Path.cwd() / "conf").resolve()
    return folder if folder.is_dir() and folder != conf_dir().resolve() else None


def conf_dirs(extra: Path | None = None) -> list[Path]:
    """Every directory of configuration files, first match wins: ./conf of the user, rlx's, plug-ins', `extra`.

    ./conf goes behind rlx's own where it holds a config.yaml or language.yaml: that belongs to some other program, or
    would replace rlx's.
    """
    own, user = conf_dir().resolve(), user_conf()
    folders = [own]
    if user:
        replaces = any((user / f"{name}.yaml").exists() for name in PRIMARY.values())
        folders.insert(1 if replaces else 0, user)
    for point in _entry_points("rlx.conf").values():
        try:
            spec = find_spec(point.value)
        except Exception:  # a broken plug-in must not break every command
            continue
        folders += [Path(place).resolve() for place in (spec.submodule_search_locations or [])] if spec else []
    if extra:
        folders.append(extra.resolve())
    return list(dict.fromkeys(folders))


def groups() -> list[str]:
    """The configuration groups: algo, env, ... (not hydra, nor sweep: ranges, which no run is composed of)"""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ("hydra", "sweep"))


def options(group: str, extra: Path | None = None) -> dict[str, Path]:
    """The choices of a configuration group and the files they are read from."""
    paths: dict[str, Path] = {}
    for directory in conf_dirs(extra):
        for path in sorted((directory / group).glob("*.yaml")):
            paths.setdefault(path.stem, path)
    return dict(sorted(paths.items()))


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
        content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return content if isinstance(content, dict) else {}
    return {}


def default_choice(world: str, group: str) -> str:
    """What the defaults list of a world's primary file chooses of a group."""
    listed = load(conf_dir() / f"{PRIMARY[world]}.yaml").get("defaults") or []
    return next(str(item[group]) for item in listed if isinstance(item, dict) and group in item)


def algorithms_of(world: str, extra: Path | None = None) -> list[str]:
    """The choices of algo= in a world."""
    by_algorithm = {name: values("algo", name, extra).get("implementation") for name in options("algo", extra)}
    return [name for name, built in by_algorithm.items() if isinstance(built, str) and world_name(built) == world]


def first_comment(path: Path) -> str:
    """What a configuration file says about itself in its first line."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""
