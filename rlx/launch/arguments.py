"""The words after `rlx train`, sorted and checked before Hydra sees them.

Hydra 1.3 wants its flags before the overrides and answers a wrong one with a page of usage; here they may stand
anywhere, and a wrong one is a line.
"""

import contextlib
import os
import re
import unicodedata
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from rlx.base.errors import ConfigError, choices_hint, closest, shown
from rlx.config import kind, registry
from rlx.launch import foreign
from rlx.rundir import home

SHORT = {
    "-j": "--jobs",
    "-h": "--help", "-r": "--run", "-m": "--multirun", "-c": "--cfg", "-p": "--package", "-i": "--info",
    "-cn": "--config-name", "-cd": "--config-dir", "-cp": "--config-path", "-sc": "--shell-completion",
}  # fmt: skip
OWN = ("--continue", "--dry-run", "--verbose", "--quiet", "--json")  # not Hydra's
SWITCHES = ("--help", "--hydra-help", "--version", "--resolve", "--run", "--multirun", *OWN)
VALUED: dict[str, tuple[str, ...]] = {  # flag: the values it takes, () for any
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
    "--config-name": (),
    "--config-dir": (),
    "--jobs": (),
}
REFUSED = {
    "--config-path": "it would replace rlx's own files; add yours with --config-dir DIR or put them into ./conf",
    "--shell-completion": "use `rlx completion bash` (or zsh, fish)",
    "--experimental-rerun": "it unpickles a file; use `rlx resume RUN`, or the command that `rlx show RUN` prints",
}
ACTIONS = ("--run", "--multirun", "--cfg", "--info")


@dataclass
class Words:
    """Flags by their long names, with their values (None for switches), and overrides in their order."""

    flags: dict[str, str | None] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    file: Path | None = None  # that holds the whole configuration

    @property
    def multirun(self) -> bool:
        return "--multirun" in self.flags or "hydra.mode=MULTIRUN" in self.overrides

    @property
    def trains(self) -> bool:
        """Whether this starts runs, and does not only print something."""
        return not {"--help", "--hydra-help", "--version", "--cfg", "--info"} & set(self.flags)

    @property
    def config_dir(self) -> Path | None:
        given = self.flags.get("--config-dir")
        return Path(given).absolute() if given else None


