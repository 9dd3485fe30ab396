"""Terms, from conf/glossary.yaml: what each means, what more there is about it, a command that shows it."""

from functools import cache
from typing import Any, NamedTuple

import yaml

from rlx.config import registry

FILE = registry.conf_dir() / "glossary.yaml"


class Term(NamedTuple):
    name: str
    also: tuple[str, ...]
    text: str
    see: tuple[str, ...]
    command: str


@cache
def terms() -> dict[str, Term]:
    """All of them by their names."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(FILE.read_text(encoding="utf-8"), loader)
    return {
        name: Term(name, tuple(map(str, one["also"])), one["text"], tuple(one["see"]), one["try"])
        for name, one in content.items()
    }


def find(words: str) -> Term | None:
    """The term of that name, or that is also called so."""
    wanted = plain(words)
    return next((one for one in terms().values() if wanted in map(plain, (one.name, *one.also))), None)


def names() -> list[str]:
    """Everything that a term is called."""
    return [name for one in terms().values() for name in (one.name, *one.also)]


def plain(words: str) -> str:
    return " ".join(words.lower().replace("-", " ").replace("_", " ").split())


def explain(term: Term) -> list[str]:
    """The page of a term."""
    lines = [f"{term.name}, a term", term.text, ""]
    lines += [f"also called: {', '.join(term.also)}"] * bool(term.also)
    return [*lines, f"see: {', '.join(f'rlx explain {name}' for name in term.see)}", f"try it: {term.command}"]
