"""Which process runs a run, in words that another process can check later."""

import contextlib
import os
import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

SILENT = 3600.0  # seconds without a heartbeat after which a process on another host counts as gone


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def me() -> dict[str, Any]:
    """This process: pid, host, and what tells it from a later process with the same pid."""
    return {"pid": os.getpid(), "process_started": _started(os.getpid()), "boot": _boot(), "host": socket.gethostname()}


def lives(who: Mapping[str, Any]) -> bool:
    """Does the process that wrote `who` (see `me`, with its last "heartbeat") still run?

    On another host only its heartbeat can tell, and only when it has been silent for long.
    """
    if who.get("host") != socket.gethostname():
        return _age(who.get("heartbeat")) < SILENT
    if who.get("boot") != _boot() or not isinstance(who.get("pid"), int) or not 0 < who["pid"] < 2**31:
        return False
    started = who.get("process_started")
    return started is not None and _started(who["pid"]) == started


def _started(pid: int) -> float | None:
    """When a process started; None for one that is gone or a zombie.

    On Linux in clock ticks since the boot, which setting the clock does not change.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time())
    return None


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _age(heartbeat: Any) -> float:
    try:
        return (datetime.now().astimezone() - datetime.fromisoformat(heartbeat)).total_seconds()
    except (TypeError, ValueError):
        return float("inf")
