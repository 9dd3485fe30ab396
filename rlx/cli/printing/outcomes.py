"""What came of a run, a grid, an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlx.base.files.paths import near
from rlx.base.text import escaped
from rlx.cli.printing.text import columns, dash_of, quoted, score, table
from rlx.rundir.layout import Status


def finished(path: Path, outcome: Mapping[str, Any], verbose: bool = False) -> None:
    """The verdict, the scores, the next commands, and the run's path as the last line. verbose: losses, too."""
    from rlx.config import promise, registry
    from rlx.explain.runs import story
    from rlx.rundir import reader
    from rlx.rundir.layout import read_config

    config, metrics, evaluation = read_config(path), outcome["metrics"], outcome["evaluation"] or {}
    promised = promise.of(config)
    print()
    if promised and (said := promised.verdict({**metrics, **evaluation})):
        print(said)
    print(story.solved(path))
    facts = registry.facts((config.get("algo") or {}).get("implementation", ""))
    names = facts.metrics
    shown = {key: value for key, value in metrics.items() if verbose or key in names or key.startswith("exact/")}
    columns([*_evaluation(evaluation), *_numbers(shown)])
    name = quoted(path)
    if Status.read(path).state == "interrupted":  # its time was over
        print(f"\nnext: rlx resume {name}\nrun: {near(path)}")
        return
    answers = f"eval {name}" if facts.scores else f"sample {name}"
    watch = answers if reader.place(path) == "task" else f"play {name} --gif out.gif"
    print(f"\nnext: rlx explain {name}\n      rlx {watch}\n      {dash_of(path)}")
    print(f"run: {near(path)}")


def _numbers(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    return [
        (f"{prefix}{key}", str(value) if isinstance(value, int) else f"{value:.6g}")
        for key, value in sorted(values.items())
        if isinstance(value, int | float)
    ]


def _evaluation(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "mean_reward" in values:
        text = f"{values['mean_reward']:.2f} +- {values['std_reward']:.2f} over {values['episodes']} episodes"
        return [("eval/mean_reward", text)]
    return _numbers({key: values[key] for key in values if key not in ("step", "score", "seed")}, "eval/")


def evaluated(report: Mapping[str, Any], seed: int) -> None:
    """`rlx eval`."""
    if "returns" in report:
        print(f"{report['mean']:.2f} +- {report['std']:.2f} over {report['n']} episodes (seed {seed})")
        return
    several = {f"{name}@{k}": share for name in ("pass", "maj") for k, share in report.get(f"{name}_at", {}).items()}
    for key, value in [*_numbers(report), *_numbers(several)]:
        print(f"  {key:<17}  {value}")


def sampled(rows: Sequence[Mapping[str, Any]]) -> None:
    """`rlx sample`: log-prob, prompt and completion, one line each."""
    for row in rows:
        for completion in row["completions"]:
            text = escaped(f"{row['prompt']}{completion['text']}")
            print(f"{completion['logprob']:9.3f}  {text}{'' if completion['ended'] else ' (cut)'}")


def grid_summary(directory: Path, jobs: Sequence[Mapping[str, Any]], planned: int | None, error: str | None) -> bool:
    """A line for each job, how many finished, and the grid's path as the last line. True if all finished."""
    from rlx.rundir import reader

    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if jobs else set()
    lines = [("job", "status", "eval", "", "")]
    for job in jobs:
        path = directory / str(job["run"])
        row: dict[str, Any] = reader.show(path) if path.is_dir() else {"status": "not started", "eval": None}
        swept = " ".join(word for word in job["overrides"] if word not in same)
        lines.append((str(job["run"]), row["status"], score(row), swept, str(job["error"] or "")))
    for path in reader.find(directory):  # what came to no end, because its process did
        if path.name not in [job["run"] for job in jobs]:
            row = reader.show(path)
            lines.append((path.name, row["status"], score(row), "", str(row["error"] or "")))
    print()
    if len(lines) > 1:
        table(lines, right=(2,))
    done = sum(job["error"] is None for job in jobs)
    count = max(planned or 0, len(jobs))
    if lost := count - len(jobs):
        print(f"{lost} did not finish: {error or 'was a worker killed?'}")
    print(f"{done} of {count} jobs finished")
    print(f"run: {near(directory)}")
    return done == count and error is None
