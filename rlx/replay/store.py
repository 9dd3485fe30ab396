"""Where the rows of a replay buffer are: in RAM, saved whole with every checkpoint; or observations on disk.

On disk a row is written once and never changed, to files of many rows each that are mapped into memory (`segments`).
A checkpoint then holds how long the files were and their hashes: saving it is a sync, not a copy. What is written
behind it is ignored and overwritten when the run is resumed from there. Files go when no checkpoint of the run can
need them any more.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rlx.replay.mapped_log import Segments

Array = np.ndarray
Actions = tuple[Any, tuple[int, ...]]
SEGMENT = 64 << 20  # bytes of a file, at least
SMALL = ("action", "reward", "flags", "age")
CHECKPOINT = re.compile(r"(best|step|final)_(\d+)\.\w+")


class Store(Protocol):
    """The rows. Small columns are rings in RAM, [slots, N]; observations and what is kept aside are behind methods.

    `e` counts transitions from the beginning of the run; at least the last `slots` rows of them are there.
    """

    action: Array
    reward: Array
    flags: Array
    age: Array  # rows since the stack of this one began, up to 255

    def put_obs(self, t: int, obs: Array) -> None: ...
    def put_row(self, t: int) -> None: ...  # the small columns of row t are complete
    def put_rows(self, t: Array, obs: Array) -> None: ...  # those of rows t, and obs are those behind them
    def obs(self, e: Array) -> Array: ...
    def put_aside(self, key: int, obs: Array) -> None: ...  # with ascending keys
    def aside(self, key: int) -> Array | None: ...
    def forget(self, key: int) -> None: ...  # what was kept aside with lower keys
    def state(self, first: int, t: int) -> dict[str, Any]: ...  # rows first to t - 1
    def load(self, state: Mapping[str, Any], first: int, t: int) -> None: ...
    def start(self) -> None: ...  # with nothing to load


class Memory:
    """Everything in RAM. `kept` is the shape of what a row keeps of an observation, `shape` that of a whole one,
    `actions` type and shape of an action."""

    def __init__(
        self, slots: int, lanes: int, kept: tuple[int, ...], shape: tuple[int, ...], dtype: Any, actions: Actions
    ) -> None:
        self.slots, self.lanes = slots, lanes
        self.action = np.zeros((slots, lanes, *actions[1]), actions[0])
        self.reward = np.zeros((slots, lanes), np.float32)
        self.flags = np.zeros((slots, lanes), np.uint8)
        self.age = np.zeros((slots, lanes), np.uint8)
        self._obs = np.zeros((slots, lanes, *kept), dtype)
        self._flat = self._obs.reshape(slots * lanes, *kept)
        self._shape, self._dtype = shape, dtype
        self._aside: dict[int, Array] = {}

    def start(self) -> None:
        pass

    def put_obs(self, t: int, obs: Array) -> None:
        self._obs[t % self.slots] = obs

    def put_row(self, t: int) -> None:
        pass

    def put_rows(self, t: Array, obs: Array) -> None:
        self._obs[(t + 1) % self.slots] = obs

    def obs(self, e: Array) -> Array:
        return self._flat.take(e % len(self._flat), 0)

    def put_aside(self, key: int, obs: Array) -> None:
        self._aside[key] = obs.copy()

    def aside(self, key: int) -> Array | None:
        return self._aside.get(key)

    def forget(self, key: int) -> None:
        for old in [old for old in self._aside if old < key]:
            del self._aside[old]

    def state(self, first: int, t: int) -> dict[str, Any]:
        slots = np.arange(first, t) % self.slots
        aside = list(self._aside.values())
        return {
            **{name: getattr(self, name).take(slots, 0) for name in SMALL},
            "obs": self._obs.take(slots, 0),
            "keys": np.array(list(self._aside), np.int64),
            "aside": np.stack(aside) if aside else np.zeros((0, *self._shape), self._dtype),
        }

    def load(self, state: Mapping[str, Any], first: int, t: int) -> None:
        if "obs" not in state:
            raise ValueError("the buffer was saved on disk, but this run keeps it in RAM (buffer_ram_mb)")
        slots = np.arange(first, t) % self.slots
        if len(state["reward"]) != len(slots):
            raise ValueError(f"{len(slots)} rows needed, {len(state['reward'])} saved")
        for name in SMALL:
            getattr(self, name)[slots] = state[name]
        self._obs[slots] = state["obs"]
        self._aside = dict(zip(state["keys"].tolist(), state["aside"]))


def _small(actions: Actions) -> dict[str, Actions]:
    return {"action": actions, "reward": (np.float32, ()), "flags": (np.uint8, ()), "age": (np.uint8, ())}


def _records(
    slots: int,
    lanes: int,
    kept: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: Any,
    actions: Actions,
    segment_bytes: int,
) -> tuple[np.dtype, np.dtype, int]:
    """The record of a row, that of what is kept aside, and the bytes of a file of either."""
    columns = [(name, kind, (lanes, *inner)) for name, (kind, inner) in _small(actions).items()]
    record = np.dtype([("obs", dtype, (lanes, *kept)), *columns])
    size = max(segment_bytes, slots * record.itemsize // 64)  # at most some hundred open files
    return record, np.dtype([("key", np.int64), ("obs", dtype, shape)]), size


def file_bytes(
    rows: int, slots: int, lanes: int, kept: tuple[int, ...], shape: tuple[int, ...], dtype: Any, actions: Actions
) -> int:
    """What the files of a `Disk` take that is given `rows` rows: each has its full size from the start."""
    record, beside, size = _records(slots, lanes, kept, shape, dtype, actions, SEGMENT)
    per_file = max(1, size // record.itemsize)
    files = min(-(-slots // per_file) + 1, -(-rows // per_file))  # the oldest row may be the last one of its file
    return files * per_file * record.itemsize + max(1, size // beside.itemsize) * beside.itemsize


class Disk:
    """Observations, and a copy of all else, in files under `directory`. See `Memory`."""

    action: Array
    reward: Array
    flags: Array
    age: Array

    def __init__(
        self, slots: int, lanes: int, kept: tuple[int, ...], shape: tuple[int, ...], dtype: Any, actions: Actions,
        *, directory: Path, segment_bytes: int = SEGMENT,
    ) -> None:  # fmt: skip
        self.slots, self.lanes, self.directory = slots, lanes, Path(directory)
        for name, (kind, inner) in _small(actions).items():
            setattr(self, name, np.zeros((slots, lanes, *inner), kind))
        record, beside, size = _records(slots, lanes, kept, shape, dtype, actions, segment_bytes)
        self.log = Segments(self.directory, "rows", record, size)
        self.beside = Segments(self.directory, "aside", beside, size)
        self._kept, self._dtype = kept, dtype
        self._places: dict[int, int] = {}

    def start(self) -> None:
        self.log.clear()
        self.beside.clear()

    def put_obs(self, t: int, obs: Array) -> None:
        block, row = self.log.at(t)
        block["obs"][row] = obs

    def put_row(self, t: int) -> None:
        block, row = self.log.at(t)
        slot = t % self.slots
        for name in SMALL:
            block[name][row] = getattr(self, name)[slot]

    def put_rows(self, t: Array, obs: Array) -> None:
        for row, after in zip(t.tolist(), obs):
            self.put_row(row)
            self.put_obs(row + 1, after)

    def obs(self, e: Array) -> Array:
        rows, lanes = np.divmod(e, self.lanes)
        files, rows = np.divmod(rows, self.log.per_file)
        out = np.empty((len(e), *self._kept), self._dtype)
        for k in set(files.tolist()):
            here = np.flatnonzero(files == k)
            block, _ = self.log.at(k * self.log.per_file)
            out[here] = block["obs"][rows[here], lanes[here]]
        return out

    def put_aside(self, key: int, obs: Array) -> None:
        place = self.beside.length
        block, row = self.beside.at(place)
        block["key"][row], block["obs"][row] = key, obs
        self.beside.length = place + 1
        self._places[key] = place

    def aside(self, key: int) -> Array | None:
        if key not in self._places:
            return None
        block, row = self.beside.at(self._places[key])
        return block["obs"][row]

    def forget(self, key: int) -> None:
        for old in [old for old in self._places if old < key]:
            del self._places[old]

    def state(self, first: int, t: int) -> dict[str, Any]:
        self._drop(first)
        self.log.length = t
        aside = min(self._places.values(), default=self.beside.length)
        return {"rows": self.log.state(first), "aside": self.beside.state(aside), "first_aside": aside}

    def load(self, state: Mapping[str, Any], first: int, t: int) -> None:
        if "rows" not in state:
            raise ValueError("the buffer was saved in RAM, but this run keeps it on disk (buffer_ram_mb)")
        self.log.load(state["rows"], first)
        self.beside.load(state["aside"], int(state["first_aside"]))
        for start, block in self.log.blocks(first, t):
            slots = (start + np.arange(len(block))) % self.slots
            for name in SMALL:
                getattr(self, name)[slots] = block[name]
        for start, block in self.beside.blocks(int(state["first_aside"]), self.beside.length):
            self._places.update(zip(block["key"].tolist(), range(start, start + len(block))))

    def _drop(self, first: int) -> None:
        """Delete the files that neither this state nor a checkpoint in the run's directory needs: the periodic ones,
        and the newest of any kind. (An old best one is for evaluation, which needs no buffer.)"""
        matches = [CHECKPOINT.fullmatch(path.name) for path in self.directory.parent.glob("checkpoints/*")]
        saved = [(int(match[2]), match[1]) for match in matches if match]
        newest = max(saved, default=None)
        needed = [step for step, kind in saved if kind != "best" or (step, kind) == newest]
        oldest = max(0, min([first, *(step // self.lanes - self.slots for step in needed)]))
        self.log.drop(oldest)
        self.beside.drop(self._first_aside(oldest))

    def _first_aside(self, t: int) -> int:
        """The first record beside that a row from t on can refer to."""
        key = 2 * t * self.lanes
        for start, block in self.beside.blocks(self.beside.first, self.beside.length):
            late = np.flatnonzero(block["key"] >= key)
            if len(late):
                return start + int(late[0])
        return self.beside.length
