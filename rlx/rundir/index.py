"""A cache of every run directory's summary, kept beside the runs so that a thousand are listed in under a second.

`.rlx-index.json` in the directory that is listed (in the user's cache where that cannot be written) holds what was read
of each run, with the inode, time and size of its files: what has changed since is read again, and so is every run that
may still go on. It can be deleted at any time; a damaged one counts as none. Never imports torch.
"""

import contextlib
import hashlib
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx import __version__
from rlx.base.files import guarded
from rlx.base.files.atomic import TEMPORARY, write_atomically
from rlx.rundir import query, reader
from rlx.rundir.layout import Status

NAME = ".rlx-index.json"
FORMAT = f"4 of rlx {__version__}"
FILES = ("config.yaml", "run.json", "status.json", "metrics.jsonl", "checkpoints", "policy.txt")
SHOWN = {"run", "algo", "seed", "step", "status", "eval", "metrics"}  # at least, of every run
WORTH = 20  # runs read anew before the file is written: a few are read as fast without it
MOST = 1 << 28  # bytes of the file
SETTLED = 2.0  # seconds after which a file that has not changed counts as written


@dataclass
class Entry:
    """One run: what `rlx show --json` prints of it, and its flat configuration."""

    path: Path
    row: dict[str, Any]
    config: dict[str, Any]


def read(root: Path) -> list[Entry]:
    """Every run under a directory, oldest first."""
    cache = _load(root)
    entries, kept, fresh = [], {}, 0
    for path in reader.find(root):
        name, signature = os.path.relpath(path, root), _signature(path)
        record = cache.get(name)
        if record is None or not _fits(record, signature):
            new = entry(path)
            if not _final(path, new.row, signature):
                entries.append(new)
                continue
            record, fresh = [signature, new.row, new.config], fresh + 1
        kept[name] = record
        entries.append(Entry(path, {**record[1], "run": str(path)}, record[2]))
    if fresh >= WORTH or len(cache) > 2 * len(kept) + WORTH:
        _save(root, kept)
    return entries


def _fits(record: Any, signature: list[list[int] | None]) -> bool:
    """Is this what was kept of a run whose files are as they were?"""
    return (
        isinstance(record, list)
        and [type(part) for part in record] == [list, dict, dict]
        and record[0] == signature
        and record[1].keys() >= SHOWN
    )


def entry(path: Path) -> Entry:
    """One run, read anew."""
    config, damage = query.read_config(path)
    row = reader.show(path, damage)
    row |= {key: config[key] for key in ("name", "tags", "notes") if config.get(key)}
    return Entry(path, row, {**config, **({"code": row["code"]} if "code" in row else {})})


def _signature(path: Path) -> list[list[int] | None]:
    parts: list[list[int] | None] = []
    for name in FILES:
        try:
            about = os.stat(f"{path}/{name}")
            parts.append([about.st_ino, about.st_mtime_ns, about.st_size])
        except OSError:
            parts.append(None)
    return parts


def _final(path: Path, row: dict[str, Any], signature: list[list[int] | None]) -> bool:
    """Does a run stay as it is until one of its files changes? The process of a killed one is gone for good, if it was
    of this machine; one that was written this moment may be written again within the clock's resolution."""
    if (
        row["status"] == "running"
        or max((each[1] for each in signature if each), default=0) > (time.time() - SETTLED) * 1e9
    ):
        return False
    return row["status"] != "killed" or Status.read(path).host == socket.gethostname()


# -- the file --------------------------------------------------------------------------------------------------


def files_of(root: Path) -> tuple[Path, Path]:
    """Where the index of a directory is: in it, or in the user's cache."""
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlx"
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:24]
    return root / NAME, place / f"runs-{name}.json"


def _load(root: Path) -> dict[str, Any]:
    for file in files_of(root):
        content = guarded.known(file, MOST)
        if content.get("format") == FORMAT and isinstance(runs := content.get("runs"), dict):
            return runs
    return {}


def _save(root: Path, kept: dict[str, Any]) -> None:
    """Best effort: the index only saves time, so a failure is ignored."""
    text = json.dumps({"format": FORMAT, "runs": kept}, default=str).encode()
    beside, cache = files_of(root)
    for file in (beside, cache):
        with contextlib.suppress(OSError):
            if file is cache:
                file.parent.mkdir(parents=True, exist_ok=True)
            elif not os.access(root, os.W_OK):
                continue
            _remove_torn(file)
            write_atomically(file, text, durable=False)
            return


def _remove_torn(file: Path) -> None:
    """What a killed `rlx ls` left half written."""
    for path in file.parent.glob(f"{TEMPORARY}*-{file.name}"):
        if time.time() - path.stat().st_mtime > 60:
            path.unlink(missing_ok=True)
