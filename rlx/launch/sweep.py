"""A sweep: every job checked before the first one starts, and what came of each."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from rlx import registry
from rlx.errors import ConfigError
from rlx.launch import words
from rlx.launch.composing import check_hydra, compose_all, plain, set_threads

MAX_CHECKED = 128  # jobs that are composed here; Hydra composes all of them once more
HERE = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs see this machine's devices


@dataclass
class Sweep:
    """Where a sweep's jobs go and how many there are (None: the sweeper decides)."""

    directory: Path
    planned: int | None
    error: str | None = None  # what ended it before its time

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that came to an end, in order: {job, run, overrides, error}."""
        try:
            lines = (self.directory / "jobs.jsonl").read_text().splitlines()
        except OSError:
            return []
        return sorted((json.loads(line) for line in lines), key=lambda line: line["job"])

    def started(self) -> bool:
        return (self.directory / "multirun.yaml").exists()


def record(sweep: Path, number: int, name: str, overrides: list[str], error: str | None = None) -> None:
    """One line for each job that came to an end, beside the runs of the sweep."""
    line = {"job": number, "run": name, "overrides": overrides, "error": error}
    with open(sweep / "jobs.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def check(given: words.Words, parsed: list[Override]) -> Sweep:
    """Validate the jobs of a grid and make the sweep's directory. Raises ConfigError before anything is written."""
    with compose_all(given) as compose:
        settings = compose([o.input_line or "" for o in parsed if not o.is_sweep_override()]).hydra
        check_hydra(settings)
        own = str(settings.sweeper.get("_target_", "")).endswith("BasicSweeper")
        params = dict(settings.sweeper.get("params") or {}) if own else {}
        extra = words.overrides([f"{key!s}={value}" for key, value in params.items()], True, given.config_dir)
        grid = _grid([*extra, *parsed], own)
        here = str(settings.launcher.get("_target_", "")).rpartition(".")[2] in HERE
        tried: set[str] = set()
        for job in itertools.islice(_worth_checking(grid), MAX_CHECKED):
            _check_job(compose(list(job)), list(job), here, tried)
        directory = Path(settings.sweep.dir).absolute()
    return Sweep(_make(directory), math.prod(len(values) for values in grid) if own else None)


def _check_job(composed: DictConfig, job: list[str], here: bool, tried: set[str]) -> None:
    raw = plain(composed)
    set_threads(raw.get("threads"))
    from rlx import runner

    places = [raw.get(place) for place in registry.WORLDS.values()]
    key = json.dumps([raw["device"], *places, raw["algo"]["implementation"]], default=str)
    runner.ready(raw, job, trying=here and key not in tried)
    if here:
        tried.add(key)


def _grid(parsed: list[Override], own: bool) -> list[list[str]]:
    """The overrides each key takes in the sweep, the last word on a key counts. One that only another sweeper than
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
                raise ConfigError(f"{override.input_line}: no value at all, so there is nothing to run")
        elif own:
            raise ConfigError(f"{override.input_line}: a sweep takes lists and ranges (a,b,c or range(1,4))")
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


def _make(directory: Path) -> Path:
    if (directory / "jobs.jsonl").exists():
        raise ConfigError(f"hydra.sweep.dir={directory}: holds another sweep already")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the sweep's directory {directory}: {error.strerror}") from None
    return directory
