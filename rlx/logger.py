"""What a run writes about itself: metrics.jsonl, the truth, and TensorBoard events, derived from it.

Both are unbuffered: a record is one write() to the operating system, so `kill -9` loses nothing that was
logged, there is no thread to fork or to join, and a full disk shows in the call that met it. There the two
differ: MetricsLog raises, because a run without its metrics is no run; Dashboard warns once and falls silent.

Left out: torch.utils.tensorboard and tensorboard's own EventFileWriter. Framing the records here costs 17 us
for 15 values instead of 82 and a thread, and 20 ms of imports instead of 120.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

Metrics = Mapping[str, float | int | str | bool | None]

# Where and how a run is computed, not what it computes: never part of the experiment's identity.
MACHINE_KEYS = ("device", "threads", "run", "run_dir", "runs_dir", "name")


# metrics.jsonl


class MetricsLog:
    """An append-only file of strict JSON: one object a line, key "step", then the metrics in the order given.

    Floats are written with repr, the shortest text that reads back to the same float64. JSON has no NaN, no
    infinity: NaN becomes null, inf "Infinity" and -inf "-Infinity" (strings of protobuf's JSON mapping, which
    Python's float and JavaScript's Number read). Numpy and torch scalars are written as their .item().
    """

    def __init__(self, path: str | Path, offset: int | None = None):
        """Open to append; with `offset` (from `sync`, kept in the checkpoint) cut the file back to it first.

        Without one, only a torn last line is cut. Raises ValueError if the file does not reach the offset or
        no line ends there: then it is not the file that the checkpoint was written beside.
        """
        self.path = Path(path)
        size = self.path.stat().st_size if self.path.exists() else 0
        if offset is not None and size < offset:
            raise ValueError(f"{self.path}: {size} bytes, but the checkpoint was written at byte {offset}")
        self._file = _Appender(self.path)
        end = self._file.last_line_end(size if offset is None else offset)
        if offset is not None and end != offset:
            self._file.close()
            raise ValueError(f"{self.path}: byte {offset}, that of the checkpoint, is not the end of a line")
        if end < size:
            self._file.cut(end)

    def write(self, step: int, metrics: Metrics) -> None:
        """Append one line. On an OSError the line is absent, not torn, and the error is the caller's."""
        if "step" in metrics:
            raise ValueError("metrics: the key 'step' is taken by the clock")
        self._file.write(_to_json({"step": step, **metrics}).encode("ascii") + b"\n")

    def sync(self) -> int:
        """Force all lines to the disk; returns the byte offset behind the last one."""
        os.fsync(self._file.file.fileno())
        return self._file.end

    def close(self) -> None:
        self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, infinities as floats again, NaN as None; a torn last line is left out.

    Raises ValueError, naming the line, if any but the last is no JSON object.
    """
    rows = []
    lines = Path(path).read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(line)
        except ValueError:
            if number == len(lines):
                break
            raise ValueError(f"{path}:{number}: not a JSON object: {line[:60]!r}") from None
        for key, value in row.items():
            if value in ("Infinity", "-Infinity"):
                row[key] = float(value)
        rows.append(row)
    return rows


def strip_time(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without the wall-clock values, which live under time/ and differ between two equal runs."""
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def equal_metrics(a: Iterable[Mapping[str, Any]], b: Iterable[Mapping[str, Any]]) -> bool:
    """Are two logs the same but for time/? By bit and type: NaN is NaN, 1 is not 1.0, 0.0 is not -0.0."""
    lines = [[_to_json(strip_time(row), sort=True) for row in log] for log in (a, b)]
    return lines[0] == lines[1]


