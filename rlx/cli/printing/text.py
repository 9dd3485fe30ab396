"""Paths, numbers and tables as the command line writes them."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.base.paths import near
from rlx.rundir import home
from rlx.rundir.layout import LastEvaluation


def quoted(path: Path | str) -> str:
    """A path as the shell takes it."""
    return shlex.quote(str(near(Path(path))))


def dash_of(path: Path) -> str:
    """The command that shows a run, a grid or a search in TensorBoard, among the others of its directory of runs."""
    place = home.of(path)
    return "rlx dash" if place.absolute() == home.usual().absolute() else f"rlx dash {quoted(place)}"


def columns(rows: Iterable[tuple[str, str]]) -> None:
    """Print two indented columns."""
    rows = list(rows)
    width = max((len(key) for key, _ in rows), default=0)
    for key, value in rows:
        print(f"  {key:<{width}}  {value}")


def table(lines: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def score(row: Mapping[str, Any]) -> str:
    """The score of a run's last evaluation; "-" where there is none."""
    value = LastEvaluation.of(row["eval"]).value
    return "-" if value is None else f"{value:.{3 if 'task' in row else 2}f}"


def ranking(row: Mapping[str, Any]) -> float:
    """A run's score in its last evaluation, to sort by."""
    value = score(row)
    return float("-inf") if value == "-" else float(value)


def number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def place_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Where a run of `rlx ls` learns: env or task, and its name."""
    place = "task" if "task" in row else "env"
    return place, str(row.get(place))


def heading(places: Iterable[str]) -> str:
    """The heading of a column of environments, tasks or both."""
    return "/".join(sorted(set(places))) or "env"
