"""The trials of a study: planned up front, each taken by one worker, given up and taken over, told at the end.

Who runs a trial stands in its user_attrs as `owner` (base.process.me and the pid of its parent). A trial whose owner
is gone is taken over with its parameters as they are: what its runs have done is in their directories.
"""

import contextlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.base import process
from rlx.base.files import guarded
from rlx.base.files.atomic import write_json
from rlx.rundir import reader
from rlx.rundir.layout import Status
from rlx.rundir.metrics import is_number
from rlx.search import optuna_storage
from rlx.search.study import OVER, Study

ENOUGH = 10  # complete trials to say what mattered
NAMES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass
class Trial:
    """A trial that this process has taken."""

    study: Study
    number: int
    id: int  # of Optuna's storage
    params: dict[str, Any]
    finals: list[float] = field(default_factory=list)  # scores of the seeds that are finished


@dataclass
class TrialResult:
    """How a trial ended: complete with a score, pruned, or failed with an error."""

    state: str
    score: float | None = None
    error: str | None = None
    traceback: str | None = None


# -- planning and taking -------------------------------------------------------------------------------------------


def plan(study: Study, where: Any = None) -> None:
    """Let there be as many trials as were asked for. Called by whoever holds the study's lock."""
    records = optuna_storage.open_study(study, where)
    with optuna_storage.quiet():
        for _ in range(study.asked["trials"] - len(records.get_trials(deepcopy=False))):
            records.enqueue_trial({})


def pop(records: Any) -> int | None:
    """The id of a trial that was waiting and now is this process's. Optuna has no public name for it: `ask` makes a
    new one where none waits."""
    return records._pop_waiting_trial_id()  # type: ignore[no-any-return]


def take(study: Study, parent: int) -> Trial | None:
    """The next trial for this process: one that somebody has left, else one that waits; None where there is none."""
    with study.locked():
        where = optuna_storage.storage(study)
        records = optuna_storage.open_study(study, where)
        left = [trial for trial in records.get_trials(deepcopy=False) if trial.state.name == "RUNNING"]
        left = [trial for trial in left if not lives(study, trial)]
        trial_id = left[0]._trial_id if left else pop(records)
        if trial_id is None:
            return None
        where.set_trial_user_attr(trial_id, "owner", {**process.me(), "parent": parent, "heartbeat": process.now()})
        number = where.get_trial_number_from_id(trial_id)
        trial = _attached(optuna_storage.open_study(study, where, number), trial_id)
        params = optuna_storage.suggest(trial, study.asked["space"])
        refresh(study, records)
        return Trial(study, number, trial_id, params)


def _attached(records: Any, trial_id: int) -> Any:
    """Optuna's handle on a trial that is running."""
    import optuna

    with optuna_storage.quiet():
        return optuna.trial.Trial(records, trial_id)


def lives(study: Study, trial: Any) -> bool:
    """Whether somebody works on a running trial; of another host only a heartbeat tells."""
    owner = trial.user_attrs.get("owner")
    if not owner:
        return False
    statuses = [Status.read(path) for path in run_paths(study, trial.number)]
    beats = [str(status.heartbeat) for status in statuses if status.host == owner.get("host")]
    if process.lives({**owner, "heartbeat": max([str(owner.get("heartbeat")), *beats])}):
        return True
    return any(status.state == "running" for status in statuses)


def others_work(study: Study) -> bool:
    """Whether a trial is under way, of this search or of another on the same study: one that has none itself would
    take it over if its worker were killed."""
    records = optuna_storage.open_study(study)
    return any(trial.state.name == "RUNNING" for trial in records.get_trials(deepcopy=False))


def give_up(trial: Trial) -> None:
    """Let anybody take it over at once."""
    optuna_storage.storage(trial.study).set_trial_user_attr(trial.id, "owner", None)


# -- while it runs -------------------------------------------------------------------------------------------------


def position(study: Study, index: int, step: int) -> int:
    """Where a trial is: steps over all its seeds, in whole cadences of evaluation, so that trials whose iterations
    have other lengths are compared at the same positions."""
    if step >= study.total_steps:
        return (index + 1) * study.total_steps
    return index * study.total_steps + step // study.eval_every * study.eval_every


