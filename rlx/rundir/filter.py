"""Which runs: the conditions of `--where` and the order of `--sort`, over keys of the configuration, of what became of
the run and of its metrics."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlx.base.errors import UserError, choices_hint, shown
from rlx.rundir.index import Entry
from rlx.rundir.layout import LastEvaluation
from rlx.rundir.metrics import is_number
from rlx.rundir.query import full_key

# Of a run, beside the keys of its configuration and its metrics.
OWN = ("status", "algo", "env", "task", "seed", "step", "eval", "trial", "study", "device", "started")
ALIASES = {"time": "started", "return": "eval"}  # of --sort
STATES = ("running", "finished", "failed", "interrupted", "killed", "pruned", "damaged")
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
WORD = re.compile(r"\s*([^<>=!\s]+)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
SHOWN = ("status", "algo", "env", "task", "seed", "step", "eval", "started")  # has a column in `rlx ls`, or needs none
FORM = "KEY=VALUE, or with !=, <, <=, >, >= (and quotes around it)"


@dataclass
class Condition:
    key: str
    sign: str
    value: str

    def holds(self, entry: Entry) -> bool:
        value, wanted = value_of(entry, self.key), _number(self.value)
        if self.sign in SIGNS:
            return wanted is not None and is_number(value) and SIGNS[self.sign](value, wanted)
        return _equal(value, self.value) is (self.sign != "!=")


def _equal(value: Any, wanted: str) -> bool:
    if (number := _number(wanted)) is not None and is_number(value):
        return bool(value == number)
    if isinstance(value, list) and wanted in value:  # tag=paper
        return True
    if isinstance(value, list | dict):
        return re.sub(r"[\s'\"]", "", str(value)) == re.sub(r"[\s'\"]", "", wanted)
    return shown(value) == wanted or str(value) == wanted


def _number(text: str) -> float | None:
    try:
        return float(text.replace("_", ""))
    except ValueError:
        return None


def conditions(words: Sequence[str], entries: Sequence[Entry]) -> list[Condition]:
    """The conditions that the words of --where write. Raises UserError."""
    names = keys(entries)
    return [_condition(word, names) for word in words]


def _condition(word: str, names: set[str]) -> Condition:
    match = WORD.fullmatch(word)
    if not match or not match[3] or match[3][0] in "<>=~":
        raise UserError(f"--where={shown(word)}: must be {FORM}")
    key, sign, value = match.groups()
    sign = "=" if sign == "==" else sign
    key = "tags" if key == "tag" else key
    if key not in OWN and names:
        key = full_key(key, names, "--where", OWN)
    if sign in SIGNS and ((number := _number(value)) is None or math.isnan(number)):
        raise UserError(f"--where={shown(word)}: {shown(value)} is not a number, which {sign} needs")
    if key == "status" and value not in STATES:
        raise UserError(f"--where={shown(word)}: no such status{choices_hint(value, STATES)}")
    return Condition(key, sign, value)


def keys(entries: Iterable[Entry]) -> set[str]:
    """All keys of the configurations and the metrics."""
    return {key for entry in entries for key in (*entry.config, *entry.row["metrics"])}


def value_of(entry: Entry, key: str) -> Any:
    if key == "eval":
        return LastEvaluation.of(entry.row.get("eval")).comparable
    if key in OWN:
        return entry.row.get(key)
    return entry.config[key] if key in entry.config else entry.row["metrics"].get(key)


def select(entries: Sequence[Entry], words: Sequence[str]) -> list[Entry]:
    """The runs for which all conditions hold. Raises UserError."""
    wanted = conditions(words, entries)
    return [entry for entry in entries if all(condition.holds(entry) for condition in wanted)]


def sort_key(word: str, entries: Sequence[Entry], orders: Sequence[str]) -> str:
    """What --sort names: started for time, eval for return, algo.lr for lr. Raises UserError."""
    key, names = ALIASES.get(word, word), keys(entries)
    if key in OWN or word in orders:
        return key
    if key not in names and not any(each.endswith((f".{key}", f"/{key}")) for each in names):
        hint = choices_hint(word, orders, more="or a key of config.yaml or of the metrics")
        raise UserError(f"--sort={shown(word)}: no such order{hint}")
    return full_key(key, names, "--sort")


def ordered(entries: Sequence[Entry], key: str) -> list[Entry]:
    """By a key; the runs that have none first, those of numbers before those of words."""

    def place(entry: Entry) -> tuple[int, Any]:
        value = (entry.row.get("env") or entry.row.get("task")) if key == "env" else value_of(entry, key)
        if value is None:
            return 0, 0
        return (1, value) if is_number(value) else (2, str(value))

    return sorted(entries, key=place)
