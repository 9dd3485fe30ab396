"""The learning tables: `make results` (python -m benchmarks.results [--only cartpole,...] [--jobs 2]).

The rule, fixed beforehand: the final policy (not the best), after the preset's own budget, on 100 fresh evaluation
episodes, deterministic; a target holds when at least 8 of 10 seeds reach it. One JSON file a cell (environment and
seed) under docs/results/ALGO/ENV/; a cell that is there is skipped, so the command can be stopped and goes on
later. The table is docs/results/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
SEEDS = range(1, 11)
EPISODES, EVAL_SEED = 100, 1_000_003
NEEDED = 8

# algorithm, environment, threshold of the mean return
TARGETS = [
    ("ppo", "cartpole", 475.0),
    ("ppo", "acrobot", -90.0),
    ("ppo", "pendulum", -200.0),
    ("ppo", "lunarlander", 200.0),
]


def cell_path(algo: str, env: str, seed: int) -> Path:
    return RESULTS / algo / env / f"seed_{seed:02d}.json"


def run_cell(algo: str, env: str, seed: int) -> dict[str, Any]:
    """Train one seed with the pair's preset and evaluate its final policy, both through the command line."""
    rlx = [sys.executable, "-m", "rlx"]
    with tempfile.TemporaryDirectory() as scratch:
        train = [f"algo={algo}", f"env={env}", f"seed={seed}"]
        quiet = ["video=false", "tensorboard=false", "eval_every=0", f"runs_dir={scratch}"]
        done = subprocess.run([*rlx, "train", *train, *quiet], capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"{algo} {env} seed {seed}: {done.stderr.splitlines()[-1:]}")
        path = done.stdout.splitlines()[-1].removeprefix("run: ")
        evaluation = [*rlx, "eval", path, "--episodes", str(EPISODES), "--seed", str(EVAL_SEED), "--json"]
        scored = json.loads(subprocess.run(evaluation, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        shown = json.loads(subprocess.run([*rlx, "show", path, "--json"], capture_output=True, check=True).stdout)
        last = (Path(path) / "metrics.jsonl").read_text().splitlines()[-1]
    return {
        "command": " ".join(["rlx", "train", *train]),
        "evaluation": f"rlx eval RUN --episodes {EPISODES} --seed {EVAL_SEED}",
        "algo": algo,
        "env": env,
        "seed": seed,
        "steps": shown["step"],
        "seconds": round(json.loads(last)["time/time_elapsed"], 1),
        "mean": scored["mean"],
        "std": scored["std"],
        "episodes": scored["n"],
        "weights_sha256": shown["weights_sha256"],
        "versions": shown["versions"],
    }


def fill(cells: list[tuple[str, str, int]], jobs: int) -> None:
    """Run the cells that are missing, `jobs` at a time."""

    def one(cell: tuple[str, str, int]) -> None:
        path = cell_path(*cell)
        if path.exists():
            return
        found = run_cell(*cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1) + "\n")
        temporary.replace(path)
        print(f"{cell[0]} {cell[1]} seed {cell[2]}: {found['mean']:.1f} in {found['seconds']:.0f} s", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        for future in [pool.submit(one, cell) for cell in cells]:
            future.result()


def summary(algo: str, env: str, threshold: float) -> dict[str, Any] | None:
    """IQM over seeds with a 95 % bootstrap interval (from 10 seeds on), the worst seed, and whether the rule holds."""
    files = sorted((RESULTS / algo / env).glob("seed_*.json"))
    cells = [json.loads(file.read_text()) for file in files]
    if not cells:
        return None
    means = np.array([cell["mean"] for cell in cells])

    def iqm(x: np.ndarray, axis: int = -1) -> Any:
        return stats.trim_mean(x, 0.25, axis=axis)

    interval = None
    if len(means) >= 10:
        found = stats.bootstrap((means,), iqm, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0))
        interval = [float(found.confidence_interval.low), float(found.confidence_interval.high)]
    passed = int((means >= threshold).sum())
    return {
        "algo": algo, "env": env, "threshold": threshold, "seeds": len(means), "passed": passed,
        "holds": passed >= NEEDED, "iqm": float(iqm(means)), "interval": interval, "worst": float(means.min()),
        "steps": cells[0]["steps"], "seconds": float(np.median([cell["seconds"] for cell in cells])),
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| algorithm | environment | steps | target | seeds at target | IQM [95 % interval] | worst seed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = "[{:.1f}, {:.1f}]".format(*row["interval"]) if row["interval"] else "(fewer than 10 seeds)"
        verdict = f"{row['passed']} of {row['seeds']}{'' if row['holds'] else ' (missed)'}"
        lines.append(
            f"| {row['algo']} | {row['env']} | {row['steps']:,} | {row['threshold']:g} | {verdict} "
            f"| {row['iqm']:.1f} {interval} | {row['worst']:.1f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


INTRODUCTION = f"""# Results

Made by `make results`; one JSON file a cell beside this page. Rule: the final policy after the preset's budget, mean of
{EPISODES} fresh evaluation episodes (seed {EVAL_SEED}), deterministic; a target holds when {NEEDED} of {len(SEEDS)}
seeds (1 to {len(SEEDS)}) reach it. IQM is the interquartile mean over seeds, with a percentile bootstrap interval.
Seconds are the median wall time of one training run on a core of a shared machine.

"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="environments, e.g. cartpole,acrobot")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    options = parser.parse_args()
    targets = [t for t in TARGETS if not options.only or t[1] in options.only.split(",")]
    fill([(algo, env, seed) for algo, env, _ in targets for seed in SEEDS], options.jobs)
    rows = [row for target in TARGETS if (row := summary(*target))]
    (RESULTS / "README.md").write_text(INTRODUCTION + table(rows) + "\n")
    (RESULTS / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
