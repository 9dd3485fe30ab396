"""Runs that are there: `rlx ls`, `rlx show`, `rlx plot`, `rlx rm`."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlx.base.errors import shown
from rlx.base.text import escaped
from rlx.cli.printing import text
from rlx.cli.printing.text import heading, number, place_of, score, table

NOTES = 6  # of a plot, at most


def listing(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, Sequence[Any]] = MappingProxyType({})) -> None:
    """`rlx ls`; `columns`: further ones, a value for each row."""
    names = [key.rpartition(".")[2] for key in columns]
    title = ("status", "algo", heading(place_of(row)[0] for row in rows), "seed", "step", "eval", *names, "run")
    lines = [title]
    for i, row in enumerate(rows):
        named = (row["status"], str(row["algo"]), place_of(row)[1], str(row["seed"]))
        more = ("-" if values[i] is None else number(values[i]) for values in columns.values())
        lines.append((*named, number(row["step"]), score(row), *more, row["run"]))
    table(lines, right=tuple(range(3, 6 + len(names))))


def jobs(summary: Mapping[str, Any]) -> None:
    """`rlx show` of a grid or a search. What all jobs share is left out."""
    study, many = summary["kind"] == "study", summary["jobs"]
    same = {key for job in many for key in job["params"] if len({str(one["params"].get(key)) for one in many}) == 1}
    lines = [("trial" if study else "job", "status", "score" if study else "eval", "", "")]
    for job in many:
        name = str(job["trial"]) if study else job["run"]
        value = "-" if job["eval"] is None else f"{job['eval']:.6g}"
        words = (f"{key}={number(each)}" for key, each in job["params"].items() if len(many) == 1 or key not in same)
        error = shown(str(job["error"]).splitlines()[0]) if job["error"] else ""
        lines.append((name, str(job["status"]), value, " ".join(words), error))
    if many:
        table(lines, right=(0, 2) if study else (2,))
    states = ", ".join(f"{count} {state}" for state, count in summary["states"].items()) or "no run yet"
    print(f"{'grid' if summary['kind'] == 'sweep' else summary['kind']} {summary['sweep']}: {states}")


def removed(plan: Any, as_json: bool, only_said: bool = False) -> None:
    """`rlx rm`."""
    if as_json:
        print(json.dumps({"removed": list(map(str, plan.paths)), "bytes": plan.bytes, "dry_run": only_said}))
        return
    for path in plan.paths:
        print(f"{'would remove' if only_said else 'removed'} {path}")
    print(f"{plan.bytes:,} bytes {'would be freed' if only_said else 'freed'}" if plan.paths else "nothing to remove")


def doomed(plan: Any) -> None:
    """What `rlx rm` asks about."""
    for path in plan.paths:
        print(f"  {path}")
    print(f"  {plan.bytes:,} bytes")


def details(row: Mapping[str, Any]) -> None:
    """`rlx show`."""
    if text.form != "text":
        flat = {
            f"{key}.{name}" if isinstance(value, dict) else key: inner
            for key, value in row.items()
            for name, inner in (value.items() if isinstance(value, dict) else [("", value)])
        }
        text.table([("key", "value"), *((key, "" if value is None else str(value)) for key, value in flat.items())])
        return
    for key, value in row.items():
        if key == "time":
            print(f"time: {', '.join(f'{part} {share:.0%}' for part, share in value.items())}")
        elif isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {escaped(name)}: {number(inner)}")
        elif key == "policy":
            print("policy:", *(f"  {escaped(line)}" for line in value.splitlines()), sep="\n")
        elif key == "resumes":
            print("resumes:", *(f"  {_resumed(each)}" for each in value), sep="\n") if value else print("resumes: -")
        elif key == "command" and value:
            print(f"command: {escaped(shlex.join(str(word) for word in value))}")
        elif isinstance(value, list):
            print(f"{key}: {escaped('; '.join(str(item) for item in value)) or '-'}")
        else:
            print(f"{key}: {'-' if value is None else number(value)}")


def _resumed(entry: Mapping[str, Any]) -> str:
    """step 512 at 2026-11-21T21:00:00: total_steps 512 -> 1024"""
    changes = entry.get("changes")
    listed = changes.items() if isinstance(changes, Mapping) else ()
    words = [f"{key} {shown(both[0])} -> {shown(both[-1])}" for key, both in listed if isinstance(both, list) and both]
    step = number(entry.get("step")) if entry.get("step") is not None else "?"
    return escaped(f"from step {step} at {entry.get('time')}{': ' * bool(words)}{', '.join(words)}")


def plotted(plot: Any, out: Path) -> None:
    """`rlx plot`."""
    last_of = "mean" if plot.stat == "profile" else "last"
    lines = [(heading(plot.kinds.values()), "line", last_of, "range of seeds")]
    for name, group in plot.panels.items():
        for line in group:
            last = [curve.y[-1] for curve in line.curves]
            middle = sum(last) / len(last) if plot.stat == "profile" else line.mean[-1]
            lines.append((name, line.label, f"{middle:.6g}", f"{min(last):.6g} to {max(last):.6g}"))
    table(lines, right=(2,))
    if plot.notes:
        more = f"; and {len(plot.notes) - NOTES} more" if len(plot.notes) > NOTES else ""
        print(f"note: {'; '.join(plot.notes[:NOTES])}{more}")
    print(f"{out}: {plot.metric}")


def states(rows: Sequence[Mapping[str, Any]]) -> None:
    """`rlx show --table`: a line for each state, a column for each number."""
    flat = [
        {
            f"{name}({inner})" if isinstance(value, dict) else name: each
            for name, value in row.items()
            for inner, each in (value.items() if isinstance(value, dict) else [("", value)])
        }
        for row in rows
    ]
    lines = [tuple(flat[0])]
    for row in flat:
        lines.append(tuple(f"{x:.4f}" if isinstance(x, float) else str(x) for x in row.values()))
    left = {"cell", "action"}
    table(lines, right=tuple(i for i, name in enumerate(flat[0]) if name not in left))
