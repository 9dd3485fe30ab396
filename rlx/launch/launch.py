"""`rlx train` and `rlx resume`, around Hydra's own entry."""

import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from rlx import __version__
from rlx.analysis.curves import summary
from rlx.base.errors import ConfigError, UserError
from rlx.base.in_fork import Died, Several, apart
from rlx.base.signals import Interrupted
from rlx.config import kind, registry
from rlx.launch import arguments, chain, grid as grids
from rlx.launch.composing import check_hydra, compose, compose_all, compose_in, first, opened, plain, set_threads
from rlx.launch.config_files import check_size
from rlx.launch.grid import Grid
from rlx.launch.hydra_errors import one_line
from rlx.rundir.layout import LastEvaluation, note_death, read_config


@dataclass
class Outcome:
    """What one `rlx train` did: the finished runs with their results, and the grid if it was one."""

    runs: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    grid: Grid | None = None
    planned: list[str] = field(default_factory=list)  # with --dry-run: a line for each run there would be


# -- rlx train -------------------------------------------------------------------------------------------------


def train(argv: list[str], progress: Any = None) -> Outcome:
    """`rlx train` with Hydra's own flags. An empty outcome for --help, --cfg, --info.

    Raises ConfigError for the user's mistakes, in one line; whatever training raised passes through.
    """
    given = arguments.split(argv)
    if "--version" in given.flags:
        print(f"rlx {__version__}, Hydra {hydra.__version__}")
        return Outcome()
    if given.file is not None:
        _check_file(given)
    if name := chain.find(given):
        if given.trains and "--dry-run" in given.flags:
            return Outcome(planned=chain.checked(name, given))
        if given.trains:
            return _chain(name, given, progress)
        given.overrides = []  # --help
    parsed = arguments.overrides(given.overrides, given.multirun, given.config_dir)
    given.overrides = [override.input_line or "" for override in parsed]
    command = ["rlx", "train", *argv]
    check_size(given.config_dir)
    if given.file is None:
        kind.choose(given.overrides, given.config_dir)  # before anything is composed: they may not fit together
    with one_line(given.overrides, given.config_dir):
        if not given.trains:
            _print(given)
            return Outcome()
        if given.multirun and "--dry-run" in given.flags:
            return Outcome(planned=grids.planned(given, parsed))
        if given.multirun:
            return Outcome(grid=_run_grid(given, parsed, command, progress))
        raw, place = _composed(given)
        if "--dry-run" in given.flags:
            return Outcome(planned=[_would(raw, command)])
        return Outcome([_start(raw, command, progress, **place)])


def _would(raw: dict[str, Any], command: list[str]) -> str:
    """What a run would be, once all that is checked before one begins has been."""
    set_threads(raw.get("threads"))
    from rlx.training import runner

    _, cfg, _, _ = runner.ready(raw, command)
    return f"{cfg.algo.name} on {cfg.place.name}, seed {cfg.seed}, {cfg.total_steps:,} steps, below {cfg.runs_dir}"


def _composed(given: arguments.Words) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of one run, and its directory where the user chose one (hydra.run.dir)."""
    with compose_all(given) as compose:
        composed = compose(given.overrides)
        check_hydra(composed.hydra)
        os.environ.update({str(key): str(value) for key, value in composed.hydra.job.env_set.items()})
        chosen = str(composed.hydra.run.dir)
        raw = plain(composed)
    if chosen == ".":
        return raw, {}
    directory = Path(chosen).absolute()
    if directory.exists():
        raise ConfigError(
            f"hydra.run.dir={chosen}: exists already; a run makes its own directory (rlx resume {chosen}?)"
        )
    return raw, {"parent": directory.parent, "name": directory.name}


def _chain(name: str, given: arguments.Words, progress: Any) -> Outcome:
    """The runs of a chain, one after the other; the outcome holds the last."""
    outcome = Outcome()

    def start(raw: dict[str, Any], command: list[str]) -> Path:
        for path, _ in outcome.runs:
            progress.passed(path)
        outcome.runs = [_start(raw, command, progress)]
        return outcome.runs[-1][0]

    chain.run(name, given, start)
    return outcome


def _check_file(given: arguments.Words) -> None:
    """A file is a whole configuration: nothing is chosen beside it. Raises ConfigError."""
    for word in given.overrides:
        if word.partition("=")[0] in registry.groups():
            raise ConfigError(f"{word}: {given.file} holds the whole configuration; only its keys can be set beside it")
    if "--config-name" in given.flags:
        raise ConfigError(f"--config-name: {given.file} is the configuration already")


# -- --help, --cfg, --info ---------------------------------------------------------------------------------------


def _print(given: arguments.Words) -> None:
    """What Hydra says of itself and of the configuration."""
    flags, overrides = given.flags, arguments.for_hydra(given.overrides)
    if package := flags.get("--package"):
        _check_package(given, package)
    with opened(given.config_dir) as hydra_object:
        name = first(given)
        if "--help" in flags or "--hydra-help" in flags:
            show = hydra_object.app_help if "--help" in flags else hydra_object.hydra_help
            show(name, get_args_parser(), SimpleNamespace(overrides=overrides, resolve="--resolve" in flags))
        elif "--cfg" in flags:
            hydra_object.show_cfg(name, overrides, flags["--cfg"], package, "--resolve" in flags)
        else:
            hydra_object.show_info(flags["--info"], name, overrides)


def _check_package(given: arguments.Words, package: str) -> None:
    with compose_all(given) as compose:
        section = OmegaConf.select(composed := compose(given.overrides), package)
        if package != "_global_" and not isinstance(section, DictConfig):
            raise ConfigError(f"--package={package}: no such section (there are: {', '.join(_sections(composed))})")


def _sections(composed: DictConfig) -> list[str]:
    return [str(key) for key, value in composed.items() if isinstance(value, DictConfig)]


# -- a grid ------------------------------------------------------------------------------------------------------


def _run_grid(given: arguments.Words, parsed: list[Override], command: list[str], progress: Any) -> Grid:
    """Every job, by Hydra's launcher. One that is interrupted says how to go on."""
    grid = grids.check(given, parsed, command)
    overrides = [word for word in given.overrides if word.partition("=")[0].lstrip("+") != "hydra.sweep.dir"]
    made = arguments.quoted(str(grid.directory))  # its name has the time in it
    overrides.append(f"hydra.sweep.dir={made}")
    try:
        with opened(given.config_dir) as hydra_object:
            with progress.watching(grid) if progress is not None else contextlib.nullcontext(), _several(given) as pool:
                hydra_object.multirun(first(given), task, arguments.for_hydra(overrides))
        if pool and pool.passed:
            raise Interrupted(pool.passed[0], grid.directory, "", None)
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.code - 128 if isinstance(stop, Interrupted) else signal.SIGINT
        text = f"interrupted with {len(grid.jobs())} of {grid.planned or 'the'} jobs ended"
        again = shlex.join([*command, *(["--continue"] if "--continue" not in command else [])])
        raise Interrupted(number, grid.directory, text, None, again) from None
    except ConfigError:
        raise
    except Exception as error:
        if not grid.started():
            raise
        grid.error = f"{type(error).__name__}: {error}".splitlines()[0]  # a killed worker, say
    finally:
        summary.write(grid.directory)
    return grid


