"""Reading files that a stranger may have put where a run's own belong.

A regular file, opened without waiting for anybody; bounded in size, in depth, in the digits of a number and in what
aliases stand for. Whatever is wrong with it is Damaged, in one line. Never imports torch.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from rlx.base.errors import ConfigError

SMALL, LARGE = 1 << 24, 1 << 32  # bytes: of a file that is read whole, and line by line
LINE, TAIL = 1 << 20, 1 << 20  # bytes: of one line, and of the end of a file
DEPTH, DIGITS, VALUES = 100, 300, 100_000  # of what a file holds; a number of more digits is no float64
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNUSUAL = re.compile(rb"\[|.\{|\\u", re.DOTALL)  # a line of JSON that is more than names and plain values


class Damaged(ConfigError):
    """A file that cannot be read; one line that names it."""


class Missing(Damaged):
    """A file that is not there."""


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except Damaged:
        raise
    except (FileNotFoundError, NotADirectoryError):
        raise Missing(f"{path}: unreadable (no such file)") from None
    except OSError as error:
        raise Damaged(f"{path}: unreadable ({error.strerror or type(error).__name__})") from None
    except Exception as error:  # ValueError, RecursionError, MemoryError, YAMLError: whatever a parser meets
        raise Damaged(f"{path}: unreadable ({type(error).__name__})") from None


# -- bytes -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file. Raises Damaged: no pipe is waited for, no device is read."""
    with _one_line(path):
        descriptor = os.open(path, FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Damaged(f"{path}: unreadable (not a regular file)")
        with os.fdopen(descriptor, "rb") as file:
            yield file


def data(path: Path, most: int = SMALL) -> bytes:
    """The whole file. Raises Damaged."""
    with opened(path) as file:
        _check_size(path, file, most)
        return file.read(most)


def _check_size(path: Path, file: BinaryIO, most: int) -> None:
    if (size := os.fstat(file.fileno()).st_size) > most:
        raise Damaged(f"{path}: unreadable ({size:,} bytes, more than {most:,})")


def text(path: Path, errors: str = "strict") -> str:
    """The whole file as UTF-8. Raises Damaged."""
    with _one_line(path):
        return data(path).decode("utf-8", errors)


# -- JSON ------------------------------------------------------------------------------------------------------


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_decode = json.JSONDecoder(parse_int=_integer).decode


def parsed(content: bytes) -> Any:
    """JSON, bounded. Raises ValueError or RecursionError."""
    value = _decode(content.decode("utf-8"))
    check(value)
    return value


def check(tree: Any) -> None:
    """Raises ValueError for a tree that is nested too deep, that holds too long a number or half a character."""
    waiting = [(tree, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > DEPTH:
            raise ValueError(f"nested deeper than {DEPTH}")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for item in value.items() for part in item]
        elif isinstance(value, list | tuple | set):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and not value.isascii():
            value.encode()
        elif isinstance(value, int) and value.bit_length() > 10 * DIGITS // 3:
            raise ValueError("a number of too many digits")


def json_value(path: Path, most: int = SMALL) -> Any:
    """What a JSON file holds. Raises Damaged."""
    with _one_line(path):
        return parsed(data(path, most))


def json_object(path: Path, most: int = SMALL) -> dict[str, Any]:
    """The object that a JSON file holds. Raises Damaged."""
    value = json_value(path, most)
    if not isinstance(value, dict):
        raise Damaged(f"{path}: unreadable (a {type(value).__name__}, not an object)")
    return value


def known(path: Path, most: int = SMALL) -> dict[str, Any]:
    """The same; {} where it is missing or damaged."""
    with contextlib.suppress(Damaged):
        return json_object(path, most)
    return {}


def json_lines(path: Path, holding: bytes = b"") -> Iterator[dict[str, Any]]:
    """The objects of a file of one a line; of those that hold some bytes. Any other line, one that is torn or longer
    than LINE, is left out. Raises Damaged."""
    with opened(path) as file:
        _check_size(path, file, LARGE)
        while line := file.readline(LINE):
            if not line.endswith(b"\n") and len(line) == LINE:
                while len(line) == LINE and not line.endswith(b"\n"):
                    line = file.readline(LINE)
                continue
            if holding in line and (row := _row(line)) is not None:
                yield row


def last_lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The objects in the last `count` lines of such a file, within TAIL. Raises Damaged."""
    with opened(path) as file:
        start = max(0, os.fstat(file.fileno()).st_size - TAIL)
        file.seek(start)
        lines = file.read(TAIL).splitlines()[1 if start else 0 :]
    return [row for line in lines[-count:] if (row := _row(line)) is not None]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = parsed(line) if UNUSUAL.search(line) else _decode(line.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError):
        return None
    return row if isinstance(row, dict) else None


# -- YAML ------------------------------------------------------------------------------------------------------


def yaml_value(path: Path) -> Any:
    """What a YAML file holds. Raises Damaged."""
    content = text(path)
    with _one_line(path):
        if expanded(content) > VALUES:
            raise Damaged(f"{path}: unreadable (more than {VALUES:,} values)")
        return parsed_yaml(content)


def parsed_yaml(content: str) -> Any:
    """YAML that has been bounded, or was written by rlx. Raises ValueError or YAMLError."""
    value = yaml.load(content, LOADER)
    check(value)
    return value


def expanded(content: str) -> int:
    """How many values a YAML text stands for, aliases counted as often as they are used; it stops once there are more
    than VALUES. Raises ValueError where one holds itself, or where they are nested too deep: there libyaml's composer
    would overflow the stack."""
    sizes: dict[str, int] = {}
    opened_at: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(content, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            opened_at.append((event.anchor, count))
            count += 1
            if len(opened_at) > DEPTH:
                raise ValueError(f"nested deeper than {DEPTH}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened_at.pop()
            if anchor:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} is an undefined alias, or one that contains itself")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if count > VALUES:
            break
    return count
