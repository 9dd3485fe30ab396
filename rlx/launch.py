"""The only module that imports Hydra: the entry, the search path, and Hydra's errors as one line."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from rlx import registry
from rlx.errors import ConfigError, did_you_mean

VALUED = (
    "--cfg",
    "-c",
    "--package",
    "-p",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
)
VERBS = (
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-c",
    "--cfg",
    "-i",
    "--info",
    "-sc",
    "--shell-completion",
)
MAX_CHECKED = 128  # jobs of a sweep that are validated before the first one starts


class RlxSearchPath(SearchPathPlugin):
    """./conf of the user, then rlx's own files (the primary path), then those of plug-ins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = registry.conf_dir().resolve()
        for path in registry.conf_dirs():
            if path == own:
                continue
            mine = path == (Path.cwd() / "conf").resolve()
            if mine and not (path / "config.yaml").exists():  # a config.yaml there would replace rlx's own
                search_path.prepend("user", f"file://{path}")
            else:
                search_path.append("user" if mine else "plug-in", f"file://{path}")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(text)).strip("-.")[:100] or "env"


OmegaConf.register_new_resolver("rlx.slug", _slug, replace=True)
Plugins.instance().register(RlxSearchPath)

# What the last `train` in this process did, for the caller in cli.py.
_results: list[tuple[Path, dict[str, Any]]] = []
_failure: list[BaseException] = []
_progress: dict[str, Any] = {}


# -- rlx train -------------------------------------------------------------------------------------------------


def train(argv: list[str], progress: Any) -> list[tuple[Path, dict[str, Any]]]:
    """`rlx train` with Hydra's own command line. Returns the finished runs (none for --help, --cfg, --info).

    Raises ConfigError for the user's mistakes, in one line; whatever training raised passes through.
    """
    flags, overrides = flags_first(argv)
    _check_words(flags, overrides)
    overrides = [re.sub(r"^\++experiment=", "experiment=", item) for item in overrides]
    multirun = any(flag in ("-m", "--multirun") for flag in flags)
    _results.clear()
    _progress["value"] = progress
    with _one_line(overrides):
        if multirun and not any(flag in VERBS for flag in flags):
            overrides = _check_sweep(flags, overrides)
        main = hydra.main(version_base="1.3", config_path=str(registry.conf_dir().resolve()), config_name="config")
        with _argv(["rlx train", *flags, *overrides]), _full_errors():
            main(task)()
        if _failure:
            raise _failure.pop()
    return list(_results)


FLAGS = {
    *VALUED, *VERBS, "--resolve", "--run", "-r", "--multirun", "-m", "--experimental-rerun",
}  # fmt: skip


def _check_words(flags: list[str], overrides: list[str]) -> None:
    """What Hydra would answer with a page, or without naming the word."""
    for flag in flags:
        name = flag.partition("=")[0]
        if flag.startswith("-") and name not in FLAGS:
            raise ConfigError(f"{name}: no such flag{did_you_mean(name, FLAGS)} (rlx train --help)")
    for word in overrides:
        if not re.match(r"(\+{0,2}|~)[A-Za-z_]", word) or ("=" not in word and word[0] != "~"):
            raise ConfigError(f"cannot parse override '{word}' (key=value, +key=value or ~key)")


