"""A search as its files tell it, and its charts: what is missing there is missing here."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.analysis import grids
from rlx.analysis.numbers import number
from rlx.analysis.report import charts
from rlx.base.files import guarded
from rlx.rundir.metrics import is_number


@dataclass
class StudySummary:
    """A search, as its files tell: what is missing there is missing here."""

    path: Path
    asked: dict[str, Any]
    trials: list[dict[str, Any]]
    importance: dict[str, float]

    def is_log(self, key: str) -> bool:
        space = self.asked.get("space")
        one = space.get(key) if isinstance(space, dict) else None
        return bool(isinstance(one, dict) and one.get("log"))

    @property
    def name(self) -> str:
        return str(self.asked.get("name") or self.path.name)

    @property
    def keys(self) -> list[str]:
        keys = dict.fromkeys(key for trial in self.trials for key in trial["params"])
        return sorted(keys, key=lambda key: -self.importance.get(key, 0.0))

    @property
    def states(self) -> dict[str, int]:
        return Counter(trial["state"] for trial in self.trials)

    @property
    def best(self) -> dict[str, Any] | None:
        scored = [trial for trial in self.trials if trial["score"] is not None]
        return max(scored, key=lambda trial: trial["score"], default=None)

    def history(self) -> charts.Chart:
        """The score of each trial, and the best so far."""
        x = charts.axis([trial["number"] for trial in self.trials])
        best: list[tuple[float, float]] = []
        for trial in self.trials:
            if trial["score"] is not None and (not best or trial["score"] > best[-1][1]):
                best.append((trial["number"], trial["score"]))
        if best:
            best.append((self.trials[-1]["number"], best[-1][1]))
        dots = [_dot(trial, trial["number"]) for trial in self.trials]
        return charts.points(dots, x, "trial", best)

    def scatter(self, key: str) -> charts.Chart:
        """Score over a hyper-parameter."""
        trials = [trial for trial in self.trials if key in trial["params"]]
        x = charts.axis([trial["params"][key] for trial in trials], self.is_log(key))
        dots = [_dot(trial, charts.place(trial["params"][key], x)) for trial in trials]
        return charts.points(dots, x, f"{key}{' (log)' if x.log else ''}")


def _dot(trial: dict[str, Any], x: float) -> charts.Point:
    done = trial["score"] is not None
    score, kind = (trial["score"], "done") if done else (trial["last"], trial["state"])
    kind = kind if kind in ("done", "pruned", "failed") else "running"
    tip = f"trial {trial['number']}, {trial['state']}{'' if score is None else f', {number(score)}'}"
    return charts.Point(x, score if kind in ("done", "pruned") else None, kind, tip)


def read_study(path: Path) -> StudySummary | None:
    """What a search has left in its directory; None where there was none, or nothing of it can be read."""
    trials = [{**trial, "error": line_of(trial["error"])} for trial in grids.trials(path)]
    if not trials:
        return None
    shares = {key: float(share) for key, share in guarded.known(path / "importance.json").items() if is_number(share)}
    request = guarded.known(path / "study.json")
    return StudySummary(path, request, sorted(trials, key=lambda trial: trial["number"]), shares)


def line_of(error: str | None) -> str | None:
    return " ".join(error.split())[:300] if error else None
