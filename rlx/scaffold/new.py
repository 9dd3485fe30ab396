"""rlx new: files of one's own to begin with, beside one, where rlx finds them (rlx.config.plugins)."""

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from rlx import __version__
from rlx.base.errors import UserError, choices_hint
from rlx.base.files.atomic import write_atomically
from rlx.config import own_code, plugins, registry

TEMPLATES = Path(__file__).parent / "templates"
NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")


def algo(name: str, source: str) -> list[Path]:
    """./algos/NAME.py and ./conf/algo/NAME.yaml, copied from another algorithm, whose presets serve it, too; with its
    ranges. Returns what was written. Raises UserError."""
    _check(name, "algo")
    files = registry.options("algo")
    if source not in files:
        raise UserError(f"--from={source}: no such algorithm{choices_hint(source, files, where='rlx list algos')}")
    implementation = registry.values("algo", source).get("implementation")
    code = plugins.find("algos", str(implementation))
    path = code.path()
    if path is None:
        raise UserError(f"--from={source}: its source is not here ({code.where})")
    origin = f"rlx {__version__}" if code.where == "rlx" else code.where
    header = f"# Copied from {path.parent.name}/{path.name} of {origin}, to be changed.\n"
    written = {
        Path("algos", f"{name}.py"): header + path.read_text(encoding="utf-8"),
        Path("conf", "algo", f"{name}.yaml"): _renamed(files[source].read_text(encoding="utf-8"), name, source, origin),
    }
    if ranges := registry.options("sweep").get(source):
        written[Path("conf", "sweep", f"{name}.yaml")] = ranges.read_text(encoding="utf-8")
    return _write(written)


def env(name: str) -> list[Path]:
    """./envs/NAME.py and ./conf/env/NAME.yaml."""
    return _from_template("env", name)


def task(name: str) -> list[Path]:
    """./tasks/NAME.py and ./conf/task/NAME.yaml."""
    return _from_template("task", name)


def _from_template(group: str, name: str) -> list[Path]:
    _check(name, group)
    kind = "".join(part.capitalize() for part in name.split("_"))
    written = {}
    for template, path in ((f"{group}.py", f"{group}s/{name}.py"), (f"{group}.yaml", f"conf/{group}/{name}.yaml")):
        text = (TEMPLATES / template).read_text(encoding="utf-8").replace("Template", kind).replace("NAME", name)
        written[Path(path)] = text.replace("  # type: ignore[override]", "")
    return _write(written)


def _check(name: str, group: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserError(f"new {group} {name}: must be a name of Python: small letters, digits and _, a letter first")
    if name in registry.options(group):
        raise UserError(f"new {group} {name}: there is one already (rlx list {group}s); take another name")


def _renamed(text: str, name: str, source: str, origin: str) -> str:
    """The YAML of an algorithm under another name, with a file of its own."""
    lines = [line for line in text.splitlines() if not re.match(r"(name|implementation|preset_of):", line)]
    lines.insert(0, f"# My own, copied from {source} of {origin}.")
    place = next(i for i, line in enumerate(lines) if re.match(r"(?!defaults)\w+:", line))
    tuning = (
        f"preset_of: {source}  # its tuned values serve here, too, but for what is changed below; its promises do not"
    )
    lines[place:place] = [f"name: {name}", f"implementation: {name}", tuning]
    return "\n".join(lines) + "\n"


def _write(files: Mapping[Path, str]) -> list[Path]:
    """All of them or none. Raises UserError where one is there already."""
    for path in files:
        if path.exists():
            raise UserError(f"{path}: exists already; nothing was written")
    done: list[Path] = []
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode(), durable=False)
            done.append(path)
    except OSError as error:
        for path in done:
            path.unlink(missing_ok=True)
        raise UserError(
            f"{error.filename or own_code.folder()}: {error.strerror or error}; nothing was written"
        ) from None
    return done
