"""The typed configuration of a run. YAML holds the values; the dataclasses hold names, types and ranges."""

import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from rlx.base.errors import ConfigError, choices_hint, did_you_mean, shown

Count = Annotated[int, Field(ge=1, le=10**15)]
LARGEST = 3.4028234e38  # what lies beyond it is infinite in float32
Cadence = Annotated[int, Field(ge=0, le=10**15)]  # 0: never


@dataclass
class Expect:
    """What was measured of a preset, over several seeds (rlx.config.promise)."""

    score: float | None  # of the final policy: interquartile mean over the seeds
    steps: int | None  # after this many
    seconds: float | None  # of computing
    source: str | None
    interval: list[float] | None = None  # 95 %, of score
    worst: float | None = None  # of the seeds
    seeds: int | None = None
    metric: str | None = None  # which number is meant


class Algo(Protocol):
    """What the section `algo` of every algorithm has."""

    name: str
    implementation: str


@dataclass
class Config:
    """What decides a run, whatever its world: each of them adds keys and the section that names the place of learning
    (rlx.control.config, rlx.language.config). Sections have dataclasses of their own."""

    PLACE: ClassVar[str]  # that section: env or task

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    total_steps: Count
    device: str
    threads: Annotated[int, Field(ge=1, le=1024)]
    runs_dir: Annotated[str, Field(min_length=1)]
    log_every: Count  # steps
    eval_every: Cadence  # steps
    checkpoint_every: Cadence  # steps; 0: only at the end and when interrupted
    keep_checkpoints: Count
    tensorboard: bool
    expect: Expect
    algo: Any
    model: Any
    eval_required: bool = field(default=False, kw_only=True)  # an evaluation that fails ends the run
    logger: list[str | dict[str, Any]] | None = field(default=None, kw_only=True)  # None: TensorBoard if that is true
    published: str | None = field(default=None, kw_only=True)  # what others report
    name: str | None = field(default=None, kw_only=True)  # of the run, to find it by, as tags and notes
    tags: list[str] = field(default_factory=list, kw_only=True)
    notes: str | None = field(default=None, kw_only=True)
    max_time: str | None = field(default=None, kw_only=True)  # of computing, then the run waits to be resumed
    stop_at: float | None = field(default=None, kw_only=True)  # the score of an evaluation that ends the run

    def __post_init__(self) -> None:
        if self.max_time is not None and not seconds(self.max_time):
            raise ValueError(f"max_time={shown(self.max_time)}: must be a time above 0: 90s, 30m, 2h, 1h30m, 1d")
        if self.stop_at is not None and not self.eval_every:
            raise ValueError(f"stop_at={self.stop_at:g}: only an evaluation can reach it, and eval_every=0 makes none")

    @property
    def place(self) -> Any:
        """Where it learns: the section `env` or `task`."""
        return getattr(self, self.PLACE)


def seconds(text: str) -> float:
    """Of a time such as 90s, 1h30m or a number of seconds; 0 for what is none."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    units = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
    parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.replace(" ", ""))
    return float(sum(int(count or 0) * unit for count, unit in zip(parts.groups(), units.values()))) if parts else 0.0


def implementation(raw: Mapping[str, Any], section: str = "algo", example: str = "algo=ppo") -> str:
    """The name of the implementation that a section of a configuration, still plain data, asks for."""
    part = raw.get(section)
    if not isinstance(part, Mapping) or not isinstance(part.get("implementation"), str):
        raise ConfigError(
            f"{section}.implementation: missing (a section {section} with name and implementation, as in {example})"
        )
    return part["implementation"]


def validate(raw: Mapping[str, Any], kind: type[Config], own: Mapping[str, type]) -> Config:
    """The typed configuration: a `kind` whose sections are `own` and `expect`. Raises ConfigError, one line for the
    first fault."""
    if target := find_target(raw):
        raise ConfigError(f"{target}: '_target_' is refused: configurations are data and run no code")
    sections = {"expect": Expect, **own}
    parts = {name: _check(part, raw.get(name), name) for name, part in sections.items()}
    rest = {key: value for key, value in raw.items() if key not in sections}
    config = _check(kind, {**rest, **dict.fromkeys(sections)}, "", skip=set(sections))
    for name, part in parts.items():
        setattr(config, name, part)
    for section in ("algo", kind.PLACE):
        value = getattr(config, section).name
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ConfigError(
                f"{section}.name={value}: a name goes into the path of the run: letters, digits, '.', '_' and '-', "
                "beginning with a letter or digit, 100 at most"
            )
    return config


def section(kind: type, raw: Any, name: str) -> Any:
    """One section of a configuration as a `kind`. Raises ConfigError."""
    return _check(kind, raw, name)


def canonical(raw: Mapping[str, Any], typed: Any) -> dict[str, Any]:
    """The configuration as data with the numbers that its keys have: total_steps=1e5 and "100_000" are 100000."""

    def as_typed(value: Any, other: Any) -> Any:
        if isinstance(value, Mapping) and is_dataclass(other):
            return canonical(value, other)
        number = isinstance(other, int | float) and not isinstance(other, bool)
        return other if number and isinstance(value, float | str) else value  # gamma=1 may stay as it was written

    return {key: as_typed(value, getattr(typed, key, None)) for key, value in raw.items()}


def find_target(tree: Any, path: str = "") -> str | None:
    """The dotted name of a key `_target_`, with which Hydra's configurations name code to run."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            here = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                return here
            if target := find_target(value, here):
                return target
    return None


