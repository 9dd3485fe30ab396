"""What all verbs share: the application, their common options, and errors as one line."""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from rlx import __version__
from rlx.base.errors import UserError, choices_hint, shown
from rlx.cli import exit_codes

optional = partial(typer.Option, show_default=False)  # it stands for something that its help names
PASS = {"allow_extra_args": True, "ignore_unknown_options": True}
TOUR = f"""rlx {__version__}: reinforcement learning you can start, trust, compare and resume

  rlx train algo=ppo env=cartpole        train an agent (about 6 seconds)
  rlx play latest --gif cartpole.gif     watch it
  rlx train algo=sft task=add2           or a small language model, to add two numbers
  rlx train -m env=cartpole,acrobot seed=1,2,3        a grid
  rlx ls ; rlx show latest ; rlx plot ; rlx dash      what ran, how it went, learning curves, TensorBoard
  rlx list algos | envs | tasks | presets ; rlx explain ppo ; rlx --help ; rlx train --help
"""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Every error as one line and its exit code. RLX_DEBUG=1 shows tracebacks instead."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError, SystemExit):  # SystemExit: Hydra, after --help and the like
        raise
    except BaseException as error:
        usage = hasattr(error, "format_message")  # Typer's own, for main to word
        if usage or (os.environ.get("RLX_DEBUG") and not isinstance(error, KeyboardInterrupt)):
            raise
        raise typer.Exit(exit_codes.code_of(error)) from None


class Verbs(TyperGroup):
    """Whatever a verb raises becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        with errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Verbs,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def tour(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    _: Annotated[
        str | None,
        optional(
            "--runs-dir",
            metavar="DIRECTORY",
            help="Where runs are, for every command (default: RLX_RUNS_DIR, ./conf, or runs).",
        ),
    ] = None,  # taken before: see rlx.rundir.home
) -> None:
    """Reinforcement-learning runs you can start, trust, compare and resume."""
    if version:
        print(f"rlx {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(TOUR, end="")


# -- options and arguments -------------------------------------------------------------------------------------

Directory = Annotated[Path | None, typer.Argument(metavar="[DIRECTORY]", help="Where to look (the directory of runs).")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, latest or latest:ALGO.")]
Checkpoint = Annotated[str, typer.Option(help="latest, best, final or a step.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run a run's own code even if this machine did not record it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


Csv = Annotated[bool, typer.Option("--csv", help="Print tables as CSV.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print tables as LaTeX (booktabs).")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print tables as Markdown.")]


def by_keys(help: str) -> Any:
    return optional("--by", "--group-by", metavar="KEY,...", help=help)


def run_path(name: str) -> Path:
    """The run directory that RUN names. Raises UserError."""
    from rlx.rundir import reader

    if not name:
        raise UserError("RUN='': must be a run directory, latest or latest:ALGO")
    return reader.resolve(name)


def check_choice(what: str, value: str, choices: Iterable[str], noun: str) -> None:
    """Raises UserError where `value` is none of the choices."""
    if value not in choices:
        raise UserError(f"{what}{shown(value)}: no such {noun}{choices_hint(value, choices)}")


def check_directory(directory: Path) -> None:
    """Raises UserError where there is none."""
    if not directory.is_dir():
        what = "not a directory" if directory.exists() else "no such directory"
        raise UserError(f"{directory}: {what} (rlx train makes runs/)")


def set_one_thread() -> None:
    """For what comes once torch is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def answer(value: Any, as_json: bool, write: Callable[[Any], None]) -> None:
    """Print a verb's result, for programs or for people."""
    if as_json:
        print(json.dumps(value))
    else:
        write(value)
