"""Optional packages: the extra that brings each of them, and the command that adds it to this copy of rlx."""

import json
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Extra(NamedTuple):
    """What one of pyproject.toml's extras brings."""

    module: str  # it is installed where this can be imported
    envs: tuple[str, ...] = ()  # how the ids or the entry points of its environments begin
    hydra: tuple[str, ...] = ()  # its launchers and sweepers


EXTRAS = {
    "box2d": Extra("Box2D", envs=("gymnasium.envs.box2d",)),
    "mujoco": Extra("mujoco", envs=("gymnasium.envs.mujoco",)),
    "atari": Extra("ale_py", envs=("ALE/", "ale_py")),
    "minigrid": Extra("minigrid", envs=("MiniGrid-", "BabyAI-", "minigrid")),
    "envpool": Extra("envpool"),
    "sweep": Extra("optuna", hydra=("optuna",)),
    "dashboard": Extra("optuna_dashboard"),
    "joblib": Extra("hydra_plugins.hydra_joblib_launcher", hydra=("joblib",)),
    "slurm": Extra("hydra_plugins.hydra_submitit_launcher", hydra=("submitit_local", "submitit_slurm")),
    "ray": Extra("hydra_plugins.hydra_ray_launcher", hydra=("ray", "ray_aws")),
    "hf": Extra("transformers"),
    "docs": Extra("material"),
    "film": Extra("imageio_ffmpeg"),
    "wandb": Extra("wandb"),
    "mlflow": Extra("mlflow"),
    "onnx": Extra("onnx"),
    "bench": Extra("stable_baselines3"),
}


def of_env(*names: str) -> str | None:
    """The extra that brings an environment, by its id or its entry point."""
    return next(
        (extra for extra, brings in EXTRAS.items() if any(name.startswith(brings.envs) for name in names)), None
    )


def of_hydra(name: str) -> str | None:
    """The extra that brings a launcher or a sweeper."""
    return next((extra for extra, brings in EXTRAS.items() if name in brings.hydra), None)


def installed(extra: str) -> bool:
    """Is what an extra brings here?"""
    return find_spec(EXTRAS[extra].module) is not None


def install(extra: str = "") -> str:
    """The command that installs rlx again, with this extra, from where this copy came."""
    root = Path(__file__).resolve().parents[2]
    wanted = f"[{extra}]" if extra else ""
    if (root / "pyproject.toml").is_file():  # a checkout
        return f'pip install -e "{"." if root == Path.cwd() else root}{wanted}"'
    url = _origin()
    return f'pip install "rlx{wanted}{f" @ {url}" if url else ""}"'


def _origin() -> str | None:
    """The file, directory or repository that pip installed this copy from; None where that was a package index."""
    try:
        record = json.loads(metadata.distribution("rlx").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    if vcs := record.get("vcs_info"):
        return f"{vcs['vcs']}+{record['url']}@{vcs['commit_id']}"
    return record.get("url")
