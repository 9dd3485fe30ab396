"""rlx eval, play, sample: what a run's policy can do."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.base.errors import UserError
from rlx.base.paths import check_out
from rlx.base.streams import others_on_stderr
from rlx.cli import printing
from rlx.cli.verbs.base import Checkpoint, Json, RunName, Trust, answer, app, optional, run_path, set_one_thread
from rlx.config.kind import COUNTS

EPISODES, PROMPTS, SAMPLES = COUNTS["env"], COUNTS["task"], 8  # of an evaluation, where nothing else is said
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed for the evaluation environments or prompts.")]


@app.command()
def eval(
    run: RunName,
    episodes: Annotated[
        int | None, optional(min=1, max=10**6, help=f"Episodes, for an environment run ({EPISODES}).")
    ] = None,
    prompts: Annotated[int | None, optional(min=1, max=10**6, help=f"Prompts, for a language run ({PROMPTS}).")] = None,
    k: Annotated[int | None, optional("--k", min=1, max=10**4, help=f"Samples of each prompt ({SAMPLES}).")] = None,
    seed: Seed = 0,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample actions instead of taking the mode.")
    ] = False,
    checkpoint: Checkpoint = "latest",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "cpu",
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers.")] = False,
) -> None:
    """Evaluate a run's policy: on fresh environments, or on held-out prompts of its task."""
    path = run_path(run)
    if _on_task(path):
        _refuse(
            {"--episodes": episodes, "--stochastic": stochastic or None},
            run,
            "is a language-model run; it takes --prompts N and --k K",
        )
        count, how = prompts or PROMPTS, {"k": k or SAMPLES}
    else:
        _refuse({"--prompts": prompts, "--k": k}, run, "is an environment run; it takes --episodes N")
        count, how = episodes or EPISODES, {"stochastic": stochastic}
    set_one_thread()
    from rlx.training import runner

    with others_on_stderr():
        cfg, module, state = runner.open_run(path, checkpoint, device, trust)
        evaluation = runner.report(cfg, module, state, count, seed, **how)
    answer(evaluation, as_json, partial(printing.evaluated, seed=seed))


def _on_task(path: Path) -> bool:
    from rlx.rundir import reader

    return reader.place(path) == "task"


def _refuse(options: dict[str, Any], run: str, instead: str) -> None:
    """Reject options that only runs of the other world take. Raises UserError."""
    for name, value in options.items():
        if value is not None:
            option = name if value is True else f"{name}={value}"
            raise UserError(f"{option}: the run {run} {instead}")


@app.command()
def play(
    run: RunName,
    gif: Annotated[Path | None, typer.Option(help="Write the episode to this GIF.")] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    steps: Annotated[int, typer.Option(min=1, help="Maximum number of steps.")] = 1000,
    fps: Annotated[int, typer.Option(min=1, max=50, help="Frames per second of the GIF.")] = 25,
    trust: Trust = False,
) -> None:
    """Let a run's policy play one episode, in a window or with --gif to a picture."""
    path = run_path(run)
    if _on_task(path):
        raise UserError(f"play {run}: this is a language-model run; use rlx sample {run}")
    if gif is not None:
        check_out(gif, (".gif",), "--gif")
    set_one_thread()
    from rlx.training import runner

    with others_on_stderr():
        cfg, policy = runner.open_policy(path, checkpoint, trust=trust)
        total, length = runner.world_of(cfg).play(policy, cfg, seed, steps, gif, fps)
    print(f"return {total:.2f} in {length} steps (seed {seed})" + (f", written to {gif}" if gif else ""))


@app.command()
def sample(
    run: RunName,
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="[PROMPT]...", help="Prompts to complete (four held-out ones).")
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="Completions per prompt.")] = 1,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the most likely token.")] = False,
    temperature: Annotated[float | None, optional(help="Sampling temperature (the run's own).")] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Let a run's policy complete prompts: rlx sample latest "37+58="."""
    path = run_path(run)
    if not _on_task(path):
        raise UserError(f"sample {run}: this is an environment run; use rlx play {run}")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise UserError(f"--temperature={temperature:g}: must be a finite number > 0 (--greedy: the limit 0)")
    set_one_thread()
    from rlx.training import runner

    with others_on_stderr():
        cfg, policy = runner.open_policy(path, checkpoint, trust=trust)
        rows = runner.world_of(cfg).sample(policy, cfg, prompts or (), count, seed, temperature, greedy)
    answer(rows, as_json, printing.sampled)
