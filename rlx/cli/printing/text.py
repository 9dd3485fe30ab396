"""Paths, numbers and tables as the command line writes them."""

import csv
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.base.files.paths import near
from rlx.base.text import escaped
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


FORMS = ("csv", "latex", "markdown")
WHOLE = re.compile(r"-?\d{1,3}(,\d{3})+")  # 200,000
form = "text"  # of tables: that, or one of FORMS


def use_form(chosen: Mapping[str, bool]) -> None:
    """The form in which tables are printed from now on. Raises UserError for two of them."""
    global form
    names = [name for name, wanted in chosen.items() if wanted]
    if len(names) > 1:
        raise UserError(f"--{names[0]} and --{names[1]}: choose one of them")
    form = names[0] if names else "text"


def table(lines: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> None:
    if form != "text":
        print(_in_form(lines, right), end="")
        return
    lines = [tuple(map(escaped, line)) for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def _in_form(lines: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    """A table as CSV, as LaTeX (booktabs) or as Markdown."""
    if form == "csv":
        plain = [[cell.replace(",", "") if WHOLE.fullmatch(cell) else cell for cell in line] for line in lines]
        csv.writer(out := io.StringIO(), lineterminator="\n").writerows(plain)
        return out.getvalue()
    if form == "markdown":
        rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        rule = ["---:" if i in right else "---" for i in range(len(lines[0]))]
        return "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], rule, *rows[1:]])
    signs = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    rows = [["".join(signs.get(c, c) for c in cell) for cell in line] for line in lines]
    body = [f"{' & '.join(row)} \\\\" for row in rows]
    columns = "".join("r" if i in right else "l" for i in range(len(lines[0])))
    head, *rest = body
    return "\n".join([f"\\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rest, r"\bottomrule",
                      r"\end{tabular}", ""])  # fmt: skip


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
        return escaped(",".join(map(str, value))) or "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escaped(str(value))


def place_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """Where a run of `rlx ls` learns: env or task, and its name."""
    place = "task" if "task" in row else "env"
    return place, str(row.get(place))


def heading(places: Iterable[str]) -> str:
    """The heading of a column of environments, tasks or both."""
    return "/".join(sorted(set(places))) or "env"
