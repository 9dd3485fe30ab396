"""TensorBoard events, framed here."""

import contextlib
import functools
import math
import os
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

from rlx.base.files.appender import Appender
from rlx.config.keys import experiment

P = ParamSpec("P")


def _harmless(method: Callable[Concatenate["Dashboard", P], None]) -> Callable[Concatenate["Dashboard", P], None]:
    """A method of Dashboard that never raises: the first error is a line on stderr and ends the dashboard."""

    @functools.wraps(method)
    def call(self: "Dashboard", /, *args: P.args, **kwargs: P.kwargs) -> None:
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
    columns are all hyper-parameters and all scalars, unless a grid or a search has said which (see `tensorboard_grid`).
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
        """One HPARAMS row per `group_name` (a `config_hash`); the seed and what is of the MACHINE are left out."""
        from tensorboard.plugins.hparams import plugin_data_pb2

        info = plugin_data_pb2.SessionStartInfo(group_name=group_name, start_time_secs=time.time())
        for name, value in experiment(hparams).items():
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
        self._file = Appender(self.dir / name)
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
