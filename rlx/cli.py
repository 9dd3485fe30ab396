"""The command line: verbs, and the one place where an error becomes one line and an exit code.

Exit codes: 0 done, 1 a failure inside, 2 the user's input, 130 and 143 interrupted (SIGINT, SIGTERM).
Nothing here imports torch, hydra or gymnasium until a verb needs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx import __version__
from rlx.errors import UserError, did_you_mean

PASS = {"allow_extra_args": True, "ignore_unknown_options": True}
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TOUR = f"""rlx {__version__}: reinforcement learning you can start, trust, compare and resume

  rlx train algo=ppo env=cartpole        train an agent (about 6 seconds)
  rlx play latest --gif cartpole.gif     watch it
  rlx train -m env=cartpole,acrobot seed=1,2,3     a sweep
  rlx ls ; rlx show latest               what ran, and how it went
  rlx dash                               TensorBoard over runs/
  rlx list algos | envs | presets ; rlx --help ; rlx train --help
"""


def fail(message: str, code: int = 2) -> typer.Exit:
    """One line on stderr; raise what this returns."""
    print(f"rlx: error: {' '.join(str(message).split())}", file=sys.stderr)
    return typer.Exit(code)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Every error of rlx as one line and its exit code. RLX_DEBUG=1 shows tracebacks instead."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        raise fail("interrupted", 130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head`: the reader has seen enough
        raise typer.Exit(0) from None
    except BaseException as error:
        if os.environ.get("RLX_DEBUG"):
            raise
        raise _translate(error) from None


def _translate(error: BaseException) -> BaseException:
    if isinstance(error, SystemExit):  # argparse, inside Hydra: it has printed its own line
        return error
    if type(error).__name__ == "Interrupted" and hasattr(error, "path"):
        print(f"rlx: {error}; checkpointed. Go on with: rlx resume {_quoted(error.path)}", file=sys.stderr)
        print(f"run: {error.path}")
        return typer.Exit(error.code)  # type: ignore[attr-defined]
    if type(error).__name__ == "RunFailed" and hasattr(error, "path"):
        failure = fail(f"{error} (traceback in {error.path}/rlx.log)", 1)
        print(f"run: {error.path}")
        return failure
    if isinstance(error, UserError):
        return fail(str(error), 2)
    return fail(f"{type(error).__name__}: {error} (RLX_DEBUG=1 shows the traceback)", 1)


def _quoted(path: Path | str) -> str:
    import shlex

    return shlex.quote(str(path))


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


# -- train, resume ---------------------------------------------------------------------------------------------


class Live:
    """The live line of a run: %, ETA, steps/s, return. A terminal gets one line that changes, a file a line each
    tenth of the run."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty() and not os.environ.get("CI")
        self.total, self.shown, self.tenth = 0, 0.0, -1
        self.metrics: dict[str, Any] = {}
        self.width = 0

    def announce(self, cfg: Any, path: Path, device: str) -> None:
        self.__init__()  # type: ignore[misc]
        self.total = cfg.total_steps
        print(f"{cfg.algo.name} on {cfg.env.id}, seed {cfg.seed}, {cfg.total_steps:,} steps, device {device}")
        if (expect := cfg.expect).score is not None:
            seconds = f", about {expect.seconds:g} s" if expect.seconds else ""
            print(f"tuned preset: expect {expect.score:g} at {expect.steps:,} steps{seconds} ({expect.source})")
        sys.stdout.flush()

    def step(self, step: int, metrics: dict[str, Any]) -> None:
        import time

        now = time.monotonic()
        self.metrics = metrics
        tenth = 10 * step // self.total
        due = now - self.shown > 0.2 if self.terminal else tenth > self.tenth
        if not due and step < self.total:
            return
        self.shown, self.tenth = now, tenth
        rate = metrics.get("time/fps") or 0.0
        left = (self.total - step) / rate if rate else 0.0
        parts = [
            f"{min(100, 100 * step // self.total):3d}%",
            f"{step:,} steps",
            f"{rate:,.0f} steps/s",
            f"ETA {_clock(left)}",
        ]
        if (found := metrics.get("rollout/ep_rew_mean")) is not None:
            parts.append(f"return {found:.1f}")
        line = "  ".join(parts)
        if self.terminal:
            columns = max(20, os.get_terminal_size(sys.stderr.fileno()).columns - 1)
            print("\r" + line[:columns].ljust(min(self.width, columns)), end="", file=sys.stderr, flush=True)
            self.width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self.terminal and self.width:
            print(file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _report(path: Path, found: dict[str, Any]) -> None:
    """The final table, the next commands, and the run's path as the last line."""
    rows: list[tuple[str, Any]] = [
        (key, value) for key, value in sorted(found["metrics"].items()) if isinstance(value, int | float)
    ]
    if found["evaluation"]:
        mean, std = found["evaluation"]["mean_reward"], found["evaluation"]["std_reward"]
        rows.insert(
            0,
            ("eval/mean_reward", f"{mean:.2f} +- {std:.2f} over {found['evaluation']['episodes']} episodes"),
        )
    width = max((len(key) for key, _ in rows), default=0)
    print()
    for key, value in rows:
        print(f"  {key:<{width}}  {value if isinstance(value, str) else f'{value:.6g}'}")
    shown = _quoted(_relative(path))
    print(f"\nnext: rlx eval {shown} --episodes 100\n      rlx play {shown} --gif out.gif\n      rlx dash")
    print(f"run: {_relative(path)}")


def _relative(path: Path) -> Path:
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


@app.command(context_settings=PASS, add_help_option=False)
def train(
    ctx: typer.Context,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Train: rlx train algo=ppo env=cartpole seed=3 (-m sweeps; --help lists the choices)."""
    with errors():
        from rlx import launch

        argv = _argv_after("train", [*(overrides or []), *ctx.args])
        live = Live()
        sweep = any(word in ("-m", "--multirun") for word in argv)
        try:
            results = launch.train(argv, live)
        finally:
            live.finish()
        if sweep:
            _report_sweep(launch)
        else:
            for path, found in results:
                _report(path, found)


def _argv_after(verb: str, fallback: list[str]) -> list[str]:
    """The words after the verb in the order they were typed (Typer would move flags)."""
    return sys.argv[sys.argv.index(verb) + 1 :] if verb in sys.argv[1:2] else fallback


def _report_sweep(launch: Any) -> None:
    from rlx.analysis import runs

    directory, count = launch.planned.get("directory"), launch.planned.get("count", 0)
    if directory is None:
        return
    jobs = launch.sweep_results(directory)
    done = [job for job in jobs if job["error"] is None]
    print()
    for job in jobs:
        path = directory / str(job["run"])
        found: dict[str, Any] = runs.show(path) if path.is_dir() else {"status": "not started", "eval": None}
        score = f"{found['eval']['mean_reward']:10.2f}" if found["eval"] else " " * 10
        print(f"  {job['run']:<40} {found['status']:<12}{score}  {job['error'] or ''}".rstrip())
    count = max(count, len(jobs))
    lost = count - len(jobs)
    if lost:
        print(f"  {lost} more did not come to an end (a worker was killed?)")
    print(f"{len(done)} of {count} jobs finished")
    print(f"run: {_relative(directory)}")
    if len(done) < count:
        raise typer.Exit(1)


@app.command(context_settings=PASS)
def resume(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(help="A run directory, or latest.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Continue a run, exactly as if it had never stopped: rlx resume RUN total_steps=200_000."""
    with errors():
        path = _run(run)
        from rlx import launch

        live = Live()
        try:
            path, found = launch.resume(path, [*(overrides or []), *ctx.args], live)
        finally:
            live.finish()
        _report(path, found)


# -- looking at runs -------------------------------------------------------------------------------------------


def _run(name: str) -> Path:
    from rlx.analysis import runs

    return runs.resolve(name)


@app.command()
def eval(
    run: Annotated[str, typer.Argument(help="A run directory, or latest.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many episodes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the evaluation's own environments.")] = 0,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample actions instead of taking the mode.")
    ] = False,
    checkpoint: Annotated[str, typer.Option(help="latest, best, final or a step.")] = "latest",
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
    run: Annotated[str, typer.Argument(help="A run directory, or latest.")],
    gif: Annotated[Path | None, typer.Option(help="Write the episode to this GIF.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    checkpoint: Annotated[str, typer.Option(help="latest, best, final or a step.")] = "latest",
    steps: Annotated[int, typer.Option(min=1, help="At most this many.")] = 1000,
    fps: Annotated[int, typer.Option(min=1, max=50, help="Frames a second of the GIF.")] = 25,
) -> None:
    """Let a run's policy play one episode; --gif writes a picture, without it a window opens."""
    with errors():
        path = _run(run)
        if gif is not None and (gif.suffix.lower() != ".gif" or not gif.absolute().parent.is_dir()):
            raise fail(f"--gif={gif}: must be a .gif in a directory that exists")
        _one_thread()
        from rlx import runner

        cfg, policy = runner.open_policy(path, checkpoint)
        total, length = runner.play(policy, cfg, seed, steps, gif, fps)
        print(f"return {total:.2f} in {length} steps (seed {seed})" + (f", written to {gif}" if gif else ""))


def _one_thread() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@app.command()
def ls(
    directory: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs"),
    sort: Annotated[str, typer.Option(help="time, return, env, algo, status.")] = "time",
    as_json: Annotated[bool, typer.Option("--json", help="A list of what `show --json` prints.")] = False,
) -> None:
    """List runs, the newest last."""
    with errors():
        from rlx.analysis import runs

        if not directory.is_dir():
            raise fail(f"{directory}: no such directory (rlx train makes runs/)")
        keys: dict[str, Callable[[dict[str, Any]], Any]] = {
            "time": lambda row: row["started"] or "",
            "return": lambda row: (row["eval"] or {}).get("mean_reward", float("-inf")),
            "env": lambda row: str(row["env"]),
            "algo": lambda row: str(row["algo"]),
            "status": lambda row: row["status"],
        }
        if sort not in keys:
            raise fail(f"--sort={sort}: no such order (choices: {', '.join(keys)})")
        rows = sorted((runs.show(path) for path in runs.find(directory)), key=keys[sort])
        if as_json:
            print(json.dumps(rows))
            return
        if not rows:
            print(f"no runs under {directory} yet: rlx train algo=ppo env=cartpole")
            return
        lines = [("status", "algo", "env", "seed", "step", "eval", "run")]
        for row in rows:
            score = f"{row['eval']['mean_reward']:.2f}" if row["eval"] else "-"
            lines.append(
                (
                    row["status"],
                    str(row["algo"]),
                    str(row["env"]),
                    str(row["seed"]),
                    f"{row['step']:,}",
                    score,
                    row["run"],
                )
            )
        _table(lines, right=(3, 4, 5))


def _table(lines: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="A run directory, or latest.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for scripts.")] = False,
) -> None:
    """What a run is and how it went."""
    with errors():
        from rlx.analysis import runs

        found = runs.show(_run(run))
        if as_json:
            print(json.dumps(found))
            return
        for key, value in found.items():
            if isinstance(value, dict):
                print(f"{key}:")
                for name, inner in value.items():
                    print(f"  {name}: {inner}")
            elif isinstance(value, list):
                print(f"{key}: {' '.join(str(item) for item in value) if key == 'command' else json.dumps(value)}")
            else:
                print(f"{key}: {value}")


# -- what there is ---------------------------------------------------------------------------------------------


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(metavar="algos|envs|presets", help="algos, envs or presets.")],
) -> None:
    """What there is to choose from."""
    with errors():
        from rlx import registry

        groups = {
            "algos": "algo",
            "envs": "env",
            "presets": "preset",
            "models": "model",
            "experiments": "experiment",
        }
        if what not in groups:
            hint = did_you_mean(what, groups)
            raise fail(f"list {what}: no such list{hint} (choices: {', '.join(groups)})")
        found = [
            (name, _first_comment(path)) for name, path in registry.options(groups[what]).items() if name != "none"
        ]
        _table([(name, text) for name, text in found] or [("nothing", "")])


