"""Runs of a fraction of a second, in this process or in a fork of it that may be killed at any point."""

from __future__ import annotations

import builtins
import contextlib
import copy
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_envs  # noqa: F401  registers its environments
import yaml
from composed import composed
from waiting import PATIENCE

from rlx.base.errors import UserError
from rlx.config import registry
from rlx.rundir.metrics import read_metrics, strip_time
from rlx.training import runner

CONF = Path(__file__).resolve().parents[2] / "conf"
TINY = {
    "total_steps": 320, "log_every": 1, "eval_every": 96, "eval_episodes": 2, "checkpoint_every": 64, "video": False,
    "tensorboard": False, "model.hidden": [8, 8],
}  # fmt: skip
TINY_ALGO: dict[str, dict[str, Any]] = {  # by implementation: about 32 steps an iteration
    "ppo": {"num_envs": 2, "num_steps": 16, "num_epochs": 2, "num_minibatches": 2},
    "trpo": {"num_envs": 2, "num_steps": 16, "num_epochs": 2, "num_minibatches": 2},
    "a2c": {"num_envs": 2, "num_steps": 16},
    "actor_critic": {"num_envs": 4},
    "vpg": {"num_envs": 2, "num_steps": 8, "critic_epochs": 2, "critic_minibatches": 2},
    "dqn": {
        "num_envs": 2, "train_freq": 4, "rounds": 4, "gradient_steps": 2, "batch_size": 8, "buffer_size": 200,
        "learning_starts": 48, "target_update_every": 40, "exploration_fraction": 0.5,
    },
    **dict.fromkeys(("sac", "td3"), {
        "num_envs": 2, "train_freq": 4, "rounds": 4, "gradient_steps": 2, "batch_size": 8, "buffer_size": 200,
        "learning_starts": 48,
    }),
    **dict.fromkeys(
        ("q_learning", "sarsa_lambda", "n_step_sarsa", "monte_carlo", "double_q_learning", "bandit"),
        {"num_envs": 2, "num_steps": 16},
    ),
    "value_iteration": {"tolerance": 0.0},  # a sweep is a step
}  # fmt: skip

LANGUAGE = [
    "algo=sft", "total_steps=12", "eval_every=4", "eval_prompts=8", "samples=2", "checkpoint_every=4",
    "tensorboard=false", "model.num_layers=1", "model.d_model=8", "model.num_heads=2",
]  # fmt: skip


def config(root: Path, env: str = "cartpole", algo: str = "ppo", **changes: Any) -> dict[str, Any]:
    """A tiny run's resolved configuration; changes are keys with __ for a dot (algo__lr=1e-3)."""
    raw = _yaml("config")
    for key in ("defaults", "hydra"):
        del raw[key]
    raw["algo"] = _algo(algo)
    raw["env"] = _yaml(f"env/{env}")
    raw["model"] = _yaml("model/mlp")
    tiny = {f"algo.{key}": value for key, value in TINY_ALGO.get(raw["algo"]["implementation"], {}).items()}
    for key, value in {**TINY, **tiny, "runs_dir": str(root), **changes}.items():
        *section, name = key.replace("__", ".").split(".")
        part = raw[section[0]] if section else raw
        assert name in part or section == ["env"], key
        part[name] = value
    return raw


def spoken(root: Path, *words: str) -> dict[str, Any]:
    """The same of a tiny run on a task, from the words of a command."""
    return composed(*LANGUAGE, f"runs_dir={root}", *words)


def speak(root: Path, *words: str, name: str | None = None, progress: Any = None) -> Path:
    """A tiny run on a task from its beginning to its end."""
    place = {"parent": root, "name": name} if name else {}
    raw = spoken(root, *words)
    path, _ = runner.start(raw, ["rlx", "train", *words], progress or (lambda *_: None), **place)
    return path


def serves(algo: str, actions: str) -> bool:
    """Does an algorithm take such actions (Discrete, Box, ...)?"""
    return registry.values("algo", algo)["implementation"] in registry.serving(actions=actions)


