"""What a report is about: the runs by configuration, how they went, and what a search found. The page is in page. Never
imports torch.
"""

import contextlib
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.analysis import statistics, stopping
from rlx.analysis.compare import build as compare
from rlx.analysis.compare.result import ComparisonData
from rlx.analysis.curves import build as plot, configurations, curves
from rlx.analysis.report.search import StudySummary, line_of, read_study
from rlx.base.errors import UserError
from rlx.rundir import home, query, reader
from rlx.rundir.layout import SILENT, Status
from rlx.rundir.metrics import MetricsTable, is_number
from rlx.rundir.provenance import Provenance

SIDES = 6  # that are compared with one another, at most
WATCHED = ("entropy", "kl", "completions/mean_length", "train/entropy_loss", "train/approx_kl", "exact/regret")


@dataclass
class One:
    """A run."""

    path: Path
    seed: Any
    status: str
    error: str | None
    score: float | None  # of its last evaluation; without one, its last return or reward
    step: int
    seconds: float
    record: Provenance


@dataclass
class Row:
    """A configuration and its runs."""

    number: int
    place: str
    kind: str  # env or task
    label: str
    identity: str
    config: dict[str, Any]
    runs: list[One]
    rank: int = 0  # among the configurations of its place

    @property
    def finished(self) -> list[One]:
        """Those with a score; of a seed that ran again the last one, for it is no further seed."""
        finished = [run for run in self.runs if run.status == "finished" and run.score is not None]
        return list({str(run.seed): run for run in finished}.values())

    @property
    def scored(self) -> list[One]:
        """Best first: those that finished, or the others where none did."""
        scored = self.finished or [run for run in self.runs if run.score is not None]
        return sorted(scored, key=lambda run: -(run.score or 0.0))

    @property
    def estimate(self) -> statistics.Estimate | None:
        """IQM over the seeds that finished, with its 95 % interval."""
        values = [run.score for run in self.finished if run.score is not None]
        return statistics.estimate(values) if values else None

    @property
    def statuses(self) -> dict[str, int]:
        return dict(Counter(run.status for run in self.runs).most_common())

    def text(self, key: str) -> str:
        """A value of its configuration."""
        return query.value_text(self.config[key]) if key in self.config else ""


@dataclass
class Report:
    title: str
    words: list[str]
    rows: list[Row]
    plots: list[plot.Plot]
    studies: list[StudySummary]
    notes: list[str] = field(default_factory=list)
    metric: str = ""
    told: list[str] = field(default_factory=list)  # a single run in words
    comparison: ComparisonData | None = None

    @property
    def keys(self) -> list[str]:
        """The keys that configurations which have them differ in."""
        configs = [row.config for row in self.rows]
        keys = query.differing(configs)
        return [key for key in keys if query.differing([{key: one[key]} for one in configs if key in one])]

    @property
    def places(self) -> list[str]:
        return list(dict.fromkeys(row.place for row in self.rows))

    @property
    def runs(self) -> list[One]:
        return [run for row in self.rows for run in row.runs]

    @property
    def statuses(self) -> dict[str, int]:
        return Counter(run.status for run in self.runs)

    @property
    def unfinished(self) -> list[tuple[Row, One]]:
        """Every run that did not come to its end, but for those that a search has pruned."""
        return [(row, run) for row in self.rows for run in row.runs if run.status not in ("finished", "pruned")]

    @property
    def commands(self) -> list[str]:
        commands = [run.record.command for run in self.runs]
        return list(dict.fromkeys(shlex.join(map(str, words)) for words in commands if words is not None))

    def table(self) -> list[dict[str, Any]]:
        """The rows of the page's table, for programs."""
        return [
            {
                row.kind: row.place,
                "configuration": row.label,
                "iqm": row.estimate.value if row.estimate else None,
                "interval": [row.estimate.low, row.estimate.high] if row.estimate and row.estimate.known else None,
                "scores": {str(run.seed): run.score for run in row.scored},
                "statuses": row.statuses,
                "runs": [str(run.path) for run in row.runs],
            }
            for row in self.rows
        ]


