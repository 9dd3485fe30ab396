"""rlx eval, play, sample: what a run's policy can do."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.base.errors import UserError
from rlx.base.files.paths import check_out
from rlx.base.streams import others_on_stderr
from rlx.cli import printing
from rlx.cli.app import Checkpoint, Json, RunName, Trust, answer, app, optional, run_path, set_one_thread
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
    """Evaluate a run's policy.

    On fresh environments, or on held-out prompts of its task.
    """
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
    gif: Annotated[
        Path | None, typer.Option("--gif", "--out", "-o", help="Write the episode to this .gif or .mp4.")
    ] = None,
    seed: Seed = 0,
    checkpoint: Checkpoint = "latest",
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Sample actions instead of taking the mode.")
    ] = False,
    strip: Annotated[
        bool, typer.Option("--strip", help="Show the untrained, the half trained and the trained policy side by side.")
    ] = False,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Print state, action and reward of each step.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Maximum number of steps.")] = 1000,
    fps: Annotated[int | None, optional(min=1, max=50, help="Frames per second (the environment's own).")] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the return, and the trajectory, as JSON.")] = False,
) -> None:
    """Play one episode, in a window or into a film (--gif)."""
    path = run_path(run)
    if _on_task(path):
        raise UserError(f"play {run}: this is a language-model run; use rlx sample {run}")
    if strip and gif is None:
        gif = Path("strip.gif")
    if gif is not None:
        check_out(gif, (".gif", ".mp4"), "--gif")
    set_one_thread()
    from rlx.training import runner

    with others_on_stderr():
        opened: tuple[Any, Any] = runner.open_policy(path, checkpoint, trust=trust)
        cfg, policy = opened
        if gif is None and not trajectory and not as_json:
            total, length = runner.world_of(cfg).watch(policy, cfg, seed, steps, stochastic)
            rows: list[dict[str, Any]] = []
        else:
            total, length, rows = _recorded(path, cfg, policy, gif, seed, steps, fps, stochastic, strip, trust)
    if as_json:
        print(json.dumps({"return": total, "length": length, "seed": seed, **({"steps": rows} if trajectory else {})}))
        return
    if trajectory:
        printing.table([("step", "s", "a", "r"), *(tuple(str(x) for x in row.values()) for row in rows)], right=(0, 3))
    print(f"return {total:.2f} in {length} steps (seed {seed})" + (f", written to {gif}" if gif else ""))


def _recorded(
    path: Path, cfg: Any, policy: Any, gif: Path | None, seed: int, steps: int, fps: float | None, stochastic: bool,
    strip: bool, trust: bool,
) -> tuple[float, int, list[dict[str, Any]]]:  # fmt: skip
    """Play an episode, film it where that is wanted; its return, length and trajectory."""
    from rlx.control.policy import make_one
    from rlx.control.show import recording
    from rlx.envs.spaces import kind_of
    from rlx.training import runner

    policies = {"trained" if strip else "": policy}
    if strip:
        policies = {"untrained": runner.untrained_policy(path, trust)[1]}
        if (middle := runner.middle_checkpoint(path)) is not None:
            policies[f"step {middle:,}"] = runner.open_policy(path, str(middle), trust=trust)[1]
        policies["trained"] = policy
    width = None if gif is None else 280 if strip else recording.WIDTH
    made = [
        recording.record(each, cfg.judged_in, seed, steps, width, stochastic, name) for name, each in policies.items()
    ]
    if gif is not None:
        film = recording.side_by_side(made) if strip else made[0]
        try:
            recording.write(film, gif, fps)
        except OSError as error:
            raise UserError(f"--gif={gif}: cannot be written: {error.strerror or error}") from None
    envs = make_one(cfg.env)
    envs.close()
    one_hot = kind_of(envs.raw_observation_space) in ("Discrete", "OneHot")
    return made[-1].total, len(made[-1].steps), made[-1].rows(one_hot)


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
    """Let a language run complete prompts.

    \b
    rlx sample latest "37+58="
    """
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
