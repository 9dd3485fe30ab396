"""A search as its files tell it, and its charts: what is missing there is missing here."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.analysis.numbers import number
from rlx.analysis.report import charts
from rlx.rundir import query as reading


@dataclass
class Study:
    """A search, as its files tell: what is missing there is missing here."""

    path: Path
    asked: dict[str, Any]
    trials: list[dict[str, Any]]
    importance: dict[str, float]

    def is_log(self, key: str) -> bool:
        one = (self.asked.get("space") or {}).get(key)
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


def read_study(path: Path) -> Study | None:
    """What a search has left in its directory; None where there was none, or nothing of it can be read."""
    trials = [trial for row in _trial_rows(path) if (trial := _trial(row))]
    if not trials:
        return None
    importance = _json(path / "importance.json")
    shares = {str(key): float(x) for key, x in importance.items() if reading.is_number(x)} if importance else {}
    asked = _json(path / "study.json")
    return Study(path, asked, sorted(trials, key=lambda trial: trial["number"]), shares)


def _trial(row: Any) -> dict[str, Any] | None:
    if not isinstance(row, dict) or not isinstance(row.get("number"), int):
        return None
    params, values = row.get("params"), row.get("values")
    at = [x for x in values.values() if reading.is_number(x)] if isinstance(values, dict) else []
    return {
        "number": row["number"],
        "state": str(row.get("state", "unknown")).lower(),
        "score": float(row["score"]) if reading.is_number(row.get("score")) else None,
        "last": float(at[-1]) if at else None,  # of a pruned one: when it was stopped
        "params": params if isinstance(params, dict) else {},
        "seeds": row.get("seeds_done"),
        "error": _line(row.get("error")),
    }


def _trial_rows(path: Path) -> list[Any]:
    """trials.jsonl, or trials.json as a list."""
    found = []
    try:
        for line in (path / "trials.jsonl").read_text("utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:  # torn
                continue
    except (OSError, UnicodeDecodeError):
        try:
            whole = json.loads((path / "trials.json").read_text("utf-8"))
        except (OSError, ValueError):
            return []
        found = whole if isinstance(whole, list) else []
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(error: Any) -> str | None:
    return " ".join(str(error).split())[:300] if error else None
