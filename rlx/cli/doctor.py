"""rlx doctor: versions, devices and optional extras of this machine."""

import os

from rlx.base.extras import EXTRAS, install

LIBRARIES = (
    "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "typer", "tensorboard", "safetensors", "matplotlib",
)  # fmt: skip


def report(version: str) -> None:
    """Print them. The one report that imports torch, to ask it for devices."""
    import platform
    from importlib import metadata
    from importlib.util import find_spec

    print(f"rlx {version}, Python {platform.python_version()}, {platform.platform()}")
    for name in LIBRARIES:
        try:
            print(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"  {name} is missing: {install()}")
    import torch

    devices = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    print(f"devices: {', '.join(devices)}; {os.cpu_count()} cores")
    print("extras:")
    for extra, brings in EXTRAS.items():
        try:
            installed = find_spec(brings.module) is not None
        except ModuleNotFoundError:
            installed = False
        print(f"  {extra:<10}{'yes' if installed else f'no: {install(extra)}'}")
