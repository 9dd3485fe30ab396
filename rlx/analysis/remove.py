"""Which directories `rlx rm` may remove, and removing them: runs, and whole grids and searches. Never imports torch."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlx.analysis import grids
from rlx.base.errors import UserError
from rlx.base.files.paths import near
from rlx.rundir import home, index, query, reader
from rlx.rundir.filter import select
from rlx.rundir.layout import lock
from rlx.rundir.provenance import Provenance

LAST = ("run.json", "config.yaml")  # what makes a directory a run goes last: half removed, it can be removed again


@dataclass
class Removal:
    """What goes: runs, and directories of grids and searches with all that is in them."""

    runs: list[Path] = field(default_factory=list)
    grids: list[Path] = field(default_factory=list)
    bytes: int = 0

    @property
    def paths(self) -> list[Path]:
        return [*self.runs, *self.grids]


def plan(names: Sequence[str], conditions: Sequence[str] = ()) -> Removal:
    """What the words name, and of that only the runs for which the conditions of --where hold (with conditions a word
    may also be a directory of runs). Nothing goes where one of it must stay: what is no run, a run that goes on, one
    that another run starts from. Raises UserError."""
    if not names and not conditions:
        raise UserError("rm: RUN is missing: run directories, or --where KEY=VALUE (rlx rm --help)")
    chosen: dict[Path, Path] = {}
    whole: dict[Path, Path] = {}
    for name in names or (str(home.runs_dir()),):
        path = Path(name)
        if path.is_symlink():
            raise UserError(f"rm {name}: is a link (to {os.path.realpath(path)}), which rlx rm does not follow")
        if grids.is_grid(path) and not conditions:
            whole[path.resolve()] = path
        chosen |= {one.resolve(): one for one in _runs(name, bool(conditions))}
    if conditions:
        chosen = _selected(chosen, conditions)
    for path in (*chosen.values(), *whole.values()):
        if Path.cwd().is_relative_to(path.resolve()):
            raise UserError(f"rm {path}: is the working directory, or around it (cd out of it first)")
    for path in chosen.values():
        if reader.state(path) == "running":
            raise UserError(f"rm {path}: is running")
    _check_needed(chosen)
    alone = [path for real, path in chosen.items() if not any(real.is_relative_to(grid) for grid in whole)]
    kept = [path for real, path in chosen.items() if path not in alone]
    sizes = sum(_size(path) for path in [*alone, *whole.values()])
    return Removal([*alone, *kept], list(whole.values()), sizes)


def _runs(name: str, anywhere: bool) -> list[Path]:
    """The runs that a word names: one, a pattern's, a grid's; with --where those of any directory."""
    path = Path(name)
    if not name:
        raise UserError("rm '': must be a run directory, latest or latest:ALGO")
    if path.is_dir() and (anywhere or grids.is_grid(path)):
        return reader.find(path, links=False)
    if not path.exists() and query.GLOB.search(name):
        return [one for one in query.find([name]) if not one.is_symlink()]
    try:
        return [reader.resolve(name)]
    except reader.NotARun as error:
        around = Path.cwd().is_relative_to(path.resolve())  # that may be the whole disk
        inside = [] if around else reader.find(path, links=False)
        hint = f"; it has {len(inside)} under it: rlx rm '{name}/*', or --where" if inside else ""
        raise UserError(f"rm {error}{hint}") from None


def _selected(chosen: dict[Path, Path], conditions: Sequence[str]) -> dict[Path, Path]:
    entries = [index.entry(path) for path in chosen.values()]
    kept = {entry.path for entry in select(entries, conditions)}
    return {real: path for real, path in chosen.items() if path in kept}


def _check_needed(chosen: dict[Path, Path]) -> None:
    """No other run of their directories starts from one of them."""
    here = home.runs_dir().resolve()
    roots = {here, *(_real(query.raw_config(path).get("runs_dir")) or here for path in chosen)}
    for root in roots:
        for other in reader.find(root):
            if other.resolve() in chosen:
                continue
            for name, origin in Provenance.read(other).origins.items():
                real = _real(origin.get("run"))
                if real and (path := chosen.get(real)):
                    raise UserError(f"rm {path}: the run {near(other)} starts from it ({name}=); remove that one too")


def _real(path: Any) -> Path | None:
    """What a file says is a path, resolved; None for what is none."""
    with contextlib.suppress(OSError, ValueError, TypeError, RuntimeError):
        return Path(path).resolve()
    return None


def _size(path: Path) -> int:
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(directory, name)).st_size
    return total


def counted(removal: Removal) -> str:
    """3 runs and 1 grid"""

    def some(count: int, what: str) -> list[str]:
        return [f"{count} {what}{'s' * (count > 1)}"] if count else []

    return " and ".join([*some(len(removal.runs), "run"), *some(len(removal.grids), "grid")])


def carry_out(removal: Removal) -> None:
    """Remove it. Raises UserError at the first that cannot be; what came before it is gone."""
    for path in removal.runs:
        with lock(path, f"rm {path}", lambda: "is running"):
            _remove(path)
    for path in removal.grids:
        if inside := reader.find(path, links=False):  # one that began since
            raise UserError(f"rm {path}: has a new run in it, {inside[0].name}")
        _try(shutil.rmtree, path, path)


def _remove(path: Path) -> None:
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name in LAST):
        if entry.is_dir(follow_symlinks=False):
            _try(shutil.rmtree, entry.path, path)
        else:
            _try(os.unlink, entry.path, path)
    _try(os.rmdir, path, path)


def _try(remove: Callable[[Any], Any], what: Any, path: Path) -> None:
    try:
        remove(what)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"rm {path}: cannot be removed: {error.strerror or error}") from None
