"""The one outer loop: opens the run directory, seeds, logs, evaluates, checkpoints, resumes, handles signals.

An algorithm is a generator of `(step, metrics)`; everything that outlives the process is written here, between two
of its steps. A run is therefore exactly its configuration plus the state in its last checkpoint.
"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import filelock
import numpy as np
import psutil
import torch
import yaml

from rlx import __version__, registry
from rlx import device as devices
from rlx.checkpoint import CheckpointError, Checkpoints, read_manifest, weights_sha256
from rlx.config import Config, implementation, validate
from rlx.errors import ConfigError, UserError
from rlx.files import write_json
from rlx.logger import Dashboard, MetricsLog, config_hash
from rlx.run import Run
from rlx.rundir import open_new, read_config, read_record, update_record, versions, write_config

HEARTBEAT = 5.0  # seconds
EVAL_ENVS = 10  # environments of an evaluation
Progress = Callable[[int, Mapping[str, Any]], None]


class Interrupted(BaseException):
    """A signal asked the run to stop; it was checkpointed first. `code` is the exit code, 128 + signal."""

    def __init__(self, number: int, path: Path) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.code, self.path = 128 + number, path


class RunFailed(Exception):
    """Training failed; the traceback is in the run's log and in status.json."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def typed(raw: Mapping[str, Any]) -> tuple[Config, ModuleType]:
    """The typed configuration and the module of its algorithm. Raises ConfigError."""
    module = registry.algorithm(implementation(raw))
    return validate(raw, module.Config), module


# -- before anything is written --------------------------------------------------------------------------------


def check(cfg: Config, module: ModuleType) -> torch.device:
    """What can only be seen by trying: the device, the environment, whether the two fit the algorithm.

    Raises ConfigError in one line; nothing has been written then.
    """
    from rlx.control.envs import EnvError, make_envs
    from rlx.control.heads import make_head

    try:
        device, _ = devices.choose(cfg.device)
        envs = make_envs(dataclasses.replace(cfg.env, backend="sync", replay=True), 1, 0, domain=1)
        try:
            kind = type(envs.action_space).__name__
            allowed = getattr(module, "ACTIONS", None)
            if allowed and kind not in allowed:
                raise ConfigError(
                    f"env.id={cfg.env.id} has {kind} actions; {cfg.algo.name} needs {' or '.join(allowed)}"
                )
            make_head(envs.action_space)
        finally:
            envs.close()
    except (devices.DeviceError, EnvError) as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise (error if isinstance(error, ConfigError) else ConfigError(f"env.id={cfg.env.id}: {error}")) from None
    return device


# -- the loop --------------------------------------------------------------------------------------------------