def task(cfg: DictConfig) -> float | None:
    """One job, in this process or in a launcher's worker: module level, so that launchers can name it."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return _swept(cfg, hydra_cfg)
    try:
        return _single(cfg, hydra_cfg)
    except BaseException as error:  # Hydra would print a banner: `train` raises it instead
        _failure.append(error)
        return None


def _single(cfg: DictConfig, hydra_cfg: Any) -> float | None:
    _threads(cfg.get("threads", 1))
    raw = _plain(cfg)
    from rlx import runner

    chosen, progress = Path(hydra_cfg.run.dir), _progress.get("value")
    place: dict[str, Any] = {} if str(chosen) == "." else {"parent": chosen.absolute().parent, "name": chosen.name}
    command = ["rlx", "train", *hydra_cfg.overrides.task]
    path, found = runner.start(raw, command, _step(progress), announce=_announce(progress), **place)
    _results.append((path, found))
    return (found["evaluation"] or {}).get("mean_reward")


def _swept(cfg: DictConfig, hydra_cfg: Any) -> float | None:
    _threads(cfg.get("threads", 1))
    raw = _plain(cfg)
    from rlx import runner

    progress = _progress.get("value")
    command = ["rlx", "train", *hydra_cfg.overrides.task]
    sweep, number = Path(hydra_cfg.sweep.dir).absolute(), int(hydra_cfg.job.num)
    name = f"{number}_{raw['env']['name']}_{raw['algo']['name']}_s{raw['seed']}"
    try:
        path, found = runner.start(raw, command, _step(progress), announce=_announce(progress), parent=sweep, name=name)
    except (ConfigError, runner.RunFailed) as error:
        _record(sweep, number, name, hydra_cfg.overrides.task, error=str(error))
        print(f"rlx: job {number} failed: {error}", file=sys.stderr)
        return None
    _results.append((path, found))
    _record(sweep, number, name, hydra_cfg.overrides.task)
    return (found["evaluation"] or {}).get("mean_reward")


def _record(sweep: Path, number: int, name: str, overrides: Any, error: str | None = None) -> None:
    """One line for each job that came to an end, beside the runs of the sweep."""
    line = {"job": number, "run": name, "overrides": list(overrides), "error": error}
    with open(sweep / "jobs.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")


def _threads(count: int) -> None:
    """BLAS reads these once, when numpy and torch are first imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)


def _step(progress: Any) -> Any:
    return progress.step if progress is not None else lambda *_: None


def _announce(progress: Any) -> Any:
    return progress.announce if progress is not None else lambda *_: None


def _plain(cfg: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    plain.pop("experiment", None)
    plain.pop("preset", None)
    return plain  # type: ignore[return-value]


# -- the sweep, checked before it starts -----------------------------------------------------------------------


def sweep_results(directory: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep that came to an end, in order."""
    try:
        lines = (directory / "jobs.jsonl").read_text().splitlines()
    except OSError:
        return []
    return sorted((json.loads(line) for line in lines), key=lambda line: line["job"])


planned: dict[str, Any] = {}  # of the last sweep: how many jobs, and where


def _check_sweep(flags: list[str], overrides: list[str]) -> list[str]:
    """Validate every job (the first MAX_CHECKED) of a plain grid, and fix the sweep's directory."""
    planned.clear()
    config_dir = next((b for a, b in itertools.pairwise(flags) if a in ("--config-dir", "-cd")), None)
    grid = _grid(overrides)
    with _composing(config_dir):
        for job in itertools.islice(itertools.product(*grid), MAX_CHECKED):
            composed = hydra.compose("config", overrides=[*job], return_hydra_config=True)
            directory = composed.hydra.sweep.dir
            plain_config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
            _threads(plain_config.get("threads", 1))
            from rlx.runner import typed

            typed(_plain(plain_config))
    planned.update(count=len(list(itertools.product(*grid))), directory=Path(directory).absolute())
    return [
        *[item for item in overrides if not item.startswith("hydra.sweep.dir=")],
        f"hydra.sweep.dir='{directory}'",
    ]


def _grid(overrides: list[str]) -> list[list[str]]:
    """The values each override takes; one that the sweeper alone understands is passed over."""
    grid = []
    for override in OverridesParser.create().parse_overrides(overrides):
        if override.is_sweep_override():
            if override.is_discrete_sweep():
                key = override.get_key_element()
                grid.append([f"{key}={value!s}" for value in override.sweep_string_iterator()])
        else:
            grid.append([override.input_line or ""])
    return grid


@contextlib.contextmanager
def _composing(config_dir: str | None = None) -> Iterator[None]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(registry.conf_dir().resolve()), job_name="rlx", version_base="1.3"):
        if config_dir:
            GlobalHydra.instance().config_loader().get_search_path().append(
                "user", f"file://{Path(config_dir).absolute()}"
            )
        yield
    GlobalHydra.instance().clear()


# -- rlx resume, and helpers for list and completion -----------------------------------------------------------


def resume(path: Path, overrides: list[str], progress: Any) -> tuple[Path, dict[str, Any]]:
    """Continue a run from its own configuration; today's conf/ is not consulted."""
    raw = runner_config(path)
    if overrides:
        with _one_line(overrides):
            GlobalHydra.instance().clear()
            with hydra.initialize_config_dir(str(path.absolute()), job_name="rlx", version_base="1.3"):
                raw = _plain(hydra.compose("config", overrides=overrides))
    _threads(raw.get("threads", 1))
    from rlx import runner

    command = ["rlx", "resume", str(path), *overrides]
    return runner.resume(path, raw, command, _step(progress), announce=_announce(progress))


def runner_config(path: Path) -> dict[str, Any]:
    """The configuration of a run directory, without importing torch."""
    import yaml

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


def compose(overrides: list[str]) -> dict[str, Any]:
    """The configuration these overrides compose to, as plain data (missing values are left as ???)."""
    with _one_line(overrides), _composing():
        composed = hydra.compose("config", overrides=overrides)
        found = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


# -- Hydra's command line --------------------------------------------------------------------------------------


def flags_first(argv: list[str]) -> tuple[list[str], list[str]]:
    """Hydra 1.3 refuses flags after overrides: split them, values of flags included."""
    flags: list[str] = []
    overrides: list[str] = []
    words = iter(range(len(argv)))
    for index in words:
        word = argv[index]
        following = argv[index + 1] if index + 1 < len(argv) else None
        if not word.startswith("-") or word == "-":
            overrides.append(word)
        elif (
            word in VALUED
            and following is not None
            or (word in ("--info", "-i") and following is not None and "=" not in following and following[0] != "-")
        ):
            flags += [word, following]
            next(words)
        else:
            flags.append(word)
    return flags, overrides


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


# -- Hydra's errors as one line --------------------------------------------------------------------------------


@contextlib.contextmanager
def _one_line(overrides: list[str]) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, overrides)) from None
    except ValueError as error:
        if type(error) is ValueError and "override" in str(error):  # Hydra: "Config group override must be a string"
            raise ConfigError(_first_line(error)) from None
        raise


