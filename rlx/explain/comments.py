"""Comments of YAML files: what stands beside a key, or above it, and what a file says of itself at its head.

    clip_coef: 0.2    # eps: how far a ratio counts; more: larger updates; less: smaller ones; paper: .2

is read as a symbol of the equations, a meaning, the effects of more and of less, and the paper's value.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlx.explain import source

KEY = re.compile(r"(?P<indent> *)(?P<key>[\w.-]+):(?= |$)(?P<value>.*)$")
SYMBOL = re.compile(r"[A-Za-z]\w*: ")
PARTS = ("more", "less", "paper")


class Comment(NamedTuple):
    key: str  # dotted, as in the file
    value: str  # as it is written
    text: str  # "": there is none
    path: Path
    line: int

    @property
    def place(self) -> str:
        return source.near(self.path, self.line)

    @property
    def parts(self) -> dict[str, str]:
        """The meaning ("what"), and more, less, paper where they are said."""
        return parts_of(self.text)


def parts_of(text: str) -> dict[str, str]:
    pieces = re.split(r"; (more|less|paper): ", text)
    return {"what": pieces[0], **dict(zip(pieces[1::2], pieces[2::2]))}


def symbol_of(text: str) -> tuple[str, str]:
    """The symbol that a comment begins with ("": none), and the rest: `eps: how far ...`."""
    found = SYMBOL.match(text)
    return (found[0][:-2], text[found.end() :]) if found else ("", text)


@cache
def comments(path: Path) -> dict[str, Comment]:
    """Those of the keys of a file, by their dotted names."""
    return {one.key: one for one in _read(path)}


def _read(path: Path) -> Iterator[Comment]:
    above: list[str] = []
    sections: list[tuple[int, str]] = []  # that are open: their indent and name
    head = True  # comments at the top of the file are its own
    for number, line in enumerate(source.text_of(path).splitlines(), 1):
        if line.lstrip().startswith("#"):
            above.append(line.strip("# "))
            continue
        if found := KEY.match(line):
            indent, (value, beside) = len(found["indent"]), split(found["value"])
            sections = [(at, name) for at, name in sections if at < indent]
            sections.append((indent, found["key"]))
            text = beside or ("" if head else " ".join(above))
            yield Comment(".".join(name for _, name in sections), value, text, path, number)
        head, above = False, []


def split(text: str) -> tuple[str, str]:
    """The value on a line and the comment behind it."""
    quote = ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and text[i - 1 : i] in ("", " ", "[", ",", "{"):
            quote = letter
        elif letter == "#" and text[i - 1 : i] in ("", " "):
            return text[:i].strip(), text[i + 1 :].strip()
    return text.strip(), ""


def head(path: Path) -> list[str]:
    """What a file says of itself: the comment lines at its top."""
    lines = []
    for line in source.text_of(path).splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            lines.append(line.lstrip("#").strip())
    return lines
