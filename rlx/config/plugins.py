"""What the names in a configuration stand for, of every kind: something of rlx, of an installed package, or of the
folder one stands in. Nothing is imported until it is loaded.

    kind      of rlx                 of a package: entry points   of the folder         is
    algos     rlx/algos/NAME.py      rlx.algos                    ./algos/NAME.py       a module: Config, train
    tasks     rlx/language/tasks/..  rlx.tasks                    ./tasks/NAME.py       a module: Config, Task
    wrappers  rlx.envs.wrappers      rlx.wrappers                 ./wrappers/NAME.py    called with an environment
    loggers   rlx.loggers            rlx.loggers                  ./loggers/NAME.py     a class: start, log, finish
    models    -                      rlx.models                   ./models/NAME.py      a torch module: model.encoder

In that order: nobody replaces what is rlx's. A name may also say where it is: ./any/file.py, and of the kinds that are
no modules ./any/file.py:Name or module:Name (a bare NAME means the one class that its file defines). Environments are
Gymnasium's; an id of the form module:Id or ./file.py:Id is found in the same way (rlx.envs.single).
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rlx.base.errors import ConfigError, choices_hint
from rlx.config import own_code
from rlx.config.facts import outline
from rlx.config.own_code import Absent

RLX = Path(__file__).resolve().parent.parent
BUILT_IN = {"algos": "algos", "tasks": "language.tasks"}  # packages of rlx in which each file is one
LOGGERS = ("csv", "mlflow", "wandb")  # rlx/loggers/NAME.py: Logger
NEEDED = {"algos": ("Config", "train"), "tasks": ("Config", "Task")}  # what a module of the kind has
KEYS = {
    "algos": "algo.implementation",
    "tasks": "task.implementation",
    "wrappers": "env.wrappers",
    "loggers": "logger",
    "models": "model.encoder",
}
WORDS = {"algos": "implementation", "tasks": "task", "wrappers": "wrapper", "loggers": "logger", "models": "encoder"}


@dataclass(frozen=True)
class Source:
    """Where a thing of some kind is."""

    kind: str
    name: str  # as the configuration has it
    module: str = ""  # that is imported; or else:
    file: Path | None = None  # that is loaded
    attribute: str = ""  # of the module; "": the module itself
    distribution: str = ""  # and its version, of a package

    @property
    def own(self) -> bool:
        """Is it code of the folder?"""
        if self.distribution or self.module.startswith("rlx."):
            return False
        with contextlib.suppress(Exception):  # a third party's package may do anything
            return (path := self.path()) is None or own_code.below(path) or self.file is not None
        return False

    def path(self) -> Path | None:
        """Its file, without importing it. Raises whatever its packages do."""
        if self.module.startswith("rlx."):
            return RLX.joinpath(*self.module.split(".")[1:]).with_suffix(".py")
        return self.file or own_code.file_of(self.module)

    @property
    def where(self) -> str:
        """Where it comes from, for people."""
        if self.module.startswith("rlx."):
            return "rlx"
        return self.distribution or (own_code.near(self.file) if self.file else self.module)

    def load(self) -> Any:
        """The module or its attribute. Raises ConfigError, Absent where it is not there."""
        key = f"{KEYS[self.kind]}={self.name}"
        try:
            module = own_code.load_file(self.file) if self.file else own_code.load_module(self.module)
        except Absent as error:
            lost = f"no module {self.module} in {self.distribution}" if self.distribution else error
            raise Absent(f"{key}: {lost}") from None
        except Exception as error:  # it may do anything while it is imported
            if self.module.startswith("rlx."):
                raise
            raise ConfigError(f"{key}: {self.title} cannot be imported: {type(error).__name__}: {error}") from error
        missing = [name for name in NEEDED.get(self.kind, (self.attribute,)) if not hasattr(module, name)]
        if missing:
            raise ConfigError(f"{key}: {self.title} has no {' and no '.join(missing)}")
        return getattr(module, self.attribute) if self.attribute else module

    @property
    def title(self) -> str:
        if self.file:
            return f"the file {own_code.near(self.file)}"
        kind = "the plug-in's module" if self.distribution else "rlx's module" if self.where == "rlx" else "the module"
        return f"{kind} {self.module}"


# -- items of a list (env.wrappers, logger) ----------------------------------------------------------------------


Item = str | dict[str, Any]  # NAME, or {name: NAME, kwargs: {...}}
FORM = "must be a name or {name: NAME, kwargs: {...}}"


def is_item(item: Item) -> bool:
    """Has it that form?"""
    if isinstance(item, str):
        return True
    return (
        {"name"} <= set(item) <= {"name", "kwargs"}
        and isinstance(item["name"], str)
        and isinstance(item.get("kwargs", {}), dict)
    )


def name_of(item: Item) -> str:
    return item if isinstance(item, str) else item["name"]


def kwargs_of(item: Item) -> dict[str, Any]:
    return {} if isinstance(item, str) else item.get("kwargs", {})


# -- entry points ----------------------------------------------------------------------------------------------


def entry_points(group: str) -> dict[str, metadata.EntryPoint]:
    return _installed(group, tuple(sys.path))


@functools.cache
def _installed(group: str, _path: tuple[str, ...]) -> dict[str, metadata.EntryPoint]:
    """Read once: it opens a file of every installed distribution, and a command asks ten times."""
    return {point.name: point for point in metadata.entry_points(group=group)}


# -- finding ---------------------------------------------------------------------------------------------------


def built_in(kind: str) -> list[str]:
    """The names of rlx's own, of the kinds that are modules. (A file that is no Python is taken for one: what is wrong
    with it is said when it is chosen.)"""
    return sorted(path.stem for path in _room(kind).glob("*.py") if _is_one(kind, path.stem))


def missing(kind: str, name: str) -> list[str]:
    """What a file of rlx with this name lacks to be one of the kind; [] where there is no such file."""
    path = _room(kind) / f"{name}.py"
    if not (name.isidentifier() and path.is_file()):
        return []
    names = outline(path).names
    return [needed for needed in NEEDED[kind] if needed not in names]


def _room(kind: str) -> Path:
    return RLX.joinpath(*BUILT_IN[kind].split("."))


def _is_one(kind: str, name: str) -> bool:
    try:
        return name.isidentifier() and (_room(kind) / f"{name}.py").is_file() and not missing(kind, name)
    except (SyntaxError, ValueError):
        return True


def source(kind: str, name: str) -> Source | None:
    """Where the thing that a name stands for is; None where nobody has it."""
    if kind == "loggers" and name in LOGGERS:
        return Source(kind, name, module=f"rlx.loggers.{name}", attribute="Logger")
    if kind in BUILT_IN and _is_one(kind, name):
        return Source(kind, name, module=f"rlx.{BUILT_IN[kind]}.{name}")
    if point := entry_points(f"rlx.{kind}").get(name):
        module, _, attribute = point.value.partition(":")
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        return Source(kind, name, module=module.strip(), attribute=attribute.strip(), distribution=distribution)
    place, _, attribute = name.rpartition(":") if kind not in NEEDED else (name, "", "")
    if own_code.is_file(place):
        return Source(kind, name, file=own_code.path_of(place), attribute=attribute)
    if kind not in NEEDED and own_code.is_file(name):
        return _only_class(kind, name, own_code.path_of(name))
    if place and attribute:
        return Source(kind, name, module=place, attribute=attribute)
    file = own_code.folder() / kind / f"{name}.py"
    if name.isidentifier() and file.is_file():
        return Source(kind, name, file=file) if kind in NEEDED else _only_class(kind, name, file)
    return None


def _only_class(kind: str, name: str, file: Path) -> Source:
    """Of a file that stands for the one class that it defines."""
    classes: tuple[str, ...] = ()
    with contextlib.suppress(OSError, SyntaxError, ValueError):  # said when it is loaded
        classes = outline(file).classes
        if len(classes) != 1:
            there = f"there are: {', '.join(classes)}" if classes else "it defines none"
            raise ConfigError(f"{KEYS[kind]}={name}: say which class of {own_code.near(file)} ({there})")
    return Source(kind, name, file=file, attribute=classes[0] if classes else "")


def names(kind: str) -> list[str]:
    """All that have a name of their own: rlx's, packages', the folder's."""
    own = [path.stem for path in (own_code.folder() / kind).glob("*.py") if _looks_like_one(kind, path)]
    of_rlx = built_in(kind) if kind in BUILT_IN else []
    return list(dict.fromkeys([*entry_points(f"rlx.{kind}"), *of_rlx, *sorted(own)]))


def _looks_like_one(kind: str, path: Path) -> bool:
    try:
        return path.stem.isidentifier() and set(NEEDED.get(kind, ())) <= outline(path).names
    except (OSError, SyntaxError, ValueError):
        return True


def find(kind: str, name: str, others: Callable[[], list[str]] = list, where: str = "") -> Source:
    """Where it is. Raises ConfigError with the choices (`others`: rlx's own of a kind that is no module)."""
    if found := source(kind, name):
        return found
    key = f"{KEYS[kind]}={name}"
    if kind in BUILT_IN and (lacks := missing(kind, name)):
        raise ConfigError(f"{key}: rlx/{BUILT_IN[kind].replace('.', '/')}/{name}.py has no {' and no '.join(lacks)}")
    hint = choices_hint(name, [*others(), *names(kind)], where=where)
    raise Absent(f"{key}: no such {WORDS[kind]}{hint}")


def load(kind: str, name: str) -> Any:
    """The thing itself. Raises ConfigError."""
    return find(kind, name).load()
