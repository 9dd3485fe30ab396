"""MLflow. Without MLFLOW_TRACKING_URI (or tracking_uri) its files come into mlruns/ of the run's directory."""

import os
from typing import Any

from rlx.config.nested import flatten
from rlx.loggers.loggers import LoggedRun

LONGEST = 500  # characters of a parameter
STATUS = {"finished": "FINISHED", "failed": "FAILED"}  # else KILLED


class Logger:
    EXTRA = "mlflow"

    def __init__(self, experiment: str = "rlx", tracking_uri: str | None = None) -> None:
        self.experiment, self.uri = experiment, tracking_uri

    def start(self, run: LoggedRun, step: int) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or (run.path / "mlruns").as_uri()
        if uri.startswith("file:"):  # its files are kept as they are; nothing else is asked of a run's directory
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.client, self.metric = MlflowClient(uri), Metric
        known = self.client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else self.client.create_experiment(self.experiment)
        same = self.client.search_runs([experiment], f"tags.rlx_path = '{run.path}'")
        if same:  # a resumed run goes on there
            self.id = same[0].info.run_id
            self.client.update_run(self.id, "RUNNING")
            return
        self.id = self.client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(key, str(value)[:LONGEST]) for key, value in flatten(run.config).items()]
        self.client.log_batch(self.id, params=params[:100], tags=[RunTag("rlx_path", str(run.path))])

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        import time

        now = int(1000 * time.time())
        numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float)}
        self.client.log_batch(self.id, [self.metric(key, value, now, step) for key, value in numbers.items()])

    def finish(self, status: str) -> None:
        self.client.set_terminated(self.id, STATUS.get(status, "KILLED"))
