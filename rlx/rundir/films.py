"""videos/: films of the beginning, of the middle, of the newest evaluation and of the best one, each a GIF of at most
100 kB. That of a run older than videos/ is in its TensorBoard events."""

import contextlib
import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

from rlx.base.files import guarded
from rlx.base.files.atomic import own_directory, write_atomically

DIRECTORY = "videos"
TAG = "eval/video"  # of events
EVENT = 1 << 26  # bytes of one, at most
NAME = re.compile(r"step_([0-9]{12,19})\.gif")


def write(run: Path, step: int, gif: bytes) -> None:
    """Raises OSError."""
    own_directory(run / DIRECTORY)
    write_atomically(_path(run, step), gif, durable=False)


def keep(run: Path, steps: Collection[int], middle: float | None = None) -> None:
    """Remove the films of all other steps, but for the one nearest to the `middle`."""
    films = _films(run)
    nearest = (
        None if middle is None else min((step for step, _ in films), key=lambda step: abs(step - middle), default=0)
    )
    for step, path in films:
        if step not in steps and step != nearest:
            with contextlib.suppress(OSError):
                path.unlink()


def strip(run: Path) -> list[tuple[int, bytes]]:
    """(step, GIF) of the film of step 0, of the one nearest to half of the run, and of the newest; of those there
    are."""
    if (newest := last(run)) is None:
        return []
    end = newest[0]
    steps = [step for step, _ in _films(run) if end / 4 <= step <= 3 * end / 4]
    middle = min(steps, key=lambda step: abs(step - end / 2), default=None)
    first = [film for step in dict.fromkeys((0, middle)) if step not in (None, end) and (film := _film_of(run, step))]
    return [*first, newest]


def last(run: Path) -> tuple[int, bytes] | None:
    """(step, GIF) of the newest film; None where there is none that can be read."""
    for step, _ in _films(run):
        if film := _film_of(run, step):
            return film
    for path in sorted(run.glob("events.out.tfevents.*"), reverse=True):
        films = [film for event in _records(path) if TAG.encode() in event and (film := _filmed(event))]
        if films:
            return films[-1]
    return None


def _film_of(run: Path, step: int) -> tuple[int, bytes] | None:
    with contextlib.suppress(guarded.Damaged):
        gif = guarded.data(_path(run, step))
        if gif.startswith(b"GIF8"):
            return step, gif
    return None


def _path(run: Path, step: int) -> Path:
    return run / DIRECTORY / f"step_{step:012d}.gif"


def _records(path: Path) -> Iterator[bytes]:
    """The events of a file; it may end in a torn one."""
    with contextlib.suppress(guarded.Damaged), guarded.opened(path) as file:
        while len(head := file.read(12)) == 12:
            size = struct.unpack("<Q", head[:8])[0]
            if not 0 < size <= EVENT or len(data := file.read(size)) < size or len(file.read(4)) < 4:
                return
            yield data


def _filmed(event: bytes) -> tuple[int, bytes] | None:
    """(step, GIF) of an event with a film."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import event_pb2

    with contextlib.suppress(DecodeError):  # not what it should be
        whole = event_pb2.Event.FromString(event)
        for value in reversed(whole.summary.value):
            if value.tag == TAG and value.image.encoded_image_string.startswith(b"GIF8"):
                return whole.step, value.image.encoded_image_string
    return None


def _films(run: Path) -> list[tuple[int, Path]]:
    """The newest first."""
    names = [(NAME.fullmatch(path.name), path) for path in (run / DIRECTORY).glob("*")]
    return sorted(((int(name[1]), path) for name, path in names if name), reverse=True)
