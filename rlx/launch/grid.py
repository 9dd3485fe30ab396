"""A grid (`rlx train -m`): every job checked before the first one starts, and what came of each."""

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from rlx.analysis import grids
from rlx.base import process
from rlx.base.errors import ConfigError
from rlx.base.files import guarded
from rlx.base.files.atomic import write_json
from rlx.config import registry
from rlx.launch import arguments
from rlx.launch.composing import check_hydra, compose_all, plain, set_threads
from rlx.loggers import loggers
from rlx.rundir import reader, tensorboard_grid

MAX_CHECKED = 128  # jobs that are composed here; Hydra composes all of them once more
HERE = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs see this machine's devices


@dataclass
class Grid:
    """Where the jobs go and how many there are (None: another sweeper decides)."""

    directory: Path
    planned: int | None
    keys: list[str]  # that differ between its jobs
    error: str | None = None  # what ended it before its time

    def varied(self, overrides: Sequence[str]) -> list[str]:
        """Those words of a job that other jobs have with another value."""
        return [word for word in overrides if word.partition("=")[0] in self.keys]

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that came to an end, in order: {job, run, overrides, error}; of one that was continued, its last."""
        by_number: dict[int, dict[str, Any]] = {}
        for job in grids.jobs(self.directory):
            if isinstance(job["job"], int):
                by_number[job["job"]] = job
        return [by_number[number] for number in sorted(by_number)]

    def started(self) -> bool:
        return (self.directory / "multirun.yaml").exists()


def record(grid: Path, number: int, name: str, overrides: list[str], error: str | None = None) -> None:
    """One line for each job that came to an end, beside the runs."""
    line = {"job": number, "run": name, "overrides": overrides, "error": error}
    with open(grid / "jobs.jsonl", "ab+") as file:
        file.seek(max(0, file.tell() - 1))
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")


def earlier(grid: Path, name: str) -> Path | None:
    """The run of a job that was started before, where its grid is continued."""
    runs = [path for path in (grid / name, *grid.glob(f"{name}_again*")) if (path / "config.yaml").is_file()]
    return max(runs, key=reader.changed) if runs else None


def free(grid: Path, name: str) -> str:
    """A name for the run of a job; another than its own where a killed one left a directory that is no run."""
    names = itertools.chain([name], (f"{name}_again{i}" for i in itertools.count(1)))
    return next(name for name in names if not (grid / name).exists())


def check(given: arguments.Words, parsed: list[Override], command: list[str]) -> Grid:
    """Validate the jobs of a grid and make its directory, or find the one to continue.

    Raises ConfigError before anything is written.
    """
    grid, own, keys, directory, drawn, algos = _checked(given, parsed)
    planned = math.prod(len(values) for values in grid) if own else None
    overrides = [word for word in given.overrides if not word.lstrip("+").startswith("hydra")]
    if "--continue" in given.flags and (previous := _same(directory, overrides)):
        write_json(previous / "sweep.json", {**_about(previous), "process": process.me()})
        return Grid(previous, planned, keys)
    _make(directory)
    about = {"asked": overrides, "keys": keys, "planned": planned, "started": process.now(), "command": command}
    write_json(directory / "sweep.json", {**about, "process": process.me()})
    if drawn:
        values = {word[0].partition("=")[0].lstrip("+"): [one.partition("=")[2] for one in word] for word in grid}
        metrics = list(dict.fromkeys(metric for name in algos for metric in registry.facts(name).metrics))
        tensorboard_grid.columns(directory, {key: some for key, some in values.items() if len(some) > 1}, metrics)
    return Grid(directory, planned, keys)


def planned(given: arguments.Words, parsed: list[Override]) -> list[str]:
    """The words of each job, once they have been checked. Raises ConfigError."""
    grid, own, *_ = _checked(given, parsed)
    if not own:
        return ["jobs that another sweeper than Hydra's own decides on"]
    return [" ".join(job) for job in itertools.product(*grid)]


def _checked(
    given: arguments.Words, parsed: list[Override]
) -> tuple[list[list[str]], bool, list[str], Path, bool, list[str]]:
    """The overrides of each key, whether Hydra's own sweeper combines them, the keys that differ, the grid's directory,
    whether its jobs draw, and their algorithms."""
    with compose_all(given) as compose:
        composed = compose([o.input_line or "" for o in parsed if not o.is_sweep_override()])
        settings, drawn = composed.hydra, _draws(composed)
        check_hydra(settings)
        own = str(settings.sweeper.get("_target_", "")).endswith("BasicSweeper")
        params = dict(settings.sweeper.get("params") or {}) if own else {}
        extra = arguments.overrides([f"{key!s}={value}" for key, value in params.items()], True, given.config_dir)
        grid = _grid([*extra, *parsed], own)
        here = str(settings.launcher.get("_target_", "")).rpartition(".")[2] in HERE
        tried: set[str] = set()
        algos: list[str] = []
        for job in itertools.islice(_worth_checking(grid), MAX_CHECKED):
            algos.append(_check_job(compose(list(job)), list(job), here, tried))
        directory = Path(settings.sweep.dir).absolute()
    keys = [override.get_key_element() for override in (*extra, *parsed) if override.is_sweep_override()]
    return grid, own, keys, directory, drawn, algos


def _draws(composed: DictConfig) -> bool:
    """Do its jobs write TensorBoard's events?"""
    listed = composed.get("logger")
    items = None if listed is None else OmegaConf.to_container(listed)
    return loggers.TENSORBOARD in loggers.names(items, bool(composed.get("tensorboard")))  # type: ignore[arg-type]