def explain(error: BaseException, overrides: list[str]) -> str:
    """One line: the key, the value, the choices."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for link in chain:
        if isinstance(link, OverrideParseException) and link.override:
            return f"cannot parse override '{link.override}' (key=value; quote values with spaces or brackets)"
        if isinstance(link, MissingConfigException) and link.missing_cfg_file:
            return _missing_file(link)
        if isinstance(link, MissingMandatoryValue):
            key = str(link).split("\n")[0].rpartition(" ")[2]
            return f"{key}: needs a value, e.g. {key}={_example(key)}"
        if isinstance(link, InterpolationKeyError):
            return f"{link.full_key}: {_first_line(link)}"
    for link in chain:
        if isinstance(link, OmegaConfBaseException) and link.key is not None and link.parent_node is not None:
            return _unknown_key(link)
    text = _first_line(error)
    if found := re.match(r"Could not override '([^']+)'", text):
        key = found.group(1).split("@")[0]
        return _unknown_group(key)
    return text


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _example(key: str | None) -> str:
    return "CartPole-v1" if key == "env.id" else "VALUE"


def _missing_file(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).partition("/")
    group, name = (group, name) if name else ("config", group)
    choices = [str(option) for option in (error.options or [])] or list(registry.options(group))
    hint = did_you_mean(name, choices)
    noun = {"algo": "algorithm", "env": "environment"}.get(group, group)
    more = "; any Gymnasium id: env=gym env.id=ID" if group == "env" else ""
    return f"{group}={name}: no such {noun}{hint} (there are: {', '.join(sorted(choices))}{more})"


def _unknown_key(error: OmegaConfBaseException) -> str:
    full, parent = str(error.full_key), error.parent_node
    key = str(error.key)
    there = [str(name) for name in parent] if isinstance(parent, Mapping | DictConfig) else []
    there = [name for name in there if name != "hydra"]
    if key in there:
        return f"{full}: {_first_line(error)}"
    return f"{full}: no such key{did_you_mean(key, there)} (there: {', '.join(sorted(there))})"


def _unknown_group(key: str) -> str:
    head, _, rest = key.partition(".")
    groups = ["algo", "env", "model", "preset", "experiment"]
    if rest:
        return f"{key}: no such key"
    with contextlib.suppress(Exception):
        groups = sorted({*groups, *compose([])})
    return f"{head}: no such key{did_you_mean(head, groups)} (there: {', '.join(groups)})"


__all__ = ["ConfigCompositionException", "compose", "explain", "resume", "sweep_results", "train"]
