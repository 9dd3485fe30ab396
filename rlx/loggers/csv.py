"""metrics.csv in the run's directory: one row a step, a column for each metric. It follows metrics.jsonl."""

import csv
import io
from typing import Any

from rlx.base.files.atomic import write_atomically
from rlx.loggers.loggers import LoggedRun
from rlx.rundir.metrics import MetricsTable

FILE = "metrics.csv"


class Logger:
    """A column that comes later makes the file anew; it stands empty in earlier rows."""

    rewinds = True  # what metrics.jsonl has lost is gone here, too

    def start(self, run: LoggedRun, step: int) -> None:
        self.path = run.path / FILE
        self.rows: dict[int, dict[str, Any]] = {}
        self.columns: dict[str, None] = {"step": None}
        for row in MetricsTable(run.path).rows():
            if row["step"] <= step:
                self.rows.setdefault(row["step"], {}).update(row)
        for row in self.rows.values():
            self.columns |= dict.fromkeys(row)
        self._rewrite()

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        row = {"step": step, **metrics}
        self.rows[step] = row
        if new := dict.fromkeys(key for key in row if key not in self.columns):
            self.columns |= new
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([row]))

    def finish(self, status: str) -> None:
        self.rows.clear()

    def _rewrite(self) -> None:
        header = ",".join(self.columns)
        write_atomically(self.path, f"{header}\n{self._text(self.rows.values())}".encode(), durable=False)

    def _text(self, rows: Any) -> str:
        text = io.StringIO()
        csv.DictWriter(text, list(self.columns), lineterminator="\n").writerows(rows)
        return text.getvalue()
