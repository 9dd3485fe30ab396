"""rlx train, rlx resume."""

import contextlib
import io
import shutil
import sys
from typing import Annotated

import typer

from rlx.base.errors import UserError
from rlx.cli import printing
from rlx.cli.app import PASS, RunName, Trust, app, run_path

VERBOSE = "--verbose"
Verbose = Annotated[bool, typer.Option(VERBOSE, help="End with the last value of every metric, losses too.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the configuration.")]


@app.command(context_settings=PASS, add_help_option=False)
def train(ctx: typer.Context, overrides: Overrides = None) -> None:
    """Train an agent: rlx train algo=ppo env=cartpole."""
    from rlx.launch import launch

    words = _argv_after("train", [*(overrides or []), *ctx.args])
    if {"-h", "--help"} & {*words}:
        _help(words)
        return
    verbose, words = VERBOSE in words, [word for word in words if word != VERBOSE]
    how = _how("--quiet" in words, "--json" in words)
    live = printing.Live(how, verbose=verbose)
    try:
        outcome = launch.train(words, live)
    finally:
        live.finish()
    for line in outcome.planned:
        print(line)
    if outcome.planned:
        print(f"nothing trained: {len(outcome.planned)} run{'s' * (len(outcome.planned) > 1)} checked")
    if grid := outcome.grid:
        page = io.StringIO()
        with contextlib.redirect_stdout(page):
            finished = printing.grid_summary(grid.directory, grid.jobs(), grid.planned, grid.error)
        print("\n".join(page.getvalue().splitlines()[0 if how == "lines" else -1 :]))
        if not finished:
            raise typer.Exit(1)
        return
    for path, result in outcome.runs:
        live.ended(path, result)


def _how(quiet: bool, as_json: bool) -> printing.How:
    if quiet and as_json:
        raise UserError("--quiet and --json: only one of them at a time")
    return "quiet" if quiet else "json" if as_json else "lines"


def _help(words: list[str]) -> None:
    """Hydra's help, with the comment of each key beside its value."""
    from rlx.explain.help import annotated
    from rlx.launch import launch

    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        launch.train(words)
    print(annotated(page.getvalue(), shutil.get_terminal_size().columns), end="")


def _argv_after(verb: str, fallback: list[str]) -> list[str]:
    """The words after the verb in the order they were typed (Typer would move flags)."""
    return sys.argv[sys.argv.index(verb) + 1 :] if verb in sys.argv[1:2] else fallback


@app.command(context_settings=PASS)
def resume(
    ctx: typer.Context,
    run: RunName,
    overrides: Overrides = None,
    trust: Trust = False,
    verbose: Verbose = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the path of the run, nothing else.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Progress as JSON on stderr.")] = False,
) -> None:
    """Continue a run: rlx resume latest.

    It goes on exactly as if it had never stopped. KEY=VALUE changes the configuration from here on: rlx resume latest
    total_steps=200_000.
    """
    path = run_path(run)
    from rlx.launch import launch

    live = printing.Live(_how(quiet, as_json), verbose=verbose)
    try:
        path, result = launch.resume(path, [*(overrides or []), *ctx.args], live, trust)
    finally:
        live.finish()
    live.ended(path, result)
