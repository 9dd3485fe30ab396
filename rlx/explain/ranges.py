"""The types and ranges of a section's keys, read from its dataclass: `a whole number from 1 to 1000000`."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rlx.explain import source

PLAIN = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a string", "None": "null",
    "dict": "a mapping {key: value, ...}", "Any": "anything",
}  # fmt: skip
SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
LARGE = 10**15  # a limit that nobody means


class Field(NamedTuple):
    name: str
    annotation: ast.expr
    comment: str
    path: Path
    line: int

    @property
    def place(self) -> str:
        return source.near(self.path, self.line)

    @property
    def range(self) -> str:
        """Its type and range in words; the annotation itself where it means more than rlx reads."""
        try:
            return _words(self.annotation, self.path)
        except (LookupError, ValueError, TypeError, RecursionError):
            return ast.unparse(self.annotation)


@cache
def fields(path: Path, name: str = "Config") -> dict[str, Field]:
    """The fields of a dataclass of a file, those that it inherits first; {} where there is none."""
    match source.statement(path, name):
        case ast.ClassDef() as node, int(before):
            return {**_inherited(node, path), **{field.name: field for field in _own(node, path, before)}}
        case ast.Assign(value=ast.Name(id=other)), _ if other != name:  # Config = SequenceConfig
            return fields(path, other)
    module, original = source.imports(path).get(name, ("", ""))
    file = source.module_file(module) if module else None
    return fields(file, original) if file and file != path else {}


def _inherited(node: ast.ClassDef, path: Path) -> dict[str, Field]:
    known: dict[str, Field] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id != node.name:
            known |= fields(path, base.id)
        elif isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):  # schema.Config
            module, name = source.imports(path).get(base.value.id, ("", ""))
            if file := source.module_file(f"{module}.{name}") if module else None:
                known |= fields(file, base.attr)
    return known


def _own(node: ast.ClassDef, path: Path, before: int) -> list[Field]:
    lines = source.text_of(path).splitlines()[before:]
    found = []
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):  # noqa: SIM102
            if not ast.unparse(each.annotation).startswith("ClassVar"):
                comment = _comment(lines[each.lineno - 1 : each.end_lineno])
                found.append(Field(each.target.id, each.annotation, comment, path, before + each.lineno))
    return found


def _comment(lines: list[str]) -> str:
    return next((found[1] for line in lines if (found := re.search(r"  # (.*)$", line))), "")


# -- annotations in words: those of rlx.config.schema.describe (a test compares them), without importing pydantic ------


def _words(node: ast.expr, path: Path) -> str:
    """Raises LookupError, ValueError or TypeError for what is no type that rlx reads."""
    match node:
        case ast.Constant(value=None):
            return "null"
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Name(id=name):
            return _words(*_alias(name, path))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return f"{_words(left, path)} or {_words(right, path)}"
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return " or ".join(", ".join(_choices(choices)).rsplit(", ", 1))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[kind, *limits])):
            return _words(kind, path) + "".join(_range(kind, each) for each in limits)
        case ast.Subscript(value=ast.Name(id="list"), slice=kind):
            return f"a list [a, b, ...], each {_words(kind, path)}"
        case ast.Subscript(value=ast.Name(id="dict")):
            return PLAIN["dict"]
    raise LookupError(ast.unparse(node))


def _choices(node: ast.expr) -> list[str]:
    return [str(ast.literal_eval(each)) for each in (node.elts if isinstance(node, ast.Tuple) else [node])]


def _range(kind: ast.expr, node: ast.expr) -> str:
    """`Field(ge=1, le=10)` in words."""
    if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Field" and not node.args):
        raise LookupError(ast.unparse(node))
    limits = {each.arg: _number(each.value) for each in node.keywords}
    if ast.unparse(kind) == "int" and "lt" in limits:
        limits["le"] = limits.pop("lt") - 1
    if "ge" in limits and "le" in limits and limits["le"] < LARGE:
        return f" from {limits['ge']} to {limits['le']}"
    bounds = [f"{sign} {limits[name]}" for name, sign in SIGNS.items() if name in limits and limits[name] != LARGE]
    return (f" {' and '.join(bounds)}" if bounds else "") + (", not empty" if "min_length" in limits else "")


def _number(node: ast.expr) -> Any:
    match node:
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int(power))) if power < 64:
            return _number(left) ** power
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _number(left) * _number(right)
    return ast.literal_eval(node)


def _alias(name: str, path: Path) -> tuple[ast.expr, Path]:
    """What NAME stands for, in the file or in one that it imports from, and that file."""
    match source.statement(path, name):
        case ast.Assign(value=value), _:
            return value, path
    module, original = source.imports(path)[name]
    file = source.module_file(module)
    if file is None or file == path:
        raise LookupError(name)
    return _alias(original, file)