def split(argv: list[str]) -> Words:
    """Sort the words and check the flags. Raises ConfigError."""
    words = Words()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words.overrides += rest
            break
        if not word.startswith("-"):
            words.overrides.append(_as_note(word))
            continue
        typed, equals, value = word.partition("=")
        flag = SHORT.get(typed, typed)
        if flag in REFUSED:
            raise ConfigError(f"{typed}: {REFUSED[flag]}")
        if flag in SWITCHES:
            if equals:
                raise ConfigError(f"{word}: {flag} takes no value")
            words.flags[flag] = None
        elif flag in VALUED:
            words.flags[flag] = value if equals else _value(flag, rest)
            _check_value(flag, words.flags[flag])
        else:
            raise ConfigError(_no_flag(typed, argv))
    _check_combination(words)
    place = os.environ.get(home.VARIABLE)
    if place and not any(word.lstrip("+").startswith(home.KEY) for word in words.overrides):
        words.overrides.append(f"{home.KEY}{quoted(place)}")
    files = [word for word in words.overrides if "=" not in word and word.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise ConfigError(f"{files[1]}: one file holds the whole configuration; there is {files[0]} already")
    if files:
        words.overrides.remove(files[0])
        words.file = Path(files[0])
    words.overrides = [_as_choice(word) for word in words.overrides]
    return words


def _as_choice(word: str) -> str:
    """+experiment=NAME, as other programs have it, is experiment=NAME here, and algo=ppo.yaml is algo=ppo."""
    key, equals, value = word.partition("=")
    group = key.lstrip("+")
    if not equals or group not in registry.groups():
        return word
    names = value.split(",")
    for name in names:
        if name.startswith("./") and name.endswith((".yaml", ".yml")) and Path(name).is_file():
            raise ConfigError(
                f"{word}: a choice is a file of ./conf/{group}: put it there, then {group}={Path(name).stem}"
            )
    return f"{group}={','.join(re.sub(r'^(?:[.]/)?(.*[.])ya?ml$', lambda m: m[1][:-1], name) for name in names)}"


def _as_note(word: str) -> str:
    """notes=... as one text, whatever is in it."""
    key, equals, value = word.partition("=")
    return f"{key}={quoted(value)}" if equals and key == "notes" and value[:1] not in "'\"" else word


def _no_flag(typed: str, argv: list[str]) -> str:
    """What to type instead of a flag that is none: a key, which other tools have as flags, or another flag."""
    close = closest(typed.lstrip("-"), [name[2:] for name in (*SWITCHES, *VALUED)]) if len(typed) > 3 else None
    if close:
        return f"{typed}: no such flag; did you mean --{close}? (rlx train --help)"
    chosen = [f"{flag[2:]}={value}" for flag, value in zip(argv, argv[1:]) if flag in ("--algo", "--env", "--task")]
    known = {*kind.keys([*(word for word in argv if not word.startswith("-")), *chosen]), *registry.groups()}
    given, meant, rest = [], [], list(argv)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if not flag.startswith("-") or SHORT.get(flag, flag) in (*SWITCHES, *VALUED):
            continue
        if not equals and rest and not rest[0].startswith("-") and "=" not in rest[0]:
            value = rest.pop(0)
        if (word := foreign.worded(flag, value or None, known)) is None:
            return f"{flag}: no such flag (rlx train --help)"
        given.append(f"{flag} {value}".rstrip())
        meant.append(word)
    return f"{' '.join(given)}: rlx takes key=value: {' '.join(meant)}"


def _value(flag: str, rest: list[str]) -> str:
    if flag == "--info" and (not rest or rest[0].startswith("-") or "=" in rest[0]):
        return "all"
    if not rest or rest[0].startswith("-"):
        raise ConfigError(f"{flag}: needs a value ({', '.join(VALUED[flag]) or flag + ' X'})")
    return rest.pop(0)


def _check_value(flag: str, value: str | None) -> None:
    if value is None:
        return
    if VALUED[flag] and value not in VALUED[flag]:
        raise ConfigError(f"{flag}={value}: no such choice{choices_hint(value, VALUED[flag])}")
    if flag == "--jobs" and not (value.isdecimal() and 1 <= int(value) <= 256):
        raise ConfigError(f"-j={value}: must be a number of jobs at once, from 1 to 256")
    if flag == "--config-dir" and not Path(value).is_dir():
        raise ConfigError(f"--config-dir={value}: no such directory")


def _check_combination(words: Words) -> None:
    given = [flag for flag in ACTIONS if flag in words.flags]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)}: only one of them at a time")
    if "--continue" in words.flags and not words.multirun:
        raise ConfigError("--continue: only with a grid (rlx train -m ... --continue); of one run: rlx resume RUN")
    if "--jobs" in words.flags and not words.multirun:
        raise ConfigError("-j: only with a grid (rlx train -m ... -j 4)")
    if "--jobs" in words.flags and (other := [word for word in words.overrides if word.startswith("hydra/launcher=")]):
        raise ConfigError(f"-j: {other[0]} decides how many jobs run at once")
    if "--quiet" in words.flags and "--json" in words.flags:
        raise ConfigError("--quiet and --json: only one of them at a time")
    if "--dry-run" in words.flags and not words.trains:
        raise ConfigError("--dry-run: only with what would train (without --help, --cfg, --info)")
    if "--resolve" in words.flags and not {"--cfg", "--help"} & set(words.flags):
        raise ConfigError("--resolve: only with --cfg (rlx train --cfg job --resolve)")


def quoted(text: str) -> str:
    """A text as a value of an override."""
    if re.fullmatch(r"[\w./+-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# -- overrides -------------------------------------------------------------------------------------------------

OPEN = re.compile(
    r"(env|eval_env)\.\w|model\.encoder="
)  # sections with keys that their file need not list; the schema knows them


PATHS = ("runs_dir", "init", "algo.reward_model", "model.path", "task.file")
TEXT = (  # keys whose values stay as they are typed, also where they look like numbers
    *PATHS, "name", "notes", "max_time", "device", "algo.name",
    "algo.implementation", "model.encoder", "env.id", "env.name", "eval_env.id",
    "eval_env.name", "task.name", "task.implementation", "task.alphabet", "expect.source",
    "expect.metric", "published",
)  # fmt: skip
NUMBER = re.compile(r"[-+]?((\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(e[-+]?\d[\d_]*)?|nan|inf)", re.IGNORECASE)


def for_hydra(words: list[str]) -> list[str]:
    """The overrides as Hydra takes them: a key of such a section is added where it is not there, and text is text."""
    return [f"++{word}" if OPEN.match(word) else word for word in map(_as_text, words)]


def _as_text(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if name in PATHS and (home := re.fullmatch(r"""(["']?)(~(?:/.*)?)\1""", value)):
        value = os.path.expanduser(home[2])
    elif name not in TEXT or not NUMBER.fullmatch(value):
        return word
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}{equals}"{escaped}"'


def overrides(words: list[str], multirun: bool = False, config_dir: Path | None = None) -> list[Override]:
    """The overrides, parsed and checked as far as that goes without composing. Raises ConfigError."""
    groups = registry.groups()
    parser = OverridesParser.create()
    parsed = []
    for word in words:
        _check_form(word, groups)
        override = _parse(parser, word)
        parsed.append(override)
        if override.key_or_group == "hydra.output_subdir":
            raise ConfigError(f"{word}: rlx writes the configuration itself, into the run's directory")
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"{word}: several values make a grid: rlx train -m {word}")
        if override.key_or_group in groups:
            _check_choice(override, word, config_dir)
    return parsed


