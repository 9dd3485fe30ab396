"""Choosing the device. An explicit device that is absent is an error, never a silent fall-back."""

import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import filelock
import threadpoolctl
import torch

from rlx.base.errors import UserError

# So that asking whether there are GPUs does not open them: a job of a grid is a fork of the process that asked.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


class DeviceError(UserError):
    """A device that this machine does not have, or a name that means none."""


def choose(name: str, large: bool = False) -> tuple[torch.device, str]:
    """The torch device for `device=name`, and one line that says what was chosen and why.

    auto is the CPU for small networks: they run faster there than on a GPU, whose launches cost more than their
    arithmetic. For a `large` one it is a GPU where there is one. Raises DeviceError naming the value and the choices.
    """
    if name == "auto":
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        if large:
            why = "large networks are fastest there" if gpus else "there is no CUDA device"
            return torch.device("cuda" if gpus else "cpu"), f"{'cuda' if gpus else 'cpu'} (auto: {why})"
        seen = f"; {', '.join(gpus)} there on request: device=cuda" if gpus else ""
        return torch.device("cpu"), f"cpu (auto: small networks are fastest there{seen})"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not (kind == "cuda" and index.isdigit())):
        raise DeviceError(f"device={name}: no such device (choices: auto, cpu, cuda, cuda:N, mps)")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise DeviceError(
                f"device={name}: torch {torch.__version__} sees no CUDA device; use device=cpu or device=auto"
            )
        if index and int(index) >= count:
            raise DeviceError(f"device={name}: there are {count} CUDA devices, 0 to {count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device={name}: torch sees no MPS device; use device=cpu or device=auto")
    return torch.device(name), name


# -- several runs on one machine -------------------------------------------------------------------------------

_claimed: dict[str, filelock.BaseFileLock] = {}  # by physical device; let go when the process ends
LOOK = 1.0  # seconds between two looks for a free device


def claim(device: torch.device, wait: bool) -> torch.device:
    """`cuda` as the first CUDA device that no other run of this machine has claimed; any other device as it is.

    Where all are claimed: `wait` for one (a job of a grid), or else share the first.
    """
    if device.type != "cuda" or device.index is not None:
        return device
    visible = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    names = visible or [str(index) for index in range(torch.cuda.device_count())]
    return torch.device("cuda", claim_one(names, wait) or 0)


def claim_one(names: Sequence[str], wait: bool) -> int | None:
    """The index of the first of these that no living process has claimed (a lock file each); None: all are taken."""
    place = Path(tempfile.gettempdir()) / f"rlx-devices-{os.getuid() if hasattr(os, 'getuid') else 'all'}"
    place.mkdir(exist_ok=True)
    while True:
        for index, name in enumerate(names):
            if name in _claimed:
                return index
            lock = filelock.FileLock(place / f"{name}.lock")
            with contextlib.suppress(filelock.Timeout):
                lock.acquire(timeout=0)
                _claimed[name] = lock
                return index
        if not wait:
            return None
        time.sleep(LOOK)


def prepare(threads: int, deterministic: bool = True) -> None:
    """One-time torch settings of a run: threads, denormals flushed to zero (they cost 2x and change nothing that
    is learnt), deterministic kernels where there is a choice."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)  # numpy's BLAS: another number of threads rounds differently
    torch.set_flush_denormal(True)
    if deterministic and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