def _first_comment(path: Path) -> str:
    for line in path.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""


@app.command()
def doctor() -> None:
    """Versions, devices and optional extras of this machine."""
    with errors():
        import platform
        from importlib import metadata
        from importlib.util import find_spec

        print(f"rlx {__version__}, Python {platform.python_version()}, {platform.platform()}")
        for name in (
            "torch",
            "numpy",
            "gymnasium",
            "hydra-core",
            "omegaconf",
            "typer",
            "tensorboard",
            "safetensors",
        ):
            try:
                print(f"  {name} {metadata.version(name)}")
            except metadata.PackageNotFoundError:
                print(f"  {name} is missing: pip install rlx")
        import torch

        devices = [
            "cpu",
            *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())),
        ]
        if torch.backends.mps.is_available():
            devices.append("mps")
        print(f"devices: {', '.join(devices)}; {os.cpu_count()} cores")
        print("extras:")
        extras = {
            "box2d": "Box2D", "mujoco": "mujoco", "atari": "ale_py", "minigrid": "minigrid", "envpool": "envpool",
            "sweep": "optuna", "joblib": "hydra_plugins.hydra_joblib_launcher",
            "slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher",
            "bench": "stable_baselines3",
        }  # fmt: skip
        for extra, module in extras.items():
            try:
                there = find_spec(module) is not None
            except ModuleNotFoundError:
                there = False
            print(f"  {extra:<9}{'yes' if there else f'no: pip install {chr(39)}rlx[{extra}]{chr(39)}'}")


