"""Weights & Biases. WANDB_MODE=offline keeps everything in the run's directory; `wandb sync` sends it later."""

import hashlib
from typing import Any

from rlx.loggers.loggers import LoggedRun


class Logger:
    """kwargs: those of wandb.init (project, entity, tags, group, ...)."""

    EXTRA = "wandb"

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = kwargs

    def start(self, run: LoggedRun, step: int) -> None:
        import wandb

        same = hashlib.sha256(str(run.path).encode()).hexdigest()[:16]  # a resumed run goes on there, too
        about = {"project": "rlx", "name": run.name, "id": same, "resume": "allow", "dir": str(run.path)}
        self.run = wandb.init(config=run.config, **{**about, **self.kwargs})

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        self.run.log(metrics, step=step)

    def finish(self, status: str) -> None:
        self.run.summary["status"] = status
        self.run.finish(exit_code=0 if status == "finished" else 1)