def config_hash(config: Mapping[str, Any], without: Iterable[str] = ("seed",)) -> str:
    """Ten hex digits that tell experiments apart, the same in any process, on any machine, in any key order.

    Left out: the keys `without` (dotted, or a whole group) and MACHINE_KEYS. All seeds of a config share it.
    """
    import hashlib

    text = json.dumps(_experiment(config, without), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


# TensorBoard

P = ParamSpec("P")


def _harmless(method: Callable[Concatenate[Dashboard, P], None]) -> Callable[Concatenate[Dashboard, P], None]:
    """A method of Dashboard that never raises: the first error is a line on stderr and ends the dashboard."""

    @functools.wraps(method)
    def call(self: Dashboard, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._closed:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._closed = True
            reason = " ".join(str(error).split()) or type(error).__name__
            with contextlib.suppress(Exception):
                print(f"warning: no more TensorBoard events ({reason}); metrics go on", file=sys.stderr)
                self._file.close()

    return call


class Dashboard:
    """TensorBoard events of one run, for the eye: nothing reads them back, no error here reaches the caller.

    HPARAMS: session_start_info at the start and session_end_info at the end, in the run's own directory.
    TensorBoard shows a run that died as unknown, and the runs that share `group_name` as one row of means. The
    columns are all hyper-parameters and all scalars, unless a sweep has said which (see `board`).
    """

    _closed = False

    @_harmless
    def __init__(self, dir: str | Path, purge_step: int | None = None, suffix: str = ""):
        """Start a new event file, its name with that ending. On resume from `step`, purge_step = step + 1 hides what
        came after it."""
        from tensorboard.compat.proto import event_pb2  # 20 ms, and no tensorflow

        self._event = event_pb2.Event
        self._crc32c = _Crc32c()
        self.dir = Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        if purge_step is None:
            self._open(suffix)
            return
        for path in self.dir.glob("events.out.tfevents.*.end"):  # of all ends TensorBoard believes the first
            path.unlink()
        self._open(suffix)
        for _ in range(2):  # without fast loading TensorBoard does not purge at the first START of a run
            self._write(self._event(step=purge_step, session_log={"status": "START"}))

    @_harmless
    def scalars(self, step: int, metrics: Mapping[str, Any]) -> None:
        """One event for all the numbers of a step; strings and None are skipped."""
        event = self._event(step=step)
        add = event.summary.value.add
        for tag, value in metrics.items():
            if not isinstance(value, str):
                try:
                    number = float(value)
                except (TypeError, ValueError, OverflowError):
                    continue
                add(tag=tag, simple_value=number)
        self._write(event)

    @_harmless
    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        tensor = {"dtype": "DT_STRING", "string_val": [markdown.encode()], "tensor_shape": {}}
        self._add(step, tag, metadata={"plugin_data": {"plugin_name": "text"}}, tensor=tensor)

    @_harmless
    def image_gif(self, tag: str, gif_bytes: bytes, width: int, height: int, step: int) -> None:
        """A GIF, which browsers animate in the IMAGES tab; needs no moviepy."""
        image = {"width": width, "height": height, "colorspace": 3, "encoded_image_string": gif_bytes}
        self._add(step, tag, image=image)

    @_harmless
    def layout(self, layout: Any) -> None:
        """The charts of the CUSTOM SCALARS tab: a layout_pb2.Layout."""
        tensor = {"dtype": "DT_STRING", "string_val": [layout.SerializeToString()], "tensor_shape": {}}
        plugin = {"plugin_data": {"plugin_name": "custom_scalars"}}
        self._add(0, "custom_scalars__config__", metadata=plugin, tensor=tensor)

    @_harmless
    def hparams_columns(self, experiment: Any) -> None:
        """The columns of the HPARAMS tab of the directories below: an api_pb2.Experiment."""
        from tensorboard.plugins.hparams import plugin_data_pb2

        self._hparams(plugin_data_pb2.HParamsPluginData(experiment=experiment))

    @_harmless
    def hparams_start(self, hparams: Mapping[str, Any], group_name: str) -> None:
        """One HPARAMS row per `group_name` (a `config_hash`); seed and MACHINE_KEYS are left out."""
        from tensorboard.plugins.hparams import plugin_data_pb2

        info = plugin_data_pb2.SessionStartInfo(group_name=group_name, start_time_secs=time.time())
        for name, value in _experiment(hparams, ("seed",)).items():
            if isinstance(value, bool):
                info.hparams[name].bool_value = value
            elif isinstance(value, (int, float)) and math.isfinite(value):
                info.hparams[name].number_value = value
            elif value is not None:
                info.hparams[name].string_value = str(value)
        self._hparams(plugin_data_pb2.HParamsPluginData(session_start_info=info))

    @_harmless
    def hparams_end(self, status: Literal["success", "failure"]) -> None:
        """Call it last: what follows it goes to a file of its own, which a resume deletes."""
        from tensorboard.plugins.hparams import plugin_data_pb2

        self._file.close()
        self._open(".end")
        info = {"status": f"STATUS_{status.upper()}", "end_time_secs": time.time()}
        self._hparams(plugin_data_pb2.HParamsPluginData(session_end_info=info))

    def flush(self) -> None:
        """Nothing to do: no event waits in this process."""

    @_harmless
    def close(self) -> None:
        self._closed = True
        self._file.close()

    def _open(self, suffix: str = "") -> None:
        """A new event file, its name behind all others (TensorBoard reads them in that order) whatever the
        clock says: two starts within a second, or a resume on a host whose clock is late."""
        import socket

        stamps = [path.name.split(".")[3] for path in self.dir.glob("events.out.tfevents.*")]
        stamp = max([int(time.time()), *(int(old) + 1 for old in stamps if old.isdigit())])
        name = f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}{suffix}"
        self._file = _Appender(self.dir / name)
        self._write(self._event(file_version="brain.Event:2"))

    def _hparams(self, data: Any) -> None:
        tag = f"_hparams_/{data.WhichOneof('data')}"
        null = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 0}]}}  # all is in the metadata
        plugin = {"plugin_name": "hparams", "content": data.SerializeToString()}
        self._add(0, tag, metadata={"plugin_data": plugin}, tensor=null)

    def _add(self, step: int, tag: str, **value: Any) -> None:
        self._write(self._event(step=step, summary={"value": [{"tag": tag, **value}]}))

    def _write(self, event: Any) -> None:
        """One TFRecord: length, its masked CRC, bytes, their masked CRC."""
        event.wall_time = time.time()
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        crc = struct.pack("<I", self._crc32c.masked(length)), struct.pack("<I", self._crc32c.masked(data))
        self._file.write(length + crc[0] + data + crc[1])


