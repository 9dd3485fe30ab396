"""Speed beside Stable-Baselines3 (and CleanRL) on the same hyper-parameters: `make bench`, python -m benchmarks.speed.

Whole processes through the real command, one thread, one core; rlx and its peer in turns, compared pair by pair.
What is measured and how to read it: docs/performance.md. Writes docs/results/speed_ppo.json and the tables made
from it. Exit code 1 where rlx needs more than 1.15 times the peer's environment steps to learn the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.measure import ROOT, BenchmarkFailed, Curve
from benchmarks.ratios import GATE, ROWS, Sample, compare, passes_gate

RESULTS = ROOT / "docs" / "results" / "speed_ppo.json"
PAGES = [ROOT / "docs" / "performance.md", ROOT / "README.md"]
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
SB3 = ROOT / "benchmarks" / "peers" / "sb3_ppo.py"
JUDGED = 8  # seeds from which the gate decides the exit code
SHORT = 1_024  # steps of the run whose CPU time is taken off: imports, start, first steps, end

TITLES = {
    "rlx_zoo": "rlx train experiment=bench_ppo_zoo",
    "sb3_zoo": "Stable-Baselines3, RL-Zoo's hyper-parameters",
    "rlx_own": "rlx train algo=ppo env=cartpole",
    "rlx_cleanrl": "rlx train experiment=bench_ppo_cleanrl",
    "sb3_cleanrl": "Stable-Baselines3, CleanRL's hyper-parameters",
    "cleanrl": "CleanRL, ppo.py",
}
# name, what it is, rlx's side, the peer, whether the hyper-parameters are the same (then learning is compared)
COMPARISONS = [
    ("zoo", "RL-Zoo's hyper-parameters, vs Stable-Baselines3", "rlx_zoo", "sb3_zoo", True),
    ("own", "rlx's preset, evaluations and GIFs on, vs Stable-Baselines3 (RL-Zoo)", "rlx_own", "sb3_zoo", False),
    ("sb3_cleanrl", "CleanRL's hyper-parameters, vs Stable-Baselines3", "rlx_cleanrl", "sb3_cleanrl", True),
    ("cleanrl", "CleanRL's hyper-parameters, vs CleanRL", "rlx_cleanrl", "cleanrl", True),
]


# -- running one side ------------------------------------------------------------------------------------------


@dataclass
class Peers:
    """How the commands are started on this machine."""

    rlx: str
    python: str
    cleanrl: Path | None
    cleanrl_python: str

    def command(self, side: str, steps: int, seed: int, directory: Path) -> list[str]:
        end = [f"total_steps={steps}", f"seed={seed}", f"runs_dir={directory}"]
        if side == "rlx_own":
            return [self.rlx, "train", "algo=ppo", "env=cartpole", *end]
        if side.startswith("rlx_"):
            return [self.rlx, "train", f"experiment=bench_ppo_{side.removeprefix('rlx_')}", *end]
        words = ["--seed", str(seed)]
        if side.startswith("sb3_"):
            name = side.removeprefix("sb3_")
            return [self.python, str(SB3), name, "--total-steps", str(steps), "--log-dir", str(directory), *words]
        return [self.cleanrl_python, str(self.cleanrl), "--total-timesteps", str(steps), "--no-cuda", *words]

    def measure(self, side: str, steps: int, seed: int) -> Sample:
        """Run one side once and read its log. Raises BenchmarkFailed."""
        with tempfile.TemporaryDirectory(prefix="rlx-bench-") as name:
            directory = Path(name)
            command = self.command(side, steps, seed, directory)
            cwd = directory if side == "cleanrl" else ROOT
            used = measure.run(command, directory / "output.txt", cwd)
            done, curve = read_log(side, directory)
        return {"side": side, "seed": seed, "steps": done, **used, "steps_to_475": measure.steps_to(curve)}


def read_log(side: str, directory: Path) -> tuple[int, Curve]:
    """Environment steps taken, and the mean training return of the last 100 episodes by step.

    rlx and Stable-Baselines3 log that mean themselves at every rollout (of all episodes, while there are fewer than
    100); CleanRL logs episodes.
    """
    if side.startswith("rlx_"):
        return measure.rlx_curve(next(directory.rglob("metrics.jsonl")).read_text().splitlines())
    found = measure.events(directory)
    steps = max(step for curve in found.values() for step, _ in curve)
    if side.startswith("sb3_"):
        return steps, found.get("rollout/ep_rew_mean", [])
    return steps, measure.means(found.get("charts/episodic_return", []))


def measure_round(peers: Peers, sides: Sequence[str], steps: int, seed: int) -> list[Sample]:
    """Every side once with all its steps and once with few, in turns: A B A B."""
    samples = []
    for count, kind in ((steps, "full"), (SHORT, "short")):
        for side in sides:
            sample = {"kind": kind, **peers.measure(side, count, seed)}
            samples.append(sample)
            reached = f", 475 at {sample['steps_to_475']:,}" if sample["steps_to_475"] else ""
            print(
                f"  seed {seed}  {side:<12} {sample['steps']:>8,} steps  {sample['cpu']:7.2f} CPU s{reached}",
                flush=True,
            )
    return samples


# -- tables ----------------------------------------------------------------------------------------------------


def table(result: dict[str, Any]) -> str:
    """The comparisons as Markdown, columns aligned for the terminal."""
    lines = [["", "rlx", "peer", "ratio: median (min to max)"]]
    for name, title, _, _, same in COMPARISONS:
        if (found := result["comparisons"].get(name)) is None:
            continue
        lines.append([f"**{title}**", "", "", _rounds(found["rounds"])])
        for key, what, form in ROWS:
            row = found[key]
            cells = [_shown(row[side], form) for side in ("rlx", "peer")]
            if "reached" in row:
                cells = [f"{cell} ({n} of {found['rounds']})" for cell, n in zip(cells, row["reached"])]
            lines.append([what, *cells, _ratio(row["ratio"], gate=same and key == "steps_to_475")])
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    rows = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rows)


def _rounds(count: int) -> str:
    return f"{count} round{'s' * (count > 1)}"


def _shown(found: dict[str, float | None] | None, form: str) -> str:
    return "not reached" if found is None or found["median"] is None else form.format(found["median"])


def _ratio(found: dict[str, Any] | None, gate: bool) -> str:
    if found is None:
        return "-"
    if "min" in found:
        return f"**{found['median']:.2f}** ({found['min']:.2f} to {found['max']:.2f})"
    return f"{found['median']:.2f}" + (f" (at least {1 / GATE:.2f})" if gate else "")


def caption(result: dict[str, Any]) -> str:
    place, found = result["machine"], result["versions"]
    names = ("torch", "stable-baselines3", "gymnasium", "numpy")
    parts = [f"{name} {found[name]}" for name in names if name in found]
    own = {name: value for name, value in result.get("cleanrl_versions", {}).items() if found.get(name) != value}
    theirs = f" (CleanRL: {', '.join(f'{name} {value}' for name, value in own.items())})" if own else ""
    return (
        f"Measured {result['date'][:10]} at commit {result['commit']} on one core of {place['cpu']} "
        f"({place['cores']} cores, load {place['load'][0]:.1f} at the start), "
        f"Python {found['python']}, {', '.join(parts)}{theirs}. "
        "Medians; ratios above 1 are in rlx's favour."
    )


def rewrite(pages: Sequence[Path], result: dict[str, Any]) -> list[Path]:
    """Put the table between the markers of each page that has them; the pages that changed."""
    text = f"{BEGIN}\n{caption(result)}\n\n{table(result)}\n{END}"
    changed = []
    for page in pages:
        before = page.read_text() if page.exists() else ""
        if BEGIN not in before or END not in before:
            continue
        head, _, rest = before.partition(BEGIN)
        after = head + text + rest.partition(END)[2]
        if after != before:
            page.write_text(after)
            changed.append(page)
    return changed


# -- the command -----------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="pairs, each with a seed of its own (8)")
    parser.add_argument("--long-rounds", type=int, default=3, help="the same with CleanRL's 500,000 steps (3; 0: none)")
    parser.add_argument("--quick", action="store_true", help="one round of few steps: does it run? Writes no results")
    parser.add_argument("--cleanrl", type=Path, metavar="PATH", help="a checkout of CleanRL, to run its ppo.py too")
    parser.add_argument("--cleanrl-python", default=sys.executable, metavar="PYTHON", help="with its requirements")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the JSON (docs/results/speed_ppo.json)")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables from the JSON")
    return parser.parse_args(argv)


def find_cleanrl(path: Path | None) -> Path | None:
    """ppo.py in a checkout, or the file itself. Raises BenchmarkFailed."""
    if path is None:
        return None
    for candidate in (path / "cleanrl" / "ppo.py", path / "ppo.py", path):
        if candidate.is_file():
            return candidate.resolve()
    raise BenchmarkFailed(f"--cleanrl={path}: no ppo.py there")


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; the JSON."""
    beside = Path(sys.executable).parent / "rlx"
    rlx = str(beside) if beside.exists() else shutil.which("rlx")
    if rlx is None:
        raise BenchmarkFailed("no rlx command beside this Python: pip install -e .")
    peers = Peers(rlx, sys.executable, find_cleanrl(args.cleanrl), args.cleanrl_python)
    theirs = measure.versions_of(args.cleanrl_python, ("torch", "numpy", "gymnasium")) if peers.cleanrl else {}
    if not theirs.get("gymnasium", "0.").startswith("0."):
        print("note: with gymnasium 1, CleanRL's ppo.py logs no episodes: see --cleanrl-python", file=sys.stderr)
    commit, place = measure.commit(), measure.machine(measure.pin())
    long = ["rlx_cleanrl", "sb3_cleanrl"] + ["cleanrl"] * (peers.cleanrl is not None)
    plan = [(["rlx_zoo", "sb3_zoo", "rlx_own"], 100_000, args.rounds), (long, 500_000, args.long_rounds)]
    if args.quick:
        plan = [(sides, 10_240, 1) for sides, _, _ in plan[: 1 + (peers.cleanrl is not None)]]
    samples: list[Sample] = []
    for sides, steps, rounds in plan:
        if rounds and not args.quick:
            for side in sides:  # once unmeasured: byte code, files in the page cache
                peers.measure(side, SHORT, 1)
        for seed in range(1, rounds + 1):
            print(f"round {seed} of {rounds}, {steps:,} steps: {', '.join(sides)}", flush=True)
            samples += measure_round(peers, sides, steps, seed)
    measured = {sample["side"] for sample in samples}
    found = measure.versions(("rlx", "torch", "numpy", "gymnasium", "stable-baselines3", "hydra-core"))
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit,
        "machine": place,
        "versions": found,
        "cleanrl_versions": theirs,
        "sides": {side: TITLES[side] for side in TITLES if side in measured},
        "short_steps": SHORT,
        "threshold": measure.THRESHOLD,
        "episodes": measure.EPISODES,
        "comparisons": {
            name: {"title": title, "same_hyperparameters": same, **compare(samples, ours, theirs)}
            for name, title, ours, theirs, same in COMPARISONS
            if {ours, theirs} <= measured
        },
        "samples": samples,
    }


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        if args.tables:
            if not args.output.exists():
                raise BenchmarkFailed(f"{args.output}: not there; run python -m benchmarks.speed")
            result = json.loads(args.output.read_text())
        elif importlib.util.find_spec("stable_baselines3") is None:
            raise BenchmarkFailed("Stable-Baselines3 is not installed: pip install 'rlx[bench]'")
        else:
            result = bench(args)
    except BenchmarkFailed as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return 2
    print(f"\n{caption(result)}\n\n{table(result)}\n")
    if args.quick:
        return 0
    if not args.tables:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written: {args.output}")
    for page in rewrite(PAGES, result):
        print(f"rewritten: {page}")
    judged = [found for found in result["comparisons"].values() if found["same_hyperparameters"]]
    failed = [found["title"] for found in judged if found["rounds"] >= JUDGED and not passes_gate(found)]
    for title in failed:
        print(f"benchmarks.speed: needs more than {GATE} times the steps to 475: {title}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
