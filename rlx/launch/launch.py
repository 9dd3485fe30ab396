"""`rlx train` and `rlx resume`, around Hydra's own entry."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from rlx import __version__
from rlx.analysis.curves import summary
from rlx.base.errors import ConfigError, UserError
from rlx.base.in_fork import Died, apart
from rlx.base.signals import Interrupted
from rlx.config import kind as worlds
from rlx.config import registry
from rlx.launch import arguments as words
from rlx.launch import chain
from rlx.launch import grid as grids
from rlx.launch.composing import BASE, check_hydra, compose, compose_all, compose_in, plain, set_threads
from rlx.launch.config_files import check_size
from rlx.launch.grid import Grid
from rlx.launch.hydra_errors import one_line


@dataclass
class Outcome:
    """What one `rlx train` did: the finished runs with their results, and the grid if it was one."""

    runs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    grid: Grid | None = None


@dataclass
class _Job:
    """What `task` needs to know and Hydra does not carry. A worker process of a launcher has an empty one."""

    progress: Any = None
    command: list[str] = field(default_factory=list)
    directory: Path | None = None  # of the run, where the user chose it
    outcome: Outcome = field(default_factory=Outcome)
    failure: BaseException | None = None


_job = _Job()


# -- rlx train -------------------------------------------------------------------------------------------------


def train(argv: list[str], progress: Any = None) -> Outcome:
    """`rlx train` with Hydra's own command line. An empty outcome for --help, --cfg, --info.

    Raises ConfigError for the user's mistakes, in one line; whatever training raised passes through.
    """
    global _job
    given = words.split(argv)
    if "--version" in given.flags:
        print(f"rlx {__version__}, Hydra {hydra.__version__}")
        return Outcome()
    given.overrides = [_without_plus(word) for word in given.overrides]
    if name := chain.find(given):
        if given.trains:
            return _chain(name, given, progress)
        given.overrides = []  # --help
    parsed = words.overrides(given.overrides, given.multirun, given.config_dir)
    given.overrides = [override.input_line or "" for override in parsed]
    _job = _Job(progress, ["rlx", "train", *argv])
    check_size(given.config_dir)
    worlds.choose(given.overrides, given.config_dir)  # before anything is composed: they may not fit together
    with one_line(given.overrides, given.config_dir):
        if given.trains and given.multirun:
            _job.outcome.grid = grids.check(given, parsed, _job.command)
            _fix(given, "hydra.sweep.dir", _job.outcome.grid.directory)
        elif given.trains and _chooses_directory(given):
            _job.directory = _chosen_directory(given)
            _fix(given, "hydra.run.dir", Path("."))  # Hydra would make it before anything was validated
        elif package := given.flags.get("--package"):
            _check_package(given, package)
        with _watching():
            _hydra(given)
        if _job.failure:
            raise _job.failure
    return _job.outcome


@contextlib.contextmanager
def _watching() -> Iterator[None]:
    """Of a grid, the jobs are shown together; one that is interrupted says how to go on."""
    if (grid := _job.outcome.grid) is None:
        yield
        return
    try:
        with _job.progress.watching(grid) if _job.progress is not None else contextlib.nullcontext():
            yield
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.code - 128 if isinstance(stop, Interrupted) else signal.SIGINT
        text = f"interrupted with {len(grid.jobs())} of {grid.planned or 'the'} jobs ended"
        again = shlex.join([*_job.command, *(["--continue"] if "--continue" not in _job.command else [])])
        raise Interrupted(number, grid.directory, text, None, again) from None
    finally:
        summary.write(grid.directory)


def _chain(name: str, given: words.Words, progress: Any) -> Outcome:
    """The runs of a chain, one after the other; the outcome holds the last."""
    global _job
    _job = _Job(progress)

    def start(raw: dict[str, Any], command: list[str]) -> Path:
        for path, _ in _job.outcome.runs:
            _job.progress.passed(path)
        _job.outcome.runs.clear()
        _start(raw, command)
        return _job.outcome.runs[-1][0]

    chain.run(name, given, start)
    return _job.outcome


def _without_plus(word: str) -> str:
    """+experiment=NAME, as other programs have it, is experiment=NAME here."""
    key, equals, value = word.partition("=")
    return f"{key.lstrip('+')}={value}" if equals and key.lstrip("+") in registry.groups() else word


def _hydra(given: words.Words) -> None:
    first = worlds.primary(given.overrides, given.config_dir)
    main = hydra.main(**BASE, config_path=str(registry.conf_dir().resolve()), config_name=first)
    try:
        with _argv(["rlx train", *given.argv()]), _full_errors():
            main(task)()
    except (ConfigError, KeyboardInterrupt):
        raise
    except Exception as error:
        if _job.outcome.grid is None or not _job.outcome.grid.started():
            raise
        _job.outcome.grid.error = f"{type(error).__name__}: {error}".splitlines()[0]  # a killed worker, say


def _chooses_directory(given: words.Words) -> bool:
    """Whether hydra.run.dir may be another than rlx's own '.': then it has to be known before Hydra makes it."""
    own = [registry.conf_dir().resolve()]
    return (
        any("hydra" in word for word in given.overrides)
        or bool({"--config-dir", "--config-name"} & set(given.flags))
        or registry.conf_dirs() != own
    )