def _check(kind: type, raw: Any, section: str, skip: set[str] | None = None) -> Any:
    """`raw` as a `kind`: every key known, every value of its type and in its range."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{section or 'config'}={shown(raw)}: must be a section with keys")
    prefix = f"{section}." if section else ""
    names = [field.name for field in fields(kind)]
    for key in raw:
        if key not in names:
            raise ConfigError(f"{prefix}{key}: no such key{choices_hint(str(key), names, prefix)}")
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    for key in sorted(required - set(raw)):
        raise ConfigError(f"{prefix}{key}: missing (a value is needed)")
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for key, value in raw.items():
        values[key] = None if skip and key in skip else _value(hints[key], value, f"{prefix}{key}")
    try:
        return kind(**values)
    except ValueError as error:  # what __post_init__ checks between fields
        raise ConfigError(f"{prefix}{error}") from None


# -- one value -------------------------------------------------------------------------------------------------

_ADAPTERS: dict[str, TypeAdapter] = {}  # by hint: to make one takes longer than to use it a hundred times


def _value(hint: Any, value: Any, key: str) -> Any:
    kinds = _kinds(hint)
    if isinstance(value, bool) and not kinds & {bool, Any}:
        raise _refusal(hint, value, key)
    if isinstance(value, float) and not math.isfinite(value):
        raise _refusal(hint, value, key, finite=True)
    if str in kinds and isinstance(value, int | float):
        value = str(value)
    name = str(hint)
    if name not in _ADAPTERS:
        _ADAPTERS[name] = TypeAdapter(hint)
    try:
        typed = _ADAPTERS[name].validate_python(value)
        if isinstance(typed, float) and not abs(typed) <= LARGEST:
            raise _refusal(hint, value, key, finite=True)
        return typed
    except ValidationError as error:
        loc = next((fault["loc"] for fault in error.errors() if fault["loc"]), ())
        if isinstance(value, list) and loc and isinstance(loc[0], int):
            item = next((get_args(kind)[0] for kind in _parts(hint) if get_origin(kind) is list), Any)
            raise _refusal(item, value[loc[0]], f"{key}[{loc[0]}]") from None
        raise _refusal(hint, value, key) from None


def _refusal(kind: Any, value: Any, key: str, finite: bool = False) -> ConfigError:
    choices = [str(choice) for part in _parts(kind) if get_origin(part) is Literal for choice in get_args(part)]
    wanted = describe(kind).replace("a number", "a finite number" if finite else "a number")
    hint = did_you_mean(str(value), choices)
    if list in _kinds(kind) and isinstance(value, str | int | float):
        hint = f": {key}=[{value}]"
    return ConfigError(f"{key}={shown(value)}: must be {wanted}{hint}")


def _parts(hint: Any) -> list[Any]:
    """The alternatives of a type, without their annotations."""
    if get_origin(hint) is Annotated:
        return _parts(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [part for alternative in get_args(hint) for part in _parts(alternative)]
    return [hint]


def _kinds(hint: Any) -> set[Any]:
    return {get_origin(part) or part for part in _parts(hint)}


def describe(hint: Any) -> str:
    """A type and its range in words: 'a whole number from 0 to 4294967295'."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe(args[0]) + _range(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(part) for part in args)
    if origin is Literal:
        return " or ".join(", ".join(map(str, args)).rsplit(", ", 1))
    if origin is list:
        return f"a list [a, b, ...], each {describe(args[0])}"
    if origin is dict or hint is dict:
        return "a mapping {key: value, ...}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    return words.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _range(kind: Any, annotations: tuple[Any, ...]) -> str:
    limits: dict[str, Any] = {}
    for annotation in annotations:
        for constraint in getattr(annotation, "metadata", [annotation]):
            for name in ("ge", "gt", "le", "lt", "min_length"):
                if getattr(constraint, name, None) is not None:
                    limits[name] = getattr(constraint, name)
    if kind is int and "lt" in limits:
        limits["le"] = limits.pop("lt") - 1
    if "ge" in limits and "le" in limits and limits["le"] < 10**15:
        return f" from {limits['ge']} to {limits['le']}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{signs[name]} {value}" for name, value in limits.items() if name in signs]
    if len(bounds) == 2 and limits.get("le") == 10**15:
        bounds.pop()  # nobody means that one
    return (f" {' and '.join(bounds)}" if bounds else "") + (", not empty" if "min_length" in limits else "")
