"""Search: hyper-parameters by Optuna, several seeds a trial, any number of workers, nothing lost to a kill -9.

settings   what is asked for beside the configuration     study     its directory, read without Optuna
params     a point of the space                           storing   Optuna's storages, samplers, pruners
trials     planned, taken, told                           working   one worker      pool   several
winner     the best trial, and its fresh seeds            search   all of it, as `rlx sweep` does it

The only importer of Optuna. A study is the directory, what Optuna has recorded and the run directories; each can be
read without the others, and every step between them can be cut by a kill -9 and is taken up again.
"""

from __future__ import annotations

from pathlib import Path


def importance(directory: Path | str) -> dict[str, float] | None:
    """{key: share} of what made the better trials of a study better (see `trials.importance`); None where there is
    nothing to say yet. Without Optuna what importance.json says. Raises UserError."""
    from rlx.sweep import study, trials

    found = study.load(Path(directory))
    known = trials.read_importance(found)
    return known if known is not None else trials.importance(found)
