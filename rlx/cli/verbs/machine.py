"""rlx list, doctor, completion: what there is."""

import json
from typing import Annotated

import typer

from rlx import __version__
from rlx.base.errors import UserError
from rlx.cli import printing
from rlx.cli.app import Json, app, check_choice

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
def list_(
    what: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(LISTS)}.")],
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of presets: algo=, env= or task=.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List algorithms, environments, tasks or presets.

    \b
    rlx list presets algo=ppo
    """
    check_choice("list ", what, LISTS, "list")
    rows = _files(group) if (group := LISTS[what]) else _named(what)
    if only:
        rows = _of(rows, what, only)
    if as_json:
        print(json.dumps([dict(zip(("name", "from", "about"), row)) for row in rows]))
    else:
        printing.table(rows or [("nothing", "", "")])


def _of(rows: list[tuple[str, ...]], what: str, only: list[str]) -> list[tuple[str, ...]]:
    """The presets of an algorithm, an environment, a task. Raises UserError."""
    from rlx.config import registry

    for word in only:
        key, _, value = word.partition("=")
        if what != "presets" or key not in ("algo", "env", "task"):
            raise UserError(f"list {what} {word}: only presets are listed by a key, algo=, env= or task=")
        check_choice(f"{key}=", value, registry.options(key), "choice")
        rows = [row for row in rows if value in registry.pair_of(row[0])]
    return rows


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
    """Show versions, devices and extras of this machine."""
    from rlx.cli.doctor import report

    report(__version__)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="SHELL", help="One of bash, zsh, fish.")]) -> None:
    """Print shell completion: source <(rlx completion bash)."""
    from rlx.cli.completion import SCRIPTS

    check_choice("completion ", shell, SCRIPTS, "shell")
    print(SCRIPTS[shell].read_text(encoding="utf-8"), end="")