class Reporter:
    """Tells Optuna how a trial does, and says whether it is to be pruned. Opened by the process that runs the run."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._handle = _attached(optuna_storage.open_study(trial.study, None, trial.number), trial.id)

    def prune(self, index: int, step: int, score: float) -> bool:
        """After the evaluation of seed `index` at `step`: the mean of its finished seeds and this one's newest score
        is what is compared. A storage that is away for a moment costs a report, not a run."""
        value = _mean([*self.trial.finals[:index], score])
        try:
            with optuna_storage.quiet():
                self._handle.report(value, position(self.trial.study, index, step))
                return bool(self._handle.should_prune())
        except Exception as error:
            self.trial.study.log(f"trial {self.trial.number}: not reported: {type(error).__name__}: {error}")
            return False


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


# -- the end -------------------------------------------------------------------------------------------------------


def tell(trial: Trial, result: TrialResult) -> None:
    """Record how a trial ended, and write the study's rows."""
    import optuna

    states = optuna.trial.TrialState
    state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[result.state]
    with trial.study.locked():
        where = optuna_storage.storage(trial.study)
        for key in ("error", "traceback"):
            if text := getattr(result, key):
                where.set_trial_user_attr(trial.id, key, text)
        records = optuna_storage.open_study(trial.study, where)
        with optuna_storage.quiet():
            records.tell(trial.number, result.score, state)
        refresh(trial.study, records)


def refresh(study: Study, records: Any = None) -> list[dict[str, Any]]:
    """Write trials.jsonl anew. Called by whoever holds the study's lock."""
    records = records or optuna_storage.open_study(study)
    rows = [row(study, trial) for trial in records.get_trials(deepcopy=False)]
    study.write_rows(rows)
    return rows


def rows(study: Study) -> list[dict[str, Any]]:
    """The trials as they are now. The storage, and Optuna, are asked only while some are not over."""
    written = study.rows()
    if len(written) >= study.asked["trials"] and all(one["state"] in OVER for one in written):
        return written
    if written and not os.access(study.directory, os.W_OK):  # somebody else's: as of the last change
        return written
    with study.locked():
        return refresh(study)


def run_paths(study: Study, number: int) -> list[Path]:
    """The runs of a trial that have begun, in the order of their seeds."""
    paths = [study.run(number, seed) for seed in study.seeds]
    return [path for path in paths if (path / "config.yaml").is_file()]


def row(study: Study, trial: Any) -> dict[str, Any]:
    """A trial for others to read."""
    state, paths = NAMES[trial.state.name], run_paths(study, trial.number)
    if state == "running" and not lives(study, trial):
        state = "interrupted"
    score = trial.value if state == "complete" else None
    return {
        "number": trial.number,
        "state": state,
        "score": score if score is None or math.isfinite(score) else None,
        "params": optuna_storage.params(trial, study.asked["space"]),
        "seeds_done": sum(reader.state(path) == "finished" for path in paths),
        "error": trial.user_attrs.get("error"),
        "traceback": trial.user_attrs.get("traceback"),
        "runs": [path.name for path in paths],
        "values": {str(at): value for at, value in trial.intermediate_values.items() if math.isfinite(value)},
    }


# -- what mattered -------------------------------------------------------------------------------------------------


def importance(study: Study) -> dict[str, float] | None:
    """{key: share} as importance.json has it, or else of now; None where there is nothing to say yet."""
    saved = read_importance(study)
    return _importance(study) if saved is None else saved


def read_importance(study: Study) -> dict[str, float] | None:
    with contextlib.suppress(guarded.Damaged):
        shares = guarded.json_object(study.directory / "importance.json")
        return shares if all(map(is_number, shares.values())) else None
    return None


def _importance(study: Study) -> dict[str, float] | None:
    """The share of each parameter in what made the better trials better: PED-ANOVA (Watanabe et al. 2023,
    arXiv:2304.10255), the one of Optuna's evaluators that needs no scikit-learn. None with too few complete trials."""
    optuna = optuna_storage.need()
    records = optuna_storage.open_study(study)
    if sum(trial.state.name == "COMPLETE" for trial in records.get_trials(deepcopy=False)) < ENOUGH:
        return None
    with optuna_storage.quiet(), contextlib.suppress(ValueError, RuntimeError, ZeroDivisionError):
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        shares = optuna.importance.get_param_importances(records, evaluator=evaluator)
        if shares and all(math.isfinite(share) for share in shares.values()):
            return {str(key): float(share) for key, share in shares.items()}
    return None


def write_importance(study: Study) -> None:
    """importance.json, for those who read a study without Optuna."""
    write_json(study.directory / "importance.json", _importance(study))
