"""rlx diff, compare: what tells two runs apart, and whether one side of runs is better than another."""

import json
from typing import Annotated

import typer

from rlx.base.errors import UserError
from rlx.cli import printing
from rlx.cli.app import Csv, Json, Latex, Markdown, RunName, answer, app, by_keys, run_path


@app.command()
def diff(run: RunName, other: RunName, as_json: Json = False) -> None:
    """Show what two runs differ in: configuration, code, outcome."""
    from rlx.analysis.compare.diff import build

    answer(build(run_path(run), run_path(other)), as_json, printing.differences)


@app.command()
def compare(
    sides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[GLOB]...", help="One side each: a directory, a run, or a quoted pattern."),
    ] = None,
    metric: Annotated[str, typer.Option(help="eval, or the last value of a key of metrics.jsonl.")] = "eval",
    by: Annotated[str, by_keys("Group all runs by these keys, one side per value.")] = "",
    lower: Annotated[bool, typer.Option("--lower", help="Lower is better (a loss).")] = False,
    as_json: Json = False,
    csv: Csv = False,
    latex: Latex = False,
    markdown: Markdown = False,
) -> None:
    """Decide whether one side of runs is better than another.

    \b
    rlx compare 'runs/cartpole/ppo/*' 'runs/cartpole/dqn/*'

    Prints the IQM of each side with its interval, the difference, the probability of improvement, and a verdict. The
    seeds of a configuration are grouped automatically.
    """  # fmt: skip
    from rlx.analysis.compare import build

    printing.use_form({"csv": csv, "latex": latex, "markdown": markdown})
    if not sides:
        raise UserError("compare: GLOB is missing: two directories of runs or patterns (rlx compare --help)")
    keys = [word for word in by.split(",") if word]
    comparison = build.build(sides, metric, keys, lower)
    if as_json:
        print(json.dumps(comparison.to_json()))
    else:
        printing.compared(comparison)
