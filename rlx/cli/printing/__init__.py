"""What the command line prints. Never imports torch.

text       paths, numbers, tables                          live   the line of a run in progress; grid: of many
outcomes   what came of a run, a grid, an evaluation       runs   lists and details of runs that are there
comparing  what tells runs apart                           study  the trials of a search
"""

from rlx.cli.printing.comparing import compared, differences
from rlx.cli.printing.live import How, Live
from rlx.cli.printing.outcomes import evaluated, finished, grid_summary, sampled
from rlx.cli.printing.runs import details, doomed, jobs, listing, plotted, removed, states
from rlx.cli.printing.text import FORMS, place_of, quoted, ranking, table, use_form

__all__ = [
    "FORMS", "How", "Live", "compared", "details", "differences", "doomed", "evaluated", "finished", "grid_summary",
    "jobs", "listing", "place_of", "plotted", "quoted", "ranking", "removed", "sampled", "states", "table", "use_form",
]  # fmt: skip
