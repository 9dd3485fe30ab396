"""One worker: takes trials one after the other and runs their seeds, each in a process of its own."""

import os
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

from rlx.base.errors import UserError
from rlx.base.in_fork import Died, apart
from rlx.base.signals import Interrupted, Pruned, RunFailed, Signals
from rlx.rundir.layout import Status, note_death
from rlx.search import trials
from rlx.search.params import placed, word
from rlx.search.study import Study, state_of_run
from rlx.search.trials import Trial, TrialResult

LIVES = 2  # of a run whose process is killed; then its trial has failed
PAUSE = 0.5  # seconds between two looks at what the others do


def work(study: Study, parent: int) -> int:
    """Take trials until there is none left. Returns the exit code: 0, or 128 + the signal that stopped it."""
    with Signals() as signals:
        while not signals.asked:
            trial = trials.take(study, parent)
            if trial is None:
                if not trials.others_work(study):
                    return 0
                time.sleep(PAUSE)
                continue
            if signals.asked:  # while it was taken
                trials.give_up(trial)
                break
            try:
                trials.tell(trial, run(trial))
            except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
                trials.give_up(trial)
                return stop.code if isinstance(stop, Interrupted | SystemExit) else 130  # type: ignore[return-value]
    return 128 + signals.asked


def run(trial: Trial) -> TrialResult:
    """All seeds of a trial, one after the other; those that are finished already are read. Raises Interrupted."""
    study, reporter = trial.study, None
    for index, seed in enumerate(study.seeds):
        path = study.run(trial.number, seed)
        result = _run(trial, index, seed, path)
        if result.state != "complete" or result.score is None:
            return result
        trial.finals.append(result.score)
        reporter = reporter or trials.Reporter(trial)
        if reporter.prune(index, study.total_steps, result.score) and index + 1 < len(study.seeds):
            return TrialResult("pruned")
    return TrialResult("complete", sum(trial.finals) / len(trial.finals))


def _run(trial: Trial, index: int, seed: int, path: Path) -> TrialResult:
    """One seed, to the end that it has already, or comes to now. Raises Interrupted."""
    deaths = 0
    while deaths < LIVES:
        state = state_of_run(path)
        if state == "finished":
            return _finished(path)
        if state == "pruned":
            return TrialResult("pruned")
        if state == "failed":
            return _failed(path)
        try:
            apart(lambda: in_its_process(trial, index, seed, path))
            if state_of_run(path) not in ("finished", "pruned"):
                raise Died("its run came to no end")
        except Died as death:
            deaths, error = deaths + 1, f"seed {seed}: {death}"
            note_death(path, str(death))
            trial.study.log(f"trial {trial.number}, {error}")
        except (RunFailed, UserError) as failure:
            return _failed(path, f"seed {seed}: {failure}")
    return TrialResult("failed", error=error)


def _finished(path: Path) -> TrialResult:
    status = Status.read(path)
    if status.score is None:
        return TrialResult("failed", error=f"{path.name}: its score is {status.evaluation and status.evaluation.value}")
    return TrialResult("complete", status.score)


def _failed(path: Path, text: str | None = None) -> TrialResult:
    status = Status.read(path)
    seed = path.name.rpartition("_s")[2]
    error = text or f"seed {seed}: {status.error or 'failed'}"
    return TrialResult("failed", error=error, traceback=status.traceback)


def in_its_process(trial: Trial, index: int, seed: int, path: Path) -> None:
    """Start a run or go on with it. What it prints goes to the study's rlx.log."""
    study = trial.study
    quietly(study)
    reporter, seen = trials.Reporter(trial), -1

    def progress(_step: int, metrics: Any) -> None:
        nonlocal seen
        at, score = metrics.get("eval/step"), metrics.get("eval/score")
        if at is None or score is None or at == seen or at >= study.total_steps:  # the last one counts as the result
            return
        seen = at
        if reporter.prune(index, at, score):
            raise Pruned(f"pruned by {study.asked['pruner']} after the evaluation at step {at:,}")

    try:
        begin(study, trial.number, trial.params, seed, path, progress)
    except Pruned:
        pass  # its status says so
    except (UserError, RunFailed, Interrupted):
        raise
    except Exception:
        traceback.print_exc()
        raise


def quietly(study: Study) -> None:
    """What this process prints from here on goes to the study's rlx.log."""
    with open(study.directory / "rlx.log", "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)


def begin(study: Study, number: int, params: dict[str, Any], seed: int, path: Path, progress: Any) -> None:
    """Start the run at `path`, or go on with it if it is there."""
    from rlx.training import runner

    if state_of_run(path) is not None:
        again = ["rlx", "sweep", "resume", study.name]
        runner.resume(path, runner.read_config(path), again, progress)
        return
    if path.exists():  # killed before it had a configuration: there is nothing in it
        shutil.rmtree(path)
    about = {"trial": number, "study": study.name, "params": params}
    raw = {**placed(study.asked["config"], params), "seed": seed}
    runner.start(raw, command(study, params, seed), progress, parent=path.parent, name=path.name, about=about)


def command(study: Study, params: dict[str, Any], seed: int | None = None) -> list[str]:
    """The words that train this point as an ordinary run."""
    words = [item for item in study.asked["overrides"] if item.partition("=")[0] != "seed"]
    chosen = [word(key, value) for key, value in params.items()]
    return ["rlx", "train", *words, *chosen, *([f"seed={seed}"] if seed is not None else [])]