def _check_form(word: str, groups: list[str]) -> None:
    if "=" not in word and not word.startswith("~"):
        meant = next((f"; did you mean {group}={word}?" for group in groups if word in registry.options(group)), "")
        raise ConfigError(f"{shown(word)}: must be key=value{meant} (rlx train --help lists the keys)")
    key = re.sub(r"^(\+{0,2}|~)", "", word.partition("=")[0])
    if strange := next((letter for letter in key if ord(letter) > 127), None):
        raise ConfigError(
            f"cannot read '{word}': the key has a {unicodedata.name(strange, hex(ord(strange)))}; keys are plain ASCII"
        )
    if key != key.strip():
        raise ConfigError(f"cannot read '{word}': no spaces around the '='")
    if not re.match(r"[A-Za-z_]", key):
        raise ConfigError(f"cannot read '{word}' (must be key=value, +key=value or ~key)")


def _parse(parser: OverridesParser, word: str) -> Override:
    """One override; a value whose letters Hydra's grammar lacks (größe) is quoted for it."""
    try:
        return parser.parse_override(word)
    except HydraException:
        key, _, value = word.partition("=")
        if not set(value) & set("()[]{}'\"$,\\"):
            with contextlib.suppress(HydraException):
                return parser.parse_override(f'{key}="{value}"')
    raise ConfigError(f"cannot read '{word}': {_unreadable(parser, word)}") from None


def _unreadable(parser: OverridesParser, word: str) -> str:
    """Why Hydra's grammar does not take a word, and one that it takes, where that is what was meant."""
    key, equals, value = word.partition("=")
    if re.search(r"\[\w+\]", key):
        meant = re.sub(r"\[(\w+)\]", r".\1", key) + equals + value
        return f"the key has brackets{_if_read(parser, meant)}"
    for opening, closing in ("[]", "{}", "()"):
        more = value.count(opening) - value.count(closing)
        if more:
            return f"a '{closing if more > 0 else opening}' is missing"
    for quote in "'\"":
        if value.count(quote) % 2:
            return f"a closing {quote} is missing"
    if re.search(r"(^|,)\s*(,|$)", value):
        values = ",".join(filter(None, value.split(",")))
        return f"a ',' is too many{_if_read(parser, f'{key}={values}')}"
    quoted = _if_read(parser, f'{key}="{value}"')
    return f"a value with such characters needs quotes of its own{quoted}" if quoted else "that is no key=value"


def _if_read(parser: OverridesParser, word: str) -> str:
    """A proposal, if Hydra can read it."""
    try:
        parser.parse_override(word)
    except HydraException:
        return ""
    return f", '{word}'"


def _check_choice(override: Override, word: str, config_dir: Path | None) -> None:
    """What Hydra would not refuse, or not by name."""
    group = override.key_or_group
    names = registry.options(group, config_dir)
    if override.is_delete():
        raise ConfigError(f"{word}: a run needs one (for the default, leave the word out)")
    if override.package is not None:
        raise ConfigError(f"{word}: a group has one place here: {group}={override.value()}")
    where = f"rlx list {group}s" if group in ("algo", "env", "task", "preset") else ""
    for value in _values(override):
        if isinstance(value, list):
            several = ",".join(str(one) for one in value)
            raise ConfigError(f"{word}: needs one name (one run for each: -m {group}={several})")
        if not isinstance(value, str | dict) or not value:
            none = "none: without one" if group == "preset" else ""
            raise ConfigError(f"{word}: needs a name{choices_hint(str(value or ''), names, more=none, where=where)}")
        if isinstance(value, str) and ".." in value.split("/"):
            raise ConfigError(f"{word}: must be a name, not a path{choices_hint(value, names, where=where)}")
        if group == "preset" and isinstance(value, str) and not _is_preset(value, names, config_dir):
            raise ConfigError(f"preset={value}: no such preset{choices_hint(value, names, where=where)}")


def _is_preset(name: str, names: Container[str], config_dir: Path | None) -> bool:
    return name in names or "$" in name or registry.inherited(name, config_dir) is not None


def _values(override: Override) -> list[Any]:
    if override.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        return list(override.sweep_string_iterator())
    return [] if override.is_sweep_override() else [override.value()]
