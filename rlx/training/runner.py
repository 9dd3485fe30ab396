"""What the command line calls: start a run, resume one, open its policy. The loop itself is in `loop`, environments and
tasks are in the worlds."""

import contextlib
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from rlx.base.errors import ConfigError, UserError, shown
from rlx.base.files.atomic import CannotWrite
from rlx.base.signals import Interrupted, RunFailed, Signals
from rlx.base.streams import others_on_stderr
from rlx.config import keys, odd, own_code, registry
from rlx.config.schema import Config, canonical, implementation, validate
from rlx.loggers import loggers
from rlx.run import Run
from rlx.rundir import layout, provenance, reader
from rlx.rundir.checkpoint import CheckpointError, Checkpoints, Found
from rlx.rundir.layout import Status, read_config
from rlx.rundir.provenance import Provenance
from rlx.training import code_record, device as devices, distributed, drift, init_from
from rlx.training.exits import no_silent_exit
from rlx.training.loop import Loop, Progress, say

Announce = Callable[[Config, Path, str], None]


def typed(raw: Mapping[str, Any]) -> tuple[Config, ModuleType]:
    """The typed configuration and the module of its algorithm. Raises ConfigError."""
    name = implementation(raw)
    module, world = registry.algorithm(name), registry.world(name)
    for place in set(registry.WORLDS.values()) - {world.NAME}:
        if place in raw:
            raise ConfigError(f"algo.implementation={name}: needs the section {world.NAME}, not {place}")
    return validate(raw, world.Config, {"algo": module.Config, **world.sections(raw)}), module


@others_on_stderr()
def check(cfg: Config, module: ModuleType) -> torch.device:
    """What can only be seen by trying: the device, and what its world tries.

    Raises ConfigError in one line; nothing has been written then.
    """
    try:
        device, _ = _chosen(cfg)
    except devices.DeviceError as error:
        raise ConfigError(str(error)) from None
    loggers.check(cfg.logger)
    world_of(cfg).check(cfg, module)
    return device


def _of_several(parent: Path | None) -> bool:
    return parent is not None and any((parent / name).exists() for name in ("sweep.json", "study.json"))


def _chosen(cfg: Config) -> tuple[torch.device, str]:
    return devices.choose(cfg.device, world_of(cfg).large(cfg))


def ready(
    raw: Mapping[str, Any], command: list[str], trying: bool = True
) -> tuple[dict[str, Any], Config, ModuleType, dict[str, Any]]:
    """All that is checked before a run begins (`trying`: what can only be seen by trying, too).

    Returns the configuration with the runs that it starts from, as data and typed, the algorithm and what to record of
    those runs. Raises ConfigError.
    """
    cfg, module = typed(raw)
    whole, origins = init_from.resolve(raw, world_of(cfg), command)
    if whole != raw:
        cfg, module = typed(whole)
    if trying:
        check(cfg, module)
    return canonical(whole, cfg), cfg, module, origins


