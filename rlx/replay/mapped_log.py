"""An append-only log of records in files mapped into memory, of which a prefix can be verified and gone on from.

    log = Segments(directory, "rows", np.dtype(...), segment_bytes)
    block, row = log.at(n);  block["field"][row] = ...;  log.length = n + 1

Record n is in the file n // per_file. A file has its full size from the start: a disk that is full is noticed when a
file begins, by a CannotWrite, and not by a signal in the middle of a write. The page cache outlives the process, so a
killed one loses nothing of what it wrote; `state` syncs, so that a loss of power does not lose what a checkpoint needs.
"""

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlx.base.files.atomic import CannotWrite, own_directory, own_file, sync_directory

Array = np.ndarray


class Segments:
    """Records of one numpy type, by their number. `length` counts those that belong to the log."""

    def __init__(self, directory: Path, name: str, record: np.dtype, segment_bytes: int) -> None:
        self.directory, self.name, self.record = Path(directory), name, record
        self.per_file = max(1, segment_bytes // record.itemsize)
        self.length = 0
        self.first = 0  # records before this one may be gone
        self._maps: dict[int, mmap.mmap] = {}
        self._blocks: dict[int, Array] = {}
        self._hashes: dict[int, str] = {}  # of files that are full
        self._digest, self._hashed = hashlib.sha256(), 0  # of the open file, up to this record of the log

    def at(self, n: int) -> tuple[Array, int]:
        """The file that holds record n, as an array of records, and the place in it."""
        k, row = divmod(n, self.per_file)
        block = self._blocks.get(k)
        return (self._open(k) if block is None else block), row

    def blocks(self, first: int, end: int) -> Iterator[tuple[int, Array]]:
        """Records first to end - 1 as (number of its first, array of records) for each file."""
        while first < end:
            block, row = self.at(first)
            count = min(self.per_file - row, end - first)
            yield first, block[row : row + count]
            first += count

    # -- saved and restored --------------------------------------------------------------------------------------

    def state(self, first: int) -> dict[str, Any]:
        """What `load` needs to find the records from `first` on again; they are on the disk when this returns."""
        while self._hashed < self.length:
            k, row = divmod(self._hashed, self.per_file)
            block, _ = self.at(self._hashed)
            count = min(self.per_file - row, self.length - self._hashed)
            self._digest.update(_bytes(block[row : row + count]))
            self._maps[k].flush()
            self._hashed += count
            if row + count == self.per_file:
                self._hashes[k], self._digest = self._digest.hexdigest(), hashlib.sha256()
        if self.directory.is_dir():
            sync_directory(self.directory)
        hashes = [[k, self._hashes[k]] for k in sorted(self._hashes) if k >= first // self.per_file]
        return {"length": self.length, "per_file": self.per_file, "files": hashes, "open": self._digest.hexdigest()}

    def load(self, state: Mapping[str, Any], first: int) -> None:
        """Go on behind the saved records; those from `first` on are verified. Raises ValueError naming a bad file."""
        if state["per_file"] != self.per_file:
            raise ValueError(f"{self.name}: {self.per_file} records a file, {state['per_file']} saved")
        self._forget()
        self.length, hashes = int(state["length"]), {int(k): value for k, value in state["files"]}
        self.first = first = min(first, self.length)
        last, rest = divmod(self.length, self.per_file)
        for k in range(first // self.per_file, last + bool(rest)):
            self._digest = hashlib.sha256(self._whole(k, rest if k == last else self.per_file))
            if self._digest.hexdigest() != (state["open"] if k == last else hashes.get(k)):
                raise ValueError(f"{self._path(k)} is damaged (its sha256 does not match)")
        if not rest:
            self._digest = hashlib.sha256()
        self._hashes = {k: value for k, value in hashes.items() if k >= first // self.per_file}
        self._hashed = self.length
        for k, path in self._files():
            if k >= last + bool(rest):  # of a life that was not saved
                path.unlink()

    def drop(self, first: int) -> None:
        """Delete the files whose records all come before `first`."""
        self.first = max(self.first, min(first, self.length))
        for k, path in self._files():
            if (k + 1) * self.per_file <= self.first:
                self._blocks.pop(k, None)
                self._maps.pop(k, None)  # unmapped as soon as no array reads it
                self._hashes.pop(k, None)
                path.unlink()

    def clear(self) -> None:
        """An empty log: delete what another life has left."""
        self._forget()
        for _, path in self._files():
            path.unlink()

    # -- files ---------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self.length = self.first = self._hashed = 0
        self._blocks, self._maps, self._hashes, self._digest = {}, {}, {}, hashlib.sha256()

    def _path(self, k: int) -> Path:
        return self.directory / f"{self.name}_{k:06d}.bin"

    def _files(self) -> list[tuple[int, Path]]:
        files = [(path.stem.removeprefix(f"{self.name}_"), path) for path in self.directory.glob(f"{self.name}_*.bin")]
        return sorted((int(number), path) for number, path in files if number.isdigit())

    def _whole(self, k: int, count: int) -> Any:
        """The first `count` records of a file that must be there."""
        path = self._path(k)
        try:
            size = path.stat().st_size
        except OSError:
            raise ValueError(f"{path} is missing") from None
        if size != self.per_file * self.record.itemsize:
            raise ValueError(f"{path} is damaged ({size:,} bytes)")
        return _bytes(self._open(k)[:count])

    def _open(self, k: int) -> Array:
        path, size = self._path(k), self.per_file * self.record.itemsize
        try:
            own_directory(self.directory)
            descriptor = own_file(os.fspath(path), os.O_RDWR | os.O_CREAT)
            try:
                if os.fstat(descriptor).st_size != size:
                    _allocate(descriptor, size)
                self._maps[k] = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CannotWrite(path, size, error) from error
        self._blocks[k] = np.frombuffer(self._maps[k], self.record)
        return self._blocks[k]


def _bytes(records: Array) -> Any:
    """The memory of contiguous records, as hashlib takes it."""
    return records.view(np.uint8).data


def _allocate(descriptor: int, size: int) -> None:
    """Give a file all its bytes, so that no later write into its mapping can fail."""
    os.ftruncate(descriptor, 0)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, 1 << 20):
        os.write(descriptor, bytes(min(1 << 20, size - start)))