def _algo(name: str) -> dict[str, Any]:
    """An algorithm's values, with those of the file it is a variant of."""
    found = _yaml(f"algo/{name}")
    found.pop("preset_of", None)
    first = next((base for base in found.pop("defaults", []) if base != "_self_"), None)
    return {**(_algo(first) if first else {}), **found}


def _yaml(name: str) -> dict[str, Any]:
    return copy.deepcopy(_read(name))


@functools.cache
def _read(name: str) -> dict[str, Any]:
    text = (CONF / f"{name}.yaml").read_text("utf-8")
    found = yaml.load(text, Loader=_Loader)
    return found


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as Hydra does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", __import__("re").compile(r"[-+]?\d+(\.\d*)?e[-+]?\d+"), "123456789-+"
)


def train(root: Path, env: str = "cartpole", *, name: str | None = None, progress: Any = None, **changes: Any) -> Path:
    """A run from its beginning to its end."""
    raw = config(root, env, **changes)
    place = {"parent": root, "name": name} if name else {}
    path, _ = runner.start(raw, ["rlx", "train"], progress or (lambda *_: None), **place)
    return path


def resume(path: Path, progress: Any = None, **changes: Any) -> dict[str, Any]:
    raw = runner.read_config(path)
    for key, value in changes.items():
        *section, name = key.split("__")
        (raw[section[0]] if section else raw)[name] = value
    return runner.resume(path, raw, ["rlx", "resume", str(path)], progress or (lambda *_: None))[1]


def result(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """What two equal runs have in common: the hash of the weights, and the metrics but for time/."""
    status = json.loads((path / "status.json").read_text())
    assert status["status"] == "finished", status
    return status["weights_sha256"], [strip_time(row) for row in read_metrics(path / "metrics.jsonl")]


def status(path: Path) -> dict[str, Any]:
    return json.loads((path / "status.json").read_text())


def record(path: Path) -> dict[str, Any]:
    return json.loads((path / "run.json").read_text())


def checkpoints(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "checkpoints").iterdir())


class Child:
    """A fork of this process that does something and leaves; wait() gives its exit code, negative for a signal."""

    def __init__(self, work: Callable[[], Any], stderr: Path | None = None) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                if stderr is not None:
                    sys.stderr = open(stderr, "w", buffering=1)  # noqa: SIM115
                code = _exit_code(work)
            finally:
                os._exit(code)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        end, pause = time.monotonic() + seconds, 0.001
        while time.monotonic() < end:
            found, code = os.waitpid(self.pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(code)
            time.sleep(pause)
            pause = min(1.5 * pause, 0.02)
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        raise AssertionError(f"the child did not end within {seconds} s")


def _exit_code(work: Callable[[], Any]) -> int:
    """What the command line makes of an error."""
    try:
        work()
    except runner.Interrupted as stop:
        return stop.code
    except runner.RunFailed as error:
        print(f"rlx: error: {error}", file=sys.stderr, flush=True)
        return 1
    except UserError as error:
        print(f"rlx: error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(step: int) -> Callable[..., None]:
    """A progress callback that kills its process when the run gets there."""
    return lambda now, _metrics: die() if now >= step else None


def fail_at(number: int) -> None:
    """Let this process kill itself at its `number`-th file operation (before and after count as two)."""
    left = [number]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if left[0] == 0:
                die()
            found = function(*args, **kwargs)
            if left[0] == 1:
                die()
            left[0] -= 2
            return found

        return call

    for name in ("fsync", "replace", "unlink", "mkdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    builtins.open = counted(open)


def die_at_env_step(number: int) -> None:
    """Let this process kill itself in the middle of its `number`-th (vector) environment step."""
    from rlx.envs.batch import Envs

    real, left = Envs.step, [number]

    def step(self: Any, action: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            self._advance(action)
            die()
        return real(self, action)

    Envs.step = step  # type: ignore[method-assign]
