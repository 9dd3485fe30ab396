"""Runs by configuration: those that differ in their seed only are one. Never imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlx.analysis.curves import build, curves
from rlx.config import keys
from rlx.rundir import query


@dataclass
class Configuration:
    """One, whatever has become of its runs."""

    place: str
    kind: str  # env or task
    label: str  # what tells it from the others of its place
    identity: str
    config: dict[str, Any]
    runs: list[tuple[Path, Any]]  # and their seeds


def read(paths: Sequence[Path]) -> tuple[list[Configuration], list[str]]:
    """The configurations by place, and notes about runs that cannot be read."""
    all_curves, notes = [], []
    for path in paths:
        if config := query.config(path):
            all_curves.append(curves.Curve(path, keys.curve(config), config.get("seed"), [], []))
        else:
            notes.append(f"{path}: config.yaml is unreadable")
    names, configs = query.place_names(curve.place for curve in all_curves), []
    for place in sorted(names, key=lambda place: place[1:]):
        lines = build.group([curve for curve in all_curves if curve.place == place], [])
        build.label(lines, [])
        for line in lines:
            label, first = line.label.rpartition(" (")[0], line.curves[0]
            runs = [(curve.path, curve.seed) for curve in line.curves]
            configs.append(Configuration(names[place], place[0], label, first.identity, first.config, runs))
    return configs, notes
