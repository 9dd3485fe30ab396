"""`rlx explain WORDS`, as fast as a <TAB>: without Typer."""

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

WIDTH = 100  # columns at most


def explain(words: Sequence[str]) -> int:
    """Print the page of what the words name; returns the exit code."""
    from rlx.explain.answer import answer

    try:
        lines = answer(words)
    except (Exception, KeyboardInterrupt) as error:
        from rlx.cli import exit_codes

        if os.environ.get("RLX_DEBUG"):
            raise
        return exit_codes.code_of(error)
    width = min(WIDTH, shutil.get_terminal_size().columns)
    for line in lines:
        print(line if line.startswith("    ") else _wrapped(line, width))
    sys.stdout.flush()
    return 0


def _wrapped(line: str, width: int) -> str:
    """Items of a list, and what follows a short heading (`what: ...`), hang behind their beginning."""
    indent = len(line) - len(line.lstrip())
    heading, colon, _ = line.partition(": ")
    if indent or line.startswith("- ") or (colon and len(heading) < 20):
        indent += 2
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
