"""rlx list, doctor, completion: what there is."""

from typing import Annotated

import typer

from rlx import __version__
from rlx.cli import printing
from rlx.cli.verbs.base import app, check_choice

LISTS: dict[str, str | None] = {
    "algos": "algo",
    "envs": "env",
    "tasks": "task",
    "presets": "preset",
    "models": "model",
    "experiments": "experiment",
    "sweeps": "sweep",
    "wrappers": None,  # these have no file of their own
    "loggers": None,
}


@app.command(name="list")
def list_(what: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(LISTS)}.")]) -> None:
    """What there is to choose from."""
    check_choice("list ", what, LISTS, "list")
    printing.table((_files(group) if (group := LISTS[what]) else _named(what)) or [("nothing", "", "")])


def _files(group: str) -> list[tuple[str, ...]]:
    """The choices of a group of configuration files: name, where it comes from, what it says of itself."""
    from rlx.config import registry

    options = registry.options(group)
    return [
        (name, registry.origin(group, name), registry.first_comment(path))
        for name, path in options.items()
        if name != "none"
    ]


def _named(kind: str) -> list[tuple[str, ...]]:
    """What has a name and no file: name, where it comes from."""
    from rlx.config import plugins

    if kind == "wrappers":
        from rlx.envs.wrappers import wrapper_names

        names = wrapper_names()
    else:
        names = ["tensorboard", *plugins.LOGGERS, *plugins.names(kind)]
    sources = {name: plugins.source(kind, name) for name in names}
    return [(name, source.where if source else "rlx") for name, source in sources.items()]


@app.command()
def doctor() -> None:
    """Versions, devices and extras of this machine."""
    from rlx.cli.doctor import report

    report(__version__)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="One of bash, zsh, fish.")]) -> None:
    """Shell completion: source <(rlx completion bash)."""
    from rlx.cli.completion import SCRIPTS

    check_choice("completion ", shell, SCRIPTS, "shell")
    print(SCRIPTS[shell].read_text(encoding="utf-8"), end="")
