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
    """The equations that a file calls, or a class that one of its own inherits from, each where it is called first."""
    first: dict[Function, Call] = {}
    tree: ast.AST
    parts: list[tuple[Path, ast.AST, int]] = [(path, source.tree_of(path), 0)]
    for file, tree, before in parts:
        for call in _calls(file, tree, before):
            first.setdefault(call.function, call)
        parts += [base for base in _bases(file, tree) if base not in parts]
    return tuple(first.values())


def _bases(path: Path, tree: ast.AST) -> Iterator[tuple[Path, ast.AST, int]]:
    """The classes, of this file or imported into it, that those in a part of it inherit from: file, class, lines
    before it."""
    for node in ast.walk(tree):
        for base in node.bases if isinstance(node, ast.ClassDef) else []:
            if isinstance(base, ast.Name):
                module, name = source.imports(path).get(base.id, ("", base.id))
                file = source.module_file(module) if module else path
                if file and (found := source.statement(file, name)):
                    yield file, *found


def _calls(path: Path, tree: ast.AST, before: int = 0) -> list[Call]:
    """The calls in a part of a file that has so many lines before it, in the order of the lines."""
    found = []
    modules, names = _local_names(path)
    for node in ast.walk(tree):
        function = None
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in modules:
                function = source.functions(FOLDER / f"{modules[module]}.py").get(name)
            case ast.Name(id=name) if name in names:
                module, original = names[name]
                function = source.functions(FOLDER / f"{module}.py").get(original)
        if function:
            found.append(Call(function, path, before + node.lineno))  # type: ignore[attr-defined]
    return sorted(found, key=lambda call: call.line)


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
