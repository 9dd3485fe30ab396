"""metrics.jsonl: the log that a run writes, and the table that everybody else reads."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.base import stopwatch
from rlx.base.files import guarded
from rlx.base.files.appender import Appender

FILE = "metrics.jsonl"
RECENT = 50  # lines in which the newest value of every metric stands
Numbers = Mapping[str, float | int | str | bool | None]


class MetricsLog:
    """An append-only file of strict JSON: one object a line, key "step", then the metrics in the order given.

    Floats are written with repr, the shortest text that reads back to the same float64. JSON has no NaN, no
    infinity: NaN becomes null, inf "Infinity" and -inf "-Infinity" (strings of protobuf's JSON mapping, which
    Python's float and JavaScript's Number read). Numpy and torch scalars are written as their .item().
    """

    def __init__(self, path: str | Path, offset: int | None = None):
        """Open to append; with `offset` (from `sync`, kept in the checkpoint) cut the file back to it first.

        Without one, only a torn last line is cut. Raises ValueError if the file does not reach the offset or
        no line ends there: then it is not the file that the checkpoint was written beside.
        """
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{self.path}: is not a regular file")
        size = self.path.stat().st_size if self.path.exists() else 0
        if offset is not None and size < offset:
            raise ValueError(f"{self.path}: {size} bytes, but the checkpoint was written at byte {offset}")
        self._file = Appender(self.path)
        end = self._file.last_line_end(size if offset is None else offset)
        if offset is not None and end != offset:
            self._file.close()
            raise ValueError(f"{self.path}: byte {offset}, that of the checkpoint, is not the end of a line")
        if end < size:
            self._file.cut(end)
        self._file.file.seek(0)
        self._digest = hashlib.file_digest(self._file.file, "sha256")

    def write(self, step: int, metrics: Numbers) -> None:
        """Append one line. On an OSError the line is absent, not torn, and the error is the caller's."""
        if "step" in metrics:
            raise ValueError("metrics: the key 'step' is reserved for the clock")
        line = _to_json({"step": step, **metrics}).encode("ascii") + b"\n"
        self._file.write(line)
        self._digest.update(line)

    @property
    def sha256(self) -> str:
        """Of all lines."""
        return self._digest.hexdigest()

    def sync(self) -> int:
        """Force all lines to the disk; returns the byte offset behind the last one."""
        os.fsync(self._file.file.fileno())
        return self._file.end

    def close(self) -> None:
        self._file.close()


SHARES = (*stopwatch.PARTS, "learn")


@dataclass
class MetricsTable:
    """The metrics of a run, whatever became of its file: a line that is torn, that is no object or that has no step is
    left out, and a file that cannot be read has none."""

    run: Path

    def rows(self, key: str = "") -> Iterator[dict[str, Any]]:
        """The lines in the order in which they were written; of those that may hold a key."""
        wanted = json.dumps(key).encode() if key else b""
        with contextlib.suppress(guarded.Damaged):
            yield from (row for row in guarded.json_lines(self.run / FILE, wanted) if is_number(row.get("step")))

    def last(self) -> dict[str, Any]:
        """The newest value of every metric, wall-clock ones left out."""
        values: dict[str, Any] = {}
        with contextlib.suppress(guarded.Damaged):
            for row in guarded.last_lines(self.run / FILE, RECENT):
                values |= strip_time(row)
        return values

    def shares(self) -> dict[str, float]:
        """What part of the time went where (base.stopwatch), by the newest line that says so; most first."""
        values: dict[str, float] = {}
        with contextlib.suppress(guarded.Damaged):
            for row in guarded.last_lines(self.run / FILE, RECENT):
                values |= {part: row[key] for part in SHARES if is_number(row.get(key := f"time/{part}"))}
        return dict(sorted(values.items(), key=lambda item: -item[1]))

    def numbers(self, also: Iterable[str] = ()) -> set[str]:
        """The names of the metrics that are numbers somewhere, `also` that of the clock."""
        names = {key for row in self.rows() for key, value in row.items() if is_number(value)}
        return names - ({"step"} - {*also})

    @property
    def damage(self) -> str | None:
        """Why the file cannot be read, where that is not for its being absent."""
        try:
            with guarded.opened(self.run / FILE):
                return None
        except guarded.Missing:
            return None
        except guarded.Damaged as error:
            return str(error).removeprefix(f"{self.run}/")


def is_number(value: Any) -> bool:
    """Is it a finite number (a bool is none)?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, infinities as floats again, NaN as None; a torn last line is left out.

    Raises ValueError, naming the line, if any but the last is no JSON object.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(line)
        except ValueError:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: not a JSON object: {line[:60]!r}") from None
        for key, value in row.items():
            if value in ("Infinity", "-Infinity"):
                row[key] = float(value)
        rows.append(row)
    return rows


def strip_time(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without the wall-clock values, which live under time/ and differ between two equal runs."""
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


# -- JSON ------------------------------------------------------------------------------------------------------


def _item(value: Any) -> Any:
    """A numpy or torch scalar as Python's."""
    if not hasattr(value, "item"):
        raise TypeError(f"metrics: {value!r} is not a number, string, bool or None")
    return value.item()


def finite(value: Any) -> Any:
    """As strict JSON has it: see MetricsLog."""
    if not isinstance(value, (str, int, float, type(None))):
        value = _item(value)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_encode = json.JSONEncoder(allow_nan=False, default=_item).encode


def _to_json(row: dict[str, Any]) -> str:
    try:
        return _encode(row)
    except ValueError:  # NaN or inf
        return _encode({key: finite(value) for key, value in row.items()})
