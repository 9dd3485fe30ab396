"""Facts about an algorithm: literals at module level of its file. They are read without importing it, so that what must
answer at once knows them, and copied into run.json, so that a run whose plug-in is gone keeps them.

    WORLD = "control"                                   or "language": where it learns (control)
    FROZEN = ("num_envs", ...)                          keys of `algo` that a resume cannot change
    SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}    metrics of the live line, and how each is written
    METRICS = ("eval/mean_reward", ...)                 how good it is, the best measure first: of evaluations (eval/),
                                                        then while it learns
    ACTIONS, OBSERVATIONS = ("Discrete",)               kinds of Gymnasium spaces that it serves (all)
    NEEDS = ("answer",)                                 what it needs of a task or environment (nothing)
    SCORES = True                                       its network scores completions and writes none (False)
    LIBRARIES = True                                    as=NAME gives it the values of another library (False)

What is left out is as in parentheses, or else as in `older_runs`. Imports neither torch nor Hydra.
"""

import ast
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from rlx.config import older_runs


@dataclass(frozen=True)
class Facts:
    world: str
    frozen: tuple[str, ...]
    shown: dict[str, str]
    metrics: tuple[str, ...]
    actions: tuple[str, ...] | None = None  # None: all
    observations: tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    scores: bool = False
    libraries: bool = False

    @classmethod
    def of(cls, stated: object, world: str = "control") -> "Facts":
        """What is stated, each fact by its name in lower case. One that is missing, or of another form, is as if
        nothing had been said."""
        known = {name: value for name, value in stated.items() if name in NAMES} if isinstance(stated, Mapping) else {}
        sound = {name: _plain(value) for name, value in known.items() if fault(name, value) is None}
        world = sound.get("world", world)
        return cls(**{**older_runs.facts(world), "world": world, **sound})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def evaluated(self) -> str | None:
        """The best measure of an evaluation."""
        return next((name for name in self.metrics if name.startswith("eval/")), None)

    @property
    def learning(self) -> tuple[str, ...]:
        """The measures while it learns."""
        return tuple(name for name in self.metrics if not name.startswith("eval/"))


NAMES = frozenset(field.name for field in fields(Facts))


def fault(name: str, value: object) -> str | None:
    """What is wrong with the value of a fact."""
    if name == "world":
        return None if value in older_runs.SHOWN else "must be 'control' or 'language'"
    if name in ("scores", "libraries"):
        return None if isinstance(value, bool) else "must be True or False"
    if name == "shown":
        if not (isinstance(value, Mapping) and all(isinstance(part, str) for item in value.items() for part in item)):
            return "must be {metric: format}"
        return next((f"{text!r} cannot format a number" for text in value.values() if not _formats(text)), None)
    if value is None and name in ("actions", "observations"):
        return None
    listed = isinstance(value, tuple | list) and all(isinstance(item, str) for item in value)
    return None if listed else "must be a tuple of names"


def _formats(text: str) -> bool:
    try:
        return text.format(1.0) is not None
    except (ValueError, IndexError, KeyError, AttributeError, TypeError):
        return False


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else dict(value) if isinstance(value, Mapping) else value


# -- reading a file --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outline:
    """What a Python file has at module level."""

    names: frozenset[str]
    classes: tuple[str, ...]  # that it defines, but for _private ones
    facts: dict[str, Any]  # by their names in lower case


def outline(path: Path) -> Outline:
    """Raises OSError, SyntaxError or ValueError for a file that cannot be read as Python."""
    return _outline(path.read_bytes())


@cache
def _outline(content: bytes) -> Outline:
    names: set[str] = set()
    classes: list[str] = []
    stated: dict[str, Any] = {}
    for node in ast.parse(content).body:
        match node:
            case ast.ClassDef(name=name):
                names.add(name)
                classes += [name] * (not name.startswith("_"))
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                names.add(name)
                if name.isupper() and name.lower() in NAMES:
                    with contextlib.suppress(ValueError):  # computed: nobody can read it without importing the file
                        stated[name.lower()] = ast.literal_eval(value)
    return Outline(frozenset(names), tuple(classes), stated)
