"""The best trial of a study, and what becomes of its score on seeds that had no part in the choice."""

import shlex
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.base.files.atomic import write_json
from rlx.base.in_fork import Died, apart
from rlx.base.signals import RunFailed
from rlx.rundir.layout import Status, note_death
from rlx.search import worker
from rlx.search.study import Study, done, leader, state_of_run


def best(study: Study, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The winner: {study, trial, score, params, seeds, runs, command, trials}. Raises UserError where there is none."""
    trial = leader(rows)
    if trial is None:
        raise UserError(
            f"{study.name}: no trial is complete yet ({len(done(rows))} of {study.asked['trials']} have ended; "
            f"rlx sweep show {study.name})"
        )
    return {
        "study": str(study.directory),
        "trial": trial["number"],
        "score": trial["score"],
        "params": trial["params"],
        "scores": [Status.read(study.directory / name).score for name in trial["runs"]],
        "runs": trial["runs"],
        "command": shlex.join(worker.command(study, trial["params"])),
        "complete": sum(row["state"] == "complete" for row in rows),
        "trials": study.asked["trials"],
    }


def train(study: Study, winner: dict[str, Any], count: int, say: Any) -> dict[str, Any]:
    """Train the winner on the `count` seeds after those of the study, as ordinary runs under best/. Those that are
    finished are read, others go on. Returns `winner` with {fresh: {seeds, scores, mean, failed}, difference}.

    `say(path, score, error)` is called after each. Raises Interrupted.
    """
    fresh = [study.asked["seed"] + study.asked["seeds"] + index for index in range(count)]
    (study.directory / "best").mkdir(exist_ok=True)
    scores: list[float | None] = []
    for seed in fresh:
        path = study.directory / "best" / f"trial_{winner['trial']:04d}_s{seed}"
        error = None
        if state_of_run(path) != "finished":
            try:
                apart(lambda seed=seed, path=path: _run(study, winner, seed, path))  # type: ignore[misc]
            except (RunFailed, UserError, Died) as failure:
                error = str(failure)
                if isinstance(failure, Died):
                    note_death(path, error)
        scores.append(Status.read(path).score if error is None else None)
        say(path, scores[-1], error)
    scored = [score for score in scores if score is not None]
    mean = sum(scored) / len(scored) if scored else None
    result = {
        **winner,
        "fresh": {"seeds": fresh, "scores": scores, "mean": mean, "failed": len(scores) - len(scored)},
        "difference": None if mean is None else mean - winner["score"],
    }
    write_json(study.directory / "best" / "best.json", result)
    return result


def _run(study: Study, winner: dict[str, Any], seed: int, path: Path) -> None:
    worker.quietly(study)
    worker.begin(study, winner["trial"], winner["params"], seed, path, lambda *_: None)


def check_seeds(study: Study, count: int) -> None:
    """Raises UserError."""
    last = study.asked["seed"] + study.asked["seeds"] + count - 1
    if last > 2**32 - 1:
        raise UserError(f"--seeds={count}: the study's seeds end at {last - count}; seeds go to {2**32 - 1}")
