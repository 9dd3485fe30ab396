"""One run by several processes: torchrun --nproc-per-node 2 -m rlx train algo=grpo ...

All of them compute (see rlx.language.ranks). The first, the leader, does everything that a run does besides: its
directory, log, evaluations, checkpoints, signals. The others follow it, in silence, and stop where it does.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import distributed as dist

from rlx.base.errors import ConfigError


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """A variable that torchrun sets. Raises ConfigError."""
    text = os.environ.get(name) or str(default)
    if not text.isdigit():
        raise ConfigError(f"{name}={text}: must be a whole number (torchrun sets it; without it: unset {name})")
    return int(text)


def follows() -> bool:
    return count() > 1 and _number("RANK", 0) > 0


def join(device: torch.device, place: str) -> torch.device:
    """Meet the other processes; returns this one's device. Raises ConfigError for a run that one process computes."""
    if count() == 1:
        return device
    if place != "task":
        raise ConfigError("torchrun: runs in an environment are computed by one process (rlx train -m runs several)")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", _number("LOCAL_RANK", 0) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return device


@contextlib.contextmanager
def leading() -> Iterator[Callable[[str], None]]:
    """The leader calls `go(path)` when the run may begin; the followers go home if it leaves before that."""
    gone = False

    def go(path: str) -> None:
        nonlocal gone
        gone = True
        _broadcast(path)

    try:
        yield go
    finally:
        if not gone:
            _broadcast("")


def wait() -> str:
    """What the leader says: the path of the run; empty: there is none."""
    return _broadcast("")


def agree(number: int) -> int:
    """The leader's number, on every rank."""
    if count() == 1 or not dist.is_initialized():
        return number
    shared = torch.tensor([number])
    dist.broadcast(shared, 0)
    return int(shared)


def _broadcast(text: str) -> str:
    """The leader's text, as bytes: torch's own way to send objects pickles them."""
    if count() == 1 or not dist.is_initialized():
        return text
    data = text.encode()
    size = agree(len(data))
    row = torch.zeros(size, dtype=torch.uint8)
    if data:
        row[:] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    if size:
        dist.broadcast(row, 0)
    return bytes(row.tolist()).decode()
