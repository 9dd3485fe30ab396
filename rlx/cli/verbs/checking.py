"""rlx check: what rlx's own algorithms, environments and tasks must pass, for anybody's."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.base.errors import UserError, choices_hint
from rlx.base.streams import others_on_stderr
from rlx.cli.app import Json, app, check_choice

KINDS = ("algo", "env", "task")


@app.command()
def check(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="algo, env or task.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in algo=NAME; an environment's id or file as well.")],
    as_json: Json = False,
) -> None:
    """Check an algorithm, an environment or a task.

    \b
    rlx check algo ppo

    Does it learn what can be learned, resume exactly, and respect its spaces and seeds? Prints one line per check; exit
    code 1 if one fails.
    """
    check_choice("check ", kind, KINDS, "kind")
    findings, coming = [], _findings(kind, name)
    while True:
        with others_on_stderr():  # what is checked may print
            finding = next(coming, None)
        if finding is None:
            break
        findings.append(finding)
        if not as_json:
            print(f"{finding.status:5} {finding.check:11} {finding.detail}", flush=True)
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings]))
    if any(finding.status == "FAIL" for finding in findings):
        raise typer.Exit(1)


def _findings(kind: str, name: str) -> Iterator[Any]:
    from rlx.check import findings
    from rlx.config import registry

    options = registry.options(kind)
    if name not in options and not (kind == "env" and any(mark in name for mark in (":", "-v", "/", ".py"))):
        raise UserError(f"check {kind} {name}: no such {kind}{choices_hint(name, options, where=f'rlx list {kind}s')}")
    if kind == "algo":
        from rlx.check import algo
        from rlx.launch.composing import compose_all, plain, set_threads

        set_threads(1)

        def compose(words: list[str]) -> dict[str, Any]:
            with compose_all() as composing:
                return plain(composing(words))

        with findings.place() as directory:
            yield from findings.run(algo.checks(name, compose, Path(directory)))
    elif kind == "env":
        from rlx.check import env
        from rlx.envs.single import find

        if name not in options:
            find(name)  # raises where there is none
        yield from findings.run(env.checks(env.config(name, registry.values("env", name))))
    else:
        from rlx.check import task

        yield from findings.run(task.checks(name, registry.values("task", name)))
