"""rlx sweep: a search over hyper-parameters, and what came of it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rlx.base.errors import UserError, did_you_mean, shown
from rlx.cli import printing
from rlx.cli.app import PASS, Json, app, optional
from rlx.rundir import home

ACTIONS = {"resume": ("-j",), "best": ("--train", "--seeds", "--json"), "show": ("--json",)}  # and their options
START = ("-j", "--config-dir")
FRESH = 5  # seeds of best --train

HELP = """Search hyper-parameters, with several seeds per trial.

\b
rlx sweep [KEY=VALUE | KEY=RANGE | SETTING=VALUE]...   begin a study
rlx sweep resume STUDY [trials=N] [-j N]               continue a study, or join it with more workers
rlx sweep show STUDY                                   list its trials
rlx sweep best STUDY [--train]                         show the winner, or train it on fresh seeds

KEY=VALUE as in rlx train. RANGE: interval(1e-5, 1e-2), tag(log, interval(1e-5, 1e-2)), int(interval(2, 12)),
range(2, 12), or a,b,c. Without any, the ranges of conf/sweep/ALGO.yaml (sweep=NAME: of another file).

SETTING: trials (50), seeds (3 per trial), sampler (tpe, random, cmaes, gp, nsga2), pruner (median, hyperband, none),
storage (journal, or the URL of a database), study (its name), jobs (1).