def build(
    words: Sequence[str], metric: str = "", title: str = "", tell: Callable[[Path], list[str]] | None = None
) -> Report:
    """Everything on the page. `tell` puts a run into words. Raises UserError where no run matches, or none has the
    metric."""
    paths = query.find(words)
    studies = [study for place in dict.fromkeys(path.parent for path in paths) if (study := read_study(place))]
    chosen = metric or curves.default_metric(paths)
    rows, notes = _rows(paths, chosen)
    notes += stopping.said([row.config for row in rows])
    plots = _plots(paths, metric, chosen, rows)
    for picture in plots:
        notes += [note for note in picture.notes if " too" in note or "earlier run" in note]
    words = list(words or [str(home.runs_dir())])
    named = str(paths[0]) if len(paths) == 1 else ", ".join(words)
    title = title or (str(studies[0].asked.get("name", "")) if len(studies) == 1 else "") or named
    report = Report(title, words, rows, plots, studies, list(dict.fromkeys(notes)), chosen)
    if len(paths) == 1 and tell:
        report.told = tell(paths[0])
    if 1 < len(rows) <= SIDES and not studies:
        with contextlib.suppress(UserError):  # there is nothing to compare
            compared = compare.build(words)
            report.comparison = compared if any(pair.results for pair in compared.pairs) else None
    return report


def _plots(paths: Sequence[Path], metric: str, chosen: str, rows: Sequence[Row]) -> list[plot.Plot]:
    """The curves while learning and those of evaluations; of none, nothing is drawn."""
    evaluated = [name for row in rows for run in row.runs if (name := reader.facts(run.path).evaluated)]
    wanted = [chosen] if metric else list(dict.fromkeys([chosen, *evaluated]))
    if len(paths) == 1 and not metric:  # how one run learns
        known = MetricsTable(paths[0]).numbers()
        wanted += [name for name in WATCHED if name in known and name not in wanted]
    plots = []
    for name in wanted:
        try:
            plots.append(plot.build(paths, name))
        except UserError:
            if metric:
                raise
    return plots


# -- runs --------------------------------------------------------------------------------------------------------


def _rows(paths: Sequence[Path], metric: str) -> tuple[list[Row], list[str]]:
    configs, notes = configurations.read(paths)
    if not configs:
        raise UserError(f"no run can be read ({notes[0]})")
    rows = []
    for one in configs:
        runs_ = [_one(path, seed, metric) for path, seed in one.runs]
        rows.append(Row(0, one.place, one.kind, one.label, one.identity, one.config, runs_))
    rows.sort(key=lambda row: (row.place, -_middle(row)))
    for number, row in enumerate(rows, 1):
        row.number, row.rank = number, sum(other.place == row.place for other in rows[:number])
    return rows, notes


def _middle(row: Row) -> float:
    """To sort by: the IQM, then those of which no run finished."""
    if row.estimate:
        return row.estimate.value
    return -1e300 if not row.scored else -1e299


def _one(path: Path, seed: Any, metric: str) -> One:
    status, last = Status.read(path), _last(path, metric)
    fallback = None if metric.endswith("loss") else last.get(metric)  # of a loss less is better
    value = fallback if status.score is None else status.score
    step = max(status.step, int(last.get("step", 0)))
    silent = SILENT if status.state == "killed" else status.damage
    seconds = float(last.get("time/time_elapsed", 0.0))
    return One(path, seed, status.state, line_of(status.error) or silent, value, step, seconds, Provenance.read(path))


def _last(path: Path, metric: str) -> dict[str, Any]:
    """The last values of a metric, the step and the wall time."""
    values: dict[str, Any] = {}
    for row in MetricsTable(path).rows():
        values |= {key: row[key] for key in ("step", metric, "time/time_elapsed") if is_number(row.get(key))}
    return values


# -- the machine -------------------------------------------------------------------------------------------------


def environment(rows: Sequence[Row]) -> dict[str, str]:
    """Versions, machine and the like, each once with all the values it had."""
    table: dict[str, dict[str, None]] = {}
    for run in (run for row in rows for run in row.runs):
        record, machine = run.record, run.record.machine or {}
        facts = {
            **{str(name): version for name, version in (record.versions or {}).items()},
            "host": record.host, "system": machine.get("system"), "device": record.device,
            "GPU": machine.get("gpu"), "CPU": machine.get("cpu_capability"), "threads": record.threads,
            "git commit": str((record.git or {}).get("commit") or "")[:12],
        }  # fmt: skip
        for name, value in facts.items():
            if value not in (None, ""):
                table.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(values) for name, values in table.items()}
