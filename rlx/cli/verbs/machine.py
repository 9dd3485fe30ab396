"""rlx list, doctor, completion: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from rlx import __version__
from rlx.base.errors import UserError, choices_hint, shown
from rlx.cli import printing
from rlx.cli.verbs.base import app, errors

LISTS = {
    "algos": "algo",
    "envs": "env",
    "tasks": "task",
    "presets": "preset",
    "models": "model",
    "experiments": "experiment",
    "sweeps": "sweep",
}


@app.command(name="list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="NAME", help="One of algos, envs, tasks, presets, models, experiments, sweeps.")
    ],
) -> None:
    """What there is to choose from."""
    with errors():
        from rlx.config import registry

        if what not in LISTS:
            raise UserError(f"list {shown(what)}: no such list{choices_hint(what, LISTS)}")
        options = registry.options(LISTS[what])
        lines = [(name, registry.first_comment(path)) for name, path in options.items() if name != "none"]
        printing.table(lines or [("nothing", "")])


@app.command()
def doctor() -> None:
    """Versions, devices and extras of this machine."""
    with errors():
        from rlx.cli.doctor import report

        report(__version__)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="One of bash, zsh, fish.")],
) -> None:
    """Shell completion: source <(rlx completion bash)."""
    with errors():
        from rlx.cli.completion import SCRIPTS

        if shell not in SCRIPTS:
            raise UserError(f"completion {shown(shell)}: no such shell{choices_hint(shell, SCRIPTS)}")
        print(SCRIPTS[shell], end="")
