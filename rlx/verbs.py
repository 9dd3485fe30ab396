"""The verbs of the command line. What they print is in `report`, errors and exit codes are in `exits`.

Nothing here imports torch, hydra or gymnasium until a verb needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx import __version__, exits, report
from rlx.errors import UserError, choices_hint, shown

PASS = {"allow_extra_args": True, "ignore_unknown_options": True}
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUNS = Path("runs")
TOUR = f"""rlx {__version__}: reinforcement learning you can start, trust, compare and resume

  rlx train algo=ppo env=cartpole        train an agent (about 6 seconds)
  rlx play latest --gif cartpole.gif     watch it
  rlx train -m env=cartpole,acrobot seed=1,2,3     a sweep
  rlx ls ; rlx show latest ; rlx plot    what ran, how it went, learning curves in plot.png
  rlx dash                               TensorBoard over runs/
  rlx list algos | envs | presets ; rlx --help ; rlx train --help
"""


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Every error as one line and its exit code. RLX_DEBUG=1 shows tracebacks instead."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError, SystemExit):  # SystemExit: Hydra, after --help and the like
        raise
    except BaseException as error:
        if os.environ.get("RLX_DEBUG") and not isinstance(error, KeyboardInterrupt):
            raise
        raise typer.Exit(exits.code_of(error)) from None


# -- train, resume ---------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def tour(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Reinforcement-learning runs you can start, trust, compare and resume."""
    if version:
        print(f"rlx {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(TOUR, end="")


RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or latest.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
Checkpoint = Annotated[str, typer.Option(help="latest, best, final or a step.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the environments played here.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command(context_settings=PASS, add_help_option=False)
def train(ctx: typer.Context, overrides: Overrides = None) -> None:
    """Train an agent: rlx train algo=ppo env=cartpole."""
    with errors():
        from rlx import launch

        live = report.Live()
        try:
            outcome = launch.train(_argv_after("train", [*(overrides or []), *ctx.args]), live)
        finally:
            live.finish()
        if sweep := outcome.sweep:
            if not report.sweep(sweep.directory, sweep.jobs(), sweep.planned, sweep.error):
                raise typer.Exit(1)
            return
        for path, found in outcome.runs:
            report.finished(path, found)


def _argv_after(verb: str, fallback: list[str]) -> list[str]:
    """The words after the verb in the order they were typed (Typer would move flags)."""
    return sys.argv[sys.argv.index(verb) + 1 :] if verb in sys.argv[1:2] else fallback


@app.command(context_settings=PASS)
def resume(ctx: typer.Context, run: RunName, overrides: Overrides = None) -> None:
    """Continue a run: rlx resume latest.

    Exactly as if it had never stopped; key=value changes it from here on: rlx resume RUN total_steps=200_000.
    """
    with errors():
        path = _run(run)
        from rlx import launch

        live = report.Live()
        try:
            path, found = launch.resume(path, [*(overrides or []), *ctx.args], live)
        finally:
            live.finish()
        report.finished(path, found)


# -- looking at runs -------------------------------------------------------------------------------------------


def _run(name: str) -> Path:
    from rlx.analysis import runs

    if not name:
        raise UserError("RUN='': must be a run directory, or latest")
    return runs.resolve(name)


@app.command()
def eval(
    run: RunName,
    episodes: Annotated[int, typer.Option(min=1, max=10**6, help="How many episodes.")] = 10,
    seed: Seed = 0,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample actions instead of taking the mode.")
    ] = False,
    checkpoint: Checkpoint = "latest",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print {mean, std, n, returns}.")] = False,
) -> None:
    """Evaluate a run's policy on fresh environments."""
    with errors():
        path = _run(run)
        _one_thread()
        from rlx import runner

        cfg, policy = runner.open_policy(path, checkpoint, device)
        found = runner.evaluate_policy(policy, cfg, episodes, seed, stochastic)
        if as_json:
            print(json.dumps(found))
        else:
            print(f"{found['mean']:.2f} +- {found['std']:.2f} over {found['n']} episodes (seed {seed})")


@app.command()
def play(
    run: RunName,
    gif: Annotated[Path | None, typer.Option(help="Write the episode to this GIF.")] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    steps: Annotated[int, typer.Option(min=1, help="At most this many.")] = 1000,
    fps: Annotated[int, typer.Option(min=1, max=50, help="Frames a second of the GIF.")] = 25,
) -> None:
    """Let a run's policy play one episode, in a window or with --gif to a picture."""
    with errors():
        path = _run(run)
        if gif is not None:
            _check_gif(gif)
        _one_thread()
        from rlx import runner

        cfg, policy = runner.open_policy(path, checkpoint)
        total, length = runner.play(policy, cfg, seed, steps, gif, fps)
        print(f"return {total:.2f} in {length} steps (seed {seed})" + (f", written to {gif}" if gif else ""))


def _check_gif(gif: Path) -> None:
    if gif.suffix.lower() != ".gif":
        raise UserError(f"--gif={gif}: must end in .gif")
    if not gif.absolute().parent.is_dir():
        raise UserError(f"--gif={gif}: the directory {gif.parent} does not exist")
    if gif.is_dir():
        raise UserError(f"--gif={gif}: is a directory")


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


ORDERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "time": lambda row: str(row["started"] or ""),
    "return": report.ranking,
    "env": lambda row: str(row["env"]),
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
            report.listing(rows)
        else:
            print(f"no runs under {directory} yet: rlx train algo=ppo env=cartpole")


@app.command()
def show(run: RunName, as_json: Json = False) -> None:
    """What a run is and how it went."""
    with errors():
        from rlx.analysis import runs

        found = runs.show(_run(run))
        if as_json:
            print(json.dumps(found))
        else:
            report.details(found)


@app.command()
def plot(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN|DIRECTORY]...", help="Runs, or where to look (runs).")
    ] = None,
    metric: Annotated[str, typer.Option(help="One of the keys of metrics.jsonl.")] = "rollout/ep_rew_mean",
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
            report.plotted(found, picture)


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


# -- what there is ---------------------------------------------------------------------------------------------

LISTS = {"algos": "algo", "envs": "env", "presets": "preset", "models": "model", "experiments": "experiment"}


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="NAME", help="One of algos, envs, presets, models, experiments.")],
) -> None:
    """What there is to choose from."""
    with errors():
        from rlx import registry

        if what not in LISTS:
            raise UserError(f"list {shown(what)}: no such list{choices_hint(what, LISTS)}")
        found = registry.options(LISTS[what])
        lines = [(name, registry.first_comment(path)) for name, path in found.items() if name != "none"]
        report.table(lines or [("nothing", "")])


@app.command()
def doctor() -> None:
    """Versions, devices and extras of this machine."""
    with errors():
        report.doctor(__version__)


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="One of bash, zsh, fish.")],
) -> None:
    """Shell completion: source <(rlx completion bash)."""
    with errors():
        from rlx import completion as scripts

        if shell not in scripts.SCRIPTS:
            raise UserError(f"completion {shown(shell)}: no such shell{choices_hint(shell, scripts.SCRIPTS)}")
        print(scripts.SCRIPTS[shell], end="")
