"""Paths as a user gives and reads them."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from rlx.base.errors import UserError


def near(path: Path) -> Path:
    """The path from the working directory, where that is above it."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


def check_out(out: Path, suffixes: Sequence[str], option: str = "--out") -> None:
    """Raises UserError where a file cannot be written, before there is something to write."""
    if out.suffix.lower() not in suffixes:
        names = filter(None, (", ".join(suffixes[:-1]), suffixes[-1]))
        raise UserError(f"{option}={out}: must end in {' or '.join(names)}")
    parent = out.absolute().parent
    if not parent.is_dir():
        raise UserError(f"{option}={out}: the directory {out.parent} does not exist")
    if out.is_dir():
        raise UserError(f"{option}={out}: is a directory")
    if not os.access(out if out.exists() else parent, os.W_OK):
        raise UserError(f"{option}={out}: cannot be written here (permission denied)")
