"""Which world the words of a command speak of, environments or tasks, before anything is composed. Imports neither
Hydra nor torch: a <TAB> asks, too.

A world is a module (rlx.control.family, rlx.language.family) with one interface, so that runner and loop know neither
environments nor tokens:

    NAME                                env or task: the section that names the place of learning, the key in run.json
    Config                              rlx.config.schema.Config with the world's own keys
    ORIGINS, PATHS                      the keys that name other runs, and files
    sections(raw)                       the types of its sections
    check(cfg, module)                  what can only be seen by trying
    inherit(raw, source, key, ...)      what a run takes over from the one that its `key` names (a Saved)
    evaluation(cfg, module, run)        at eval_every: rlx.run.Evaluation
    load_policy(cfg, module, run)       the policy that a checkpoint holds, as the algorithm restores it or most do
    raw_policy(policy, cfg)             the same for what an environment gives, or for prompts (rlx.api)
    report(policy, cfg, count, seed)    rlx eval; then play (rlx play) or sample (rlx sample)

An algorithm of the language world may have check(cfg, task); and evaluate(cfg, run, prompts, seed) -> {name: number},
the first or "score" the one that counts, where generating is not what it learns.
"""

import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlx.base.errors import ConfigError
from rlx.config import registry
from rlx.config.nested import flatten

COUNTS = {"env": 10, "task": 256}  # episodes or prompts of an evaluation, where nothing else is said
WHERE = {"control": "in an environment (env=NAME)", "language": "on a task (task=NAME)"}


ORDER = ("algo", "experiment", "env", "task", "init", "as", "model")


class Sign(NamedTuple):
    """A word that belongs to one world only."""

    word: str
    key: str  # see ORDER
    name: str
    world: str


def primary(words: Sequence[str], config_dir: Path | None = None) -> str:
    """The file that the configuration begins with: config or language. Raises ConfigError where the words speak of
    both worlds."""
    return registry.PRIMARY[choose(words, config_dir)]


def choose(words: Sequence[str], config_dir: Path | None = None) -> str:
    """control or language; control where no word tells. Raises ConfigError where they speak of both."""
    signs = [sign for word in words for sign in _signs(word, config_dir)]
    signs.sort(key=lambda sign: ORDER.index(sign.key))  # who learns, before where and with what
    for sign in signs[1:]:
        if sign.world != signs[0].world:
            raise ConfigError(_conflict(signs[0], sign, config_dir))
    _check_as(signs)
    if not signs and any(word.lstrip("+").startswith("init=") for word in words):
        return "language"  # latest, of which nothing else tells: where runs mostly start from one another
    return signs[0].world if signs else "control"


def _world_of_run(name: str) -> str | None:
    """The world of a run that another one starts from, where its name tells: latest:ALGO, or a directory."""
    latest, _, algo = name.partition(":")
    if latest == "latest":
        return _world("algo", algo, None) if algo else None
    config = registry.load(Path(name.strip("'\"")) / "config.yaml")
    return next(
        (world for world, place in registry.WORLDS.items() if place in config), "language" if not config else None
    )


def keys(words: Sequence[str]) -> dict[str, Any]:
    """The keys of the configuration that these words choose, with their values; read from the YAML files."""
    try:
        first = primary(words)
    except ConfigError:  # words of two worlds
        first = registry.PRIMARY["control"]
    main, _ = registry.begins_with(first)
    chosen = {key: value for item in main.get("defaults", []) if isinstance(item, dict) for key, value in item.items()}
    chosen |= dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    values = flatten({key: value for key, value in main.items() if key not in ("defaults", "hydra")}, empty=True)
    for group in registry.groups():
        if group in chosen and group not in ("preset", "as", "experiment"):
            values |= flatten(registry.values(group, str(chosen[group]).rpartition(",")[2]), f"{group}.", empty=True)
    return values


def _signs(word: str, config_dir: Path | None) -> Iterator[Sign]:
    key, equals, value = word.lstrip("+").partition("=")
    section = key.partition(".")[0]
    places = {place: world for world, place in registry.WORLDS.items()}
    if not equals:
        return
    if section in places:
        yield Sign(word, section, value, places[section])
    elif key == "as":  # only language models train as some library does
        yield Sign(word, key, value, "language")
    elif key == "init":
        if world := _world_of_run(value):
            yield Sign(word, key, value, world)
    elif key == "algo.implementation":
        yield from (Sign(word, "algo", name, registry.world_name(name)) for name in _names(value))
    elif key in ("algo", "model", "experiment"):
        for name in _names(value, registry.options(key, config_dir)):
            if world := _world(key, name, config_dir):
                yield Sign(word, key, name, world)


def _check_as(signs: Sequence[Sign]) -> None:
    """as=trl makes an algorithm that of a library; over one of its relatives it would undo what that is named for."""
    chosen = [sign for sign in signs if sign.key == "as" and sign.name != "none"]
    if not chosen:
        return
    algos = [sign.name for sign in signs if sign.key == "algo"] or [registry.default_choice("language", "algo")]
    if others := [name for name in algos if not registry.facts(name).libraries]:
        serves = " or ".join(f"algo={name}" for name in registry.implementations() if registry.facts(name).libraries)
        raise ConfigError(f"{chosen[0].word}: is for {serves}; {others[0]} has no values of other libraries")


def _names(value: str, known: Container[str] | None = None) -> list[str]:
    """The names in a value, those of a grid included; without `known` those of implementations."""
    names = re.findall(r"[\w./-]+", value)
    return [name for name in names if (registry.has(name) if known is None else name in known)]


def _world(group: str, name: str, config_dir: Path | None) -> str | None:
    """The world of a file of a group; None where it does not say."""
    if group == "algo":
        built_on = registry.values(group, name, config_dir).get("implementation")
        return registry.world_name(built_on) if isinstance(built_on, str) and registry.has(built_on) else None
    if group == "model":  # only a language model has a name of its own
        return "language" if "name" in registry.values(group, name, config_dir) else "control"
    content = registry.load(registry.options(group, config_dir)[name])
    stages = content.get("stages") or []
    words = [str(word) for stage in stages if isinstance(stage, list) for word in stage]
    if sign := next((sign for word in words for sign in _signs(word, config_dir)), None):
        return sign.world  # of a chain
    for item in content.get("defaults") or []:
        for key, choice in item.items() if isinstance(item, dict) else ():
            section = str(key).rpartition("/")[2]
            if section in ("env", "task"):
                return "control" if section == "env" else "language"
            if section == "algo" and (world := _world("algo", str(choice), config_dir)):
                return world
    return None


def _conflict(first: Sign, second: Sign, config_dir: Path | None) -> str:
    if {first.key, second.key} == {"env", "task"}:
        return f"{first.word} {second.word}: a run learns in an environment or on a task, not both"
    if first.key == second.key:
        words = " ".join(dict.fromkeys([first.word, second.word]))
        does = f"{first.name} learns {WHERE[first.world]}, {second.name} {WHERE[second.world]}"
        return f"{words}: {does}; one command has one kind"
    subject = first.name if first.key == "algo" else first.word
    if second.key in ("model", "experiment"):
        return f"{second.word}: is for runs {WHERE[second.world]}; {subject} learns {WHERE[first.world]}"
    names = [name for name in registry.algorithms_of(second.world, config_dir) if registry.has(name)]  # no variants
    return (
        f"{second.word}: {subject} learns {WHERE[first.world]}, not {WHERE[second.world]}; algorithms that do: "
        f"{', '.join(names)}"
    )
