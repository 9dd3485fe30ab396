"""A run as its files tell it: configuration, outcome, and the series of its metrics."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rlx.base.files import guarded
from rlx.config.facts import Facts
from rlx.config.nested import flatten
from rlx.rundir.metrics import MetricsTable, is_number

Tree = Mapping[str, Any]
SOLVED = 0.95  # of the score that a preset promises, or of all answers right


@dataclass(frozen=True)
class Series:
    """The values of a metric and the steps at which they were written."""

    steps: Sequence[int]
    values: Sequence[float]

    def __len__(self) -> int:
        return len(self.values)

    def part(self, begin: float, end: float = 1.0) -> list[float]:
        """The values of a part of the run: part(.5) is its second half."""
        n = len(self.values)
        return [*self.values[int(begin * n) : max(int(begin * n) + 1, round(end * n))]] if n else []

    def mean(self, begin: float = 0.0, end: float = 1.0) -> float:
        return fmean(self.part(begin, end))

    def median(self, begin: float = 0.0, end: float = 1.0) -> float:
        return median(self.part(begin, end))

    def share(self, above: float) -> float:
        """How many of the values are above one, as a share."""
        return sum(value > above for value in self.values) / len(self.values)

    @property
    def last(self) -> float:
        return self.values[-1]

    @property
    def range(self) -> float:
        return max(self.values) - min(self.values)


class Record:
    """Of a run directory, or of the same as data."""

    def __init__(self, config: Tree, rows: Sequence[Tree], about: Tree, status: Tree) -> None:
        self.config = flatten(config)
        self.rows, self.about, self.status = rows, about, status

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Raises ConfigError where its configuration cannot be read."""
        config = guarded.yaml_value(path / "config.yaml")
        files = []
        for name in ("run.json", "status.json"):
            with contextlib.suppress(guarded.Damaged):
                files.append(guarded.json_object(path / name))
                continue
            files.append({})
        return cls(config if isinstance(config, dict) else {}, [*MetricsTable(path).rows()], *files)

    # -- configuration ---------------------------------------------------------------------------------------------

    def value(self, key: str) -> Any:
        """A value of the configuration; None where it has no such key."""
        return self.config.get(key)

    def number(self, key: str) -> float | None:
        """A number of the configuration; None for what is none."""
        try:
            return float(self.config[key])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def algorithm(self) -> str:
        return str(self.value("algo.name"))

    @property
    def place(self) -> str:
        """env=cartpole or task=add2."""
        section = "task" if self.value("task.name") is not None else "env"
        return f"{section}={self.about.get(section) or self.value(f'{section}.name')}"

    @property
    def is_language(self) -> bool:
        return self.place.startswith("task")

    @cached_property
    def facts(self) -> Facts:
        return Facts.of(self.about.get("facts"), "language" if self.is_language else "control")

    # -- metrics ---------------------------------------------------------------------------------------------------

    def series(self, *names: str) -> Series:
        """That of the first of these metrics that the run has; an empty one where it has none."""
        for name in names:
            rows = [(row["step"], float(row[name])) for row in self.rows if is_number(row.get(name))]
            if rows:
                return Series(*zip(*rows))
        return Series((), ())

    @property
    def steps(self) -> int:
        """Steps taken."""
        return max((int(row["step"]) for row in self.rows), default=0)

    @property
    def entropy(self) -> Series:
        """Of the policy, in nats; an empty one for a Gaussian, whose entropy has no zero."""
        if (loss := self.series("train/entropy_loss")) and not self.series("train/std"):
            return Series(loss.steps, [-value for value in loss.values])
        return self.series("entropy")

    @cached_property
    def _scored(self) -> tuple[str, Series]:
        """How good it was at each evaluation; while it learned, where there were fewer than two. And that metric."""
        known = {name: series for name in self.facts.metrics if (series := self.series(name))}
        evaluated = [name for name in known if name.startswith("eval/")]
        telling = [name for name in evaluated if any(known[name].values)]  # nothing is ever right where none can be
        learning = [name for name in known if name not in evaluated and not name.endswith("loss")]
        often = [name for name in (*telling, *evaluated) if len(known[name]) > 1]
        name = next(iter((*often, *learning, *telling, *evaluated)), "")
        return name, known.get(name, Series((), ()))

    @property
    def scores(self) -> Series:
        return self._scored[1]

    @cached_property
    def judged(self) -> Series:
        """What the target is a target of: the metric that the preset promises, where the run has it, or the scores."""
        return self.series(str(self.value("expect.metric"))) or self.scores

    @property
    def target(self) -> float | None:
        """The score at which it is solved: what the preset promises, the exact optimum, or all answers right."""
        if (promised := self.number("expect.score")) is not None:
            metric = self.value("expect.metric")
            return promised if metric is None or metric == self._scored[0] or self.series(metric) else None
        if optimum := self.series("exact/optimum"):
            return optimum.last
        learns_by_reward = self.series("frac_reward_zero_std") and self._scored[0].endswith("accuracy")
        return 1.0 if learns_by_reward else None

    def reached(self, score: float) -> bool:
        """Is a score as good as the target, but for a little?"""
        return self.target is not None and score >= self.target - (1 - SOLVED) * max(abs(self.target), 1e-9)

    @property
    def solved(self) -> bool:
        return len(self.judged) > 0 and self.reached(self.judged.last)
