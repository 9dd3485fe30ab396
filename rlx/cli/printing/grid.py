"""A grid in progress: a table of its jobs that changes, on a terminal; else a line for each job that ended.

A process of its own reads the grid's directory, so that the table is the same whatever launcher runs the jobs.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rlx.base.signals import STOPPING
from rlx.cli.printing.text import score
from rlx.rundir import reader

EVERY = 0.5  # seconds
ROWS = 12  # of the table, at most


@contextmanager
def watching(grid: Any) -> Iterator[None]:
    """Show how a grid (launch.grid.Grid) goes while this lasts."""
    if not hasattr(os, "fork"):
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(writer)
        with suppress(BaseException):
            _watch(_Shown(grid), reader)
        os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        with suppress(OSError):
            os.write(writer, b".")
        os.close(writer)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _watch(grid: "_Shown", reader: int) -> None:
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)  # it ends with the grid
    parent = os.getppid()

    def going() -> bool:
        return not select.select([reader], [], [], EVERY)[0] and os.getppid() == parent

    if sys.stderr.isatty() and not os.environ.get("CI"):
        from rich.console import Console
        from rich.live import Live

        with Live(grid.table(), console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            while going():
                live.update(grid.table(), refresh=True)
        return
    while True:
        more = going()
        for line in grid.ended():
            print(line, file=sys.stderr, flush=True)
        if not more:
            return


class _Shown:
    def __init__(self, grid: Any) -> None:
        self.grid, self.directory, self.planned, self.jobs = grid, grid.directory, grid.planned, grid.jobs
        self.told: set[int] = {job["job"] for job in self.jobs()}  # of an earlier start
        self.since, self.began = len(self.told), time.monotonic()

    def ended(self) -> Iterator[str]:
        """A line for each job that ended since the last call."""
        jobs = self.jobs()
        for job in jobs:
            if job["job"] not in self.told:
                self.told.add(job["job"])
                path = self.directory / job["run"]
                row: dict[str, Any] = reader.show(path) if path.is_dir() else {"status": "failed", "eval": None}
                what = f": {job['error']}" if job["error"] else f"  eval {score(row)}"
                state = "failed" if job["error"] and row["status"] == "finished" else row["status"]
                words = " ".join(self.grid.varied(job["overrides"]))
                print_of = f"{len(self.told)} of {max(self.planned or 0, len(jobs))}"
                yield f"{print_of}  {job['run']}  {state}{what}  {words}".rstrip()

    def table(self) -> Any:
        from rich.table import Table

        jobs = self.jobs()
        ended = {job["run"]: job for job in jobs}
        open_ = [path for path in reader.find(self.directory) if path.name not in ended]
        failed = sum(job["error"] is not None for job in jobs)
        count = max(self.planned or 0, len(jobs) + len(open_))
        title = f"{len(jobs)} of {count} jobs ended{f', {failed} failed' if failed else ''}, {len(open_)} running"
        table = Table(title=f"{title}{self._left(len(jobs), count)}", title_justify="left", box=None, padding=(0, 2))
        for name in ("job", "status", "done", "eval", "values"):
            table.add_column(name, justify="right" if name in ("done", "eval") else "left", no_wrap=True)
        shown = [self.directory / job["run"] for job in jobs][-max(2, ROWS - len(open_)) :]
        for path in [*shown, *open_][-ROWS:]:
            row: dict[str, Any] = reader.show(path) if path.is_dir() else {"status": "not started", "eval": None}
            job = ended.get(path.name)
            words = job["overrides"] if job else (row.get("command") or [])[2:]
            total = row.get("total_steps")
            share = f"{100 * min(1.0, row['step'] / total):.0f}%" if total else "-"
            text = (job or {}).get("error") or " ".join(self.grid.varied(words))
            table.add_row(path.name, row["status"], share, score(row), text)
        return table

    def _left(self, done: int, count: int) -> str:
        fresh = done - self.since
        if not fresh or done >= count:
            return ""
        minutes = (count - done) * (time.monotonic() - self.began) / fresh / 60
        return f", about {max(1, round(minutes))} min left"
