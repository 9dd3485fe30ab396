"""Training in the test's own process: what `rlx train` does, without the run directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from composed import composed

from rlx.run import Run, measured
from rlx.training import device
from rlx.training.runner import typed

sys.path.insert(0, str(Path(__file__).parent))  # "probe_envs:Name-v0" is importable


def train(*overrides: str) -> tuple[Run, list[dict[str, Any]]]:
    """The finished run and everything it yielded."""
    device.prepare(1)
    cfg, module = typed(composed(*overrides))
    run = Run(Path("unused"), torch.device("cpu"), cfg.seed)
    return run, [measured(metrics) for _, metrics in module.train(cfg, run)]