@no_silent_exit()
def start(
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Announce = lambda *_: None,
    parent: Path | None = None,
    name: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Validate, open a new run directory, train. Returns its path and the results. `about`: what else run.json says."""
    own_code.stand_in(None)
    raw, cfg, module, origins = ready(raw, command)
    code = code_record.new(raw, *_recorded(cfg))
    device, chosen = _chosen(cfg)
    device = distributed.join(device, cfg.PLACE)
    if distributed.follows():
        return follow(cfg, module, device)
    device = devices.claim(device, wait=_of_several(parent))
    with distributed.leading() as go:
        with Signals(insists=True) as signals:  # from before the run directory says "running"
            about = {**origins, **(about or {}), **({"code": code} if code else {})}
            path = layout.open_new(cfg, raw, command, str(device), parent, name, about)
            with layout.locked(path):
                if notice := code_record.write_patch(path, code):
                    say(f"note: {notice}")
                _say_odd(path, odd.lines(cfg))
                with contextlib.suppress(OSError):  # nobody reads it
                    announce(cfg, path, chosen)
                go(str(path))
                checkpoints = _checkpoints(path, cfg, raw)
                return path, Loop(path, cfg, module, device, checkpoints, progress, signals).execute(None)


def _say_odd(path: Path, lines: list[str]) -> None:
    for line in lines:
        say(f"warning: {line}")
    if lines:
        provenance.add_notices(path, lines)


def _recorded(cfg: Config) -> tuple[list[str], tuple[str, ...]]:
    """What of a run's world counts as its code: packages, and keys that name files."""
    world = world_of(cfg)
    return world.packages(cfg), world.PATHS


def follow(cfg: Config, module: ModuleType, device: torch.device, checkpoints: Checkpoints | None = None) -> Any:
    """The part of a process that does not lead (torchrun): compute what the leader computes, and leave nothing."""
    path = Path(distributed.wait())
    if path == Path():
        raise SystemExit(0)  # the leader has said why
    checkpoint = checkpoints.load() if checkpoints else None
    with Signals():  # the leader decides what becomes of them
        devices.prepare(cfg.threads)
        run = Run(path, device, cfg.seed, checkpoint.state["run"] if checkpoint else None, init_from.saved)
        with contextlib.closing(module.train(cfg, run)) as steps:
            for step, _ in steps:
                if distributed.agree(0) and step < cfg.total_steps:
                    break
    return path, {"evaluation": None, "metrics": {}, "weights_sha256": None}


@no_silent_exit()
def resume(
    path: Path,
    raw: Mapping[str, Any],
    command: list[str],
    progress: Progress,
    *,
    announce: Announce = lambda *_: None,
    trust: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; `raw` is its configuration with the changes asked for, which are recorded. `trust`: run code of
    a run's own that this machine has not recorded.

    One that is finished, and of which nothing new is asked, is left as it is.
    """
    path = path.absolute()
    before = read_config(path)
    layout.check_formats(path)
    code_record.enter(path, before, trust)
    cfg, module = typed(raw)
    raw = canonical(raw, cfg)
    changes, frozen = provenance.differences(before, raw), reader.facts(path).frozen
    _check_free(changes, frozen)
    there = replace(cfg, runs_dir=str(path))  # the disk that it is on
    device = distributed.join(check(there, module), cfg.PLACE)
    checkpoints = _checkpoints(path, cfg, raw)
    if distributed.follows():
        return follow(cfg, module, device, checkpoints)
    device = devices.claim(device, wait=_of_several(path.parent))
    with distributed.leading() as go, Signals(insists=True) as signals, layout.locked(path) as status:
        checkpoint = _newest(path, checkpoints, status)
        step = checkpoint.step if checkpoint else 0
        nothing_new = not changes
        if checkpoint:
            by_hand = drift.config(path, before, checkpoint)
            _check_free(by_hand, frozen)
            drifted = _drifted(path, by_hand, checkpoint)
            nothing_new = nothing_new and ("total_steps" not in by_hand or step >= cfg.total_steps)
            changes = {**by_hand, **{key: [by_hand.get(key, both)[0], both[1]] for key, both in changes.items()}}
        if "total_steps" in changes and cfg.total_steps < step:  # (unchanged: a last rollout goes beyond it)
            raise ConfigError(f"total_steps={cfg.total_steps}: the run is at step {step} already")
        if checkpoint and checkpoint.kind == "final" and nothing_new and status.status == "finished":
            provenance.add_notices(path, drifted)
            layout.put_back(path, status)
            early = f" (it stopped by itself before {cfg.total_steps:,})" if step < cfg.total_steps else ""
            say(f"note: finished at step {step:,}{early}: nothing is left to do")
            state = checkpoint.state["runner"]
            kept = {key: state[key] for key in ("evaluation", "metrics")}
            return path, {**kept, "weights_sha256": status.weights_sha256}
        code = code_record.new(raw, *_recorded(cfg))
        changed = code_record.changes(Provenance.read(path).latest_code, code)
        try:
            if note := provenance.add_resume(path, command, str(device), step, changes, code):
                say(f"note: {note}")
            if changed:
                note = f"changed since the run was last started: {', '.join(changed)} (from step {step:,} on)"
                say(f"note: {note}")
                provenance.add_notices(path, [note])
                code_record.write_patch(path, code, f"code_{step}.patch")
            if checkpoint:
                provenance.add_notices(path, drifted)
            if changes:
                layout.write_config(path, raw)
                _say_odd(path, [line for line in odd.lines(cfg) if line.partition("=")[0] in changes])
        except CannotWrite as error:
            raise ConfigError(str(error)) from None
        with contextlib.suppress(OSError):  # nobody reads it
            announce(cfg, path, _chosen(cfg)[1])
        go(str(path))
        try:
            return path, Loop(path, cfg, module, device, checkpoints, progress, signals).execute(checkpoint)
        except UserError:  # the checkpoint does not fit what was asked: the run stays what it was
            if changes:
                layout.write_config(path, before)
            provenance.drop_resume(path)
            layout.put_back(path, status)
            raise


def _check_free(changes: Mapping[str, list[Any]], frozen: Collection[str]) -> None:
    for key, (old, new) in changes.items():
        if keys.meaning(key, frozen).resume != keys.FREE:
            begun = f"a run that has begun with {shown(old)}"
            raise ConfigError(f"{key}={shown(new)}: cannot change in {begun} (rlx train starts another)")


def _checkpoints(path: Path, cfg: Config, raw: Mapping[str, Any]) -> Checkpoints:
    return Checkpoints(path / "checkpoints", cfg.keep_checkpoints, keys.identity(raw, reader.facts(path).frozen))


def _drifted(path: Path, by_hand: Mapping[str, list[Any]], checkpoint: Found) -> list[str]:
    """What has changed since the checkpoint by another hand; it is said, too."""
    lines = drift.lines(path, by_hand, checkpoint)
    for line in lines:
        say(f"warning: {line}")
    return lines


def _newest(path: Path, checkpoints: Checkpoints, status: Status) -> Found | None:
    """The checkpoint to go on from, with a warning for each newer one that is bad. None, and a line that says so,
    where the run was stopped before its first one. Raises ConfigError where there should be one."""
    try:
        checkpoint = checkpoints.load()
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from None
    if checkpoint is None:
        if status.checkpoint is not None:
            raise ConfigError(f"{path}: its checkpoints are gone (there was one of step {status.checkpoint})")
        say("note: the run was stopped before its first checkpoint: it starts from the beginning")
        return None
    for warning in checkpoint.warnings:
        say(f"warning: {warning}")
    return checkpoint


def open_run(
    path: Path, which: str = "latest", device: str | None = None, trust: bool = False
) -> tuple[Config, ModuleType, Run]:
    """The configuration, the algorithm and the state of a run's checkpoint. `trust`: see `resume`."""
    raw = read_config(path)
    layout.check_formats(path)
    code_record.enter(path, raw, trust)
    cfg, module = typed(raw)
    try:
        chosen, _ = devices.choose(device or "cpu")
        devices.prepare(cfg.threads)
        checkpoint = _checkpoints(path, cfg, raw).load(which)
    except (devices.DeviceError, CheckpointError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if checkpoint is None:
        if (step := Status.read(path).checkpoint) is not None:
            raise ConfigError(f"{path}: the run has no checkpoint any more (there was one of step {step})")
        goes_on = "it is running" if reader.state(path) == "running" else f"rlx resume {path} goes on with it"
        raise ConfigError(f"{path}: the run has no checkpoint yet ({goes_on})")
    for warning in checkpoint.warnings:
        say(f"warning: {warning}")
    _drifted(path, drift.config(path, raw, checkpoint), checkpoint)
    return cfg, module, Run(path, chosen, cfg.seed, checkpoint.state["run"])


def open_policy(
    path: Path, which: str = "latest", device: str | None = None, trust: bool = False
) -> tuple[Config, Any]:
    """The configuration and the policy of a run's checkpoint, for evaluation and play."""
    cfg, module, run = open_run(path, which, device, trust)
    policy = world_of(cfg).load_policy(cfg, module, run)
    _warn(run)
    return cfg, policy


class _Begun(Exception):
    """A run has told what it tracks: it is as it begins, and its algorithm stops before the first step."""


def _begun() -> None:
    raise _Begun


def untrained_policy(path: Path, trust: bool = False) -> tuple[Config, Any]:
    """The policy with which a run began: what a seed decides, so that no checkpoint need hold it."""
    raw = read_config(path)
    code_record.enter(path, raw, trust)
    cfg, module = typed(raw)
    devices.prepare(cfg.threads)
    with tempfile.TemporaryDirectory() as place:
        run = Run(Path(place), torch.device("cpu"), cfg.seed, None, init_from.saved)
        run.begun = _begun
        with contextlib.suppress(_Begun):
            next(iter(module.train(cfg, run)))
        return cfg, world_of(cfg).load_policy(cfg, module, run)


def middle_checkpoint(path: Path) -> int | None:
    """The step of the checkpoint nearest to half of the run; None where all are nearer to an end of it."""
    raw = read_config(path)
    cfg, _ = typed(raw)
    kept = _checkpoints(path, cfg, raw)
    steps = sorted({step for kind in ("step", "best", "final") for step in kept.steps(kind)})
    middle = min(steps, key=lambda step: abs(step - steps[-1] / 2), default=None)
    return middle if middle is not None and middle <= 0.75 * steps[-1] else None


def world_of(cfg: Config) -> ModuleType:
    """The world that a run learns in."""
    return registry.world(cfg.algo.implementation)


def evaluate_policy(policy: Any, cfg: Config, count: int, seed: int, *args: Any, **how: Any) -> dict[str, Any]:
    """How good a policy is, over `count` fresh episodes or prompts, as `report` of its world says it."""
    return world_of(cfg).report(policy, cfg, count, seed, *args, **how)


def report(cfg: Config, module: ModuleType, run: Run, count: int, seed: int, **how: Any) -> dict[str, Any]:
    """The same of a run's checkpoint, by the algorithm's own measure where it has one."""
    if own := getattr(module, "evaluate", None):
        evaluation = own(cfg, run, count, seed)
    else:
        evaluation = evaluate_policy(world_of(cfg).load_policy(cfg, module, run), cfg, count, seed, **how)
    _warn(run)
    return evaluation


def _warn(run: Run) -> None:
    """What opening a checkpoint has found out, for the terminal."""
    for notice in run.notices:
        say(f"warning: {notice}")


__all__ = ["Interrupted", "Loop", "RunFailed", "open_policy", "open_run", "read_config", "resume", "start"]
