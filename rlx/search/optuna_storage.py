"""Optuna's side of a study: storage, samplers, pruners, distributions. With its sibling `trials` the only importer of
optuna; whatever it says or warns of is kept quiet, whatever it raises about the storage is one line."""

import contextlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from rlx.base import extras
from rlx.base.errors import ConfigError
from rlx.rundir.provenance import scrub
from rlx.search.study import Study, done

STARTUP = 5  # trials that no pruner stops
POPULATION = 10  # of nsga2: Optuna's 50 would be a random search of as many trials


def need() -> Any:
    """The module optuna. Raises ConfigError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise ConfigError(f"a search needs optuna, which is not installed: {extras.install('sweep')}") from None
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    return optuna


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's warnings: of what is experimental, of what is reported twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# -- storage -----------------------------------------------------------------------------------------------------


def storage(study: Study) -> Any:
    """Raises ConfigError where it cannot be reached."""
    optuna = need()
    place = study.url or str(study.asked["storage"])
    if place == "journal":
        file = study.directory / "journal.log"
        try:
            return optuna.storages.JournalStorage(_journal(file))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{file}: is damaged: a line is not a record ({type(error).__name__})") from None
        except OSError as error:
            raise ConfigError(f"{file}: cannot be opened: {error.strerror or error}") from None
    if "***@" in place:
        raise ConfigError(f"storage={place}: its password is not kept in study.json: give storage=URL again")
    return database(place)


def whole(url: str) -> str:
    """The URL as it is from any working directory."""
    match = re.fullmatch(r"(sqlite[\w+]*:///)([^/].*)", url)
    return f"{match[1]}{Path(match[2]).absolute()}" if match else url


def _journal(file: Path) -> Any:
    from optuna.storages.journal import JournalFileBackend

    lock = filelock.FileLock(file.with_name(".journal.lock"))  # Optuna's own outlives a kill -9 and blocks the others
    with lock:
        if file.is_file():
            _mend(file)
    return JournalFileBackend(str(file), lock_obj=lock)  # type: ignore[arg-type]


def _mend(file: Path) -> None:
    """A loss of power may leave half a line, which the next would be written behind."""
    size = file.stat().st_size
    with open(file, "rb+") as stream:
        stream.seek(max(0, size - 1))
        if size and stream.read(1) != b"\n":
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)


def database(url: str) -> Any:
    """Raises ConfigError."""
    optuna = need()
    from sqlalchemy.pool import NullPool  # no connection is open across a fork

    more: dict[str, Any] = {"poolclass": NullPool}
    if url.startswith("sqlite"):
        more["connect_args"] = {"timeout": 60}
    try:
        with quiet():
            return optuna.storages.RDBStorage(url, engine_kwargs=more)
    except Exception as error:  # of SQLAlchemy, of a driver, of Optuna
        missing = f"pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
        text = str(getattr(error, "orig", None) or error).strip().splitlines()
        raise ConfigError(
            f"storage={scrub(url)}: cannot be reached: {missing or scrub(text[0] if text else type(error).__name__)}"
        ) from None


def check_free(name: str, where: Any) -> None:
    """Raises ConfigError where a database has a study of that name."""
    if name in need().get_all_study_names(where):
        raise ConfigError(f"study={name}: the storage already has a study of that name, from another directory")


def check_records(study: Study, where: Any) -> None:
    """Raises ConfigError where trials came to their end and the storage knows nothing of the study."""
    if (count := len(done(study.rows()))) and study.name not in need().get_all_study_names(where):
        place = study.directory / "journal.log" if study.asked["storage"] == "journal" else study.asked["storage"]
        raise ConfigError(f"{study.directory}: the records of its {count} trials are gone from {place}")


def ensure(study: Study) -> Any:
    """Its storage, with its records begun."""
    where = storage(study)
    need().create_study(study_name=study.name, storage=where, direction="maximize", load_if_exists=True)
    return where


def open_study(study: Study, where: Any = None, number: int = 0) -> Any:
    """Optuna's study, with the sampler for a trial. Raises ConfigError."""
    optuna = need()
    where = where or storage(study)
    with quiet():
        parts = {"sampler": sampler(study, number), "pruner": pruner(study)}
        try:
            return optuna.load_study(study_name=study.name, storage=where, **parts)
        except KeyError:
            raise ConfigError(f"{study.directory}: its storage has no study {study.name}") from None


# -- sampler and pruner --------------------------------------------------------------------------------------------


def sampler(study: Study, number: int) -> Any:
    """A trial's sampler, with a seed of its own: no two workers draw the same, nor does one restarted after a kill."""
    optuna = need()
    name = study.asked["sampler"]
    seed = int(np.random.SeedSequence([study.asked["seed"], number]).generate_state(1)[0])
    make = optuna.samplers
    with quiet():
        if name == "tpe":
            return make.TPESampler(seed=seed, constant_liar=True)
        if name == "cmaes":
            return make.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if name == "gp":
            return make.GPSampler(seed=seed)
        if name == "nsga2":
            return make.NSGAIISampler(seed=seed, population_size=POPULATION)
        return make.RandomSampler(seed=seed)


def check_sampler(name: str, space: dict[str, Any]) -> None:
    """Raises ConfigError for a sampler that cannot search this space."""
    if name == "cmaes":
        try:
            import cmaes  # noqa: F401
        except ImportError:
            raise ConfigError(f"sampler=cmaes: needs cmaes: {extras.install('sweep')}") from None
        if sum(range_["type"] != "choice" for range_ in space.values()) < 2:
            raise ConfigError("sampler=cmaes: needs two ranges of numbers at least (sampler=tpe takes any)")


def pruner(study: Study) -> Any:
    """The pruner. It counts in positions of a trial: steps over all its seeds (see `trials.position`)."""
    optuna = need()
    name, first = study.asked["pruner"], study.eval_every
    with quiet():
        if name == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=first + 1)
        if name == "hyperband":
            most = study.total_steps * len(study.seeds)
            return optuna.pruners.HyperbandPruner(min_resource=first, max_resource=most, reduction_factor=3)
        return optuna.pruners.NopPruner()


# -- distributions -------------------------------------------------------------------------------------------------


def suggest(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """The trial's point: what it has already, and what is drawn now."""
    values: dict[str, Any] = {}
    with quiet():
        for key, one in space.items():
            if one["type"] == "choice":
                labels = {_label(choice): choice for choice in one["choices"]}
                values[key] = labels[trial.suggest_categorical(key, list(labels))]
            elif one["type"] == "int":
                values[key] = trial.suggest_int(key, one["low"], one["high"], step=one["step"], log=one["log"])
            else:
                values[key] = trial.suggest_float(key, one["low"], one["high"], step=one.get("step"), log=one["log"])
    return values


def params(trial: Any, space: dict[str, Any]) -> dict[str, Any]:
    """The point of a trial as it was recorded."""
    values = dict(trial.params)
    for key, one in space.items():
        if key in values and one["type"] == "choice":
            values[key] = {_label(choice): choice for choice in one["choices"]}[values[key]]
    return {key: values[key] for key in space if key in values}


def _label(choice: Any) -> Any:
    """A choice as Optuna keeps it: lists and sections as their texts."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)
