"""Run directories as `rlx train` leaves them, written in a millisecond."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rlx.config.keys import config_hash
from rlx.rundir.tensorboard import Dashboard

VERSIONS = {"rlx": "0.1.0", "python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"}


def make_run(
    root: Path,
    name: str,
    points: Sequence[tuple[int, float]],
    /,
    *,
    seed: int = 1,
    env: str = "cartpole",
    task: str | None = None,
    status: str = "finished",
    error: str | None = None,
    score: float | None = None,
    events: bool = False,
    gif: bytes | None = None,
    trial: int | None = None,
    **algo: Any,
) -> Path:
    """`points` (step, return) of learning; a step took a tenth of a second. `score`: of the last evaluation."""
    path = root / name
    path.mkdir(parents=True)
    place = {"task": {"name": task}} if task else {"env": {"name": env, "id": f"{env}-v1"}}
    metric, scored = ("reward", "eval/greedy_accuracy") if task else ("rollout/ep_rew_mean", "eval/mean_reward")
    config = {
        "seed": seed, "total_steps": 100, "runs_dir": str(root), "threads": 1, "video": seed == 1, "device": "cpu",
        **place, "algo": {"name": "ppo", "implementation": "ppo", "lr": 1e-3, **algo}, "model": {"hidden": [64, 64]},
    }  # fmt: skip
    rows = [{"step": x, metric: y, "time/time_elapsed": x / 10} for x, y in points]
    if score is not None and points:
        rows.append({"step": points[-1][0], scored: score})
    evaluated = {"score": score, ("greedy_accuracy" if task else "mean_reward"): score}
    known = {
        "algo": config["algo"]["name"], **({"task": task} if task else {"env": env}), "seed": seed,
        "command": ["rlx", "train", f"algo.lr={config['algo']['lr']}", f"seed={seed}"],
        "started": "2026-11-21T21:00:00", "host": "box", "device": "cpu", "versions": VERSIONS,
        "git": {"commit": "0123456789abcdef"}, "machine": {"system": "Linux-6.1", "cpu_capability": "AVX2"},
        **({} if trial is None else {"trial": trial, "params": {"algo.lr": config["algo"]["lr"]}}),
    }  # fmt: skip
    how = {
        "status": status, "error": error, "host": socket.gethostname(), "pid": 0, "total_steps": 100,
        "step": points[-1][0] if points else 0, "evaluation": None if score is None else evaluated,
    }  # fmt: skip
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (path / "run.json").write_text(json.dumps(known))
    (path / "status.json").write_text(json.dumps(how))
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if events:
        board = Dashboard(path)
        hparams = {key: config[key] for key in (*place, "algo", "model", "total_steps")}
        board.hparams_start(hparams, config_hash(hparams))
        for row in rows:
            board.scalars(row["step"], {key: value for key, value in row.items() if key != "step"})
        if gif:
            board.image_gif("eval/video", gif[:-1], 4, 4, 50)  # an earlier one
            board.image_gif("eval/video", gif, 4, 4, 100)
        if status in ("finished", "failed"):
            board.hparams_end("success" if status == "finished" else "failure")
        board.close()
    return path


def ramp(slope: float, end: int = 100) -> list[tuple[int, float]]:
    return [(x, slope * x) for x in range(0, end + 1, 10)]


def study_of(root: Path, suffix: str = "jsonl") -> Path:
    """A search of five trials as its files tell it."""
    trials = []
    for number, (state, score) in enumerate([("complete", 3.0), ("failed", None), ("pruned", None), ("complete", 9.0)]):
        make_run(root, f"trial_{number:04d}_s1", ramp(number), lr=10.0**-number, score=score, trial=number)
        params = {"algo.lr": 10.0**-number, "algo.activation": "tanh" if number % 2 else "relu"}
        row = {"number": number, "state": state, "score": score, "params": params, "seeds_done": 1}
        trials.append({**row, "error": "boom" if state == "failed" else None, "values": {"10": 1.5, "20": 2.5}})
    trials.append({"number": 4, "state": "waiting", "score": None, "params": {}, "error": None})
    rows = [json.dumps(trial) for trial in trials]
    text = "\n".join([*rows, '{"torn": ']) if suffix == "jsonl" else f"[{', '.join(rows)}]"
    (root / f"trials.{suffix}").write_text(text)
    (root / "study.json").write_text(
        json.dumps({"name": "mine", "sampler": "tpe", "space": {"algo.lr": {"type": "float", "log": True}}})
    )
    (root / "importance.json").write_text(json.dumps({"algo.lr": 0.75, "algo.activation": 0.25}))
    return root
