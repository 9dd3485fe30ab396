"""videos/: the film of the newest evaluation and that of the best one, each a GIF of 10 to 400 kB."""

import contextlib
import re
from collections.abc import Collection
from pathlib import Path

from rlx.base import guarded
from rlx.base.atomic_files import write_atomically

DIRECTORY = "videos"
NAME = re.compile(r"step_([0-9]{12,19})\.gif")


def write(run: Path, step: int, gif: bytes) -> None:
    """Raises OSError."""
    (run / DIRECTORY).mkdir(exist_ok=True)
    write_atomically(run / DIRECTORY / f"step_{step:012d}.gif", gif, durable=False)


def keep(run: Path, steps: Collection[int]) -> None:
    """Remove the films of all other steps."""
    for step, path in _films(run):
        if step not in steps:
            with contextlib.suppress(OSError):
                path.unlink()


def last(run: Path) -> tuple[int, bytes] | None:
    """(step, GIF) of the newest film; None where there is none that can be read."""
    for step, path in _films(run):
        with contextlib.suppress(guarded.Damaged):
            gif = guarded.data(path)
            if gif.startswith(b"GIF8"):
                return step, gif
    return None


def _films(run: Path) -> list[tuple[int, Path]]:
    """The newest first."""
    names = [(NAME.fullmatch(path.name), path) for path in (run / DIRECTORY).glob("*")]
    return sorted(((int(name[1]), path) for name, path in names if name), reverse=True)
