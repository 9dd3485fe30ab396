"""Writing files that are whole or absent."""

import contextlib
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"  # how the names begin that no reader looks at


class CannotWrite(OSError):
    """A disk that is full or refuses; one line that names the path and the bytes."""

    def __init__(self, path: Path, size: int, error: OSError) -> None:
        super().__init__(error.errno, error.strerror or str(error))
        try:
            free = f", {shutil.disk_usage(path.parent).free:,} free there"
        except OSError:
            free = ""
        self.line = f"cannot write {path}: {self.strerror} ({size:,} bytes to write{free})"

    def __str__(self) -> str:
        return self.line


def own_file(path: str, flags: int) -> int:
    """An opener that follows no link to a file elsewhere."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def own_directory(path: Path) -> None:
    """Let there be a directory, in one that is there already; a link to one elsewhere is none. Raises CannotWrite."""
    try:
        path.mkdir(exist_ok=True)
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    except OSError as error:
        raise CannotWrite(path, 0, error) from error


def separate(path: Path) -> None:
    """Make a file of several names (cp -al) one of its own, to be changed in place. Raises CannotWrite."""
    if path.is_file() and path.stat().st_nlink > 1:
        write_atomically(path, path.read_bytes())


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync directories
            raise
    finally:
        os.close(descriptor)


def write_atomically(path: Path, *parts: bytes, durable: bool = True) -> None:
    """The file is there with all its bytes, or as it was before, whatever stops the process.

    `durable`: on the disk when this returns, so that a loss of power does not undo it either. Raises CannotWrite.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_directory(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotWrite(path, sum(map(len, parts)), error) from error
        raise


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)


def remove_temporaries(directory: Path) -> None:
    """Remove what a killed process left half written; only for the one process that may write there."""
    for path in directory.glob(f"{TEMPORARY}*"):
        if not path.is_dir() or path.is_symlink():  # a directory is not of rlx
            path.unlink(missing_ok=True)
