"""What a run has left to look at: its last film, its last samples.

The film of a run older than videos/ is in its TensorBoard events, which are read without TensorBoard, a field at a time
(protobuf's wire format; tensorflow/core/util/event.proto).
"""

import contextlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from rlx.base import guarded
from rlx.rundir import films

TAG = b"eval/video"
EVENT = 1 << 26  # bytes of one, at most
EVENT_SUMMARY, SUMMARY_VALUE, VALUE_TAG, VALUE_IMAGE, IMAGE_BYTES, EVENT_STEP = 5, 1, 1, 4, 4, 2


def last_film(run: Path) -> tuple[int, bytes] | None:
    """(step, GIF) of the last evaluation that was filmed; None where there is none."""
    if film := films.last(run):
        return film
    for path in sorted(run.glob("events.out.tfevents.*"), reverse=True):
        newest = None
        for event in _records(path):
            if TAG in event and (film := _film(event)):
                newest = film
        if newest:
            return newest
    return None


def last_samples(run: Path) -> tuple[int, str] | None:
    """(step, text) of the last samples of a language run."""
    for path in sorted((run / "samples").glob("*.txt"), reverse=True):
        with contextlib.suppress(guarded.Damaged):
            if re.fullmatch("[0-9]+", path.stem):
                return int(path.stem), guarded.text(path, errors="replace")
    return None


def _records(path: Path) -> Iterator[bytes]:
    """The events of a file; it may end in a torn one."""
    with contextlib.suppress(guarded.Damaged), guarded.opened(path) as file:
        while len(head := file.read(12)) == 12:
            size = struct.unpack("<Q", head[:8])[0]
            if not 0 < size <= EVENT or len(data := file.read(size)) < size or len(file.read(4)) < 4:
                return
            yield data


def _film(event: bytes) -> tuple[int, bytes] | None:
    step, film = 0, None
    try:
        for number, value in _fields(event):
            if number == EVENT_STEP and isinstance(value, int):
                step = value
            if number == EVENT_SUMMARY and isinstance(value, bytes):
                for one, inner in _fields(value):
                    if one == SUMMARY_VALUE and isinstance(inner, bytes):
                        parts = dict(_fields(inner))
                        image = parts.get(VALUE_IMAGE)
                        if parts.get(VALUE_TAG) == TAG and isinstance(image, bytes):
                            gif = dict(_fields(image)).get(IMAGE_BYTES)
                            film = gif if isinstance(gif, bytes) and gif[:4] == b"GIF8" else film
    except (ValueError, IndexError):  # not what it should be
        return None
    return (step, film) if film else None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field. Raises ValueError or IndexError for what is no message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(kind)
        if at + size > len(message):
            raise ValueError(size)
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
