"""A search as its files tell it, and its part of the page: what is missing there is missing here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rlx.analysis.report import charts
from rlx.analysis.report.html import cell, figure, number, raw, state, states, table
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
    def keys(self) -> list[str]:
        found = dict.fromkeys(key for trial in self.trials for key in trial["params"])
        return sorted(found, key=lambda key: -self.importance.get(key, 0.0))


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


# -- on the page -------------------------------------------------------------------------------------------------


def html(study: Study) -> str:
    """Its scores, what they depend on, and every trial."""
    asked, trials = study.asked, study.trials
    how = ", ".join(f"{key} {asked[key]}" for key in ("sampler", "pruner", "seeds") if asked.get(key) is not None)
    won = ""
    if best := max((one for one in trials if one["score"] is not None), key=lambda one: one["score"], default=None):
        chosen = ", ".join(f"{key}={reading.value_text(value)}" for key, value in best["params"].items())
        won = f"<p>Best: trial {best['number']}, {number(best['score'])}, with <code>{escape(chosen)}</code></p>"
    figures = [figure("score of each trial", _history(study))]
    if study.importance:
        shares = sorted(study.importance.items(), key=lambda item: -item[1])
        figures.append(figure("importance of the hyper-parameters", charts.bars(shares, "importance")))
    unknown = "" if study.importance else " Importance of the hyper-parameters: unknown, of too few complete trials."
    figures += [figure(f"score and {key}", _scatter(study, key)) for key in study.keys]
    numbers = [(key, "n") for key in study.keys]
    heads = [("trial", "n"), ("state", ""), ("score", "n"), *numbers, ("seeds", "n"), ("why", "")]
    counts = states(Counter(trial["state"] for trial in trials))
    name = escape(str(asked.get("name") or study.path.name))
    return (
        f"<h2>Search {name}</h2>\n<p>{len(trials)} trials: {counts}{escape('; ' + how if how else '')}</p>\n{won}"
        '<p class="faint">Filled: complete. Hollow: pruned, at its last score. Cross: without a score.'
        f"{unknown}</p>\n"
        f'<div class="charts">{"".join(figures)}</div>\n'
        f"<h3>Trials</h3>\n{table(heads, [_trial_cells(study, trial) for trial in trials])}"
    )


def _trial_cells(study: Study, trial: dict[str, Any]) -> str:
    cells = [cell(trial["number"], "n"), raw(state(trial["state"]))]
    cells.append(cell(number(trial["score"]), "n", "" if trial["score"] is None else trial["score"]))
    cells += [_param(trial["params"].get(key)) for key in study.keys]
    cells += [cell("" if trial["seeds"] is None else trial["seeds"], "n"), cell(trial["error"] or "", "error")]
    return "".join(cells)


def _param(value: Any) -> str:
    if value is None:
        return cell("", "n")
    return cell(reading.value_text(value), "n", value if reading.is_number(value) else None)


def _dots(study: Study, at: Callable[[dict[str, Any]], float | None]) -> list[charts.Point]:
    found = []
    for trial in study.trials:
        if (x := at(trial)) is None:
            continue
        score = trial["score"] if trial["score"] is not None else trial["last"]
        kind = "done" if trial["score"] is not None else trial["state"]
        kind = kind if kind in ("done", "pruned", "failed") else "running"
        height = score if score is not None and kind in ("done", "pruned") else float("nan")
        tip = f"trial {trial['number']}, {trial['state']}{'' if score is None else f', {number(score)}'}"
        found.append(charts.Point(x, height, kind, tip))
    return found


def _history(study: Study) -> str:
    x = charts.axis([trial["number"] for trial in study.trials])
    best: list[tuple[float, float]] = []
    for trial in study.trials:
        if trial["score"] is not None and (not best or trial["score"] > best[-1][1]):
            best.append((trial["number"], trial["score"]))
    if best:
        best.append((study.trials[-1]["number"], best[-1][1]))
    return charts.points(_dots(study, lambda trial: trial["number"]), x, "score", "trial", best)


def _scatter(study: Study, key: str) -> str:
    values = [trial["params"][key] for trial in study.trials if key in trial["params"]]
    x = charts.axis(values, study.is_log(key))
    dots = _dots(study, lambda trial: charts.place(trial["params"][key], x) if key in trial["params"] else None)
    return charts.points(dots, x, "score", f"{key}{' (log)' if x.log else ''}")
