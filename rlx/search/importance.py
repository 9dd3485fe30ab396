"""What made the better trials of a study better."""

from pathlib import Path


def importance(directory: Path | str) -> dict[str, float] | None:
    """{key: share} of what made the better trials of a study better (see `trials.importance`); None where there is
    nothing to say yet. Without Optuna what importance.json says. Raises UserError."""
    from rlx.search import study, trials

    loaded = study.load(Path(directory))
    saved = trials.read_importance(loaded)
    return saved if saved is not None else trials.importance(loaded)
