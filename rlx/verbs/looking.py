"""rlx ls, show, plot, dash: what ran and how it went."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx import printing
from rlx.errors import UserError, choices_hint, shown
from rlx.verbs.base import RUNS, Json, RunName, app, errors, run_path

ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "time": lambda row: str(row["started"] or ""),
    "return": printing.ranking,
    "env": lambda row: printing.place_of(row)[1],
    "algo": lambda row: str(row["algo"]),
    "status": lambda row: str(row["status"]),
}


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        what = "not a directory" if directory.exists() else "no such directory"
        raise UserError(f"{directory}: {what} (rlx train makes runs/)")


@app.command()
def ls(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Where to look.")] = RUNS,
    sort: Annotated[str, typer.Option(help="time, return, env, algo, status.")] = "time",
    as_json: Annotated[bool, typer.Option("--json", help="A list of what `show --json` prints.")] = False,
) -> None:
    """List runs, the newest last."""
    with errors():
        from rlx.analysis import runs

        if directory != RUNS:  # before the first run there is none
            _check_directory(directory)
        if sort not in ORDERS:
            raise UserError(f"--sort={sort}: no such order{choices_hint(sort, ORDERS)}")
        rows = sorted((runs.show(path) for path in runs.find(directory)), key=ORDERS[sort])
        if as_json:
            print(json.dumps(rows))
        elif rows:
            printing.listing(rows)
        else:
            print(f"no runs under {directory} yet: rlx train algo=ppo env=cartpole")


@app.command()
def show(run: RunName, as_json: Json = False) -> None:
    """What a run is and how it went."""
    with errors():
        from rlx.analysis import runs

        found = runs.show(run_path(run))
        if as_json:
            print(json.dumps(found))
        else:
            printing.details(found)


@app.command()
def plot(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN|DIRECTORY]...", help="Runs, or where to look (runs).")
    ] = None,
    metric: Annotated[
        str,
        typer.Option(help="One of the keys of metrics.jsonl (the return, the reward or the loss).", show_default=False),
    ] = "",
    by: Annotated[
        str, typer.Option(metavar="KEY,...", help="A line for each value of these, e.g. weight,lr.", show_default=False)
    ] = "",
    out: Annotated[Path | None, typer.Option(help="The picture: .png, .svg or .pdf (plot.png).")] = None,
    smooth: Annotated[int, typer.Option(min=1, help="Mean of the last N log lines.")] = 1,
    x: Annotated[str, typer.Option("--x", help="step or time.")] = "step",
    as_json: Annotated[bool, typer.Option("--json", help="Print the series; a picture only with --out.")] = False,
) -> None:
    """Learning curves: one line a configuration, mean and band over its seeds.

    All runs that share everything in config.yaml but the seed are one line; the legend names what differs.
    """
    with errors():
        from rlx.analysis import plot as plotting

        if x not in plotting.X:
            raise UserError(f"--x={shown(x)}: no such axis{choices_hint(x, plotting.X)}")
        picture = out or Path("plot.png")
        plotting.check_out(picture)
        keys = [word for word in by.split(",") if word]
        found = plotting.build(plotting.find(paths or ()), metric, keys, x, smooth)
        if out or not as_json:
            plotting.draw(found, picture)
        if as_json:
            print(json.dumps(found.to_json()))
        else:
            printing.plotted(found, picture)


@app.command()
def dash(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="A directory of runs.")] = RUNS,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the web page.")] = 6006,
) -> None:
    """TensorBoard over the runs, on localhost only."""
    with errors():
        import subprocess

        _check_directory(directory)
        where = ["--logdir", str(directory), "--host", "localhost", "--port", str(port)]
        with contextlib.suppress(KeyboardInterrupt):
            raise typer.Exit(subprocess.call([sys.executable, "-m", "tensorboard.main", *where]))
