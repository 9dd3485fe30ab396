"""Which configuration file of the user's is at fault. Asked once something has gone wrong, but for `check_size`."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from rlx.base.errors import ConfigError
from rlx.base.files import guarded
from rlx.config import registry

MAX_BYTES, MAX_VALUES = 1_000_000, guarded.VALUES  # of one file; aliases of aliases grow without bound

GLOBAL = ("experiment", "preset", "as")  # groups whose files set keys of other sections


def check_size(config_dir: Path | None) -> None:
    """Raises ConfigError for a file that would keep YAML busy for minutes."""
    groups = registry.groups()
    for path in _files(config_dir):
        if path.parent.name in groups:
            with contextlib.suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
                if path.stat().st_size > MAX_BYTES:
                    raise ConfigError(f"{near(path)}: {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
                text = path.read_text(encoding="utf-8")
                if "&" in text and "*" in text and guarded.expanded(text) > MAX_VALUES:
                    raise ConfigError(f"{near(path)}: its aliases (*) expand to more than {MAX_VALUES:,} values")


def not_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is not None:
        return f"{near(mark.name)}, line {mark.line + 1}: not YAML: {problem}"
    return f"{near(getattr(error, 'name', 'a configuration file'))}: not YAML: {problem}"


def not_utf8(error: UnicodeDecodeError, config_dir: Path | None) -> str:
    for path in _files(config_dir):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError as damage:
            return f"{near(path)}: not UTF-8 (byte {damage.start}); save the file as UTF-8"
    return f"a configuration file is not UTF-8 (byte {error.start})"


def not_keys(config_dir: Path | None) -> str:
    """The error for a file that is YAML, but neither empty nor a section."""
    for path in _files(config_dir):
        with contextlib.suppress(yaml.YAMLError, UnicodeDecodeError, OSError):
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict | None):
                kind = "list" if isinstance(content, list) else "single value"
                return f"{near(path)}: must be keys with values, not a {kind}"
    return "a configuration file must be keys with values, not a single value"


def source(message: str, overrides: list[str], config_dir: Path | None) -> str:
    """' [FILE]' where the key that a message begins with stands in a file of the user's or of a plug-in's, or in one of
    GLOBAL that was asked for by name."""
    match = re.match(r"[A-Za-z_][\w.]*", message)
    if match is None or any(word.lstrip("+").startswith(match[0]) for word in overrides):
        return ""
    section, _, key = match[0].rpartition(".")
    group = section.partition(".")[0]
    given = dict(word.split("=", 1) for word in overrides if "=" in word)
    for name in GLOBAL:
        if (file := registry.options(name, config_dir).get(given.get(name, ""))) and _sets(Path(file), key):
            return f" [set by {name}={given[name]}]"
    chosen = given.get(group or "experiment", "")
    begins = [f"{name}.yaml" for name in registry.PRIMARY.values()]
    files = [path for path in _files(config_dir) if path.stem == chosen or path.name in begins]
    if "no such key" in message:  # a mistyped word is rare enough to look for it everywhere
        files += _files(config_dir)
    for path in files:
        if _sets(path, key):
            return f" [{near(path)}]"
    return ""


def _sets(path: Path, key: str) -> bool:
    """Does the key stand in this file?"""
    with contextlib.suppress(UnicodeDecodeError, OSError):
        return re.search(rf"(?m)^\s*{re.escape(key)}\s*:", path.read_text(encoding="utf-8")) is not None
    return False


def _files(config_dir: Path | None) -> Iterator[Path]:
    """The files that are not rlx's own."""
    for directory in registry.conf_dirs(config_dir):
        if directory != registry.conf_dir().resolve():
            yield from sorted(directory.rglob("*.yaml"))


def near(path: Path | str) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(path).relative_to(Path.cwd()))
    return str(path)
