"""A chain: runs that start from one another, begun by one command. conf/experiment/NAME.yaml holds only its stages:

    stages:
      - [algo=pretrain, task=names]
      - [algo=reward_model, task=names, "init={pretrain}"]

Each stage is the words of an ordinary `rlx train`; {NAME} is the run of the earlier stage with algo=NAME. Words of the
command go to every stage, NAME:key=value to that one. All stages are checked before the first begins.
"""

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.base.errors import ConfigError, choices_hint
from rlx.config import registry
from rlx.launch import arguments
from rlx.launch.composing import compose_all, plain, set_threads
from rlx.launch.hydra_errors import one_line

Start = Callable[[dict[str, Any], list[str]], Path]
PLACE = re.compile(r"\{([\w.-]+)\}")
LATER = "stage:"  # before the name of a run that is not there yet: rlx.training.init_from leaves it alone


@dataclass
class Stage:
    name: str  # its algo
    words: list[str]

    def filled(self, runs: Mapping[str, str]) -> list[str]:
        """Its words with the runs of the earlier stages in them."""
        return [PLACE.sub(lambda match: runs.get(match[1], match[0]), word) for word in self.words]


def find(given: arguments.Words) -> str | None:
    """The chain that the words name. Raises ConfigError for what cannot be done with one."""
    for word in given.overrides:
        key, _, value = word.partition("=")
        for name in value.split(",") if key.lstrip("+") == "experiment" else ():
            if "stages" not in _content(name, given):
                continue
            if refused := {"--multirun", "--cfg", "--info"} & set(given.flags):
                raise ConfigError(f"{refused.pop()}: {word} is a chain of several runs, each with words of its own")
            return name
    return None


def _content(name: str, given: arguments.Words) -> dict[str, Any]:
    path = registry.options("experiment", given.config_dir).get(name)
    return registry.load(path) if path else {}


def plan(name: str, given: arguments.Words) -> list[Stage]:
    """The stages with the words of the command. Raises ConfigError."""
    content = _content(name, given)
    if more := sorted(set(content) - {"stages"}):
        raise ConfigError(f"experiment={name}: a chain has stages and nothing else ({', '.join(more)})")
    lists = content["stages"]
    if not isinstance(lists, list) or not lists or not all(_is_stage(item) for item in lists):
        raise ConfigError(f"experiment={name}: stages must be a list of lists of key=value, each with algo=NAME")
    stages = [Stage(_value("algo", item), list(item)) for item in lists]
    names = [stage.name for stage in stages]
    for word in given.overrides:
        key = word.partition("=")[0]
        prefix, colon, rest = key.partition(":")
        if key.lstrip("+") == "experiment":
            continue
        if (rest if colon else key).startswith("hydra"):
            raise ConfigError(f"{word}: each stage of a chain is a run of its own; only its keys can be set")
        if (rest if colon else key) == "algo":
            raise ConfigError(f"{word}: the stages of experiment={name} have their own ({', '.join(names)})")
        if colon and prefix not in names:
            raise ConfigError(f"{word}: no such stage of experiment={name}{choices_hint(prefix, names)}")
        for stage in stages:
            if not colon or prefix == stage.name:
                stage.words.append(word.partition(":")[2] if colon else word)
    for i, stage in enumerate(stages):
        stage.words = list({word.partition("=")[0].lstrip("+"): word for word in stage.words}.values())
        for place in PLACE.findall(" ".join(stage.words)):
            if place not in names[:i]:
                raise ConfigError(
                    f"experiment={name}: {stage.name} has {{{place}}}, but no earlier stage is algo={place}"
                )
    return stages


def _is_stage(item: Any) -> bool:
    return isinstance(item, list) and all(isinstance(word, str) for word in item) and bool(_value("algo", item))


def _value(key: str, item: Iterable[str]) -> str:
    return next((word.partition("=")[2] for word in item if word.partition("=")[0] == key), "")


def run(name: str, given: arguments.Words, start: Start) -> None:
    """Check every stage, then `start` one after the other. Raises what the stage raised that did not finish, after a
    line that says how to go on."""
    stages = _checked(name, given)
    runs: dict[str, str] = {}
    for i, stage in enumerate(stages):
        try:
            filled = stage.filled(runs)
            runs[stage.name] = arguments.quoted(str(start(_compose(filled, given), ["rlx", "train", *filled])))
        except BaseException as error:
            _say_how_to_go_on(stages, i, runs, getattr(error, "path", None))
            raise


def checked(name: str, given: arguments.Words) -> list[str]:
    """The commands of the stages, checked. Raises ConfigError."""
    return [shlex.join(["rlx", "train", *stage.words]) for stage in _checked(name, given)]


def _checked(name: str, given: arguments.Words) -> list[Stage]:
    from rlx.training import runner

    stages = plan(name, given)
    planned = {stage.name: f"{LATER}{stage.name}" for stage in stages}
    for i, stage in enumerate(stages):
        try:
            raw = _compose(stage.filled(planned), given)
            if i == 0:
                set_threads(raw.get("threads"))
            runner.ready(raw, stage.filled(planned))
        except ConfigError as error:
            raise ConfigError(f"{stage.name}: {error}") from None
    return stages


def _compose(overrides: list[str], given: arguments.Words) -> dict[str, Any]:
    with one_line(overrides, given.config_dir), compose_all(given) as compose:
        parsed = arguments.overrides(overrides, config_dir=given.config_dir)
        return plain(compose([override.input_line or "" for override in parsed]))


def _say_how_to_go_on(stages: list[Stage], i: int, finished: Mapping[str, str], path: Path | None) -> None:
    """The commands of the rest of the chain."""
    rest = stages[i + 1 :] if path else stages[i:]
    runs = {**{stage.name: f"latest:{stage.name}" for stage in stages}, **finished}
    commands = [shlex.join(["rlx", "train", *stage.filled(runs)]) for stage in rest]
    if path:
        commands.insert(0, f"rlx resume {shlex.quote(str(path))}")
    print(f"rlx: stage {i + 1} of {len(stages)} did not finish; the rest: {' && '.join(commands)}", file=sys.stderr)
