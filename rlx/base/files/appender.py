"""Files that grow by whole writes, each in full or not at all."""

import contextlib
import os
from pathlib import Path

from rlx.base.files.atomic import own_file


class Appender:
    """A file that grows by whole writes: each is there in full, or (disk full, interrupt) not at all."""

    def __init__(self, path: Path):
        self.file = open(path, "a+b", buffering=0, opener=own_file)  # noqa: SIM115
        self.end = self.file.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        try:
            written = self.file.write(data)
            while written < len(data):  # a nearly full disk takes a part; asking again brings the error
                written += self.file.write(data[written:])
            self.end += written
        except BaseException:
            with contextlib.suppress(OSError):
                self.file.truncate(self.end)
            raise

    def cut(self, end: int) -> None:
        self.end = self.file.truncate(end)

    def last_line_end(self, size: int) -> int:
        """The offset behind the last newline of the first `size` bytes; 0 if there is none."""
        while size > 0:
            start = max(0, size - 65536)
            self.file.seek(start)
            newline = self.file.read(size - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            size = start
        return 0

    def close(self) -> None:
        self.file.close()
