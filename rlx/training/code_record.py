"""What run.json says of the code and the files that decide a run and are not rlx's (rlx has its version and commit).

    folder       where the run was started, if code of that folder has a name in its configuration
    signature    that this machine recorded it: see rlx.config.own_code
    references   the names of such code in the configuration, and where each was found
    modules      of the folder or of a plug-in's distribution, loaded when the run had been built: sha256 of the source
    digest       of all of those, twelve hex digits
    repositories commit and state of the git repositories that they are in; their uncommitted changes are code.patch
    data         the files that the configuration names

A module that is loaded later (inside a function) is missed, until the run is resumed.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rlx.base.errors import ConfigError
from rlx.config import own_code, plugins
from rlx.config.plugins import RLX, Source
from rlx.rundir import provenance
from rlx.rundir.provenance import Provenance, git

PATCH, MOST = "code.patch", 1_000_000  # bytes
Files = dict[str, tuple[Path, dict[str, str]]]  # {name: (file, {distribution, sha256})}


# -- names -----------------------------------------------------------------------------------------------------


def names(raw: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The names of code in a configuration: {key: (kind, name)}."""
    found: dict[str, tuple[str, str]] = {}

    def add(key: str, kind: str, value: Any) -> None:
        value = value.get("name") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            found[key] = kind, value

    for section, kind in (("algo", "algos"), ("task", "tasks")):
        add(f"{section}.implementation", kind, (raw.get(section) or {}).get("implementation"))
    add("model.encoder", "models", (raw.get("model") or {}).get("encoder"))
    for section in ("env", "eval_env"):
        part = raw.get(section) or {}
        add(f"{section}.id", "envs", part.get("id"))
        for i, item in enumerate(_list(part.get("wrappers"))):
            add(f"{section}.wrappers[{i}]", "wrappers", item)
    for i, item in enumerate(_list(raw.get("logger"))):
        add(f"logger[{i}]", "loggers", item)
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def sources(raw: Mapping[str, Any]) -> dict[str, Source]:
    """Of those that are not rlx's, where they are."""
    found = {}
    for key, (kind, name) in names(raw).items():
        with contextlib.suppress(ConfigError):  # said where it is loaded
            if (source := plugins.source(kind, name)) and source.where != "rlx":
                found[key] = source
    return found


# -- a new record ----------------------------------------------------------------------------------------------


def new(raw: Mapping[str, Any], packages: Iterable[str] = (), paths: Iterable[str] = ()) -> dict[str, Any] | None:
    """What to record of a run that has been built; None where all of it is rlx's. `packages`: modules that the world
    needs besides; `paths`: the keys that name files."""
    found = sources(raw)
    own, files = _loaded(found, packages)
    references = {key: _reference(source) for key, source in found.items()}
    modules = _modules(files)
    record: dict[str, Any] = {}
    if own:
        place = str(own_code.folder())
        record |= {"folder": place, "signature": own_code.signature(place, _signed(raw))}
    if references:
        record["references"] = references
    if modules:
        record |= {"modules": modules, "digest": digest(modules)}
    if repositories := _repositories([path for path, _ in files.values()]):
        record["repositories"] = repositories
    if data := _data(raw, paths):
        record["data"] = data
    return record or None


def _loaded(found: Mapping[str, Source], packages: Iterable[str]) -> tuple[bool, Files]:
    """Whether code of the folder is in use, and what is loaded of it and of packages."""
    entries = [_reference(source) for source in found.values()]
    tops = {_top(entry["module"]): entry["distribution"] for entry in entries if entry.get("distribution")}
    tops |= {_top(name): _distribution(name) for name in packages}
    own = any(source.own for source in found.values()) or _runs_script()
    return own, _files(tops, own)


def _modules(files: Files) -> list[dict[str, str]]:
    return [{"name": name, **entry} for name, (_, entry) in sorted(files.items())]


def _signed(raw: Mapping[str, Any]) -> list[str]:
    return [f"{key}={name}" for key, (_, name) in names(raw).items()]


def _reference(source: Source) -> dict[str, str]:
    entry = {"name": source.name, "module": source.module, "distribution": source.distribution}
    if source.file:
        entry["file"] = own_code.near(source.file)
    elif not source.own and not source.distribution:
        entry["distribution"] = _distribution(source.module)
    return {key: value for key, value in entry.items() if value}


def _top(module: str) -> str:
    return module.partition(".")[0]


def _distribution(module: str) -> str:
    """Name and version of what an installed module belongs to."""
    for name in metadata.packages_distributions().get(_top(module), []):
        return f"{name} {metadata.version(name)}"
    return ""


def _runs_script() -> bool:
    """Is rlx used by a script of the folder?"""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return isinstance(file, str) and own_code.below(Path(file)) and not Path(file).is_relative_to(RLX)


