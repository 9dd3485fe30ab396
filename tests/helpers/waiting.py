"""Waiting for what must come: driven by the event, with a deadline that only a process that hangs reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 300.0  # seconds: also of a machine on which many other programs run


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Return once the condition holds."""
    end, pause = time.monotonic() + seconds, 0.001
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.02)
