"""What came of the jobs of a grid, or of the trials of a search. Never imports torch."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from rlx.rundir import reader as runs
from rlx.rundir.filter import score
from rlx.rundir.query import natural

FILES = ("sweep.json", "jobs.jsonl", "study.json", "trials.json", "multirun.yaml")


def is_grid(path: Path) -> bool:
    return not runs.is_run(path) and any((path / name).is_file() for name in FILES)


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
            "run": ", ".join(map(str, row.get("runs") or ())), "trial": row.get("number"), "seed": None,
            "status": row.get("state"), "eval": row.get("score"), "params": row.get("params") or {},
            "error": row.get("error"),
        }
        for row in _lines(path / "trials.jsonl")
    ]  # fmt: skip


def _jobs(path: Path) -> list[dict[str, Any]]:
    said = {str(job["run"]): job for job in _lines(path / "jobs.jsonl") if "run" in job}
    found = [(one.name, runs.show(one), said.pop(one.name, {})) for one in sorted(runs.find(path), key=natural)]
    for name, job in said.items():  # what ended before it had a run directory, or whose directory is gone
        found.append((name, {"status": "failed" if job.get("error") else "removed"}, job))
    return [
        {
            "run": name, "trial": row.get("trial"), "seed": row.get("seed"), "status": row["status"],
            "eval": score(row), "params": row.get("params") or _params(job),
            "error": row.get("error") or job.get("error"),
        }
        for name, row, job in found
    ]  # fmt: skip


def _params(job: dict[str, Any]) -> dict[str, str]:
    return dict(word.lstrip("+").split("=", 1) for word in job.get("overrides", ()) if "=" in word)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file, one a line; a torn or strange line is left out."""
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [row for row in found if isinstance(row, dict)]
