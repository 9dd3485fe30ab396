"""Runs that are there: `rlx ls`, `rlx show`, `rlx plot`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlx.printing.words import heading, number, place_of, score, table

NOTES = 6  # of a plot, at most


def listing(rows: Iterable[Mapping[str, Any]]) -> None:
    """`rlx ls`."""
    rows = list(rows)
    lines = [("status", "algo", heading(place_of(row)[0] for row in rows), "seed", "step", "eval", "run")]
    for row in rows:
        named = (row["status"], str(row["algo"]), place_of(row)[1], str(row["seed"]))
        lines.append((*named, number(row["step"]), score(row), row["run"]))
    table(lines, right=(3, 4, 5))


def details(found: Mapping[str, Any]) -> None:
    """`rlx show`."""
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name}: {number(inner)}")
        elif key == "policy":
            print("policy:", *(f"  {line}" for line in value.splitlines()), sep="\n")
        elif key == "command" and value:
            print(f"command: {shlex.join(str(word) for word in value)}")
        elif isinstance(value, list):
            print(f"{key}: {'; '.join(str(item) for item in value) or '-'}")
        else:
            print(f"{key}: {'-' if value is None else number(value)}")


def plotted(found: Any, out: Path) -> None:
    """`rlx plot`."""
    lines = [(heading(found.kinds.values()), "line", "last", "range of seeds")]
    for name, group in found.panels.items():
        for line in group:
            last = [curve.y[-1] for curve in line.curves]
            lines.append((name, line.label, f"{line.mean[-1]:.6g}", f"{min(last):.6g} to {max(last):.6g}"))
    table(lines, right=(2,))
    if found.notes:
        more = f"; and {len(found.notes) - NOTES} more" if len(found.notes) > NOTES else ""
        print(f"note: {'; '.join(found.notes[:NOTES])}{more}")
    print(f"{out}: {found.metric}")
