"""Studies whose runs take no time: a run is a status.json with the scores that `curve` gives."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_runs

from rlx.base import process
from rlx.base.signals import Pruned
from rlx.search import search, worker
from rlx.search.study import Study

LR = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
CLIP = {"type": "float", "low": 0.1, "high": 0.3, "log": False}
STEPS, EVERY = 100, 20
Curve = Callable[[dict[str, Any], int, int], float]  # params, seed, step -> score


def asked(place: Path, name: str = "study", trials: int = 6, seeds: int = 2, **changes: Any) -> dict[str, Any]:
    config = tiny_runs.config(place / "runs", total_steps=STEPS, eval_every=EVERY)
    return {
        "name": name, "command": ["rlx", "sweep"], "algo": "ppo", "env": "cartpole", "trials": trials, "seeds": seeds,
        "seed": 1, "sampler": "tpe", "pruner": "none", "storage": "journal", "overrides": ["env=cartpole"],
        "space": {"algo.lr": LR, "algo.clip_coef": CLIP}, "notes": [], "config": config, **changes,
    }  # fmt: skip


def begin(place: Path, **changes: Any) -> Study:
    return search.begin(asked(place, **changes))


def pretend(monkeypatch: pytest.MonkeyPatch, curve: Curve, seconds: float = 0.0) -> None:
    """Let runs be curves; raise in `curve` to let one fail."""

    def run(study: Study, number: int, params: dict[str, Any], seed: int, path: Path, progress: Any) -> None:
        path.mkdir(exist_ok=True)
        (path / "config.yaml").write_text("algo: {}\n")
        (path / "run.json").write_text(json.dumps({"trial": number, "params": params, "seed": seed}))
        _status(path, "running", 0, None)
        try:
            for step in range(EVERY, STEPS + 1, EVERY):
                time.sleep(seconds * EVERY / STEPS)
                score = curve(params, seed, step)
                _status(path, "running", step, score)
                progress(step, {"eval/step": step, "eval/score": score})
        except Pruned as stop:
            _status(path, "pruned", step, score, error=str(stop))
            raise
        _status(path, "finished", STEPS, score)

    monkeypatch.setattr(worker, "begin", run)


def _status(path: Path, status: str, step: int, score: float | None, **more: Any) -> None:
    evaluation = None if score is None else {"step": step, "score": score}
    found = {
        "status": status,
        "step": step,
        "evaluation": evaluation,
        **process.me(),
        "heartbeat": process.now(),
        **more,
    }
    temporary = path / "status.tmp"
    temporary.write_text(json.dumps(found))
    temporary.replace(path / "status.json")