def _files(tops: Mapping[str, str], own: bool) -> Files:
    """The modules that are loaded, those of the folder if it has `own` code."""
    found, place = {}, os.path.join(own_code.folder(), "")
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        listed = _top(name) in tops
        if not listed and not (own and file.startswith(place)):
            continue  # most of the thousands: a Path of each would take a tenth of a second
        path = Path(file)
        if listed:
            label, entry = name, {"distribution": tops[_top(name)]} if tops[_top(name)] else {}
        elif own_code.below(path) and not path.is_relative_to(RLX):
            label, entry = own_code.near(path), {}
        else:
            continue
        with contextlib.suppress(OSError):  # gone since
            found[label] = path, {**entry, "sha256": sha256(path)}
    return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(modules: Iterable[Mapping[str, str]]) -> str:
    """Twelve hex digits that tell one state of the code from another."""
    text = "\n".join(sorted(f"{module['name']} {module['sha256']}" for module in modules))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _data(raw: Mapping[str, Any], paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for key in paths:
        section, _, name = key.rpartition(".")
        value = (raw.get(section) or {}).get(name)
        if isinstance(value, str) and (path := Path(value)).is_file():
            found[key] = {"path": value, "bytes": path.stat().st_size, "sha256": sha256(path)}
    return found


# -- git -------------------------------------------------------------------------------------------------------


def _repositories(files: Iterable[Path]) -> list[dict[str, Any]]:
    roots: dict[str, None] = {}
    for place in dict.fromkeys(path.parent for path in files if not set(path.parts) & set(own_code.INSTALLED)):
        if not any(place.is_relative_to(root) for root in roots) and (
            top := git(place, "rev-parse", "--show-toplevel")
        ):
            roots[top.decode(errors="replace").strip()] = None
    found = []
    for root in roots:
        commit, changed = git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain", "--untracked-files=no")
        found.append({"root": root, "commit": commit and commit.decode().strip(), "changed": bool(changed)})
    return found


def write_patch(path: Path, record: Mapping[str, Any] | None, name: str = PATCH) -> str | None:
    """The uncommitted changes to tracked files of those repositories, beside run.json. Returns a notice where there
    are too many."""
    parts = []
    for repository in (record or {}).get("repositories", ()):
        if repository["changed"] and (patch := git(repository["root"], "diff", "--no-ext-diff", "--no-color", "HEAD")):
            parts.append(patch)
    size = sum(map(len, parts))
    if size > MOST:
        return f"{size:,} bytes of uncommitted changes: more than {MOST:,}, no {name} is kept"
    if parts:
        text = provenance.scrub(b"".join(parts).decode(errors="replace"))
        with contextlib.suppress(OSError):  # a full disk shows later, where it matters
            (path / name).write_text(text, encoding="utf-8")
    return None


# -- a run that is there ---------------------------------------------------------------------------------------


def enter(path: Path, raw: Mapping[str, Any], trust: bool) -> None:
    """Stand in the folder of a run's code, before any of it is imported. Raises ConfigError for a run whose code is
    its own and that this machine has not recorded, unless the user trusts it, and for code that is not there."""
    recorded = Provenance.read(path).latest_code
    place = recorded.get("folder")
    there = isinstance(place, str) and Path(place).is_dir()
    own_code.stand_in(Path(str(place)) if there else None)
    own = {key: source for key, source in sources(raw).items() if source.own}
    if own and not trust and not own_code.is_own(recorded.get("signature"), str(place), _signed(raw)):
        listed = ", ".join(dict.fromkeys(source.where for source in own.values()))
        raise ConfigError(
            f"{path}: runs code of {own_code.folder()} ({listed}), and this machine has not recorded that run: "
            "--trust runs it (read it first)"
        )
    current = names(raw)
    references = recorded.get("references")
    for key, entry in references.items() if isinstance(references, Mapping) else ():
        if isinstance(entry, Mapping) and key in current and current[key][1] == entry.get("name"):
            _check_there(key, entry, place)
    for key, (kind, name) in current.items():
        if kind in plugins.NEEDED and plugins.source(kind, name) is None:
            raise ConfigError(f"{key}={name}: is not rlx's, and neither an installed package nor a file here has it")


def _check_there(key: str, entry: Mapping[str, Any], place: object) -> None:
    where, here = f"{key}={entry['name']}", own_code.folder()
    moved = "" if str(here) == place else f" (the run was made in {place})"
    if file := entry.get("file"):
        if not own_code.path_of(str(file)).is_file():
            raise ConfigError(f"{where}: {file} is not in {here}{moved}")
        return
    with contextlib.suppress(Exception):  # a package that raises says so when it is loaded
        if own_code.file_of(str(entry.get("module"))) is not None:
            return
    if distribution := entry.get("distribution"):
        raise ConfigError(f"{where}: module {entry.get('module')} of {distribution} is not installed here")
    raise ConfigError(f"{where}: module {entry.get('module')} is not in {here}{moved}")


def changes(before: Mapping[str, Any], now: Mapping[str, Any] | None) -> list[str]:
    """The files that are not what they were."""
    old, new = provenance.hashes(before), provenance.hashes(now or {})
    return [name for name in old if name in new and old[name] != new[name]]


def refresh(path: Path, raw: Mapping[str, Any], packages: Iterable[str], paths: Iterable[str]) -> None:
    """Record what has been loaded since: some modules come with the first step."""
    record = Provenance.load(path)
    modules = _modules(_loaded(sources(raw), packages)[1])
    if not modules or digest(modules) == record.latest_code.get("digest"):
        return
    now = new(raw, packages, paths)
    if record.resumes and "code" in record.resumes[-1]:
        provenance.update(path, resumes=[*record.resumes[:-1], {**record.resumes[-1], "code": now}])
    else:
        provenance.update(path, code=now)