STUDY: a directory, a name under runs/sweeps, or latest.
"""


@app.command(context_settings=PASS, help=HELP)
def sweep(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORD]...", show_default=False, help="As above.")
    ] = None,
    jobs: Annotated[int | None, optional("-j", "--jobs", min=1, max=256, help="Worker processes (1).")] = None,
    config_dir: Annotated[Path | None, optional("--config-dir", help="More configuration files.")] = None,
    train: Annotated[bool, typer.Option("--train", help="best: train the winner on fresh seeds.")] = False,
    seeds: Annotated[int | None, optional(min=1, max=1000, help=f"best --train: how many seeds ({FRESH}).")] = None,
    as_json: Json = False,
) -> None:
    arguments = [*(words or []), *ctx.args]
    options = {"-j": jobs, "--config-dir": config_dir, "--train": train or None, "--seeds": seeds}
    options["--json"] = as_json or None
    action = arguments[0] if arguments and arguments[0] in ACTIONS else None
    for name, value in options.items():
        if value is not None and name not in (ACTIONS[action] if action else START):
            takes = [verb for verb, names in ACTIONS.items() if name in names]
            raise UserError(f"{name}: no option of rlx sweep{f' {action}' if action else ''} ({_who(name, takes)})")
    if action is None:
        _begin(arguments, config_dir, jobs)
    elif action == "resume":
        _resume(arguments[1:], jobs)
    elif action == "show":
        _show(_one(arguments, action), as_json)
    else:
        if seeds is not None and not train:
            raise UserError("--seeds can only be used with --train (rlx sweep best STUDY --train --seeds 5)")
        _best(_one(arguments, action), train, seeds or FRESH, as_json)


def _who(name: str, takes: Sequence[str]) -> str:
    words = [f"rlx sweep {verb} STUDY {name}" for verb in takes]
    return " or ".join([*words, *([f"rlx sweep KEY=VALUE... {name}"] if name in START else [])])


def _one(arguments: Sequence[str], action: str) -> str:
    if len(arguments) < 2:
        raise UserError(f"rlx sweep {action}: STUDY is missing: a directory, a name under runs/sweeps, or latest")
    if len(arguments) > 2:
        raise UserError(f"rlx sweep {action}: unexpected argument: {' '.join(arguments[2:])}")
    return arguments[1]


def _begin(arguments: list[str], config_dir: Path | None, jobs: int | None) -> None:
    if not arguments:
        raise UserError("rlx sweep: what to search is missing: rlx sweep algo=ppo env=cartpole (rlx sweep --help)")
    if "=" not in arguments[0] and not arguments[0].startswith("-"):
        hint = did_you_mean(arguments[0], ACTIONS)
        raise UserError(f"{shown(arguments[0])}: must be key=value, or one of {', '.join(ACTIONS)}{hint}")
    from rlx.launch import search_request
    from rlx.search import search

    question = search_request.ask(arguments, config_dir, jobs)
    again = sys.argv[1:] if sys.argv[1:2] == ["sweep"] else ["sweep", *arguments]
    _work(search.begin(question.to_json(["rlx", *again])), question.settings.jobs)


def _resume(arguments: list[str], jobs: int | None) -> None:
    from rlx.launch.composing import set_threads
    from rlx.search import search, settings

    values, rest = settings.take(arguments, ("trials", "jobs", "storage"))
    if len(rest) > 1 or (rest and "=" in rest[0]):
        other = next(word for word in rest if "=" in word or word is not rest[0])
        raise UserError(f"{other}: rlx sweep resume takes STUDY, trials=N, jobs=N, storage=URL; the rest is fixed")
    study = search.again(_one(["resume", *rest], "resume"), values.get("trials"), values.get("storage"))
    set_threads(study.asked["config"].get("threads"))
    _work(study, jobs or values.get("jobs") or 1)


def _work(study: Any, jobs: int) -> None:
    from rlx.base.signals import Interrupted, name_of
    from rlx.cli.printing.study import StudyWatch, announced, ended, summary
    from rlx.search import search

    name = _name(study)
    announced(study, jobs, _ranges(study))
    with StudyWatch(study, search.done) as watch:
        code = search.work(study, jobs, watch.look)
        watch.now()
    rows = search.rows(study)
    over = len(search.done(rows)) >= study.asked["trials"]
    again = f"rlx sweep resume {name}"
    if code > 128:
        text = f"interrupted by {name_of(code - 128)}: {summary(study, rows)}"
        raise Interrupted(code - 128, study.directory, text, None, again)
    ended(study, rows, name, over)
    if not over:
        print(f"rlx: not all trials have ended; go on with: {again}", file=sys.stderr)
    if code or not any(row["state"] == "complete" for row in rows):
        raise typer.Exit(1)


def _name(study: Any) -> str:
    """A study as the command line names it."""
    if study.directory.parent == (home.usual() / "sweeps").absolute():
        return str(study.name)
    return printing.quoted(study.directory)


def _ranges(study: Any) -> dict[str, str]:
    from rlx.search import params

    return {key: params.said(distribution) for key, distribution in study.asked["space"].items()}


def _show(name: str, as_json: bool) -> None:
    from rlx.cli.printing.study import listing
    from rlx.search import search, trials

    study = search.find(name)
    rows = search.rows(study)
    shares = trials.importance(study)
    if as_json:
        request = {key: value for key, value in study.asked.items() if key != "config"}
        print(json.dumps({"study": str(study.directory), **request, "importance": shares, "rows": rows}))
    else:
        listing(study, rows, shares, _ranges(study))


def _best(name: str, train: bool, count: int, as_json: bool) -> None:
    from rlx.cli.printing.study import retrained, winning_trial
    from rlx.search import search, winner

    study = search.find(name)
    result = winner.best(study, search.rows(study))
    if not as_json:
        winning_trial(result)
    if train:
        from rlx.launch.composing import set_threads

        winner.check_seeds(study, count)
        set_threads(study.asked["config"].get("threads"))
        result = winner.train(study, result, count, _said)
        if not as_json:
            retrained(study, result)
    elif not as_json:
        print(f"\nnext: rlx sweep best {_name(study)} --train")
    if as_json:
        print(json.dumps(result))
    if train and result["fresh"]["failed"]:
        raise typer.Exit(1)


def _said(path: Path, score: float | None, error: str | None) -> None:
    """A run of the winner that ended."""
    line = f"{path.name}  {error or f'{score:.4g}'}"
    print(line, file=sys.stderr, flush=True)
