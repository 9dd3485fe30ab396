"""A JSON file of a run directory as an object with known keys.

What a file lacks, or holds of another type, is the default. What it holds and nobody knows here is kept: written back,
a document is the file it was but for what was changed, in the same order.
"""

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self, Union, get_args, get_origin, get_type_hints

from rlx.base.errors import ConfigError
from rlx.base.files import guarded
from rlx.base.files.atomic import write_json

BESIDE = {"beside": True}  # of a field that is no key


@dataclass(kw_only=True)
class Document:
    """Fields are the keys in the order in which a new file has them."""

    FILE: ClassVar[str] = ""
    OPTIONAL: ClassVar[tuple[str, ...]] = ()  # keys that a new file has only where they say something

    source: Mapping[str, Any] | None = field(default=None, repr=False, compare=False, metadata=BESIDE)
    damage: str | None = field(default=None, repr=False, compare=False, metadata=BESIDE)  # why it could not be read

    @classmethod
    def of(cls, tree: Any) -> Self:
        """From what a file holds; of what is no object, the defaults."""
        source = tree if isinstance(tree, Mapping) else {}
        values = {}
        for name, hint in _keys(cls).items():  # type: ignore[arg-type]
            if name in source and (value := _converted(source[name], hint)) is not None:
                values[name] = value
        return cls(source=source, **values)

    @classmethod
    def read(cls, run: Path) -> Self:
        """That of a run. Never raises: of a missing or damaged file, the defaults (see `damage`)."""
        try:
            return cls.of(guarded.json_object(run / cls.FILE))
        except guarded.Missing:
            return cls.of({})
        except guarded.Damaged as error:
            document = cls.of({})
            document.damage = _reason(error, run)
            return document

    @classmethod
    def load(cls, run: Path) -> Self:
        """That of a run. Raises ConfigError where it is missing or damaged."""
        return cls.of(guarded.json_object(run / cls.FILE))

    def to_json(self) -> dict[str, Any]:
        now = {name: _plain(getattr(self, name)) for name in _keys(type(self))}  # type: ignore[arg-type]
        if self.source is None:
            return {name: value for name, value in now.items() if value is not None or name not in self.OPTIONAL}
        before = type(self).of(self.source)
        changed = {name: now[name] for name in now if getattr(self, name) != getattr(before, name)}
        return {**self.source, **changed}

    def write(self, run: Path, durable: bool = True) -> None:
        """Raises CannotWrite."""
        write_json(run / self.FILE, self.to_json(), durable)


def _reason(error: ConfigError, run: Path) -> str:
    return str(error).removeprefix(f"{run}/")


@cache
def _keys(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if not each.metadata.get("beside")}


def _converted(value: Any, hint: Any) -> Any:
    """A value as the type that is hinted at; None for another one."""
    if get_origin(hint) in (Union, types.UnionType):
        return next((result for part in get_args(hint) if (result := _converted(value, part)) is not None), None)
    kind = get_origin(hint) or hint
    if isinstance(kind, type) and issubclass(kind, Document):
        return kind.of(value) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or kind is type(None):
        return value if kind is bool else None
    if kind is float and isinstance(value, int | float):
        return value
    if not isinstance(value, kind):
        return None
    if kind is list and (part := get_args(hint)[0]) is not Any:
        return value if all(_converted(item, part) is not None for item in value) else None
    return value


def _plain(value: Any) -> Any:
    return value.to_json() if isinstance(value, Document) else value
