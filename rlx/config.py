"""The typed configuration of a run. YAML holds the values; the dataclasses hold names, types and ranges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from rlx.errors import ConfigError, did_you_mean


@dataclass
class Expect:
    """What the preset's author saw: what to expect of a run, and where the numbers come from."""

    score: float | None  # mean return of the final policy
    steps: int | None  # after this many
    seconds: float | None  # of one run on one core
    source: str | None


@dataclass
class Config:
    """Everything that decides a run. The sections `algo`, `env` and `model` have their own dataclasses."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    total_steps: Annotated[int, Field(ge=1)]
    device: str
    threads: Annotated[int, Field(ge=1, le=1024)]
    runs_dir: Annotated[str, Field(min_length=1)]
    log_every: Annotated[int, Field(ge=1)]  # steps
    eval_every: Annotated[int, Field(ge=0)]  # steps; 0: never
    eval_episodes: Annotated[int, Field(ge=1)]
    checkpoint_every: Annotated[int, Field(ge=0)]  # steps; 0: only at the end and when interrupted
    keep_checkpoints: Annotated[int, Field(ge=1)]
    video: bool  # a GIF of the agent at each evaluation milestone
    tensorboard: bool
    expect: Expect
    algo: Any
    env: Any
    model: Any


def implementation(raw: Mapping[str, Any]) -> str:
    """The name of the algorithm's implementation in a configuration that is still plain data."""
    algo = raw.get("algo")
    if not isinstance(algo, Mapping) or not isinstance(algo.get("implementation"), str):
        raise ConfigError("algo: must be a section with name and implementation (see conf/algo/ppo.yaml)")
    return algo["implementation"]


def validate(raw: Mapping[str, Any], algo: type) -> Config:
    """The typed configuration, with `algo` as the type of its section. Raises ConfigError, one line for the first
    fault."""
    from rlx.control.envs import EnvConfig
    from rlx.control.nets import ModelConfig

    if found := _find_target(raw):
        raise ConfigError(f"{found}: '_target_' is refused: configurations are data and run no code")
    sections = {"expect": Expect, "algo": algo, "env": EnvConfig, "model": ModelConfig}
    parts = {name: _check(kind, raw.get(name), name) for name, kind in sections.items()}
    rest = {key: value for key, value in raw.items() if key not in sections}
    config = _check(Config, {**rest, **dict.fromkeys(sections)}, "", skip=set(sections))
    for name, part in parts.items():
        setattr(config, name, part)
    for key in ("algo.name", "env.name"):
        section, field = key.split(".")
        value = getattr(getattr(config, section), field)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ConfigError(f"{key}={value}: a name is letters, digits, '.', '_' and '-', 100 at most")
    return config


def _find_target(tree: Any, path: str = "") -> str | None:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            here = f"{path}.{key}" if path else str(key)
            if key == "_target_":
                return here
            if found := _find_target(value, here):
                return found
    return None


def _check(kind: type, raw: Any, section: str, skip: set[str] | None = None) -> Any:
    """`raw` as a `kind`: every key known, every value of its type and in its range."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{section or 'config'}: must be a section with keys, got {raw!r}")
    prefix = f"{section}." if section else ""
    names = [field.name for field in fields(kind)]
    for key in raw:
        if key not in names:
            hint = did_you_mean(str(key), names)
            raise ConfigError(f"{prefix}{key}: no such key{hint} (there: {', '.join(sorted(names))})")
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


_ADAPTERS: dict[Any, TypeAdapter] = {}


def _value(hint: Any, value: Any, key: str) -> Any:
    if isinstance(value, bool) and hint is not bool and bool not in get_args(hint) and hint is not Any:
        raise ConfigError(f"{key}={value}: must be a {_wanted(hint)}, not a truth value")
    if isinstance(value, float) and not (abs(value) < float("inf")):
        raise ConfigError(f"{key}={value}: must be a finite number")
    adapter = _ADAPTERS.setdefault(
        str(hint) + key, TypeAdapter(hint, config=None if is_dataclass(hint) else ConfigDict(strict=False))
    )
    if hint is str and isinstance(value, int | float):
        value = str(value)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = min(error.errors(), key=lambda fault: fault["type"] == "none_required")
        where = key + "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
        message = first["msg"].replace("Input should be ", "must be ")
        hint_text = ""
        if first["type"] == "literal_error":
            hint_text = did_you_mean(str(first["input"]), re.findall(r"'([^']*)'", first["msg"]))
        raise ConfigError(f"{where}={first['input']}: {message}{hint_text}") from None


def _wanted(hint: Any) -> str:
    text = str(hint)
    return "number" if "int" in text or "float" in text else "value of its type"
