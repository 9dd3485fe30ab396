"""What the command line calls: start a run, resume one, evaluate and play its policy. The loop itself is in `loop`."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from rlx import device as devices
from rlx import record, registry, rundir
from rlx.checkpoint import CheckpointError, Checkpoints, Found
from rlx.config import Config, implementation, validate
from rlx.errors import ConfigError, UserError
from rlx.loop import EVAL_ENVS, Loop, Progress, RunFailed, say
from rlx.run import Run
from rlx.rundir import read_config
from rlx.signals import Interrupted, Signals

Announce = Callable[[Config, Path, str], None]


def typed(raw: Mapping[str, Any]) -> tuple[Config, ModuleType]:
    """The typed configuration and the module of its algorithm. Raises ConfigError."""
    module = registry.algorithm(implementation(raw))
    return validate(raw, module.Config), module


def check(cfg: Config, module: ModuleType) -> torch.device:
    """What can only be seen by trying: the device, the environment, whether the two fit the algorithm.

    Raises ConfigError in one line; nothing has been written then.
    """
    from rlx.control.acting import make_one
    from rlx.control.envs import EnvError
    from rlx.control.heads import make_head
    from rlx.control.nets import SMALLEST_IMAGE

    try:
        device, _ = devices.choose(cfg.device)
        envs = make_one(dataclasses.replace(cfg.env, replay=True))
        try:
            _fits("ACTIONS", type(envs.action_space).__name__, cfg, module)
            _fits("OBSERVATIONS", type(envs.raw_observation_space).__name__, cfg, module)
            make_head(envs.action_space)
            shape = envs.observation_space.shape or ()
            if len(shape) == 3 and min(shape[1:]) < SMALLEST_IMAGE:
                raise ConfigError(
                    f"env.id={cfg.env.id}: images of {shape[1]} by {shape[2]} are too small for the CNN: "
                    f"{SMALLEST_IMAGE} by {SMALLEST_IMAGE} at least (env.wrappers=[flatten] makes vectors of them)"
                )
            if own := getattr(module, "check", None):  # what the algorithm asks beyond its own section
                own(cfg, envs)
        finally:
            envs.close()
    except (devices.DeviceError, EnvError) as error:
        raise ConfigError(str(error)) from None
    except ValueError as error:
        raise (error if isinstance(error, ConfigError) else ConfigError(f"env.id={cfg.env.id}: {error}")) from None
    return device


def _fits(attribute: str, kind: str, cfg: Config, module: ModuleType) -> None:
    """An algorithm may say which kinds of Gymnasium spaces it can serve: ACTIONS, OBSERVATIONS."""
    allowed = getattr(module, attribute, None)
    if allowed and kind not in allowed:
        others = ", ".join(registry.serving(attribute, kind))
        raise ConfigError(
            f"env.id={cfg.env.id} has {kind} {attribute.lower()}; {cfg.algo.name} needs {allowed[0]} ones "
            f"(use {others})"
        )


def start(
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Announce = lambda *_: None,
    parent: Path | None = None,
    name: str | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Validate, open a new run directory, train. Returns its path and the results."""
    cfg, module = typed(raw)
    device = check(cfg, module)
    path = rundir.open_new(cfg, raw, command, str(device), parent, name)
    with Signals() as signals, rundir.locked(path):
        with contextlib.suppress(OSError):  # nobody reads it
            announce(cfg, path, devices.choose(cfg.device)[1])
        return path, Loop(path, cfg, module, device, _checkpoints(path, cfg, raw), progress, signals).execute(None)


