"""Keys of the configuration: what the comment beside or above each says, and the range of its field.

The comment is that of the file itself, or of one that its defaults list names; else that of the field of a stranger's
dataclass; else that of the same key in one of rlx's own files of the group, or of the field of rlx's dataclass.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from rlx.config import own_code, registry
from rlx.explain import comments, source
from rlx.explain.comments import Comment
from rlx.explain.ranges import Field, fields

SECTIONS = ("algo", "env", "task", "model")
DEFAULTS = re.compile(r"^defaults:\n((?: +- .*\n)+)", re.MULTILINE)
MODELS = {"gpt": ("language/model/gpt.py", "GPTConfig"), "hf": ("language/model/gpt.py", "GPTConfig")}
MANY = 6  # owners or presets that are named


class Key(NamedTuple):
    name: str  # dotted
    owner: str  # the file of its group; "": one that configurations begin with
    text: str  # "": nobody explains it
    comment: Comment | None
    field: Field | None

    @property
    def summary(self) -> str:
        return comments.parts_of(self.text)["what"]


# -- one file ------------------------------------------------------------------------------------------------------


def of(group: str, option: str) -> dict[str, Key]:
    """The keys of a choice of a group, by their names in it: of("algo", "ppo")["clip_coef"]."""
    chain = _chain(group, option)
    known = fields_of(group, option)
    written: dict[str, Comment] = {}
    for path in chain:
        for name, one in comments.comments(path).items():
            if name.partition(".")[0] != "defaults":
                value = one.value if name not in written else written[name].value
                written[name] = one._replace(value=value) if one.text or name not in written else written[name]
    keys = {}
    for name in dict.fromkeys([*written, *known]):
        comment, field = written.get(name), known.get(name)
        text = (comment.text if comment else "") or _text_of(field, group, name)
        keys[name] = Key(f"{group}.{name}", option, text, comment, field)
    return keys


def _chain(group: str, option: str) -> list[Path]:
    """The file of a choice, and those that its defaults list names, the nearest first."""
    known, chain, names = options(group), [], [option]
    while names:
        path = known.get(names.pop())
        if path and path not in chain:
            chain.append(path)
            if found := DEFAULTS.search(source.text_of(path)):
                names += [name for name in re.findall(r"- (\S+)", found[1]) if name != "_self_"]
    return chain


def base_of(group: str, option: str) -> str:
    """The choice that a variant is a variant of; itself, where it is none."""
    return _chain(group, option)[-1].stem


def _text_of(field: Field | None, group: str, name: str) -> str:
    """What others say of a key of that name."""
    said = field.comment if field else ""
    if field and said and not field.path.is_relative_to(source.RLX):
        return said
    return _elsewhere(group, name) or said


def _elsewhere(group: str, name: str) -> str:
    for path in sorted((registry.conf_dir() / group).glob("*.yaml")):
        one = comments.comments(path).get(name)
        if one and one.text:
            return one.text
    return ""


def implementation(option: str, group: str = "algo") -> str:
    """Whose code a choice runs."""
    values = (comments.comments(path).get("implementation") for path in _chain(group, option))
    return next((one.value for one in values if one), option)


def fields_of(group: str, option: str) -> dict[str, Field]:
    """The fields of the dataclass that checks a section."""
    if group == "algo":
        path = source.algorithm_file(implementation(option))
        return fields(path) if path else {}
    if group == "task":
        name = implementation(option, "task")
        own = source.RLX / "language" / "tasks" / f"{name}.py"
        path = own if own.is_file() else own_code.folder() / "tasks" / f"{name}.py"
        return fields(path) or fields(source.RLX / "language" / "tasks" / "base.py", "TaskConfig")
    if group == "env":
        return fields(source.RLX / "envs" / "single.py", "EnvConfig")
    if group == "model":
        file, name = MODELS.get(option, ("control/networks.py", "ModelConfig"))
        return fields(source.RLX / file, name)
    return {}


def top(world: str) -> dict[str, Key]:
    """The keys of the file that configurations of a world begin with."""
    first = registry.PRIMARY[world]
    written = comments.comments(registry.conf_dir() / f"{first}.yaml")
    names = {"control": "ControlConfig", "language": "LanguageConfig"}
    known = fields(source.RLX / world / "config.py", names[world])
    expect = fields(source.RLX / "config" / "schema.py", "Expect")
    known = known | {f"expect.{name}": field for name, field in expect.items()}
    keys = {}
    for name, one in written.items():
        if name.partition(".")[0] not in ("defaults", "hydra"):
            field = known.get(name)
            keys[name] = Key(name, "", one.text or (field.comment if field else ""), one, field)
    return keys


@cache
def _options(_folder: Path, group: str) -> dict[str, Path]:
    return registry.options(group)


def options(group: str) -> dict[str, Path]:
    """The choices of a group and their files."""
    return _options(own_code.folder(), group)


# -- all of them -----------------------------------------------------------------------------------------------------


def every(group: str = "") -> dict[str, list[Key]]:
    """All keys, or those of a section ("top": those of none), by their dotted names, each with those who have it."""
    known: dict[str, list[Key]] = {}
    for each in [group] if group else ["top", *SECTIONS]:
        for key in _of_group(own_code.folder(), each):
            known.setdefault(key.name, []).append(key)
    return known


@cache
def _of_group(_folder: Path, group: str) -> list[Key]:
    if group == "top":
        return [key for world in registry.PRIMARY for key in top(world).values()]
    return [key for option in options(group) for key in of(group, option).values()]


def find(name: str) -> str | None:
    """The key that a word names: whole, without its section, or with a value behind it."""
    name, known = name.partition("=")[0].lstrip("+"), texts()
    section = name.partition(".")[0]
    for key in (name, *(f"{group}.{name}" for group in SECTIONS)):
        if key in known:
            return key
    return name if section in SECTIONS and name in every(section) else None  # that no file writes: env.seeding


def is_variant(option: str) -> bool:
    """Is a choice of algo= a file over another one?"""
    return DEFAULTS.search(source.text_of(options("algo")[option])) is not None


def texts() -> dict[str, list[str]]:
    """What the YAML files say of each key; without the fields, which take a while to read."""
    return _texts(own_code.folder())


@cache
def _texts(folder: Path) -> dict[str, list[str]]:
    known: dict[str, list[str]] = {}
    files = [("", registry.conf_dir() / f"{first}.yaml") for first in registry.PRIMARY.values()]
    files += [(f"{group}.", path) for group in SECTIONS for path in _options(folder, group).values()]
    for prefix, path in files:
        for name, one in comments.comments(path).items():
            if name.partition(".")[0] not in ("defaults", "hydra"):
                said = known.setdefault(f"{prefix}{name}", [])
                said += [one.text] * (bool(one.text) and one.text not in said)
    return known


def section_of(name: str) -> str:
    section = name.partition(".")[0]
    return section if section in SECTIONS else "top"


def explain(name: str) -> list[str]:
    """The page of a key: for each explanation, who has it."""
    groups: dict[tuple[str, str], list[Key]] = {}
    for key in every(section_of(name))[name]:
        groups.setdefault((key.text, key.field.range if key.field else ""), []).append(key)
    lines: list[str] = []
    for (text, scope), listed in groups.items():
        first = next((key for key in listed if key.comment and key.comment.text), listed[0])
        parts = comments.parts_of(text)
        owners = _some([key.owner for key in listed if key.owner])
        lines.append(f"{name}, a key of {owners or 'every run'}")
        lines.append(f"what: {parts['what'] or 'nobody has written what it means'}")
        lines += [f"range: {scope}"] * bool(scope) + [f"default: {_values(listed)}"]
        lines += [f"{part}: {parts[part]}" for part in comments.PARTS if part in parts]
        places = [one.place for one in (first.comment, first.field) if one]
        lines += [f"where: {', '.join(places)}", ""]
    if tuned := _tuned(name):
        lines += ["presets that set it:", *(f"  {line}" for line in tuned), ""]
    return [*lines, f"try it: {_command(every(section_of(name))[name][0])}"]


def _values(listed: list[Key]) -> str:
    """0.2; or, where its owners differ, 0.1 (q_learning), 3e-4 (ppo)."""
    by_value: dict[str, list[str]] = {}
    for key in listed:
        if key.comment:
            by_value.setdefault(key.comment.value or "(a section)", []).append(key.owner)
    if len(by_value) == 1:
        return next(iter(by_value))
    return ", ".join(f"{value} ({_some(owners)})" for value, owners in by_value.items()) or "none is written"


def _some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


def _tuned(name: str) -> list[str]:
    """Which presets set a key to what."""
    by_value: dict[str, list[str]] = {}
    for option, path in options("preset").items():
        if (one := comments.comments(path).get(name)) and one.value:
            by_value.setdefault(one.value, []).append(option)
    return [f"{value}: {_some(names)}" for value, names in by_value.items()]


def _command(key: Key) -> str:
    value = key.comment.value if key.comment and key.comment.value else "..."
    group = key.name.partition(".")[0]
    choice = f"{group}={key.owner} " if key.owner and group in SECTIONS else ""
    return f"rlx train {choice}{key.name}={value}"
