"""Distributions as pip leaves them."""

from pathlib import Path


def pretend(site: Path, name: str, entry_points: str, **modules: str) -> None:
    """A distribution as pip leaves it: metadata and modules."""
    (site / f"{name}-1.0.dist-info").mkdir(parents=True)
    (site / f"{name}-1.0.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (site / f"{name}-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
