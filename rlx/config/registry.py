"""Names -> algorithms and their worlds, and where configuration files live. Nothing is imported until it is chosen.

What lies in rlx/algos, a package's entry points or ./algos with `Config` and `train` at module level is an algorithm
(rlx.config.plugins); it may have `load_policy`, and state facts (rlx.config.facts). YAML files come from ./conf, rlx's
own and the entry-point group `rlx.conf` (any name -> a package whose files are laid out like conf/: algo/NAME.yaml,
env/NAME.yaml, task/NAME.yaml, preset/ALGO_ENV.yaml). Environments are Gymnasium's: a YAML in env/ names an id.
"""

import contextlib
import dataclasses
import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from rlx.base.errors import ConfigError, choices_hint
from rlx.base.files import guarded
from rlx.config import own_code, plugins
from rlx.config.facts import Facts, fault, outline
from rlx.config.nested import merged

WORLDS = {"control": "env", "language": "task"}  # the section that says where an algorithm of each world learns
PRIMARY = {"control": "config", "language": "language"}  # and the file that its configuration begins with


def implementations() -> dict[str, str]:
    """Implementation name -> where it comes from: rlx's own, third parties', those of the folder one stands in."""
    return {name: source.where for name in plugins.names("algos") if (source := plugins.source("algos", name))}


def has(implementation: str) -> bool:
    """Is there an algorithm of that name?"""
    return plugins.source("algos", implementation) is not None


def algorithm(implementation: str) -> ModuleType:
    """The module that implements an algorithm. Raises ConfigError naming the choices, or what is wrong with it."""
    source = plugins.find("algos", implementation, where="rlx list algos")
    module: ModuleType = source.load()
    if wrong := _wrong_facts(implementation, module):
        raise ConfigError(f"algo.implementation={implementation}: {source.title}: {wrong}")
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
        if (source := plugins.source("algos", implementation)) and (path := source.path()):
            return outline(path).facts
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


def serving(**spaces: str) -> list[str]:
    """The built-in implementations that serve Gymnasium spaces of these kinds (actions="Box", observations="Box")."""
    abouts = {name: facts(name) for name in plugins.built_in("algos")}
    return [
        name
        for name, about in abouts.items()
        if about.world == "control"
        and all(kind in (getattr(about, attribute) or (kind,)) for attribute, kind in spaces.items())
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
    """Every directory of configuration files, first match wins: ./conf of the user, rlx's, plug-ins', `extra`."""
    user = user_conf()
    folders = [*([user] if user else []), conf_dir().resolve()]
    for point in plugins.entry_points("rlx.conf").values():
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
    """The values of a file of a group, laid over those of the files that its defaults list names, without what only
    chooses files (preset_of); {} where there is none or it cannot be read."""
    path = options(group, extra).get(name)
    content = load(path) if path else {}
    content.pop("preset_of", None)
    below: dict[str, Any] = {}
    for item in content.pop("defaults", None) or []:
        if isinstance(item, str) and item != "_self_" and depth:
            below = merged(below, values(group, item, extra, depth - 1))
    return merged(below, content)


# -- presets of a variant --------------------------------------------------------------------------------------

PROMISE = ("expect", "published")  # keys of a preset that speak of what was measured


def parent(algo: str, extra: Path | None = None) -> str | None:
    """The algorithm whose presets serve this one, too: what its YAML says (`preset_of: ppo`), else the file that its
    defaults list begins with. Raises ConfigError for a name that is none."""
    files = options("algo", extra)
    content = load(files[algo]) if algo in files else {}
    if "preset_of" not in content:
        return next((item for item in content.get("defaults") or [] if item in files), None)
    name = content["preset_of"]
    if name is not None and name not in files:
        raise ConfigError(
            f"algo={algo}: preset_of={name}: no such algorithm{choices_hint(str(name), files, where='rlx list algos')}"
        )
    return name


def lineage(algo: str, extra: Path | None = None) -> list[str]:
    """An algorithm, the one that it is a variant of, and so on."""
    names: list[str] = []
    name: str | None = algo
    while name is not None and name not in names:
        names.append(name)
        name = parent(name, extra)
    return names


def preset_owner(algo: str, place: str, extra: Path | None = None) -> str | None:
    """Whose preset a pair takes: that of the algorithm itself, or of the nearest one that it is a variant of."""
    files = options("preset", extra)
    return next((name for name in lineage(algo, extra) if f"{name}_{place}" in files), None)


def inherited(preset: str, extra: Path | None = None) -> dict[str, Any] | None:
    """What a preset that has no file takes from the one that its algorithm is a variant of: neither the promise nor a
    key in which the two algorithms differ. None where there is no such preset."""
    if preset in options("preset", extra):
        return None
    for algo in sorted((name for name in options("algo", extra) if preset.startswith(f"{name}_")), key=len)[::-1]:
        place = preset.removeprefix(f"{algo}_")
        if owner := preset_owner(algo, place, extra):
            content = values("preset", f"{owner}_{place}", extra)
            own, theirs = values("algo", algo, extra), values("algo", owner, extra)
            tuned = {k: v for k, v in (content.get("algo") or {}).items() if own.get(k) == theirs.get(k)}
            return {**{key: value for key, value in content.items() if key not in PROMISE}, "algo": tuned}
    return None


def load(path: Path) -> dict[str, Any]:
    """A YAML file with keys, read without Hydra; {} for any other."""
    import yaml

    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError):
        content = yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return content if isinstance(content, dict) else {}
    return {}


