"""rlx new: an algorithm, an environment or a task of one's own to begin with."""

from typing import Annotated

import typer

from rlx.base.errors import UserError
from rlx.cli.app import app, check_choice, optional

NEXT = {  # what to type then
    "algo": ("rlx train algo={name} env=cartpole", "rlx train -m algo={source},{name} seed=1,2,3"),
    "language": ("rlx train algo={name} task=add2", "rlx train -m algo={source},{name} task=add2 seed=1,2,3"),
    "env": ("rlx train env={name} total_steps=40_000", "rlx play latest --gif {name}.gif"),
    "task": ("rlx train algo=sft task={name} total_steps=200", "rlx train algo=grpo task={name} init=latest:sft"),
}
KINDS = ("algo", "env", "task")


@app.command()
def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="algo, env or task.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, which becomes that of the files.")],
    source: Annotated[str, optional("--from", metavar="ALGO", help="The algorithm to copy (algo only).")] = "",
) -> None:
    """Write an algorithm, environment or task to start from.

    \b
    rlx new algo my_ppo --from ppo

    Writes into ./algos, ./envs or ./tasks, and ./conf; the result is ready to run.
    """
    from rlx.config import registry
    from rlx.scaffold import new as scaffold

    check_choice("new ", kind, KINDS, "kind")
    if source and kind != "algo":
        raise UserError(f"--from={source}: only an algorithm is copied (rlx new algo NAME --from {source})")
    if kind == "algo":
        written = scaffold.algo(name, source or "ppo")
    else:
        written = scaffold.env(name) if kind == "env" else scaffold.task(name)
    for path in written[:2]:
        print(f"wrote {path}")
    if more := written[2:]:
        places = " and ".join(sorted({str(path.parent) for path in more}))
        print(f"wrote {len(more)} more in {places}: the tuning of {source or 'ppo'}")
    world = registry.world_name(name) if kind == "algo" else "control"
    steps = NEXT["language" if world == "language" else kind]
    for i, line in enumerate((*steps, "rlx check {kind} {name}")):
        print("next: " if i == 0 else "      ", line.format(kind=kind, name=name, source=source or "ppo"), sep="")