# Below: bytes and JSON


class _Appender:
    """A file that grows by whole writes: each is there in full, or (disk full, interrupt) not at all."""

    def __init__(self, path: Path):
        self.file = open(path, "a+b", buffering=0)  # noqa: SIM115
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


class _Crc32c:
    """CRC-32C (Castagnoli) for TensorBoard's records: 4 us for 400 bytes, where a Python loop takes 37.

    It is linear over GF(2): the CRC of a block is the XOR over its bytes of table[bytes still to come][byte],
    and the register enters by an XOR into the first four. Needs four bytes at least.
    """

    BLOCK = 512

    def __init__(self) -> None:
        import numpy as np

        self.np = np
        rows = self.BLOCK + 4
        table: Any = np.empty((rows, 256), np.uint32)
        row: Any = np.arange(256, dtype=np.uint32)
        for _ in range(8):
            row = (row >> 1) ^ np.where(row & 1, np.uint32(0x82F63B78), np.uint32(0))
        table[-1] = row
        for i in range(rows - 2, -1, -1):  # one more zero byte behind it
            table[i] = (table[i + 1] >> 8) ^ row[table[i + 1] & 255]
        self.table = table.ravel()
        self.start = np.arange(rows) * 256

    def __call__(self, data: bytes) -> int:
        byte = self.np.frombuffer(data, self.np.uint8)
        register = 0xFFFFFFFF
        begin, end = 0, (len(data) - 4) % self.BLOCK + 4  # a first block of 4 to BLOCK + 3, then full ones
        while begin < len(data):
            index = byte[begin:end] + self.start[begin - end :]
            index[:4] ^= self.np.frombuffer(struct.pack("<I", register), self.np.uint8)
            register = int(self.np.bitwise_xor.reduce(self.table[index]))
            begin, end = end, end + self.BLOCK
        return register ^ 0xFFFFFFFF

    def masked(self, data: bytes) -> int:
        crc = self(data)
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _item(value: Any) -> Any:
    """A numpy or torch scalar as Python's."""
    if not hasattr(value, "item"):
        raise TypeError(f"metrics: {value!r} is no number, string, bool or None")
    return value.item()


def _finite(value: Any) -> Any:
    if not isinstance(value, (str, int, float, type(None))):
        value = _item(value)
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


_as_given = json.JSONEncoder(allow_nan=False, default=_item).encode
_sorted = json.JSONEncoder(allow_nan=False, default=_item, sort_keys=True).encode


def _to_json(row: dict[str, Any], sort: bool = False) -> str:
    encode = _sorted if sort else _as_given
    try:
        return encode(row)
    except ValueError:  # NaN or inf
        return encode({key: _finite(value) for key, value in row.items()})


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _experiment(config: Mapping[str, Any], without: Iterable[str]) -> dict[str, Any]:
    """What identifies the experiment: the config flattened with dots, less `without` and MACHINE_KEYS."""
    left_out = {*without, *MACHINE_KEYS}
    flat = _flatten(config)
    return {key: flat[key] for key in flat if key not in left_out and key.split(".")[0] not in left_out}
