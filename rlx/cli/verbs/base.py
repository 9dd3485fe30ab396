"""What all verbs share: the application, their common options, and errors as one line."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rlx import __version__
from rlx.base.errors import UserError
from rlx.cli import exit_codes

PASS = {"allow_extra_args": True, "ignore_unknown_options": True}
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUNS = Path("runs")
TOUR = f"""rlx {__version__}: reinforcement learning you can start, trust, compare and resume

  rlx train algo=ppo env=cartpole        train an agent (about 6 seconds)
  rlx play latest --gif cartpole.gif     watch it
  rlx train algo=sft task=add2           or a small language model, to add two numbers
  rlx train -m env=cartpole,acrobot seed=1,2,3        a grid
  rlx ls ; rlx show latest ; rlx plot ; rlx dash      what ran, how it went, learning curves, TensorBoard
  rlx list algos | envs | tasks | presets ; rlx --help ; rlx train --help
"""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Every error as one line and its exit code. RLX_DEBUG=1 shows tracebacks instead."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError, SystemExit):  # SystemExit: Hydra, after --help and the like
        raise
    except BaseException as error:
        if os.environ.get("RLX_DEBUG") and not isinstance(error, KeyboardInterrupt):
            raise
        raise typer.Exit(exit_codes.code_of(error)) from None


@app.callback(invoke_without_command=True)
def tour(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Reinforcement-learning runs you can start, trust, compare and resume."""
    if version:
        print(f"rlx {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(TOUR, end="")


# -- options and arguments -------------------------------------------------------------------------------------

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, latest or latest:ALGO.")]
Checkpoint = Annotated[str, typer.Option(help="latest, best, final or a step.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run the code of a run's own that this machine has not recorded.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def run_path(name: str) -> Path:
    """The run directory that RUN names. Raises UserError."""
    from rlx.rundir import reader

    if not name:
        raise UserError("RUN='': must be a run directory, latest or latest:ALGO")
    return reader.resolve(name)
