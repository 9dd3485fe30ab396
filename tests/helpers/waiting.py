"""Waiting for what must come: driven by the event, with a deadline that only a process that hangs reaches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 300.0  # seconds: also of a machine on which many other programs run


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Return once the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.005)
