"""What the command line prints. Never imports torch.

words   paths, numbers, tables      live   the line of a run in progress
outcomes   what came of a run, a sweep, an evaluation      runs   lists and details of runs that are there
"""

from rlx.printing.live import Live
from rlx.printing.outcomes import evaluated, finished, sampled, sweep
from rlx.printing.runs import details, listing, plotted
from rlx.printing.words import near, place_of, quoted, ranking, table

__all__ = [
    "Live", "details", "evaluated", "finished", "listing", "near", "place_of", "plotted", "quoted", "ranking",
    "sampled", "sweep", "table",
]  # fmt: skip
