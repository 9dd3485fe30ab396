"""A search from its beginning to its end: what `rlx sweep` does."""

from collections.abc import Callable
from typing import Any

from rlx.base import process
from rlx.base.errors import ConfigError
from rlx.base.files.atomic import write_json
from rlx.config import registry
from rlx.rundir import tensorboard_grid
from rlx.rundir.provenance import scrub
from rlx.search import optuna_storage, pool, study as studies, trials
from rlx.search.study import Study, done, find
from rlx.search.trials import rows


def begin(asked: dict[str, Any]) -> Study:
    """A new study, its trials planned; or the one of that name, where it is the same. Raises ConfigError before
    anything is written."""
    pool.need()
    optuna_storage.need()
    optuna_storage.check_sampler(asked["sampler"], asked["space"])
    place = "task" if "task" in asked else "env"
    name = asked["name"] or studies.fresh_name(asked["algo"], asked[place])
    url = None if asked["storage"] == "journal" else optuna_storage.whole(asked["storage"])
    if url:
        asked = {**asked, "storage": scrub(url)}
    asked = {**asked, "name": name, "created": process.now()}
    directory = studies.path_of(asked)
    is_new = not (directory / "study.json").is_file()
    if url and is_new:
        optuna_storage.check_free(name, optuna_storage.database(url))
    with studies.made(directory) as existing:
        if existing is not None:
            existing.url = url
            studies.check_same(existing, asked)
            study = existing
        else:
            study = Study(directory, asked, url)
            write_json(directory / "study.json", asked)
            if asked["config"].get("tensorboard"):
                _columns(study)
    return _ready(study, max(asked["trials"], study.asked["trials"]))


def again(name: str, trials: int | None = None, storage: str | None = None) -> Study:
    """A study that is there, to go on with. Raises UserError."""
    study = find(name)
    pool.need()
    optuna_storage.need()
    if storage:
        url = optuna_storage.whole(storage)
        if scrub(url) != study.asked["storage"]:
            raise ConfigError(f"storage={scrub(storage)}: the study {study.name} is in {study.asked['storage']}")
        study.url = None if url == "journal" else url
    return _ready(study, trials or study.asked["trials"])


def _columns(study: Study) -> None:
    """What HPARAMS shows."""
    columns: dict[str, Any] = {}
    for key, range_ in study.asked["space"].items():
        low_and_high = (float(range_["low"]), float(range_["high"])) if "low" in range_ else None
        columns[key] = tensorboard_grid.Interval(*low_and_high) if low_and_high else range_["choices"]
    metrics = registry.facts(study.asked["config"]["algo"]["implementation"]).metrics
    tensorboard_grid.columns(study.directory, columns, metrics)


def _ready(study: Study, count: int) -> Study:
    where = optuna_storage.storage(study)
    with study.locked():
        optuna_storage.check_records(study, where)
        study.plan(count)
        where = optuna_storage.ensure(study)
        trials.plan(study, where)
        trials.refresh(study)
    return study


def work(study: Study, jobs: int, look: Callable[[], Any] = lambda: None) -> int:
    """Work on it with so many processes. Returns 0, 1 (a worker failed) or 128 + the signal that stopped them. Raises
    ConfigError where this machine cannot run its configuration."""
    from rlx.analysis.curves import summary  # once, for all workers
    from rlx.training import runner  # once, for all workers

    runner.ready(study.asked["config"], [])
    code = pool.run(study, jobs, look)
    with study.locked():
        trials.refresh(study)
    if code <= 128:
        trials.write_importance(study)
        if study.asked["config"].get("tensorboard"):
            summary.write(study.directory)
    return code


__all__ = ["Study", "again", "begin", "done", "find", "rows", "work"]