def _chosen_directory(given: words.Words) -> Path | None:
    with compose_all(given) as compose:
        settings = compose(given.overrides).hydra
        check_hydra(settings)
        chosen = str(settings.run.dir)
    if chosen == ".":
        return None
    if Path(chosen).exists():
        raise ConfigError(
            f"hydra.run.dir={chosen}: exists already; a run makes its own directory (rlx resume {chosen}?)"
        )
    return Path(chosen).absolute()


def _check_package(given: words.Words, package: str) -> None:
    with compose_all(given) as compose:
        found = OmegaConf.select(composed := compose(given.overrides), package)
        if package != "_global_" and not isinstance(found, DictConfig):
            raise ConfigError(f"--package={package}: no such section (there are: {', '.join(_sections(composed))})")


def _sections(composed: DictConfig) -> list[str]:
    return [str(key) for key, value in composed.items() if isinstance(value, DictConfig)]


def _fix(given: words.Words, key: str, directory: Path) -> None:
    escaped = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    given.overrides = [word for word in given.overrides if word.partition("=")[0].lstrip("+") != key]
    given.overrides.append(f"{key}='{escaped}'")


# -- one job ---------------------------------------------------------------------------------------------------


def task(cfg: DictConfig) -> float | None:
    """One job, in this process or in a launcher's worker: module level, so that launchers can name it."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return _grid_job(cfg, hydra_cfg)
    try:
        set_threads(cfg.get("threads"))
        place: dict[str, Any] = {}
        if _job.directory:
            place = {"parent": _job.directory.parent, "name": _job.directory.name}
        return _start(plain(cfg), _job.command, **place)
    except BaseException as error:  # Hydra would print a banner: `train` raises it instead
        _job.failure = error
        return None


def _grid_job(cfg: DictConfig, hydra_cfg: Any) -> float | None:
    set_threads(cfg.get("threads"))
    from rlx.training import runner

    place, number = Path(hydra_cfg.sweep.dir).absolute(), int(hydra_cfg.job.num)
    if grids.orphaned(place, hydra_cfg.launcher):
        raise SystemExit(1)  # killed; its jobs wait for --continue
    overrides = list(hydra_cfg.overrides.task)
    name, error, score = str(number), None, None
    try:
        raw = plain(cfg)
        where = next(raw[place]["name"] for place in registry.WORLDS.values() if place in raw)
        name = f"{number}_{where}_{raw['algo']['name']}_s{raw['seed']}"
        name, score = apart(lambda: _isolated(raw, ["rlx", "train", *overrides], place, name))
    except (UserError, runner.RunFailed, Died) as failure:
        error = str(failure)
    grids.record(place, number, name, overrides, error)
    return score


def _isolated(raw: dict[str, Any], command: list[str], grid: Path, name: str) -> tuple[str, float | None]:
    """A job, in a process of its own: what it says goes to the grid's output.log. One that has run before goes on."""
    from rlx.training import runner

    if hasattr(os, "fork"):
        with open(grid / "output.log", "ab") as log:
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
    if path := grids.earlier(grid, name):
        _, found = runner.resume(path, run_config(path), command, lambda *_: None)
    else:
        path, found = runner.start(raw, command, lambda *_: None, parent=grid, name=grids.free(grid, name))
    return path.name, (found["evaluation"] or {}).get("score")


def _start(raw: dict[str, Any], command: list[str], **place: Any) -> float | None:
    from rlx.training import runner

    path, found = runner.start(raw, command, _step(), announce=_announce(), **place)
    _job.outcome.runs.append((path, found))
    return (found["evaluation"] or {}).get("score")


def _step() -> Callable[..., None]:
    return _job.progress.step if _job.progress is not None else lambda *_: None


def _announce() -> Callable[..., None]:
    return _job.progress.announce if _job.progress is not None else lambda *_: None


# -- rlx resume ------------------------------------------------------------------------------------------------


def resume(path: Path, argv: list[str], progress: Any = None) -> tuple[Path, dict[str, Any]]:
    """Continue a run from its own configuration; today's conf/ is not consulted. Raises ConfigError."""
    global _job
    raw = run_config(path)
    for word in argv:
        if word.startswith("-"):
            raise ConfigError(f"{word}: no such flag of rlx resume (it takes RUN and key=value)")
        key = word.partition("=")[0].lstrip("+~")
        if key.startswith("hydra"):
            raise ConfigError(f"{word}: only rlx train takes it; a resume changes keys of the run")
        if key in ("preset", "as", "experiment") or (key in registry.groups() and not word.startswith("~")):
            raise ConfigError(f"{word}: cannot change in a run that has begun (start a new one with rlx train)")
    changes = [override.input_line or "" for override in words.overrides(argv)]
    if changes:
        with one_line(changes):
            raw = compose_in(path, changes)
    set_threads(raw.get("threads"))
    from rlx.training import runner

    _job = _Job(progress)
    return runner.resume(path, raw, ["rlx", "resume", str(path), *argv], _step(), announce=_announce())


def run_config(path: Path) -> dict[str, Any]:
    """The configuration of a run directory, without importing torch. Raises ConfigError."""
    file = path / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{path}: not a run directory (no config.yaml; `rlx ls` lists the runs there are)")
    try:
        raw = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: unreadable ({type(error).__name__})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: not the configuration of a run")
    return raw


# -- around Hydra's entry --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _full_errors() -> Iterator[None]:
    """HYDRA_FULL_ERROR makes Hydra raise instead of printing and exiting; only around its call."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


__all__ = ["Grid", "Outcome", "compose", "resume", "task", "train"]
