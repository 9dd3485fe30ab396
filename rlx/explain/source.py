"""Python files read as text: literals at module level, docstrings, functions and where they stand."""

import ast
import contextlib
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlx.config import own_code, plugins

RLX = plugins.RLX


@cache
def text_of(path: Path) -> str:
    """A file's text; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


@cache
def tree_of(path: Path) -> ast.Module:
    """Its syntax tree; an empty one where it is no Python."""
    try:
        return ast.parse(text_of(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def near(path: Path, line: int = 0) -> str:
    """A file as a user writes it, with a line: rlx/algos/ppo.py:12, ./algos/mine.py:12."""
    place = str(path.relative_to(RLX.parent)) if path.is_relative_to(RLX.parent) else own_code.near(path)
    return f"{place}:{line}" if line else place


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def literal(path: Path, name: str) -> Any:
    """The value of NAME = literal at module level; None where there is none that can be read."""
    text = text_of(path)
    if name not in text:
        return None
    if found := _literal(text, name):
        return found[0]
    for node in tree_of(path).body:  # laid out in another way
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                with contextlib.suppress(ValueError, TypeError):
                    return ast.literal_eval(node.value)
    return None


def _literal(text: str, name: str) -> tuple[Any, int, int] | None:
    """The value of NAME, and where it begins and ends: on its line, or with a bracket at the margin."""
    if found := re.search(rf"^{name}\b[^=\n]*=[ \t]*", text, re.MULTILINE):
        begin = found.end()
        closing = re.compile(r"^[\])}].*$", re.MULTILINE).search(text, begin)
        for end in (text.find("\n", begin), closing.end() if closing else -1):
            end = end if end >= 0 else len(text)
            with contextlib.suppress(SyntaxError, ValueError):
                return ast.literal_eval(text[begin:end]), begin, end
    return None


def without(text: str, name: str) -> str:
    """A file's text with blanks in place of the value of NAME: positions stay."""
    if found := _literal(text, name):
        _, begin, end = found
        return text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:]
    return text


def docstring(path: Path) -> str:
    """That of a module."""
    begin = re.match(r'\s*"""(.*?)"""', text_of(path), re.DOTALL)
    if begin and "\\" not in begin[1]:
        return inspect.cleandoc(begin[1])
    return ast.get_docstring(tree_of(path)) or ""


@dataclass(frozen=True)
class Function:
    name: str
    path: Path
    line: int
    arguments: tuple[str, ...]
    doc: str

    @property
    def place(self) -> str:
        return near(self.path, self.line)


@cache
def functions(path: Path) -> dict[str, Function]:
    """The public functions at module level."""
    return {
        node.name: Function(
            node.name, path, node.lineno, tuple(each.arg for each in node.args.args), ast.get_docstring(node) or ""
        )
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


@cache
def imports(path: Path) -> dict[str, tuple[str, str]]:
    """Local name -> module and name of every `from module import name`."""
    text = text_of(path)
    blocks = re.findall(r"^from [\w.]+ import (?:\([^)]*\)|[^(\n]*)", text, re.MULTILINE)
    with contextlib.suppress(SyntaxError):
        return _imported(ast.parse("\n".join(blocks)))
    return _imported(tree_of(path))


def _imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }


@cache
def statement(path: Path, name: str) -> tuple[ast.stmt, int] | None:
    """The class of that name, or NAME = something, at module level, and the number of lines before it. Only it is
    parsed: a whole file takes ten times as long."""
    text = text_of(path)
    if begin := re.search(rf"^(?:class {name}\b|{name} *[:=])", text, re.MULTILINE):
        end = re.compile(r"^[^\s#)\]}]", re.MULTILINE).search(text, begin.end())
        with contextlib.suppress(SyntaxError, ValueError):
            return ast.parse(text[begin.start() : end.start() if end else None]).body[0], line_of(
                text, begin.start()
            ) - 1
    return None


# -- files -------------------------------------------------------------------------------------------------------


def module_file(module: str) -> Path | None:
    """The file of a module, found without importing it or its packages; None where there is none."""
    top, *rest = module.split(".")
    if top == "rlx":
        places = [RLX]
    else:
        spec = None
        with contextlib.suppress(Exception):  # what is on sys.path may do anything
            spec = find_spec(top)
        if spec is None:
            places = [own_code.folder() / top]
        elif not rest:
            return Path(spec.origin) if spec.origin else None
        else:
            places = [Path(place) for place in spec.submodule_search_locations or ()]
    for place in places:
        base = place.joinpath(*rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None


def algorithm_files() -> dict[str, Path]:
    """Implementation -> its file: rlx's own, packages', those of the folder one stands in."""
    return _algorithm_files(own_code.folder())


@cache
def _algorithm_files(folder: Path) -> dict[str, Path]:
    files: dict[str, Path | None] = {path.stem: path for path in _with_train(RLX / "algos")}
    for name, point in plugins.entry_points("rlx.algos").items():
        files.setdefault(name, module_file(point.value.partition(":")[0].strip()))
    for path in _with_train(folder / "algos"):
        files.setdefault(path.stem, path)
    return {name: path for name, path in files.items() if path}


def _with_train(folder: Path) -> list[Path]:
    """The files that look like algorithms."""
    return [path for path in sorted(folder.glob("*.py")) if re.search(r"^def train\(", text_of(path), re.MULTILINE)]


def algorithm_file(implementation: str) -> Path | None:
    """The file of an implementation, also of one that is named by its file (./any/place.py)."""
    if file := algorithm_files().get(implementation):
        return file
    source = plugins.source("algos", implementation)
    return (source.file or module_file(source.module)) if source else None
