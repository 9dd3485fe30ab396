"""rlx draw: what a run has learned, as a map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.base.errors import UserError
from rlx.base.files.paths import check_out
from rlx.base.streams import others_on_stderr
from rlx.cli.app import Checkpoint, RunName, Trust, app, optional, run_path, set_one_thread

SUFFIXES = (".png", ".svg")


@app.command()
def draw(
    run: RunName,
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture: .png or .svg.")] = Path("map.png"),
    dims: Annotated[str, optional(metavar="I,J", help="Two dimensions of the observation, e.g. 0,1.")] = "",
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
) -> None:
    """Draw what a run has learned: V, Q, policy, visits, optimum.

    A map of a grid or table, or of two dimensions of the observation (CartPole, MountainCar, Pendulum, or --dims).
    """  # fmt: skip
    check_out(out, SUFFIXES)
    cfg, learned = learned_map(run, checkpoint, trust, _dims(dims))
    from rlx.control.show import map_picture

    canvas = map_picture.draw(learned, f"{cfg.algo.name} on {cfg.env.name}")
    try:
        out.write_bytes(canvas.png() if out.suffix.lower() == ".png" else canvas.svg().encode())
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror or error}") from None
    print(f"{out}: {learned.words()}")


def _dims(text: str) -> list[int] | None:
    words = text.split(",")
    if text and not (len(words) == 2 and all(word.strip().isdigit() for word in words)):
        raise UserError(f"--dims={text}: must be two numbers, e.g. --dims 0,1")
    return [int(word) for word in words] if text else None


def learned_map(run: str, checkpoint: str, trust: bool, dims: Sequence[int] | None = None) -> tuple[Any, Any]:
    """The configuration of a run, and the map of what it has learned. Raises UserError."""
    from rlx.rundir import reader

    path = run_path(run)
    if reader.place(path) == "task":
        raise UserError(f"{run}: is a language-model run, which has no map (rlx sample {run}; rlx report {run})")
    set_one_thread()
    from rlx.control.show import maps
    from rlx.training import runner

    with others_on_stderr():
        opened: tuple[Any, Any] = runner.open_policy(path, checkpoint, trust=trust)
        cfg, policy = opened
        return cfg, maps.build(policy, cfg, dims)
