"""The equations: functions of rlx/functional by their docstrings, and which algorithms call them where."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlx.explain import source
from rlx.explain.source import Function

FOLDER = source.RLX / "functional"
PACKAGE = "rlx.functional"


class Call(NamedTuple):
    function: Function
    path: Path
    line: int

    @property
    def place(self) -> str:
        return source.near(self.path, self.line)


@cache
def equations() -> dict[str, list[Function]]:
    """The public functions by their names, of whichever modules have one."""
    known: dict[str, list[Function]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        for name, function in source.functions(path).items():
            if function.doc:
                known.setdefault(name, []).append(function)
    return known


@cache
def calls(path: Path) -> tuple[Call, ...]:
    """The equations that a file calls, each where it is called first."""
    first: dict[Function, int] = {}
    modules, names = _local_names(path)
    for node in ast.walk(source.tree_of(path)):
        function = None
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                function = source.functions(FOLDER / f"{modules[module]}.py").get(name)
            case ast.Name(id=name) if name in names:
                module, original = names[name]
                function = source.functions(FOLDER / f"{module}.py").get(original)
        if function:
            first[function] = min(first.get(function, node.lineno), node.lineno)  # type: ignore[attr-defined]
    return tuple(Call(function, path, line) for function, line in sorted(first.items(), key=lambda item: item[1]))


def _local_names(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Local names of modules of rlx.functional, and of functions of theirs."""
    modules, names = {}, {}
    for local, (module, name) in source.imports(path).items():
        if module == PACKAGE:
            modules[local] = name
        elif module.startswith(f"{PACKAGE}."):
            names[local] = (module.rpartition(".")[2], name)
    return modules, names


def users(function: Function) -> Iterator[tuple[str, Call]]:
    """The algorithms that call it, and where."""
    for name, path in source.algorithm_files().items():
        if function.name in source.text_of(path):
            yield from ((name, call) for call in calls(path) if call.function == function)


def laid_out(text: str) -> list[str]:
    """Paragraphs as lines to be wrapped; what is indented, and examples, stay as they are."""
    lines: list[str] = []
    example = False
    for line in text.splitlines():
        example = bool(line) and (example or line.startswith(">>>"))
        if example or line.startswith(" "):
            lines.append(f"    {line}")
        elif line and lines and lines[-1] and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return lines


def first_sentence(doc: str) -> str:
    """That of a docstring."""
    return re.split(r"(?<=[.:]) ", " ".join(doc.partition("\n\n")[0].split()), maxsplit=1)[0]


def explain(name: str) -> list[str]:
    """The page of an equation."""
    lines: list[str] = []
    for function in equations()[name]:
        module = function.path.stem
        lines += [f"{module}.{name}({', '.join(function.arguments)}), an equation", *laid_out(function.doc), ""]
        lines.append(f"where: {function.place}")
        callers = [f"{user} ({call.place})" for user, call in users(function)]
        lines.append(f"who calls it: {', '.join(callers) or 'no algorithm'}")
        lines += [f"import it: from rlx.functional.{module} import {name}", ""]
    return lines[:-1]
