"""What a key of the configuration means for a run that is there: three questions, one table.

resume   may a resume change it? FREE: yes. FIXED: no, and a checkpoint with another value is another run's.
         NAME: no, but it is a name or a place, and a checkpoint fits whatever it is
curve    do two runs that differ in it have different curves? ORIGIN: the path of a run to start from; the algorithm of
         that one counts
row      are two runs that differ in it two rows of the HPARAMS tab? MACHINE: never, it says where and how a run is
         computed and not what, so no hash of any configuration has it

A key without a line is answered by the section that it is in; without any line: FREE, a curve of its own, no row. What
else of `algo` is FIXED is a fact of the algorithm (config.facts: FROZEN), `frozen` below.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from rlx.base.errors import ConfigError, shown
from rlx.config.nested import flatten

FREE, FIXED, NAME = "free", "fixed", "name"
ORIGIN, MACHINE = "origin", "machine"


class Meaning(NamedTuple):
    resume: str
    curve: bool | str
    row: bool | str


OTHER = Meaning(FREE, True, False)
TABLE: dict[str, Meaning] = {
    #                             resume  curve   row
    "seed":               Meaning(FIXED,  False,  False),
    "total_steps":        Meaning(FREE,   True,   True),
    "runs_dir":           Meaning(NAME,   False,  MACHINE),
    "run":                Meaning(FREE,   False,  MACHINE),
    "run_dir":            Meaning(FREE,   False,  MACHINE),
    "name":               Meaning(FREE,   False,  MACHINE),
    "tags":               Meaning(FREE,   False,  MACHINE),
    "notes":              Meaning(FREE,   False,  MACHINE),
    "max_time":           Meaning(FREE,   False,  MACHINE),
    "stop_at":            Meaning(FREE,   True,   False),
    "device":             Meaning(FREE,   False,  MACHINE),
    "threads":            Meaning(FREE,   False,  MACHINE),
    "log_every":          Meaning(FREE,   False,  False),
    "eval_every":         Meaning(FREE,   False,  False),
    "eval_required":      Meaning(FREE,   False,  False),
    "keep_checkpoints":   Meaning(FREE,   False,  False),
    "tensorboard":        Meaning(FREE,   False,  False),
    "logger":             Meaning(FREE,   False,  False),
    "video":              Meaning(FREE,   False,  False),
    "samples":            Meaning(FREE,   False,  False),
    "expect":             Meaning(FREE,   False,  False),
    "published":          Meaning(FREE,   False,  False),
    "init":               Meaning(FIXED,  ORIGIN, False),
    "env":                Meaning(FIXED,  True,   True),
    "env.name":           Meaning(NAME,   True,   True),
    "env.workers":        Meaning(FREE,   True,   True),
    "env.step_timeout":   Meaning(FREE,   True,   True),
    "env.replay":         Meaning(FREE,   True,   True),
    "eval_env":           Meaning(FREE,   True,   True),
    "task":               Meaning(FIXED,  True,   True),
    "task.name":          Meaning(NAME,   True,   True),
    "model":              Meaning(FIXED,  True,   True),
    "algo":               Meaning(FREE,   True,   True),
    "algo.name":          Meaning(NAME,   True,   True),
    "algo.implementation": Meaning(FIXED, True,   True),
    "algo.reward_model":  Meaning(FIXED,  ORIGIN, False),
}  # fmt: skip
LATER = ("stop_at",)  # keys of which null means what their absence does, in runs from before they were there
ORIGINS = tuple(key for key, meaning in TABLE.items() if meaning.curve == ORIGIN)


def meaning(key: str, frozen: Collection[str] = ()) -> Meaning:
    """The meaning of a dotted key."""
    section, _, name = key.partition(".")
    while key not in TABLE and key:
        key = key.rpartition(".")[0]
    entry = TABLE.get(key, OTHER)
    return entry._replace(resume=FIXED) if section == "algo" and name.partition(".")[0] in frozen else entry


def identity(raw: Mapping[str, Any], frozen: Collection[str] = ()) -> dict[str, Any]:
    """What tells a run's checkpoints from another run's."""
    return {key: value for key, value in flatten(raw).items() if meaning(key, frozen).resume == FIXED}


def curve(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What of a flat configuration makes the experiment: runs that share it are one curve."""
    later = LATER if "task.name" in flat else (*LATER, "init")
    return {key: value for key, value in flat.items() if meaning(key).curve and not (key in later and value is None)}


def hparams(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration a row of the HPARAMS tab is made of, flat."""
    return {key: value for key, value in flatten(raw).items() if meaning(key).row is True}


def config_hash(config: Mapping[str, Any], without: Iterable[str] = ("seed",)) -> str:
    """Ten hex digits that tell experiments apart, the same in any process, on any machine, in any key order.

    Left out: the keys `without` (dotted, or a whole group) and MACHINE. All seeds of a config share it.
    """
    text = json.dumps(experiment(config, without), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def experiment(config: Mapping[str, Any], without: Iterable[str] = ("seed",)) -> dict[str, Any]:
    """What identifies the experiment: the config flattened with dots, less `without` and MACHINE."""
    left_out = {*without, *(key for key in TABLE if TABLE[key].row == MACHINE)}
    flat = flatten(config)
    return {key: flat[key] for key in flat if key not in left_out and key.split(".")[0] not in left_out}


def check_unasked(
    section: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, words: Iterable[str]
) -> None:
    """Raises ConfigError where a word of the command asks for another value in a section than the run has that `where`
    names, and whose weights come with theirs."""
    for word in words:
        top, dot, key = word.lstrip("+").partition("=")[0].partition(".")
        for name in [key] if dot else ours:
            if top == section and ours.get(name) != theirs.get(name):
                raise ConfigError(
                    f"{section}.{name}={shown(ours.get(name))}: {where} has a network with "
                    f"{section}.{name}={shown(theirs.get(name))}, which comes with its weights"
                )
