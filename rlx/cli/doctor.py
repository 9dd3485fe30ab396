"""rlx doctor: versions, devices and optional extras of this machine."""

from __future__ import annotations

import os

LIBRARIES = (
    "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "typer", "tensorboard", "safetensors", "matplotlib",
)  # fmt: skip
EXTRAS = {
    "box2d": "Box2D", "mujoco": "mujoco", "atari": "ale_py", "minigrid": "minigrid", "envpool": "envpool",
    "sweep": "optuna", "dashboard": "optuna_dashboard", "joblib": "hydra_plugins.hydra_joblib_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher",
    "hf": "transformers", "bench": "stable_baselines3",
}  # fmt: skip


def doctor(version: str) -> None:
    """Print them. The one report that imports torch, to ask it for devices."""
    import platform
    from importlib import metadata
    from importlib.util import find_spec

    print(f"rlx {version}, Python {platform.python_version()}, {platform.platform()}")
    for name in LIBRARIES:
        try:
            print(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"  {name} is missing: pip install rlx")
    import torch

    devices = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    print(f"devices: {', '.join(devices)}; {os.cpu_count()} cores")
    print("extras:")
    for extra, module in EXTRAS.items():
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        install = f"no: pip install 'rlx[{extra}]'"
        print(f"  {extra:<10}{'yes' if there else install}")
