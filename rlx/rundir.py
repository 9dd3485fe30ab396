"""A run directory: making one, its configuration and its record. The layout is in the README.

config.yaml    resolved, without interpolations      run.json    command, versions, git, host, device, seed
status.json    how it stands                         rlx.log     tracebacks
metrics.jsonl  the truth; TensorBoard's event files are derived from it
checkpoints/
"""

from __future__ import annotations

import json
import platform
import socket
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from rlx import __version__
from rlx.errors import ConfigError
from rlx.files import sync_directory, write_atomically, write_json


def new_directory(cfg: Any, parent: Path | None = None, name: str | None = None) -> Path:
    """Create this run's own directory, exclusively. Raises ConfigError where that cannot be."""
    parent = parent or Path(cfg.runs_dir).absolute() / cfg.env.name / cfg.algo.name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for _ in range(1000):
            stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
            path = parent / (name or f"{stamp}_s{cfg.seed}")
            try:
                path.mkdir()
                return path
            except FileExistsError:
                if name:
                    raise
        raise FileExistsError(0, "no free name")
    except OSError as error:
        raise ConfigError(f"runs_dir={cfg.runs_dir}: cannot create {parent}: {error.strerror}") from None


def read_config(path: Path) -> dict[str, Any]:
    """The resolved configuration of a run directory. Raises ConfigError if it is not one."""
    file = path / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"{path}: not a run directory (no config.yaml; `rlx ls` lists the runs there are)")
    try:
        raw = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: unreadable ({type(error).__name__})") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("algo"), dict):
        raise ConfigError(f"{file}: not the configuration of a run")
    return raw


def write_config(path: Path, raw: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True)
    write_atomically(path / "config.yaml", text.encode())


def _git() -> dict[str, str | None]:
    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip()[:10_000] if done.returncode == 0 else None

    return {"commit": ask("rev-parse", "HEAD"), "diff_stat": ask("diff", "--stat", "HEAD")}


def versions() -> dict[str, str]:
    found = {"rlx": __version__, "python": platform.python_version(), "torch": torch.__version__}
    for name in ("numpy", "gymnasium", "hydra-core", "tensorboard"):
        found[name] = metadata.version(name)
    return found


def provenance(cfg: Any, command: list[str], device: str) -> dict[str, Any]:
    return {
        "command": command,
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "algo": cfg.algo.name,
        "env": cfg.env.name,
        "env_id": cfg.env.id,
        "seed": cfg.seed,
        "device": device,
        "threads": cfg.threads,
        "versions": versions(),
        "host": socket.gethostname(),
        "machine": {
            "system": platform.platform(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        },
        "git": _git(),
        "notices": [],
        "resumes": [],
    }


def open_new(
    cfg: Any,
    raw: Mapping[str, Any],
    command: list[str],
    device: str,
    parent: Path | None = None,
    name: str | None = None,
) -> Path:
    """A new run directory with its configuration and record in it."""
    path = new_directory(cfg, parent, name)
    write_json(path / "run.json", provenance(cfg, command, device))
    write_config(path, raw)
    sync_directory(path.parent)
    return path


def read_record(path: Path) -> dict[str, Any]:
    """run.json. Raises ConfigError if it is missing or damaged."""
    try:
        return json.loads((path / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path / 'run.json'}: unreadable ({type(error).__name__})") from None


def update_record(path: Path, **changes: Any) -> None:
    """Change keys of run.json."""
    write_json(path / "run.json", {**read_record(path), **changes})