def pair_of(preset: str) -> tuple[str, str]:
    """The algorithm and the environment or task that a preset's name says; of two readings the longer algorithm's."""
    places = {*options("env"), *options("task")}
    for name in sorted(options("algo"), key=len, reverse=True):
        if preset.startswith(f"{name}_") and preset.removeprefix(f"{name}_") in places:
            return name, preset.removeprefix(f"{name}_")
    return preset, ""


CODE = {"algo": ("algos", "implementation"), "task": ("tasks", "implementation"), "env": ("envs", "id")}


def origin(group: str, name: str) -> str:
    """Where a choice comes from: the code that it names where that is not rlx's, else its file."""
    kind, key = CODE.get(group, ("", ""))
    value = values(group, name).get(key)
    if isinstance(value, str) and (source := plugins.source(kind, value)) and source.where != "rlx":
        return source.where
    path = options(group)[name]
    if path.is_relative_to(conf_dir().resolve()):
        return "rlx"
    return own_code.near(path) if path.is_relative_to(own_code.folder()) else str(path.parent.parent)


def begins_with(name: str) -> tuple[dict[str, Any], str | None]:
    """The file that configurations begin with, config or language: rlx's own, and laid over it the user's where rlx
    knows all of its keys. And what to say of one that is left alone."""
    own = load(conf_dir() / f"{name}.yaml")
    path = (folder / f"{name}.yaml") if (folder := user_conf()) else None
    if path is None or not path.exists():
        return own, None
    where = f"./conf/{name}.yaml is not used"
    try:
        content = guarded.yaml_value(path)
    except ConfigError as error:
        return own, f"{where}: {str(error).removeprefix(f'{path}: ')}"
    if content is None:
        return own, None
    if not isinstance(content, dict):
        return own, f"{where}: it has no keys"
    known = {*(key for each in PRIMARY.values() for key in load(conf_dir() / f"{each}.yaml")), *groups(), *SECTIONS}
    if strange := [str(key) for key in content if key not in known]:
        return own, f"{where}: rlx has no key '{strange[0]}' (rlx's own stands)"
    if strange := [key for key in content if key in groups() and not isinstance(content[key], dict)]:
        return own, f"{where}: {strange[0]} must be a section with keys (a choice stands in its defaults list)"
    listed = _choices_laid_over(own["defaults"], content.pop("defaults", None) or [])
    return {**merged(own, content), "defaults": listed}, None


SECTIONS = ("hydra", "defaults", "logger")


def _choices_laid_over(own: list[Any], user: Any) -> list[Any]:
    """The items of a defaults list with a user's choices in their places, and what else is chosen behind them."""
    chosen = {}
    for item in user if isinstance(user, list) else ():
        for key, value in item.items() if isinstance(item, dict) else ():
            chosen[str(key).removeprefix("override ").removeprefix("optional ")] = value
    items = []
    for item in own:
        key = next(iter(item)) if isinstance(item, dict) else ""
        group = key.removeprefix("override ").removeprefix("optional ")
        items.append({key: chosen.pop(group)} if group in chosen else item)
    return [*items, *({f"override {key}" if "/" in key else key: value} for key, value in chosen.items())]


def default_choice(world: str, group: str) -> str:
    """What the defaults list of a world's primary file chooses of a group."""
    listed = begins_with(PRIMARY[world])[0].get("defaults") or []
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
