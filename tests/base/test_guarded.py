"""Files that a stranger may have put where a run's own belong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlx.base.files import guarded
from rlx.base.files.guarded import Damaged, Missing

BOMB = "a0: &a0 [x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "fifo": lambda path: os.mkfifo(path),
    "directory": lambda path: path.mkdir(),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "endless link": lambda path: path.symlink_to(path),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "brackets": lambda path: path.write_text("[" * 100_000),
    "braces": lambda path: path.write_text('{"a":' * 100_000),
    "closed brackets": lambda path: path.write_text("[" * 500 + "]" * 500),
    "digits": lambda path: path.write_text('{"step": ' + "9" * 5000 + "}"),
    "utf-8": lambda path: path.write_bytes(b'{"a": "\xff\xfe"}'),
    "half a character": lambda path: path.write_text('{"a": "\\ud800"}'),
    "torn": lambda path: path.write_text('{"a": '),
    "sparse": lambda path: os.truncate(_made(path), 200_000_000),
}


def _made(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("read", [guarded.json_object, guarded.yaml_value])
def test_whatever_is_wrong_with_a_file_is_one_line_that_names_it(damage: str, read: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    DAMAGES[damage](path)
    with pytest.raises(Damaged, match=r"^[^\n]*/file: unreadable \([^\n]{1,80}\)$"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "when: 2024-13-45", "a: [", "- " * 1000 + "x", "a: &a [*a]", BOMB, "a: !!python/object/apply:os.system [ls]",
        f"a: 0x{'f' * 5000}", "a: " + ":".join(["59"] * 1000), '"\\ud800"', "a: *b", "? [a]\n: b", "a: \0",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_yaml_that_is_no_plain_data_of_a_plain_size_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(Damaged, match=r"^[^\n]*/file: unreadable \([^\n]{1,80}\)$"):
        guarded.yaml_value(tmp_path / "file")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "none", _made(tmp_path / "a") / "b"):
        with pytest.raises(Missing):
            guarded.json_value(path)


def test_what_is_no_object_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("[1]")
    assert guarded.json_value(tmp_path / "file") == [1]
    with pytest.raises(Damaged, match="a list, not an object"):
        guarded.json_object(tmp_path / "file")


def test_what_is_ordinary_is_read_as_it_is(tmp_path: Path) -> None:
    value = {"a": [1, -2.5e300, None, True, "größe \U0001f600 \0"], "b": {"c": {}}, "inf": float("inf"), "n": 10**299}
    (tmp_path / "file").write_text(json.dumps(value))
    assert guarded.json_object(tmp_path / "file") == value
    (tmp_path / "yaml").write_text("a: &a {x: 1e-3, y: 2024-01-13}\nb: [*a, *a]\n")
    assert guarded.yaml_value(tmp_path / "yaml")["b"][0]["y"].year == 2024


def test_aliases_count_as_often_as_they_are_used() -> None:
    assert guarded.expanded("a: &a [1, 2]\nb: [*a, *a]\n") == 1 + 4 + 1 + 1 + 6
    assert guarded.expanded(BOMB) > guarded.VALUES


# -- one a line


LINES = [b'{"step": 1}', b"[]", b"", b"torn {", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 400 + b"}", b'{"step": 2}']


def test_a_strange_line_is_left_out_and_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\n".join([*LINES, b"\0" * (3 * guarded.LINE), b'{"step": 3, "key": 1}', b'{"step']))
    assert list(guarded.json_lines(path)) == [{"step": 1}, {"step": 2}, {"step": 3, "key": 1}]
    assert list(guarded.json_lines(path, b"key")) == [{"step": 3, "key": 1}]
    assert guarded.last_lines(path, 2) == [{"step": 3, "key": 1}]


def test_the_last_lines_are_whole_ones(tmp_path: Path) -> None:
    path, rows = tmp_path / "file", [{"step": i, "text": "x" * 1000} for i in range(3000)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert guarded.last_lines(path, 50) == rows[-50:]
    assert len(guarded.last_lines(path, 3000)) == guarded.TAIL // len(f"{json.dumps(rows[-1])}\n")


@pytest.mark.parametrize("damage", ["fifo", "directory", "device"])
def test_lines_of_what_is_no_file_are_damaged(damage: str, tmp_path: Path) -> None:
    DAMAGES[damage](tmp_path / "file")
    for read in (lambda path: list(guarded.json_lines(path)), lambda path: guarded.last_lines(path, 5)):
        with pytest.raises(Damaged):
            read(tmp_path / "file")
