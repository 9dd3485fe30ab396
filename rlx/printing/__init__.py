"""What the command line prints. Never imports torch.

words   paths, numbers, tables      live   the line of a run in progress
outcomes   what came of a run, a sweep, an evaluation      runs   lists and details of runs that are there
comparing   what tells runs apart
"""

from rlx.printing.comparing import compared, differences
from rlx.printing.live import Live
from rlx.printing.outcomes import evaluated, finished, sampled, sweep
from rlx.printing.runs import details, doomed, jobs, listing, plotted, removed
from rlx.printing.words import near, place_of, quoted, ranking, table

__all__ = [
    "Live", "compared", "details", "differences", "doomed", "evaluated", "finished", "jobs", "listing", "near",
    "place_of", "plotted", "quoted", "ranking", "removed", "sampled", "sweep", "table",
]  # fmt: skip
