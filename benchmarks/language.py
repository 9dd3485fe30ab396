"""The learning tables of the language family: `make results-lm` (python -m benchmarks.language [--only add2,names]).

The rule, fixed beforehand: the final policy, after the preset's own budget, on 1,000 fresh prompts (seed 1000003) that
no run is trained on where the task has enough of them; a claim holds when at least 8 of 10 seeds show it. Every stage
is an ordinary run through the command line, started from the final weights of the one named; where it starts is judged
by the same prompts. CPU seconds are those of the whole process of that stage, its evaluations and imports included. One
JSON file a cell (task, stage, seed) under docs/results/language; what is there is skipped, so the command can be
stopped and goes on later. --table only makes docs/results/language.md and the picture again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure, settings
from benchmarks.measure import BenchmarkFailed
from benchmarks.results import NEEDED, SEEDS, bootstrap, dumped, iqm, read_cell, thinned

RESULTS = measure.ROOT / "docs" / "results" / "language"
PAGE = measure.ROOT / "docs" / "results" / "language.md"
PROMPTS, EVAL_SEED = 1_000, 1_000_003


@dataclass(frozen=True)
class Stage:
    """One run of a task: what it starts from, what is asked of it, and which number says so."""

    name: str  # also its algo, unless that is given
    starts: str | None = None  # another stage
    algo: str = ""
    overrides: tuple[str, ...] = ()
    judged: str = "greedy_accuracy"
    at_least: float | None = None  # None: more than where it started
    needs: tuple[str, ...] = ()  # other stages, as {NAME} in the overrides
    claims: bool = True  # to reach something; not where it is there to go wrong

    def words(self, task: str) -> list[str]:
        return [f"algo={self.algo or self.name}", f"task={task}", *self.overrides]


TASKS: dict[str, tuple[Stage, ...]] = {
    "add2": (
        Stage("sft"),
        Stage("grpo", "sft", at_least=0.9),
        Stage("dr_grpo", "sft"),
        Stage("rloo", "sft"),
        Stage("dpo", "sft", judged="sampled_accuracy"),
        *(Stage(name, "sft") for name in ("dapo", "gspo", "cispo", "reinforce_pp")),
    ),
    "sort": (Stage("grpo", at_least=0.95),),
    "parity": (Stage("sft"), Stage("grpo", "sft"), Stage("grpo_process", "sft")),
    "names": (
        Stage("pretrain", judged="reward"),
        Stage("reward_model", "pretrain", judged="accuracy", at_least=0.85),
        Stage(
            "rlhf_ppo", "pretrain", judged="reward",
            overrides=("algo.reward_model={reward_model}",), needs=("reward_model",),
        ),
        Stage(
            "rlhf_ppo_beta0", "pretrain", "rlhf_ppo", judged="reward",
            overrides=("algo.reward_model={reward_model}", "algo.kl_coef=0", "algo.kl_target=0", "total_steps=400"),
            needs=("reward_model",), claims=False,
        ),
        Stage("dpo", "pretrain", judged="reward"),
    ),
}  # fmt: skip
CURVES = ("reward", "objective/scores", "kl", "eval/greedy_accuracy", "loss")


def cell_path(task: str, stage: Stage, seed: int) -> Path:
    return RESULTS / task / stage.name / f"seed_{seed:02d}.json"


def run_seed(task: str, seed: int) -> bool:
    """All stages of a task with one seed that are missing, or that a missing one starts from. False if one failed."""
    stages = TASKS[task]
    missing = {stage.name for stage in stages if "judged" not in read_cell(cell_path(task, stage, seed))}
    for stage in reversed(stages):
        if stage.name in missing:
            missing |= {name for name in (stage.starts, *stage.needs) if name}
    fine, paths = True, {}
    with tempfile.TemporaryDirectory() as scratch:
        for stage in stages:
            if stage.name not in missing:
                continue
            if any(name not in paths for name in (stage.starts, *stage.needs) if name):
                continue  # what it starts from has failed
            cell, path = run_stage(task, stage, seed, Path(scratch), paths)
            fine &= "failed" not in cell
            if path:
                paths[stage.name] = path
            if stage.starts and "judged" in cell:
                before = read_cell(cell_path(task, _stage(task, stage.starts), seed))
                cell["start"] = before.get("evaluation", {}).get(stage.judged)
            write(cell_path(task, stage, seed), cell)
            said = cell.get("failed") or f"{cell['judged']} {cell['score']:.4f} in {cell['cpu_seconds']:.0f} CPU s"
            print(f"{task} {stage.name} seed {seed}: {said}", flush=True)
    return fine


def _stage(task: str, name: str) -> Stage:
    return next(stage for stage in TASKS[task] if stage.name == name)


def run_stage(task: str, stage: Stage, seed: int, scratch: Path, paths: dict[str, str]) -> tuple[dict[str, Any], str]:
    """Its cell, and the path of its run ("" where it failed)."""
    words = [*stage.words(task), f"seed={seed}"] + ([f"init={{{stage.starts}}}"] if stage.starts else [])
    cell = {"command": " ".join(["rlx train", *words]), "task": task, "stage": stage.name, "seed": seed}
    rlx = [sys.executable, "-m", "rlx"]
    log = scratch / f"{stage.name}.log"
    try:
        real = [word.format(**paths) for word in words]
        used = measure.run([*rlx, "train", *real, f"runs_dir={scratch}", "tensorboard=false"], log, measure.ROOT)
        path = log.read_text().splitlines()[-1].removeprefix("run: ")
        rows = [json.loads(line) for line in (Path(path) / "metrics.jsonl").read_text().splitlines()]
        measure.run(
            [*rlx, "eval", path, "--prompts", str(PROMPTS), "--seed", str(EVAL_SEED), "--json"], log, measure.ROOT
        )
        found = json.loads(log.read_text().splitlines()[-1])
        measure.run([*rlx, "show", path, "--json"], log, measure.ROOT)
        shown = json.loads(log.read_text().splitlines()[-1])
    except (BenchmarkFailed, OSError, ValueError, KeyError) as error:
        return {**cell, "failed": " ".join(str(error).split())[:500]}, ""
    curves = {key: thinned([(row["step"], row[key]) for row in rows if key in row]) for key in CURVES}
    return {
        **cell,
        "judged": stage.judged,
        "score": found[stage.judged],
        "evaluation": found,
        "steps": shown["step"],
        "cpu_seconds": used["cpu"],
        "memory_mb": used["memory_mb"],
        "weights_sha256": shown["weights_sha256"],
        "versions": shown["versions"],
        "curves": {key: curve for key, curve in curves.items() if curve},
    }, path


def write(path: Path, cell: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(dumped(cell) if "curves" not in cell else _short(cell))
    temporary.replace(path)


def _short(cell: dict[str, Any]) -> str:
    """JSON with a curve a line."""
    head = json.dumps({key: value for key, value in cell.items() if key != "curves"}, indent=1)[:-2]
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(curve)}" for key, curve in cell["curves"].items())
    return f'{head},\n "curves": {{\n{lines}\n }}\n}}\n'


# -- the table -------------------------------------------------------------------------------------------------


def summary(task: str, stage: Stage, cells: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """IQM over the seeds with a 95 % bootstrap interval (from 10 seeds on), the worst seed, and whether it holds."""
    done = [cell for cell in cells if "score" in cell]
    if not done:
        return None
    scores = np.array([cell["score"] for cell in done])
    starts = np.array([cell.get("start", np.nan) for cell in done], float)
    passed: int | None = None
    if stage.claims and (stage.at_least is not None or stage.starts):
        passed = int((scores >= stage.at_least).sum() if stage.at_least is not None else (scores > starts).sum())
    interval = None
    if len(scores) >= len(SEEDS):
        interval = bootstrap(scores)
    return {
        "task": task, "stage": stage.name, "judged": stage.judged, "starts": stage.starts, "at_least": stage.at_least,
        "seeds": len(cells), "failed": len(cells) - len(done), "passed": passed,
        "holds": None if passed is None or len(cells) < len(SEEDS) else passed >= NEEDED,
        "start": None if np.isnan(starts).any() else float(iqm(starts)), "iqm": float(iqm(scores)),
        "interval": interval, "worst": float(scores.min()),
        "steps": int(np.median([cell["steps"] for cell in done])),
        "cpu_seconds": float(np.median([cell["cpu_seconds"] for cell in done])),
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| task | stage | from | judged by | target | at target | start | end: IQM [95 %] | worst | steps | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low_high = row["interval"]
        interval = f" [{low_high[0]:.3f}, {low_high[1]:.3f}]" if low_high else ""
        target = "-" if row["passed"] is None else "more" if row["at_least"] is None else f">= {row['at_least']:g}"
        verdict = "-" if row["passed"] is None else f"{row['passed']} of {row['seeds']}"
        verdict += " (missed)" * (row["holds"] is False) + f" ({row['failed']} failed)" * bool(row["failed"])
        start = "-" if row["start"] is None else f"{row['start']:.3f}"
        lines.append(
            f"| {row['task']} | {row['stage']} | {row['starts'] or '-'} | {row['judged']} | {target} | {verdict} "
            f"| {start} | {row['iqm']:.3f}{interval} | {row['worst']:.3f} | {row['steps']:,} "
            f"| {row['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


INTRODUCTION = f"""# Results of the language family

