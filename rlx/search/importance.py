"""What made the better trials of a study better."""

from __future__ import annotations

from pathlib import Path


def importance(directory: Path | str) -> dict[str, float] | None:
    """{key: share} of what made the better trials of a study better (see `trials.importance`); None where there is
    nothing to say yet. Without Optuna what importance.json says. Raises UserError."""
    from rlx.search import study, trials

    found = study.load(Path(directory))
    known = trials.read_importance(found)
    return known if known is not None else trials.importance(found)
