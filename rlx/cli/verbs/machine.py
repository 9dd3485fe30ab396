"""rlx list, doctor, completion: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from rlx import __version__
from rlx.base.errors import UserError, choices_hint, shown
from rlx.cli import printing
from rlx.cli.verbs.base import app, errors

LISTS: dict[str, str | None] = {
    "algos": "algo",
    "envs": "env",
    "tasks": "task",
    "presets": "preset",
    "models": "model",
    "experiments": "experiment",
    "sweeps": "sweep",
    "wrappers": None,  # that have no file of their own
}


@app.command(name="list")
def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="One of algos, envs, tasks, presets, models, experiments, sweeps, wrappers."
        ),
    ],
) -> None:
    """What there is to choose from."""
    with errors():
        if what not in LISTS:
            raise UserError(f"list {shown(what)}: no such list{choices_hint(what, LISTS)}")
        printing.table(_wrappers() if what == "wrappers" else _files(str(LISTS[what])) or [("nothing", "", "")])


def _files(group: str) -> list[tuple[str, ...]]:
    """The choices of a group of configuration files: name, where it comes from, what it says of itself."""
    from rlx.config import registry

    options = registry.options(group)
    return [
        (name, registry.origin(group, name), registry.first_comment(path))
        for name, path in options.items()
        if name != "none"
    ]


def _wrappers() -> list[tuple[str, ...]]:
    from rlx.config import plugins
    from rlx.envs.wrappers import wrapper_names

    sources = {name: plugins.source("wrappers", name) for name in wrapper_names()}
    return [(name, source.where if source else "rlx") for name, source in sources.items()]


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
