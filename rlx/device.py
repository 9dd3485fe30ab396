"""Choosing the device. An explicit device that is absent is an error, never a silent fall-back."""

from __future__ import annotations

import threadpoolctl
import torch

from rlx.errors import UserError


class DeviceError(UserError):
    """A device that this machine does not have, or a name that means none."""


def choose(name: str) -> tuple[torch.device, str]:
    """The torch device for `device=name`, and one line that says what was chosen and why.

    auto is the CPU: networks of this size run faster there than on a GPU, whose launches cost more than their
    arithmetic. Raises DeviceError naming the value and the choices.
    """
    if name == "auto":
        found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        seen = f"; {', '.join(found)} there on request: device=cuda" if found else ""
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


def prepare(threads: int, deterministic: bool = True) -> None:
    """One-time torch settings of a run: threads, denormals flushed to zero (they cost 2x and change nothing that
    is learnt), deterministic kernels where there is a choice."""
    torch.set_num_threads(threads)
    threadpoolctl.threadpool_limits(threads)  # numpy's BLAS: another number of threads rounds differently
    torch.set_flush_denormal(True)
    if deterministic and torch.cuda.is_available():
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