def resume(
    path: Path,
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Announce = lambda *_: None,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; `raw` is its configuration with the changes asked for, which are recorded.

    One that is finished, and of which nothing new is asked, is left as it is.
    """
    path = path.absolute()
    cfg, module = typed(raw)
    before = read_config(path)
    changes = record.differences(before, raw)
    for key, (old, new) in changes.items():
        if rundir.is_frozen(key):
            raise ConfigError(
                f"{key}={new}: cannot change in a run that has begun with {old} (rlx train starts another)"
            )
    device = check(cfg, module)
    checkpoints = _checkpoints(path, cfg, raw)
    with Signals() as signals, rundir.locked(path) as status:
        found = _newest(path, checkpoints, status)
        step = found.step if found else 0
        if "total_steps" in changes and cfg.total_steps < step:  # (unchanged: a last rollout goes beyond it)
            raise ConfigError(f"total_steps={cfg.total_steps}: the run is at step {step} already")
        whole = found is not None and found.kind == "final" and step >= cfg.total_steps
        if found and whole and not changes and status.get("status") == "finished":
            rundir.put_back(path, status)
            mine = found.state["runner"]
            kept = {key: mine[key] for key in ("evaluation", "metrics")}
            return path, {**kept, "weights_sha256": status.get("weights_sha256")}
        if note := record.add_resume(path, command, str(device), step, changes):
            say(f"note: {note}")
        if changes:
            rundir.write_config(path, raw)
        with contextlib.suppress(OSError):  # nobody reads it
            announce(cfg, path, devices.choose(cfg.device)[1])
        try:
            return path, Loop(path, cfg, module, device, checkpoints, progress, signals).execute(found)
        except UserError:  # the checkpoint does not fit what was asked: the run stays what it was
            if changes:
                rundir.write_config(path, before)
            record.drop_resume(path)
            rundir.put_back(path, status)
            raise


def _checkpoints(path: Path, cfg: Config, raw: Mapping[str, Any]) -> Checkpoints:
    return Checkpoints(path / "checkpoints", cfg.keep_checkpoints, rundir.identity(raw))


def _newest(path: Path, checkpoints: Checkpoints, status: Mapping[str, Any]) -> Found | None:
    """The checkpoint to go on from, with a warning for each newer one that is bad. None, and a line that says so,
    where the run was stopped before its first one. Raises ConfigError where there should be one."""
    try:
        found = checkpoints.load()
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from None
    if found is None:
        if status.get("checkpoint") is not None:
            raise ConfigError(f"{path}: its checkpoints are gone (there was one of step {status['checkpoint']})")
        say("note: the run was stopped before its first checkpoint: it starts from the beginning")
        return None
    for warning in found.warnings:
        say(f"warning: {warning}")
    return found


def open_policy(path: Path, which: str = "latest", device: str | None = None) -> tuple[Config, Any]:
    """The configuration and the policy of a run's checkpoint, for evaluation and play."""
    raw = read_config(path)
    cfg, module = typed(raw)
    try:
        chosen, _ = devices.choose(device or "cpu")
        devices.prepare(cfg.threads)
        found = _checkpoints(path, cfg, raw).load(which)
    except (devices.DeviceError, CheckpointError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if found is None:
        raise ConfigError(f"{path}: the run has no checkpoint yet (rlx resume {path} goes on with it)")
    for warning in found.warnings:
        say(f"warning: {warning}")
    return cfg, module.load_policy(cfg, Run(path, chosen, cfg.seed, found.state["run"]))


def evaluate_policy(policy: Any, cfg: Config, episodes: int, seed: int, stochastic: bool = False) -> dict[str, Any]:
    """{mean, std, n, returns} over fresh episodes; deterministic unless `stochastic`."""
    from rlx.control.evaluate import evaluate

    rng = np.random.default_rng([seed, 3]) if stochastic else None
    found = evaluate(lambda obs: policy(obs, rng), cfg.env, episodes, seed, num_envs=EVAL_ENVS)
    returns = [float(value) for value in found.returns]
    return {"mean": float(np.mean(returns)), "std": float(np.std(returns)), "n": len(returns), "returns": returns}


def play(policy: Any, cfg: Config, seed: int, steps: int, gif: Path | None, fps: int) -> tuple[float, int]:
    """One episode, to a GIF or to a window. Returns the return and the length."""
    from rlx.control.evaluate import has_display, render_episode, save_gif, watch_episode

    if gif is None:
        if not has_display():
            print("rlx: note: no display here; --gif out.gif writes a picture", file=sys.stderr)
        return watch_episode(policy, cfg.env, seed, steps)
    frames, total, length = render_episode(policy, cfg.env, seed, max_steps=steps, every=2, width=400)
    save_gif(frames, gif, fps=fps)
    return total, length


__all__ = ["Interrupted", "Loop", "RunFailed", "open_policy", "read_config", "registry", "resume", "start"]
