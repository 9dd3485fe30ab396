"""What came of the jobs of a grid, or of the trials of a search. Never imports torch."""

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

from rlx.base.files import guarded
from rlx.rundir import reader
from rlx.rundir.layout import LastEvaluation
from rlx.rundir.metrics import is_number
from rlx.rundir.query import natural

FILES = ("sweep.json", "jobs.jsonl", "study.json", "trials.json", "multirun.yaml")


def is_grid(path: Path) -> bool:
    return not reader.is_run(path) and any((path / name).is_file() for name in FILES)


def show(path: Path) -> dict[str, Any]:
    """{sweep, kind: sweep or study, states: {state: count}, jobs: [{run, trial, seed, status, eval, params, error}]};
    of a study a job is a trial, its seed None and its eval the score over its seeds."""
    study = (path / "study.json").is_file()
    jobs = _trials(path) if study else _jobs(path)
    return {
        "sweep": str(path), "kind": "study" if study else "sweep",
        "states": dict(Counter(job["status"] for job in jobs)), "jobs": jobs,
    }  # fmt: skip


def _trials(path: Path) -> list[dict[str, Any]]:
    return [
        {
            "run": ", ".join(row["runs"]), "trial": row["number"], "seed": None, "status": row["state"],
            "eval": row["score"], "params": row["params"], "error": row["error"],
        }
        for row in trials(path)
    ]  # fmt: skip


def _jobs(path: Path) -> list[dict[str, Any]]:
    ended = {job["run"]: job for job in jobs(path)}
    rows = [(one.name, reader.show(one), ended.pop(one.name, {})) for one in sorted(reader.find(path), key=natural)]
    for name, job in ended.items():  # what ended before it had a run directory, or whose directory is gone
        rows.append((name, {"status": "failed" if job["error"] else "removed", "eval": None}, job))
    return [
        {
            "run": name, "trial": row.get("trial"), "seed": row.get("seed"), "status": row["status"],
            "eval": LastEvaluation.of(row["eval"]).comparable, "params": row.get("params") or _params(job),
            "error": row.get("error") or job.get("error"),
        }
        for name, row, job in rows
    ]  # fmt: skip


def _params(job: dict[str, Any]) -> dict[str, str]:
    return dict(word.lstrip("+").split("=", 1) for word in job.get("overrides", ()) if "=" in word)


# -- their files -------------------------------------------------------------------------------------------------


def jobs(directory: Path) -> list[dict[str, Any]]:
    """The lines of jobs.jsonl: {job, run, overrides, error}. A torn or strange one is left out."""
    return [
        {
            "job": row.get("job"),
            "run": row["run"],
            "overrides": _texts(row.get("overrides")),
            "error": _text(row, "error"),
        }
        for row in _lines(directory / "jobs.jsonl")
        if isinstance(row.get("run"), str)
    ]


def trials(directory: Path) -> list[dict[str, Any]]:
    """The trials of a search, from trials.jsonl (or the list in trials.json): {number, state, score, last, params,
    seeds_done, error, runs}; `last`: the newest score of one that was pruned. What is no trial is left out."""
    rows = _lines(directory / "trials.jsonl")
    if not (directory / "trials.jsonl").is_file():
        with contextlib.suppress(guarded.Damaged):
            whole = guarded.json_value(directory / "trials.json")
            rows = [row for row in whole if isinstance(row, dict)] if isinstance(whole, list) else []
    return [_trial(row) for row in rows if isinstance(row.get("number"), int)]


def _trial(row: dict[str, Any]) -> dict[str, Any]:
    params, values = row.get("params"), row.get("values")
    at = [value for value in values.values() if is_number(value)] if isinstance(values, dict) else []
    return {
        "number": row["number"],
        "state": str(row.get("state", "unknown")).lower(),
        "score": float(row["score"]) if is_number(row.get("score")) else None,
        "last": float(at[-1]) if at else None,
        "params": params if isinstance(params, dict) else {},
        "seeds_done": row.get("seeds_done"),
        "error": _text(row, "error"),
        "runs": _texts(row.get("runs")),
    }


def _text(row: dict[str, Any], key: str) -> str | None:
    return str(row[key]) if row.get(key) else None


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _lines(path: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(guarded.Damaged):
        return list(guarded.json_lines(path))
    return []