`make results-lm` makes this page and the JSON files beside it, one for each row and seed.

- **Rule**: the final policy after the preset's budget answers {PROMPTS:,} fresh prompts (seed {EVAL_SEED}),
  which no run is trained on if the task has enough prompts. A target holds if {NEEDED} of {len(SEEDS)} seeds (1
  to {len(SEEDS)}) reach it.
- **start**: the same score for the run that the stage starts from; the target *more* asks for more than that.
- **judged by**: `greedy_accuracy`, the most likely completion is right; `sampled_accuracy`, a sample is right;
  `reward` (names), the mean of the hidden rule over sampled names; `accuracy` (reward_model), the share of
  pairs in the right order.
- **CPU s**: CPU seconds of the stage's whole process, with imports, evaluations and checkpoints, on one core of
  a shared machine.
- **IQM**: the interquartile mean over the seeds, with a 95 % percentile bootstrap interval.

"""
PICTURE = """
![RLHF on names: the true reward against the proxy](language.png)

RLHF on `names`, one line per seed, over the KL to the pretrained model. Left: the score of the reward model
(its samples from the pretrained model have mean 0, standard deviation 1). Right: the true reward, which the
policy never sees. With beta near 0 the proxy keeps rising while the true reward falls behind; with the adaptive beta
both rise.
"""


def gamed(cells: Sequence[dict[str, Any]], least: float = 0.1) -> int:
    """Runs whose true reward ends at least so far below its own peak while the proxy ends above what it was there."""
    count = 0
    for cell in cells:
        reward, score = (np.array(cell["curves"][key])[:, 1] for key in ("reward", "objective/scores"))
        peak = int(reward.argmax())
        count += bool(reward[-1] <= reward[peak] - least and score[-1] > score[peak])
    return count


def draw(cells: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Proxy and true reward over the KL, with and without a penalty."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True)
    for name, colour, label in (("rlhf_ppo_beta0", "#D55E00", "beta 0"), ("rlhf_ppo", "#0072B2", "adaptive beta")):
        for cell in cells.get(name, []):
            curves = {key: np.array(points) for key, points in cell.get("curves", {}).items()}
            if not {"kl", "reward", "objective/scores"} <= set(curves):
                continue
            for axis, key in ((left, "objective/scores"), (right, "reward")):
                axis.plot(curves["kl"][:, 1], curves[key][:, 1], color=colour, alpha=0.45, linewidth=1)
        for axis in (left, right):
            axis.plot([], [], color=colour, linewidth=2, label=label)
    for axis, title in ((left, "proxy: the reward model's score"), (right, "true reward: the hidden rule")):
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(True, color="0.92", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    right.legend(frameon=False, fontsize=9)
    figure.supxlabel("KL to the pretrained model, nats a completion", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def publish() -> list[dict[str, Any]]:
    """Write the page, the summary and the picture from the cells there are."""
    rows = []
    for task, stages in TASKS.items():
        for stage in stages:
            cells = [cell for seed in SEEDS if (cell := read_cell(cell_path(task, stage, seed)))]
            if row := summary(task, stage, cells):
                rows.append(row)
    names = {
        stage.name: [cell for seed in SEEDS if (cell := read_cell(cell_path("names", stage, seed)))]
        for stage in TASKS["names"]
    }
    pictured = any(names[name] for name in ("rlhf_ppo", "rlhf_ppo_beta0"))
    if pictured:
        draw(names, PAGE.with_suffix(".png"))
    text = INTRODUCTION + table(rows) + "\n" + (PICTURE if pictured else "")
    for name, said in (("rlhf_ppo_beta0", "With beta 0"), ("rlhf_ppo", "With the adaptive beta")):
        if runs := [cell for cell in names[name] if "curves" in cell]:
            text += f"\n{said} the true reward ends at least .1 below its own peak, the proxy above what it was there, "
            text += f"in {gamed(runs)} of {len(runs)} seeds."
    PAGE.write_text(text + "\n")
    (RESULTS / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language", description=__doc__)
    parser.add_argument("--only", default="", help="some of " + ", ".join(TASKS))
    parser.add_argument("--seeds", default="", help="some of 1 to 10, e.g. 1,2")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--table", action="store_true", help="only write the page again")
    args = parser.parse_args(argv)
    tasks = args.only.split(",") if args.only else list(TASKS)
    if unknown := [task for task in tasks if task not in TASKS]:
        parser.error(f"--only={unknown[0]}: no such task (there are {', '.join(TASKS)})")
    seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else list(SEEDS)
    fine = True
    if not args.table:
        for task in tasks:
            for stage in TASKS[task]:
                settings.settle(cell_path(task, stage, 1).parent, stage.words(task))
        with ThreadPoolExecutor(args.jobs) as pool:
            fine = all(pool.map(lambda cell: run_seed(*cell), [(task, seed) for task in tasks for seed in seeds]))
    print(table(publish()))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
