"""The words after `rlx sweep`: what is searched, checked before anything is written."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType

from rlx.base.errors import ConfigError, choices_hint, closest, shown
from rlx.config import kind, registry
from rlx.launch import arguments, chain, search_space
from rlx.launch.composing import compose_all, plain, set_threads
from rlx.launch.config_files import check_size, near
from rlx.launch.hydra_errors import one_line
from rlx.search import params, settings
from rlx.search.settings import Settings

EVALUATIONS = 5  # of a run, by default
FEW, MANY = 3, 10  # what a preset asks for stays where it is between
WHAT_IS_LEARNT = ("algo", "env", "task", "preset", "experiment", "as", "env.id", "env.name", "task.name", "algo.name",
                  "algo.implementation")  # fmt: skip
GRAMMAR = "a range is interval(a, b), tag(log, interval(a, b)), int(interval(a, b)), range(a, b) or a,b,c"


@dataclass
class Question:
    """A search, as data: the configuration of every run but for its seed and what is searched, and the ranges."""

    settings: Settings
    words: list[str]  # overrides without a range
    config: dict[str, Any]
    space: dict[str, search_space.Range]
    notes: list[str]  # what was decided for the user

    @property
    def algo(self) -> str:
        return str(self.config["algo"]["name"])

    def to_json(self, command: list[str]) -> dict[str, Any]:
        """What study.json says, but for its name."""
        place = next(place for place in registry.WORLDS.values() if place in self.config)
        chosen = self.settings
        return {
            "name": chosen.study,
            "command": command,
            "algo": self.algo,
            place: self.config[place]["name"],
            "trials": chosen.trials,
            "seeds": chosen.seeds,
            "seed": self.config["seed"],
            "sampler": chosen.sampler,
            "pruner": chosen.pruner,
            "storage": chosen.storage,
            "overrides": self.words,
            "space": self.space,
            "notes": self.notes,
            "config": self.config,
        }


def ask(argv: Iterable[str], config_dir: Path | None = None, jobs: int | None = None) -> Question:
    """What the words ask for. Raises ConfigError, one line, for all that can be known before the first trial."""
    values, rest = settings.take(argv)
    chosen = Settings(**{**values, **({"jobs": jobs} if jobs else {})})
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir={config_dir}: no such directory")
    given = arguments.split([*(["--config-dir", str(config_dir)] if config_dir else []), *rest])
    if flags := [flag for flag in given.flags if flag != "--config-dir"]:
        raise ConfigError(f"{flags[0]}: only rlx train takes it (rlx sweep --help)")
    _check_keys(given.overrides)
    if name := chain.find(given):
        raise ConfigError(f"experiment={name}: is a chain of several runs; a search takes a single one")
    fixed, ranges, sources = _sorted(given, chosen)
    check_size(given.config_dir)
    kind.choose(fixed, given.config_dir)
    question = Question(chosen, fixed, {}, ranges, [])
    with one_line(fixed, given.config_dir), compose_all(given) as compose:
        raw = _decide(question, plain(compose(fixed)))
        set_threads(raw.get("threads"))
        from rlx.training import runner

        question.config = runner.ready(raw, fixed)[0]
        if not ranges:
            more, sources = _from_file(question.algo, question.config["algo"]["implementation"], given)
            question.space = ranges = _without_fixed(more, fixed)
        with _from(sources), one_line(fixed, given.config_dir):
            _check_keys_of(question, raw, lambda words: plain(compose(words)))
    for key, range_ in ranges.items():
        with _from(sources):
            _check_range(key, range_, question)
    last = question.config["seed"] + chosen.seeds
    if last > 2**32 - 1:
        raise ConfigError(f"seed={question.config['seed']}: seeds={chosen.seeds} from there go beyond {2**32 - 1}")
    return question


def _check_keys(overrides: Iterable[str]) -> None:
    """Refuse words that look like keys of the run and are none. Raises ConfigError."""
    top = {key for name in registry.PRIMARY.values() for key in registry.load(registry.conf_dir() / f"{name}.yaml")}
    for item in overrides:
        key = item.partition("=")[0].lstrip("+")
        if key.startswith("hydra"):
            raise ConfigError(f"{item}: only rlx train takes it; a search has workers of its own (-j)")
        if "." in key or key in (*top, *registry.groups()) or "=" not in item:
            continue
        if close := closest(key, settings.NAMES, cutoff=0.75):
            raise ConfigError(f"{key}: no such key or setting; did you mean '{close}'?")


def _sorted(
    given: arguments.Words, chosen: Settings
) -> tuple[list[str], dict[str, search_space.Range], dict[str, Path]]:
    """The overrides without a range; the ranges; and the files that those are from."""
    parsed = _parsed(given.overrides, given.config_dir)
    fixed = [item.input_line or "" for item in parsed if not item.is_sweep_override()]
    ranges = _ranges(item for item in parsed if item.is_sweep_override())
    for item in fixed:
        if item.partition("=")[0] in ranges:  # with a + it makes the key that is searched
            raise ConfigError(f"{item}: is also given a range; keep one of the two")
    sources: dict[str, Path] = {}
    if chosen.sweep is not None:
        more, sources = _file(chosen.sweep, given.config_dir)
        ranges = _without_fixed({**more, **ranges}, fixed)
    return fixed, ranges, sources


def _parsed(overrides: Iterable[str], config_dir: Path | None) -> list[Override]:
    parsed: list[Override] = []
    for item in overrides:
        try:
            parsed += arguments.overrides([item], True, config_dir)
        except ConfigError as error:
            if re.match(r"[^=]*=\s*(tag|interval|range|choice|int|float|sort|shuffle)\b", item):
                raise ConfigError(f"cannot read '{item}': {GRAMMAR}") from None
            raise error
    return parsed


def _ranges(overrides: Iterable[Override]) -> dict[str, search_space.Range]:
    ranges: dict[str, search_space.Range] = {}
    for override in overrides:
        key, item = override.key_or_group, str(override.input_line)
        if key in WHAT_IS_LEARNT:
            raise ConfigError(f"{item}: a search has one {key}, or its scores would not compare (rlx train -m {item})")
        if key in registry.groups() or "." not in key:
            why = "each trial has seeds=N of them" if key == "seed" else "only keys of a section are searched (algo.lr)"
            raise ConfigError(f"{item}: {why}")
        if override.type != OverrideType.CHANGE:
            raise ConfigError(f"{item}: a range needs an existing key; without the '+': {item.lstrip('+')}")
        ranges[key] = search_space.read(override)
    return ranges


# -- conf/sweep ------------------------------------------------------------------------------------------------


def _from_file(algo: str, base: str, given: arguments.Words) -> tuple[dict[str, search_space.Range], dict[str, Path]]:
    """The ranges of conf/sweep/ALGO.yaml, or of the implementation that the algorithm is a variant of."""
    files = registry.options("sweep", given.config_dir)
    for name in (algo, base):
        if name in files:
            return _file(name, given.config_dir)
    raise ConfigError(
        f"algo={algo}: no range to search, e.g. 'algo.lr=tag(log, interval(1e-5, 1e-2))', and there is no "
        f"conf/sweep/{algo}.yaml (sweep=NAME takes another: {', '.join(files)})"
    )


def _file(name: str, config_dir: Path | None) -> tuple[dict[str, search_space.Range], dict[str, Path]]:
    files = registry.options("sweep", config_dir)
    if name not in files:
        raise ConfigError(f"sweep={shown(name)}: no such file of ranges{choices_hint(name, files)}")
    path = files[name]
    content = registry.load(path)
    if not content:
        raise ConfigError(f"{near(path)}: must be keys with ranges (algo.lr: tag(log, interval(1e-5, 1e-2)))")
    try:
        parsed = _parsed([f"{key}={_text(key, value)}" for key, value in content.items()], config_dir)
        if single := next((item for item in parsed if not item.is_sweep_override()), None):
            raise ConfigError(f"{single.input_line}: {GRAMMAR}")
        ranges = _ranges(parsed)
    except ConfigError as error:
        raise ConfigError(f"{error} [{near(path)}]") from None
    return ranges, dict.fromkeys(ranges, path)


def _text(key: Any, value: Any) -> str:
    if isinstance(value, Mapping):
        raise ConfigError(f"{key}: ranges are written {key}.{next(iter(value), 'KEY')}: RANGE")
    if isinstance(value, list):
        texts = [item if isinstance(item, str) else params.text(item) for item in value]  # 1e-3 is a text to YAML
        return ",".join(texts) if len(texts) > 1 else f"choice({','.join(texts)})"
    return str(value)


def _without_fixed(ranges: Mapping[str, search_space.Range], fixed: Iterable[str]) -> dict[str, search_space.Range]:
    """What the command line sets is not searched."""
    keys = {item.partition("=")[0].lstrip("+") for item in fixed}
    if ranges and not (left := {key: range_ for key, range_ in ranges.items() if key not in keys}):
        raise ConfigError(f"{', '.join(ranges)}: the command line sets them all, nothing is left to search")
    return left if ranges else {}


# -- what is decided, and what is checked ------------------------------------------------------------------------


def _decide(question: Question, raw: dict[str, Any]) -> dict[str, Any]:
    """About five evaluations a run, and no films, by default. Raises ConfigError."""
    keys = {item.partition("=")[0] for item in question.words}
    steps, every = (
        int(n) if isinstance(n, float) and n.is_integer() else n for n in (raw["total_steps"], raw["eval_every"])
    )
    if every == 0:
        raise ConfigError("eval_every=0: a search judges runs by their evaluations")
    decided: dict[str, Any] = {}
    numbers = isinstance(steps, int) and isinstance(every, int) and steps > 0
    if numbers and "eval_every" not in keys and not FEW <= steps / every <= MANY:
        decided["eval_every"] = every = max(1, steps // EVALUATIONS)
        question.notes.append(f"eval_every={every:,}: {EVALUATIONS} evaluations a run, to judge and to prune by")
    if raw.get("video") is True and "video" not in keys:
        decided["video"] = False
        question.notes.append("video=false: no films of the trials")
    question.words += [params.word(key, value) for key, value in decided.items()]
    return {**raw, **decided}


def _check_keys_of(question: Question, raw: Mapping[str, Any], compose: Any) -> None:
    """Compose with all that is searched moved: are the keys there, and does no other follow one of them? Raises
    ConfigError."""
    moved = {key: search_space.probes(range_)[-1] for key, range_ in question.space.items()}
    composed = compose([*question.words, *(params.word(key, value) for key, value in moved.items())])
    if other := _beside(params.placed(raw, moved), composed):
        raise ConfigError(f"{other}: is computed from a key that is searched, and would not follow it; set it as well")


def _check_range(key: str, range_: search_space.Range, question: Question) -> None:
    """Validate its ends, or each choice, as `rlx train` does. Raises ConfigError."""
    from rlx.training import runner

    for number, value in enumerate(search_space.probes(range_)):
        item = params.word(key, value)
        try:
            raw = params.placed(question.config, {key: value})
            runner.ready(raw, [*question.words, item], trying=not key.startswith("algo."))
        except ConfigError as error:
            whole_numbers = number == 2 and "whole number" in str(error)
            hint = f"; int(interval({range_['low']:g}, {range_['high']:g})) searches those" if whole_numbers else ""
            raise ConfigError(f"{error}{hint}") from None


@contextlib.contextmanager
def _from(sources: Mapping[str, Path]) -> Iterator[None]:
    """Name the file of ranges that the key at fault is from."""
    try:
        yield
    except ConfigError as error:
        file = next((f" [{near(path)}]" for key, path in sources.items() if str(error).startswith(key)), "")
        raise ConfigError(f"{error}{file}") from None


def _beside(one: Any, other: Any, path: str = "") -> str | None:
    """The first key in which two configurations differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            if differing := _beside(one.get(key), other.get(key), f"{path}.{key}" if path else str(key)):
                return differing
        return None
    return None if one == other else path
