"""What a preset promises, and whether that speaks of a run: of its environment, its values, its budget.

What is expected was measured here (the section `expect`, written by `python -m benchmarks.results --promises`); what
others report is `published`. Imports neither Hydra nor torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlx.base.errors import ConfigError, closest
from rlx.config import keys, registry
from rlx.config.nested import flatten, merged

MEASURED = re.compile(
    r"docs/results/(?:language/(?P<task>\w+)/(?P<stage>\w+)|(?P<algo>\w+)/(?P<env>\w+))(?:, from (?P<start>\w+))?"
)
WHOLE = 0.95  # of the budget: a run that ends there has spent it
IDLE = (  # keys that change no score to speak of
    "checkpoint_every", "eval_episodes", "eval_prompts", "env.backend", "env.workers", "env.step_timeout", "env.replay",
    "algo.engine", "algo.name", "algo.micro_batch", "published", "total_steps",
)  # fmt: skip
ANOTHER = ("env.id", "task.implementation", "algo.implementation")  # with these it is another experiment
MANY = 4  # changed keys that are named


@dataclass(frozen=True)
class Promise:
    """What was measured of a preset, for a run that has its algorithm and its place."""

    score: float
    interval: tuple[float, float] | None
    worst: float | None
    seeds: int | None
    steps: int | None
    seconds: float | None
    metric: str | None
    source: str | None
    changed: tuple[str, ...]  # keys in which the run differs from what was measured
    share: float  # of the measured budget

    @property
    def expected(self) -> str:
        return number(self.score) if self.interval is None else f"[{', '.join(map(number, self.interval))}]"

    @property
    def unlike(self) -> str:
        """What was changed, for the end of a line."""
        if not self.changed:
            return ""
        more = f" and {len(self.changed) - MANY} more" if len(self.changed) > MANY else ""
        return f"; changed here: {', '.join(self.changed[:MANY])}{more}"

    def line(self) -> str:
        if self.share < WHOLE:
            part = f"{100 * self.share:.2g} % of the tuned budget of {self.steps:,} steps"
            return f"tuned preset: {part}, too short for what it promises{self.unlike}"
        interval = f" {self.expected}" if self.interval else ""
        after = f" after {self.steps:,} steps" if self.steps else ""
        seconds = (
            f", about {round(self.seconds) if self.seconds >= 10 else self.seconds:g} CPU s" if self.seconds else ""
        )
        worst = f", worst {number(self.worst)}" if self.worst is not None else ""
        seeds = f"{self.seeds} seeds{worst}; " if self.seeds else ""
        source = f" ({seeds}{self.source or 'no source given'})"
        return f"tuned preset: expect {number(self.score)}{interval}{after}{seconds}{source}{self.unlike}"

    def verdict(self, values: Mapping[str, Any]) -> str | None:
        """One line on the score of a whole run; None where it says nothing. `values`: its evaluation, last metrics."""
        value = values.get(self.metric or "", values.get((self.metric or "").rpartition("/")[2]))
        if self.share < WHOLE or self.interval is None or not isinstance(value, int | float):
            return None
        low, high = self.interval
        slack = 1e-3 * max(abs(low), abs(high))
        exact = f"{value:.1f}" if abs(value) >= 10 else f"{value:.4g}"
        if value > high + slack:
            return f"{exact}: above the expected {self.expected}{self.unlike}"
        if value >= low - slack:
            return f"{exact}: within the expected {self.expected}{self.unlike}"
        seen = self.worst is not None and value >= self.worst - slack
        among = f", not below the worst of {self.seeds} seeds, {number(self.worst)}" if seen else ""
        return f"{exact}: below the expected interval {self.expected}{among}{self.unlike}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def of(raw: Mapping[str, Any]) -> Promise | None:
    """The promise that a configuration holds; None where there is none, or it speaks of something else."""
    expect = raw.get("expect")
    if not isinstance(expect, Mapping) or not isinstance(expect.get("score"), int | float) or not speaks_of(raw):
        return None
    low_high = expect.get("interval")
    steps, total = expect.get("steps"), raw.get("total_steps")
    share = total / steps if isinstance(total, int | float) and isinstance(steps, int) and steps > 0 else 1.0
    rest = {key: expect.get(key) for key in ("worst", "seeds", "steps", "seconds", "metric", "source")}
    interval = (low_high[0], low_high[1]) if isinstance(low_high, list) and len(low_high) == 2 else None
    return Promise(expect["score"], interval, **rest, changed=tuple(changed(raw)), share=share)  # type: ignore[arg-type]


def speaks_of(raw: Mapping[str, Any]) -> bool:
    """Was what `expect` says measured with this algorithm, in this place, from such a start?"""
    algo, section, place = pair(raw)
    match = MEASURED.fullmatch(str((raw.get("expect") or {}).get("source")))
    if match is None:
        return True  # somebody's own
    if (match["algo"] or match["stage"], match["env"] or match["task"]) != (algo, place):
        return False
    return not (match["start"] and not raw.get("init")) and not another(raw)


def another(raw: Mapping[str, Any]) -> str | None:
    """The key that makes it another experiment than that of its names: env.id, task.implementation, ..."""
    algo, section, place = pair(raw)
    files = {"algo": registry.values("algo", algo), section: registry.values(section, place)}
    for key in ANOTHER:
        group, _, name = key.partition(".")
        if name in files.get(group, {}) and not _same((raw.get(group) or {}).get(name), files[group][name]):
            return key
    return None


def pair(raw: Mapping[str, Any]) -> tuple[str, str, str]:
    """algo.name, env or task, and the name of that."""
    section = next((name for name in registry.WORLDS.values() if isinstance(raw.get(name), Mapping)), "env")
    algo, place = (part if isinstance(part := raw.get(name), Mapping) else {} for name in ("algo", section))
    return str(algo.get("name")), section, str(place.get("name"))


def changed(raw: Mapping[str, Any]) -> list[str]:
    """The keys in which a configuration differs from its preset with the algorithm's and the place's own values."""
    algo, section, place = pair(raw)
    if _owner(algo, place) is None:
        return []
    model = registry.default_choice({name: world for world, name in registry.WORLDS.items()}[section], "model")
    files = {"algo": algo, section: place, "model": model}
    tuned = {group: registry.values(group, name) for group, name in files.items()}
    preset = registry.values("preset", f"{algo}_{place}") or registry.inherited(f"{algo}_{place}") or {}
    reference, actual = flatten(merged(tuned, preset)), flatten(raw)
    sections = tuple(f"{group}." for group in (*files, "eval_env"))
    return [
        key for key, value in actual.items()
        if key.startswith(sections) and key not in IDLE and keys.meaning(key).curve is True
        and not _same(value, reference.get(key))
    ]  # fmt: skip


def _owner(algo: str, place: str) -> str | None:
    """Whose preset it is; None, too, where an algorithm names a parent that is not there."""
    try:
        return registry.preset_owner(algo, place)
    except ConfigError:
        return None


def _same(value: Any, reference: Any) -> bool:
    if isinstance(reference, str) and "${" in reference:
        return True  # it follows another key
    try:
        return value == reference or float(value) == float(reference)  # YAML takes 1e-3 for a word
    except (TypeError, ValueError):
        return str(value) == str(reference)


# -- what is said of a run that begins -------------------------------------------------------------------------


def lines(raw: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """What to expect of a run, or why nothing is promised."""
    if promise := of(raw):
        return [promise.line()]
    algo, section, place = pair(raw)
    typed = [str(word).lstrip("+") for word in command]
    if any(
        word.startswith(("preset=", "experiment=", "--config-dir", "-cd")) or "=" not in word and word.endswith(".yaml")
        for word in typed
    ):
        return []
    if (registered := _registered(raw, section)) and registered != place:
        return [
            f"no tuned preset for {section}={place}: rlx train algo={algo} {section}={registered} is the same, tuned"
        ]
    owner = _owner(algo, place)
    if owner is None:
        return _borrowed(algo, section, place, raw)
    if other := another(raw):
        return [f"tuned values of {owner}_{place}, which promises nothing where {other} is another"]
    if owner != algo:
        return [f"tuned values of {owner} on {place}: {algo} with them was not measured here"]
    own = registry.load(registry.options("preset")[f"{algo}_{place}"])  # and not what it takes from a parent's
    source = MEASURED.fullmatch(str((own.get("expect") or {}).get("source")))
    if source and source["start"] and not raw.get("init"):
        return [f"tuned preset: what it promises begins with init=latest:{source['start']}, which is not given here"]
    if published := own.get("published"):
        return [f"tuned preset: published, not measured here: {published}"]
    return [f"tuned preset: {algo}_{place}, not measured here"]


def _borrowed(algo: str, section: str, place: str, raw: Mapping[str, Any]) -> list[str]:
    """No preset, and the command that would take a neighbour's."""
    places = [name for name in registry.options(section) if _owner(algo, name)]
    if not places:
        return []
    usual = next((name for name in ("cartpole", "pendulum", "frozenlake", "add2") if name in places), places[0])
    near = closest(place, places) or usual
    known = place in registry.options(section)
    where = f"{section}={place}" if known else f"env=gym env.id={(raw.get(section) or {}).get('id')}"
    command = f"rlx train algo={algo} {where} preset={_owner(algo, near)}_{near}"
    return [f"no tuned preset for {algo} on {place}: these are defaults (to borrow one: {command})"]


def _registered(raw: Mapping[str, Any], section: str) -> str | None:
    """The choice of env= that has the id of an env.id=, where an environment is named by that."""
    own = raw.get(section) or {}
    if section != "env" or own.get("name") in registry.options("env"):
        return None
    return next(
        (name for name in registry.options("env") if registry.values("env", name).get("id") == own.get("id")), None
    )