def _same(directory: Path, overrides: list[str]) -> Path | None:
    """The newest grid of the same words, where `directory` is or would be. Raises ConfigError where it still runs."""
    matches = []
    for file in {directory / "sweep.json", *directory.parent.glob("*/sweep.json")}:
        about = _about(file.parent)
        if about.get("asked") == overrides and (file.parent == directory or not directory.exists()):
            matches.append((str(about.get("started")), file.parent))
    if not matches:
        return None
    path = max(matches)[1]
    if process.lives(who := _owner(path)):
        raise ConfigError(f"--continue: the grid {path} is still running (process {who['pid']})")
    for run in reader.find(path):
        if reader.state(run) == "running":
            raise ConfigError(f"--continue: the grid {path} is still running ({run.name})")
    return path


def _about(grid: Path) -> dict[str, Any]:
    return guarded.known(grid / "sweep.json")


def _owner(grid: Path) -> dict[str, Any]:
    """The process that runs a grid, as sweep.json has it."""
    who = _about(grid).get("process")
    return who if isinstance(who, dict) else {}


def orphaned(grid: Path, launcher: Any) -> bool:
    """Whether the process that runs a grid is gone, and this worker of joblib's would go on without it."""
    if not str(launcher.get("_target_", "")).endswith("JoblibLauncher"):
        return False
    who = _owner(grid)
    return bool(who) and not process.lives(who)


def _check_job(composed: DictConfig, job: list[str], here: bool, tried: set[str]) -> str:
    """The implementation that it trains. Raises ConfigError."""
    raw = plain(composed)
    set_threads(raw.get("threads"))
    from rlx.training import runner

    places = [raw.get(place) for place in registry.WORLDS.values()]
    key = json.dumps([raw["device"], *places, raw["algo"]["implementation"]], default=str)
    runner.ready(raw, job, trying=here and key not in tried)
    if here:
        tried.add(key)
    return raw["algo"]["implementation"]


def _grid(parsed: list[Override], own: bool) -> list[list[str]]:
    """The overrides each key takes in the grid, the last word on a key counts. One that only another sweeper than
    Hydra's own understands is passed over."""
    grid: dict[str, list[str]] = {}
    for override in parsed:
        key = override.get_key_element()
        if not override.is_sweep_override():
            grid[key] = [override.input_line or ""]
        elif override.is_discrete_sweep():
            override.config_loader = GlobalHydra.instance().config_loader()  # glob() asks it for names
            grid[key] = [f"{key}={value!s}" for value in override.sweep_string_iterator()]
            if not grid[key]:
                raise ConfigError(f"{override.input_line}: no values, so there is nothing to run")
        elif own:
            raise ConfigError(f"{override.input_line}: a grid takes lists and ranges (a,b,c or range(1,4))")
    return list(grid.values())


def _worth_checking(grid: list[list[str]]) -> Any:
    """Every combination of groups, environments, tasks and runs to start from; of the other keys, each value once."""
    groups = registry.groups()

    def interacts(values: list[str]) -> bool:
        key = values[0].lstrip("+").partition("=")[0]
        return key in (*groups, "device", "init", "algo.reward_model") or key.startswith(("env.", "task."))

    first = [values if interacts(values) else values[:1] for values in grid]
    yield from itertools.product(*first)
    for index, values in enumerate(grid):
        if not interacts(values):
            for value in values[1:]:
                yield [value if other == index else others[0] for other, others in enumerate(grid)]


def _make(directory: Path) -> None:
    if (directory / "jobs.jsonl").exists() or (directory / "sweep.json").exists():
        raise ConfigError(f"hydra.sweep.dir={directory}: holds another grid already")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the grid's directory {directory}: {error.strerror}") from None