_pool: Several | None = None  # of the grid that this process runs, where several jobs run at once


@contextlib.contextmanager
def _several(given: arguments.Words) -> Iterator[Several | None]:
    """With -j N a pool for the jobs."""
    global _pool
    text = given.flags.get("--jobs")
    count = int(text) if text and text.isdecimal() else 0
    _pool = Several(count) if count > 1 and hasattr(os, "fork") else None
    try:
        with _pool or contextlib.nullcontext():
            yield _pool
    finally:
        _pool = None


def task(cfg: DictConfig) -> float | None:
    """One job of a grid, in this process or in a launcher's worker: module level, so that launchers can name it."""
    if _pool is None:
        return _task(cfg)
    _pool.begin(lambda: _task(cfg))
    return None


def _task(cfg: DictConfig) -> float | None:
    settings = HydraConfig.get()
    set_threads(cfg.get("threads"))
    from rlx.training import runner

    place, number = Path(settings.sweep.dir).absolute(), int(settings.job.num)
    if grids.orphaned(place, settings.launcher):
        raise SystemExit(1)  # killed; its jobs wait for --continue
    overrides = [word.removeprefix("++") for word in settings.overrides.task]
    name, error, score = str(number), None, None
    try:
        raw = plain(cfg)
        where = next(raw[place]["name"] for place in registry.WORLDS.values() if place in raw)
        name = f"{number}_{where}_{raw['algo']['name']}_s{raw['seed']}"
        name, score = apart(lambda: _isolated(raw, ["rlx", "train", *overrides], place, name))
    except (UserError, runner.RunFailed, Died) as failure:
        error = str(failure)
        if isinstance(failure, Died) and (path := grids.earlier(place, name)):
            note_death(path, error)
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
        _, results = runner.resume(path, read_config(path), command, lambda *_: None)
    else:
        path, results = runner.start(raw, command, lambda *_: None, parent=grid, name=grids.free(grid, name))
    return path.name, LastEvaluation.of(results["evaluation"]).value


# -- one run -----------------------------------------------------------------------------------------------------


def _start(raw: dict[str, Any], command: list[str], progress: Any, **place: Any) -> tuple[Path, dict[str, Any]]:
    set_threads(raw.get("threads"))
    from rlx.training import runner

    return runner.start(raw, command, _step(progress), announce=_announce(progress), **place)


def _step(progress: Any) -> Callable[..., None]:
    return progress.step if progress is not None else lambda *_: None


def _announce(progress: Any) -> Callable[..., None]:
    return progress.announce if progress is not None else lambda *_: None


# -- rlx resume ------------------------------------------------------------------------------------------------


def resume(path: Path, argv: list[str], progress: Any = None, trust: bool = False) -> tuple[Path, dict[str, Any]]:
    """Continue a run from its own configuration; today's conf/ is not consulted. `trust`: see runner.resume. Raises
    ConfigError."""
    raw = read_config(path)
    for word in argv:
        if word.startswith("-"):
            raise ConfigError(f"{word}: no such flag of rlx resume (it takes RUN and key=value)")
        key = word.partition("=")[0].lstrip("+~")
        if key.startswith("hydra"):
            raise ConfigError(f"{word}: only rlx train takes it; a resume changes keys of the run")
        if key in ("preset", "as", "experiment") or (key in registry.groups() and not word.startswith("~")):
            raise ConfigError(f"{word}: cannot change in a run that has begun (start a new one with rlx train)")
    changes = [override.input_line or "" for override in arguments.overrides(argv)]
    if changes:
        with one_line(changes):
            raw = compose_in(path, changes)
    set_threads(raw.get("threads"))
    from rlx.training import runner

    command = ["rlx", "resume", str(path), *argv]
    return runner.resume(path, raw, command, _step(progress), announce=_announce(progress), trust=trust)


__all__ = ["Grid", "Outcome", "compose", "resume", "task", "train"]
