"""What has changed in a run directory since its checkpoint was written, by another hand than rlx's."""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlx.base.errors import shown
from rlx.base.files import guarded
from rlx.rundir import provenance
from rlx.rundir.checkpoint import Found
from rlx.rundir.metrics import FILE
from rlx.rundir.provenance import Provenance

MISSING = object()


def config(path: Path, raw: Mapping[str, Any], checkpoint: Found) -> dict[str, list[Any]]:
    """{key: [value in the checkpoint, value in config.yaml]}, but for what `rlx resume` was asked to change."""
    text = checkpoint.state["runner"].get("config")
    if not isinstance(text, str):  # checkpoints before 0.2.0 have none
        return {}
    asked: dict[str, Any] = {}
    for resume in Provenance.read(path).resumes:
        if isinstance(step := resume.get("step"), int) and step >= checkpoint.step:
            changes = resume.get("changes")
            asked |= {key: both[-1] for key, both in changes.items()} if isinstance(changes, Mapping) else {}
    both = provenance.differences(guarded.parsed_yaml(text), raw)
    return {key: [old, new] for key, (old, new) in both.items() if asked.get(key, MISSING) != new}


def lines(path: Path, changes: Mapping[str, list[Any]], checkpoint: Found) -> list[str]:
    """What to say of them, and of a log that is another one: one line each."""
    of = f"the checkpoint of step {checkpoint.step:,}"
    found = []
    if changes:
        listed = ", ".join(f"{key}={shown(new)} (was {shown(old)})" for key, (old, new) in changes.items())
        found.append(f"config.yaml is not the one of {of}: {listed}")
    if _metrics_changed(path, checkpoint.state["runner"]):
        found.append(f"{FILE} is not what it was when {of} was written (a line is damaged, or was edited)")
    return found


def _metrics_changed(path: Path, own: Mapping[str, Any]) -> bool:
    """Are its bytes up to the checkpoint's other ones? (That there are fewer is said where it is opened.)"""
    left, digest = own.get("metrics_offset", 0), hashlib.sha256()
    with contextlib.suppress(guarded.Damaged), guarded.opened(path / FILE) as file:
        while left and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
    return "metrics_sha256" in own and not left and digest.hexdigest() != own["metrics_sha256"]
