"""The verbs of the command line. What they print is in `printing`, errors and exit codes are in `exit_codes`.

Nothing here imports torch, hydra or gymnasium until a verb needs it. The order of the imports is that of `rlx --help`.
"""

from rlx.cli.app import app, errors  # isort: skip
from rlx.cli.verbs import training, searching, policies, drawing, looking, comparing, dashboard  # isort: skip
from rlx.cli.verbs import explaining, exporting, new, checking, machine  # isort: skip
from rlx.cli.verbs.looking import ORDERS

__all__ = [
    "ORDERS", "app", "checking", "comparing", "dashboard", "drawing", "errors", "explaining", "exporting", "looking",
    "machine", "new", "policies", "searching", "training",
]  # fmt: skip
