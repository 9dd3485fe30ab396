"""rlx ls, show, plot, rm: what ran, how it went, and what of it may go."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from rlx.base.errors import UserError
from rlx.base.files.paths import check_out
from rlx.cli import printing
from rlx.cli.app import (
    Checkpoint,
    Csv,
    Directory,
    Json,
    Latex,
    Markdown,
    RunName,
    Trust,
    answer,
    app,
    by_keys,
    check_choice,
    check_directory,
    optional,
    run_path,
)
from rlx.cli.verbs.drawing import learned_map

ORDERS = ("time", "eval", "return", "env", "algo", "status", "step")
Where = Annotated[
    list[str] | None, optional(metavar="KEY=VALUE", help="Only these runs: algo=ppo, lr=1e-3, 'step>=1000'.")
]


@app.command()
def ls(
    directory: Directory = None,
    where: Where = None,
    sort: Annotated[str, typer.Option(help="time, eval, env, algo, status, step, or a key as in --where.")] = "time",
    as_json: Annotated[bool, typer.Option("--json", help="A list of what `show --json` prints.")] = False,
    csv: Csv = False,
    latex: Latex = False,
    markdown: Markdown = False,
) -> None:
    """List runs, the newest (or the best) last."""
    from rlx.rundir import home, index
    from rlx.rundir.filter import SHOWN, conditions, ordered, select, sort_key, value_of

    printing.use_form({"csv": csv, "latex": latex, "markdown": markdown})
    if directory is not None:  # before the first run there is none
        check_directory(directory)
    directory = directory or home.runs_dir()
    entries = index.read(directory)
    key = sort_key(sort, entries, ORDERS)
    chosen = ordered(select(entries, where or ()), key)
    if as_json:
        print(json.dumps([entry.row for entry in chosen]))
    elif chosen:
        keys = [condition.key for condition in conditions(where or (), entries)]
        codes = {entry.row.get("code") for entry in chosen}
        named = [name for name in ("name", "tags") if any(entry.row.get(name) for entry in chosen)]
        more = [name for name in dict.fromkeys([*named, key, *keys, *["code"] * (len(codes) > 1)]) if name not in SHOWN]
        columns = {name: [value_of(entry, name) for entry in chosen] for name in more}
        printing.listing([entry.row for entry in chosen], columns)
    elif entries:
        print(f"none of the {len(entries)} runs under {directory} has {' and '.join(where or ())}")
    else:
        print(f"no runs under {directory} yet: rlx train algo=ppo env=cartpole")


@app.command()
def show(
    run: RunName,
    table: Annotated[
        bool, typer.Option("--table", help="Print what it learned of every state, beside the exact optimum.")
    ] = False,
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
    as_json: Json = False,
    csv: Csv = False,
    latex: Latex = False,
    markdown: Markdown = False,
) -> None:
    """Show what a run is and how it went; of a grid, its jobs."""
    from rlx.analysis import grids
    from rlx.rundir import index

    printing.use_form({"csv": csv, "latex": latex, "markdown": markdown})
    if table:
        _, learned = learned_map(run, checkpoint, trust)
        answer(learned.table(), as_json, printing.states)
    elif run and grids.is_grid(Path(run)):
        answer(grids.show(Path(run)), as_json, printing.jobs)
    else:
        answer(index.entry(run_path(run)).row, as_json, printing.details)


@app.command()
def plot(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN|DIRECTORY|GLOB]...", help="Runs, or where to look (runs).")
    ] = None,
    metric: Annotated[str, optional(help="A key of metrics.jsonl (the return, the reward or the loss).")] = "",
    by: Annotated[str, by_keys("One line per value of these keys, e.g. weight,lr.")] = "",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Picture: .png, .svg or .pdf (plot.png).")] = None,
    smooth: Annotated[int, typer.Option(min=1, help="Average over the last N log lines.")] = 1,
    x: Annotated[str, typer.Option("--x", help="step or seconds.")] = "step",
    stat: Annotated[str, typer.Option(help="How a line summarises its seeds: mean or iqm.")] = "mean",
    profile: Annotated[
        bool, typer.Option("--profile", help="Plot the share of runs above each score, not curves.")
    ] = False,
    size: Annotated[str, optional(metavar="WxH", help="Inches, e.g. 3.4x2.4.")] = "",
    style: Annotated[str, typer.Option(help="screen, or paper: a column wide, small fonts, fine lines.")] = "screen",
    title: Annotated[str, optional(help="Title of the picture.")] = "",
    ylabel: Annotated[str, optional(help="What stands beside the y axis.")] = "",
    label: Annotated[list[str] | None, optional(metavar="OLD=NEW", help="Rename a line of the legend.")] = None,
    caption: Annotated[bool, typer.Option("--caption/--no-caption", help="Say below what line and band are.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the series; draw only with --out.")] = False,
) -> None:
    """Plot learning curves, with a band over the seeds.

    All runs that share everything in config.yaml but the seed are one line; the legend names what differs.
    """  # fmt: skip
    from rlx.analysis.curves import bands, build, curves, draw, profiles
    from rlx.rundir import query

    check_choice("--x=", x, curves.X, "axis")
    check_choice("--stat=", stat, bands.STATS, "statistic")
    check_choice("--style=", style, draw.STYLES, "style")
    inches = draw.size_of(size) if size else None
    picture = out or Path("plot.png")
    check_out(picture, draw.SUFFIXES)
    keys = [word for word in by.split(",") if word]
    chosen = query.find(paths or ())
    if profile:
        chart = profiles.build(chosen, metric or "eval", keys)
    else:
        chart = build.build(chosen, metric, keys, x, smooth, stat)
    if out or not as_json:
        look = draw.Look(style, inches, title, ylabel, draw.labels_of(label or (), chart), caption)
        draw.draw(chart, picture, look)
    if as_json:
        print(json.dumps(chart.to_json()))
    else:
        printing.plotted(chart, picture)


@app.command()
def rm(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Run directories, or a grid's.")] = None,
    where: Where = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove run directories, after asking."""  # fmt: skip
    from rlx.analysis import remove

    plan = remove.plan(names or (), where or ())
    if not plan.paths:
        printing.removed(plan, as_json)
        return
    if not (yes or dry_run):
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or as_json:
            raise UserError(f"rm: {remove.counted(plan)} would be removed; --yes removes without asking")
        printing.doomed(plan)
        if not typer.confirm(f"remove {remove.counted(plan)}?"):
            print("nothing removed")
            return
    if not dry_run:
        remove.carry_out(plan)
    printing.removed(plan, as_json, only_said=dry_run)