class Runner:
    """One run, new or resumed, from the first checkpoint or from nothing, to its end."""

    def __init__(self, path: Path, cfg: Config, module: ModuleType, device: torch.device, progress: Progress) -> None:
        self.path, self.cfg, self.module, self.device, self.progress = path, cfg, module, device, progress
        self.checkpoints = Checkpoints(path / "checkpoints", cfg.keep_checkpoints)
        self.signal = 0
        self.best: float | None = None
        self.evaluation: dict[str, Any] | None = None
        self.elapsed, self._since = 0.0, time.perf_counter()
        self._beat = 0.0
        self._process = psutil.Process()

    def execute(self) -> dict[str, Any]:
        """Train to the end; returns the last evaluation and metrics. Raises RunFailed or Interrupted."""
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ConfigError(f"{self.path}: another process is running it") from None
        try:
            devices.prepare(self.cfg.threads)
            state, warnings = self.checkpoints.load()
            for warning in warnings:
                print(f"rlx: warning: {warning}", file=sys.stderr)
            with _Signals(self):
                self._open(state)
                try:
                    return self._loop()
                finally:
                    self.dashboard.close()
                    self.log.close()
        except UserError:
            raise
        except Interrupted as stop:
            self._status("interrupted", error=str(stop))
            raise
        except KeyboardInterrupt:
            self._status("interrupted", error="interrupted twice: stopped at once, without a checkpoint")
            raise Interrupted(signal.SIGINT, self.path) from None
        except BaseException as error:
            text = traceback.format_exc()
            with open(self.path / "rlx.log", "a") as file:
                file.write(f"{datetime.now().isoformat(timespec='seconds')}\n{text}\n")
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            self._status("failed", error=message, traceback=text)
            raise RunFailed(message, self.path) from error
        finally:
            lock.release()

    def _open(self, state: Mapping[str, Any] | None) -> None:
        mine = (state or {}).get("runner", {})
        self.best, self.evaluation = mine.get("best"), mine.get("evaluation")
        self.metrics: dict[str, Any] = mine.get("metrics", {})
        self.elapsed = mine.get("elapsed", 0.0)
        self.run = Run(self.path, self.device, self.cfg.seed, state["run"] if state else None)
        self.log = MetricsLog(self.path / "metrics.jsonl", offset=mine.get("metrics_offset", 0))
        self.first = self.run.step
        self.dashboard = (Dashboard if self.cfg.tensorboard else _NoDashboard)(
            self.path, purge_step=self.first + 1 if state else 0 if self._began_before() else None
        )
        raw = read_config(self.path)
        hparams = {key: raw[key] for key in ("algo", "env", "model", "total_steps")}
        self.dashboard.hparams_start(hparams, config_hash(hparams))
        if not state:
            self._describe(raw)
        self._status("running")

    def _began_before(self) -> bool:
        return any(self.path.glob("events.out.tfevents.*"))

    def _describe(self, raw: Mapping[str, Any]) -> None:
        record = read_record(self.path)
        command = " ".join(record["command"])
        found = "\n".join(f"    {name} {version}" for name, version in record["versions"].items())
        self.dashboard.text("config", "```yaml\n" + yaml.safe_dump(dict(raw), sort_keys=False) + "\n```")
        self.dashboard.text("command", f"    {command}")
        self.dashboard.text("versions", found)

    def _loop(self) -> dict[str, Any]:
        cfg, run = self.cfg, self.run
        self._since = time.perf_counter()
        before = run.step
        saved = run.step if self.first else -1
        for step, metrics in self.module.train(cfg, run):
            last = step >= cfg.total_steps
            self._note_notices()
            if last or _due(before, step, cfg.log_every):
                self._log(step, {**metrics, **self._times(step)})
            if cfg.eval_every and (last or _due(before, step, cfg.eval_every)):
                self._evaluate(step)
            if not last and cfg.checkpoint_every and _due(before, step, cfg.checkpoint_every):
                self._checkpoint(step)
                saved = step
            before = step
            self._alive(step)
            if self.signal:
                if saved != step and not last and getattr(run, "exact_anywhere", True):
                    self._checkpoint(step)
                if not last:
                    raise Interrupted(self.signal, self.path)
        weights = weights_sha256(run.parameters())
        if saved != run.step or not (self.checkpoints.directory / "final.json").exists():
            self._checkpoint(run.step, "final")
        self.dashboard.hparams_end("success")
        self._status("finished", weights_sha256=weights)
        return {"evaluation": self.evaluation, "metrics": self.metrics, "weights_sha256": weights}

    def _times(self, step: int) -> dict[str, float]:
        spent = time.perf_counter() - self._since
        return {
            "time/fps": round((step - self.first) / spent, 1) if spent else 0.0,
            "time/time_elapsed": round(self.elapsed + spent, 3),
        }

    def _log(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.metrics = {key: value for key, value in metrics.items() if not key.startswith("time/")}
        self.log.write(step, metrics)
        self.dashboard.scalars(step, metrics)
        self.progress(step, {**metrics, **{f"eval/{k}": v for k, v in (self.evaluation or {}).items()}})

    def _evaluate(self, step: int) -> None:
        from rlx.control.evaluate import evaluate

        policy = self.module.load_policy(self.cfg, self.run)
        found = evaluate(policy, self.cfg.env, self.cfg.eval_episodes, self.cfg.seed, num_envs=EVAL_ENVS)
        mean, std = float(np.mean(found.returns)), float(np.std(found.returns))
        self.evaluation = {
            "step": step,
            "mean_reward": mean,
            "std_reward": std,
            "episodes": len(found.returns),
        }
        metrics = {
            "eval/mean_reward": mean,
            "eval/std_reward": std,
            "eval/mean_ep_length": float(np.mean(found.lengths)),
        }
        known = [success for success in found.successes if success is not None]
        if known:
            metrics["eval/success_rate"] = float(np.mean(known))
        self.log.write(step, metrics)
        self.dashboard.scalars(step, metrics)
        if self.cfg.video:
            self._film(policy, step)
        if self.best is None or mean > self.best:
            self.best = mean
            self._checkpoint(step, "best")

    def _film(self, policy: Any, step: int) -> None:
        """A short GIF of one episode as an image summary. What cannot be filmed is said once, and training goes on."""
        from rlx.control.evaluate import render_episode, save_gif

        try:
            frames, _, _ = render_episode(policy, self.cfg.env, self.cfg.seed, max_steps=500, every=5, width=240)
            buffer = io.BytesIO()
            save_gif(frames, buffer, fps=12)
        except Exception as error:  # a missing display or renderer must not end a training run
            self.run.notice(f"no video: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            return
        height, width = np.asarray(frames[0]).shape[:2]
        self.dashboard.image_gif("eval/video", buffer.getvalue(), width, height, step)

    def _checkpoint(self, step: int, name: str | None = None) -> None:
        state = {
            "run": self.run.state_dict(),
            "runner": {
                "best": self.best,
                "evaluation": self.evaluation,
                "metrics": self.metrics,
                "elapsed": self.elapsed + time.perf_counter() - self._since,
                "metrics_offset": self.log.sync(),
            },
        }
        self.dashboard.flush()
        try:
            self.checkpoints.save(
                step, state, name, weights_sha256=weights_sha256(self.run.parameters()), rlx=__version__
            )
        except OSError as error:
            free = shutil.disk_usage(self.path).free
            raise OSError(
                f"cannot write a checkpoint to {self.checkpoints.directory}: {error.strerror} ({free:,} bytes free)"
            ) from error

    def _note_notices(self) -> None:
        if len(self.run.notices) > getattr(self, "_noticed", 0):
            for text in self.run.notices[getattr(self, "_noticed", 0) :]:
                print(f"rlx: note: {text}", file=sys.stderr)
            self._noticed = len(self.run.notices)
            update_record(self.path, notices=self.run.notices)

    def _alive(self, step: int) -> None:
        now = time.monotonic()
        if now - self._beat > HEARTBEAT:
            self._beat = now
            self._status("running")

    def _status(self, status: str, **more: Any) -> None:
        write_json(
            self.path / "status.json",
            {
                "status": status,
                "step": self.run.step if hasattr(self, "run") else 0,
                "total_steps": self.cfg.total_steps,
                "heartbeat": datetime.now().astimezone().isoformat(timespec="seconds"),
                "pid": os.getpid(),
                "process_started": self._process.create_time(),
                "host": socket.gethostname(),
                "evaluation": self.evaluation,
                **more,
            },
        )


def _due(before: int, now: int, every: int) -> bool:
    return every > 0 and now // every > before // every


class _NoDashboard:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Signals:
    """SIGINT, SIGTERM and SIGUSR1 ask the runner to checkpoint and stop; a second SIGINT stops it at once."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner

    def __enter__(self) -> None:
        self.before = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            try:
                self.before[number] = signal.signal(number, self._note)
            except ValueError:  # not in the main thread: whoever runs us handles signals
                return

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.runner.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.runner.signal = number

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


# -- what the command line calls -------------------------------------------------------------------------------


def start(
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Callable[[Config, Path, str], None] = lambda *_: None,
    parent: Path | None = None,
    name: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Validate, open a new run directory, train. Returns its path and the results."""
    cfg, module = typed(raw)
    device = check(cfg, module)
    path = open_new(cfg, raw, command, str(device), parent, name)
    announce(cfg, path, devices.choose(cfg.device)[1])
    return path, Runner(path, cfg, module, device, progress).execute()


FROZEN = (
    "seed",
    "runs_dir",
    "env",
    "model",
    "algo.name",
    "algo.implementation",
    "algo.num_envs",
    "algo.num_steps",
)


def resume(
    path: Path,
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Callable[[Config, Path, str], None] = lambda *_: None,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; `raw` is its configuration with the changes asked for, which are recorded."""
    path = path.absolute()
    cfg, module = typed(raw)
    before = read_config(path)
    changes = _differences(before, raw)
    for key in changes:
        if any(key == frozen or key.startswith(f"{frozen}.") for frozen in FROZEN):
            raise ConfigError(f"{key}: cannot change in a run that has begun (start a new one with rlx train)")
    device = check(cfg, module)
    newest = _newest_step(path, cfg)
    record = read_record(path)
    entry = {
        "step": newest,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "changes": changes,
        "versions": versions(),
        "host": socket.gethostname(),
    }
    write_json(path / "run.json", {**record, "resumes": [*record["resumes"], entry]})
    if changes:
        write_config(path, raw)
    announce(cfg, path, devices.choose(cfg.device)[1])
    return path, Runner(path, cfg, module, device, progress).execute()


def _newest_step(path: Path, cfg: Config) -> int:
    """The step a resume will start from (0: no checkpoint yet). Raises ConfigError when all are bad."""
    checkpoints = Checkpoints(path / "checkpoints", cfg.keep_checkpoints)
    problems = []
    for manifest in checkpoints.newest_first():
        try:
            return int(read_manifest(manifest)["step"])
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(f"{path}: no checkpoint can be read: {'; '.join(problems)}")
    return 0


def _differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = [old, new]
    return found


def open_policy(path: Path, which: str = "latest", device: str | None = None) -> tuple[Config, Any]:
    """The configuration and the policy of a run's checkpoint, for evaluation and play."""
    cfg, module = typed(read_config(path))
    try:
        chosen, _ = devices.choose(device or "cpu")
        devices.prepare(cfg.threads)
        state, warnings = Checkpoints(path / "checkpoints").load(which)
    except (devices.DeviceError, CheckpointError) as error:
        raise ConfigError(f"{path}: {error}") from None
    for warning in warnings:
        print(f"rlx: warning: {warning}", file=sys.stderr)
    if state is None:
        raise ConfigError(f"{path}: the run has no checkpoint yet (rlx resume {path} goes on with it)")
    return cfg, module.load_policy(cfg, Run(path, chosen, cfg.seed, state["run"]))


def evaluate_policy(policy: Any, cfg: Config, episodes: int, seed: int, stochastic: bool = False) -> dict[str, Any]:
    """{mean, std, n, returns} over fresh episodes; deterministic unless `stochastic`."""
    from rlx.control.evaluate import evaluate

    rng = np.random.default_rng([seed, 3]) if stochastic else None
    found = evaluate(lambda obs: policy(obs, rng), cfg.env, episodes, seed, num_envs=EVAL_ENVS)
    returns = [float(value) for value in found.returns]
    return {
        "mean": float(np.mean(returns)),
        "std": float(np.std(returns)),
        "n": len(returns),
        "returns": returns,
    }


def play(policy: Any, cfg: Config, seed: int, steps: int, gif: Path | None, fps: int) -> tuple[float, int]:
    """One episode, to a GIF or to a window. Returns the return and the length."""
    from rlx.control.evaluate import render_episode, save_gif

    frames, total, length = render_episode(policy, cfg.env, seed, max_steps=steps, every=2, width=400)
    if gif is not None:
        save_gif(frames, gif, fps=fps)
    return total, length


__all__ = ["Interrupted", "RunFailed", "Runner", "open_policy", "read_config", "registry", "resume", "start"]