@app.command()
def dash(
    directory: Annotated[Path, typer.Argument(help="A directory of runs.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 6006,
) -> None:
    """TensorBoard over the runs, on this machine only (localhost)."""
    with errors():
        import subprocess

        if not directory.is_dir():
            raise fail(f"{directory}: no such directory (rlx train makes runs/)")
        command = [
            sys.executable,
            "-m",
            "tensorboard.main",
            "--logdir",
            str(directory),
            "--host",
            "localhost",
            "--port",
            str(port),
        ]
        with contextlib.suppress(KeyboardInterrupt):
            raise typer.Exit(subprocess.call(command))


# -- completion ------------------------------------------------------------------------------------------------


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="bash, zsh or fish.")],
) -> None:
    """Print a completion script: source <(rlx completion bash)."""
    with errors():
        from rlx import completion as scripts

        if shell not in scripts.SCRIPTS:
            raise fail(f"completion {shell}: no such shell (choices: {', '.join(scripts.SCRIPTS)})")
        print(scripts.SCRIPTS[shell], end="")


@app.command(name="complete", hidden=True, context_settings=PASS, add_help_option=False)
def complete(ctx: typer.Context) -> None:
    """The candidates for the last word, one a line (what the completion scripts call)."""
    from rlx import completion as scripts

    words = _argv_after("complete", ctx.args)
    for candidate in scripts.candidates(words[1:] if words[:1] == ["--"] else words):
        print(candidate)


def main() -> None:
    app(prog_name="rlx")
