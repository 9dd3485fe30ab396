"""A study: what it will do, how it goes, what came of it."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlx.base.files.paths import near
from rlx.cli.printing.text import columns, dash_of, table

EVERY = 0.5  # seconds between two looks
ROWS = 12  # of the live table, at most
Row = Mapping[str, Any]


def announced(study: Any, jobs: int, ranges: Mapping[str, str]) -> None:
    """Before the first trial."""
    request = study.asked
    place = request.get("env") or request.get("task")
    workers = f"{jobs} worker{'s' if jobs > 1 else ''}"
    print(f"{request['algo']} on {place}: {request['trials']} trials of {_runs(request['seeds'])}, ", end="")
    print(f"sampler {request['sampler']}, pruner {request['pruner']}, {workers}")
    columns(ranges.items())
    for note in request.get("notes", []):
        print(f"  {note}")
    sys.stdout.flush()


def _runs(seeds: int) -> str:
    return f"{seeds} seeds" if seeds > 1 else "one seed"


class StudyWatch:
    """How a study goes: a table that changes on a terminal, else a line for each trial that ends."""

    def __init__(self, study: Any, ended: Any) -> None:
        """`ended(rows)`: those of them that are over."""
        self.study, self.over = study, ended
        self.terminal = sys.stderr.isatty() and not os.environ.get("CI")
        self._read: tuple[int, int] | None = None
        self._rows: list[Row] = study.rows()
        self.told = {row["number"] for row in ended(self._rows)}  # of an earlier start
        self._shown = 0.0
        self._live: Any = None

    def __enter__(self) -> "StudyWatch":
        if self.terminal:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def look(self) -> None:
        if time.monotonic() - self._shown >= EVERY:
            self.now()

    def now(self) -> None:
        self._shown = time.monotonic()
        self._refresh()
        if self._live:
            self._live.update(self.table(), refresh=True)
        else:
            self._lines()

    def _refresh(self) -> None:
        try:
            file = (self.study.directory / "trials.jsonl").stat()
        except OSError:
            return
        if (file.st_mtime_ns, file.st_ino) != self._read:
            self._read = file.st_mtime_ns, file.st_ino
            self._rows = self.study.rows()

    def _lines(self) -> None:
        ended = self.over(self._rows)
        for row in ended:
            if row["number"] not in self.told:
                self.told.add(row["number"])
                count = f"{len(self.told)} of {self.study.asked['trials']}"
                print(f"{count}  {told(row)}", file=sys.stderr, flush=True)

    def table(self) -> Any:
        from rich.table import Table

        ended = self.over(self._rows)
        going = [row for row in self._rows if row["state"] == "running"]
        best = _best(self._rows)
        title = f"{len(ended)} of {self.study.asked['trials']} trials ended, {len(going)} running"
        title += f"; best {_number(best['score'])} (trial {best['number']})" if best else ""
        keys = list(self.study.asked["space"])
        view = Table(title=title, title_justify="left", box=None, padding=(0, 2))
        for name in ("trial", "state", "score", "seeds", *keys):
            view.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        for row in [*ended[-max(2, ROWS - len(going)) :], *going][-ROWS:]:
            view.add_row(*_cells(row, keys, self.study))
        return view


def _cells(row: Row, keys: Sequence[str], study: Any) -> list[str]:
    return [
        str(row["number"]), row["state"], _number(row["score"]), f"{row['seeds_done']}/{study.asked['seeds']}",
        *(_number(row["params"].get(key)) for key in keys),
    ]  # fmt: skip


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _best(rows: Sequence[Row]) -> Row | None:
    return max((row for row in rows if row["state"] == "complete"), key=lambda row: row["score"], default=None)


def told(row: Row) -> str:
    """A trial in one line."""
    params = " ".join(f"{key}={_number(value)}" for key, value in row["params"].items())
    score = f" {_number(row['score'])}" if row["score"] is not None else ""
    error = f": {_line(row['error'])}" if row["error"] else ""
    return f"trial {row['number']}  {row['state']}{score}{error}  {params}"


def _line(text: str) -> str:
    return (text.splitlines() or [""])[0]


# -- afterwards --------------------------------------------------------------------------------------------------


def ended(study: Any, rows: Sequence[Row], name: str, over: bool) -> None:
    """What came of it, and the study's path as the last line."""
    print()
    for row in rows:
        if row["state"] == "failed":
            print(f"trial {row['number']} failed: {_line(row['error'] or '')}")
    if best := _best(rows):
        print(f"best: {told(best)}")
    print(summary(study, rows))
    if over and best:
        print(f"\nnext: rlx sweep best {name} --train\n      rlx sweep show {name}\n      {dash_of(study.directory)}")
    print(f"run: {near(study.directory)}")


def summary(study: Any, rows: Sequence[Row]) -> str:
    """36 of 40 trials ended: 20 complete, 15 pruned, 1 failed; 2 running, 2 waiting."""
    states = [row["state"] for row in rows]
    parts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states]
    left = [f"{states.count(state)} {state}" for state in ("running", "interrupted", "waiting") if state in states]
    count = sum(states.count(state) for state in ("complete", "pruned", "failed"))
    text = f"{count} of {study.asked['trials']} trials ended"
    return f"{text}{': ' if parts else ''}{', '.join(parts)}{'; ' if left else ''}{', '.join(left)}"


def listing(study: Any, rows: Sequence[Row], shares: Mapping[str, float] | None, ranges: Mapping[str, str]) -> None:
    """`rlx sweep show`."""
    keys = list(study.asked["space"])
    lines: list[tuple[str, ...]] = [("trial", "state", "score", "seeds", *keys, "")]
    for row in rows:
        if row["state"] != "waiting":
            lines.append((*_cells(row, keys, study), _line(row["error"] or "")))
    table(lines, right=(0, 2, 3, *range(4, 4 + len(keys))))
    for row in rows:
        if row["traceback"]:
            print(f"\ntrial {row['number']}:\n{row['traceback'].rstrip()}")
    print()
    if shares:
        print("what mattered (PED-ANOVA, share of each):")
        columns((key, f"{100 * share:3.0f}%  of {ranges.get(key, '')}") for key, share in shares.items())
    print(summary(study, rows))
    print(f"run: {near(study.directory)}")


def winning_trial(result: Mapping[str, Any]) -> None:
    """`rlx sweep best`."""
    scores = ", ".join(_number(score) for score in result["scores"])
    print(f"trial {result['trial']}: {_number(result['score'])}, the mean of {scores}")
    columns((key, _number(value)) for key, value in result["params"].items())
    print(f"runs: {' '.join(result['runs'])}")
    print(f"train it: {result['command']}")


def retrained(study: Any, result: Mapping[str, Any]) -> None:
    """`rlx sweep best --train`: how much of the score survived."""
    fresh = result["fresh"]
    count = len(fresh["seeds"]) - fresh["failed"]
    print(f"\nscore in the search   {_number(result['score'])}  (best of {result['complete']} complete trials)")
    if fresh["mean"] is not None:
        share = ""
        if result["score"] > 0:
            share = f", {100 * fresh['mean'] / result['score']:.0f}% of it"
        seeds = f"{count} fresh seed{'s' if count > 1 else ''}"
        print(f"mean of {seeds:<13} {_number(fresh['mean'])}  ({result['difference']:+.4g}{share})")
        print("The winner was chosen for its score, luck included; the fresh seeds had no part in the choice.")
    if fresh["failed"]:
        print(f"{fresh['failed']} of {len(fresh['seeds'])} runs did not finish")
    print(f"run: {near(study.directory / 'best')}")
