"""Speed beside Stable-Baselines3 (and CleanRL) on the same hyper-parameters: `make bench`, python -m benchmarks.speed.

Whole processes through the real command, one thread, one core; rlx and its peer in turns, compared pair by pair.
What is measured and how to read it: docs/performance.md. Writes docs/results/speed_ALGO.json and the tables made from
them. Exit code 1 where rlx needs more than 1.15 times the peer's environment steps to learn the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
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

RESULTS = ROOT / "docs" / "results"
PAGES = [ROOT / "docs" / "performance.md", ROOT / "README.md"]
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
SHORT_BEGIN, SHORT_END = "<!-- speed-short:begin -->", "<!-- speed-short:end -->"
SB3 = ROOT / "benchmarks" / "peers" / "sb3.py"
PUREJAXRL = ROOT / "benchmarks" / "peers" / "purejaxrl.py"
ONE_THREAD = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"}
JUDGED = 8  # seeds from which the gate decides the exit code
SHORT = 1_024  # steps of the run whose CPU time is taken off: imports, start, first steps, end
QUICK = 9_216  # more steps than that, with --quick
WORKERS = {  # what rlx and Stable-Baselines3 are told, so that there is an environment for each of several processes
    "lunarlander": ("", ()),
    "halfcheetah": ("algo.num_envs=4 algo.num_steps=512", ("--environments", "4")),
}


@dataclass(frozen=True)
class Comparison:
    name: str
    title: str
    ours: str
    theirs: str
    same: bool = True  # hyper-parameters and a budget in which both learn; then learning is compared
    clock: str = "cpu"  # or "wall"


@dataclass(frozen=True)
class Plan:
    """Sides that run in turns: rlx_NAME (experiment=bench_ALGO_NAME; rlx_own: the preset), sb3_NAME, sbx_NAME, cleanrl,
    purejaxrl_NAME. NAME ends in _x16 for 16 seeds in one command, in _workers for environments in processes of their
    own."""

    sides: tuple[str, ...]
    steps: int
    short: int = SHORT
    long: bool = False  # --long-rounds of them


@dataclass(frozen=True)
class Bench:
    """What is compared; its name begins with the algorithm's."""

    plans: tuple[Plan, ...]
    comparisons: tuple[Comparison, ...]
    cores: int = 1


BENCHES = {
    "ppo": Bench(
        (
            Plan(("rlx_zoo", "sb3_zoo", "rlx_own", "purejaxrl_zoo"), 100_000),
            Plan(("rlx_cleanrl", "sb3_cleanrl", "cleanrl", "purejaxrl_cleanrl"), 500_000, long=True),
        ),
        (
            Comparison("zoo", "RL-Zoo's hyper-parameters, vs Stable-Baselines3", "rlx_zoo", "sb3_zoo"),
            Comparison(
                "own",
                "rlx's preset, evaluations and GIFs on, vs Stable-Baselines3 (RL-Zoo)",
                "rlx_own",
                "sb3_zoo",
                False,
            ),
            Comparison("sb3_cleanrl", "CleanRL's hyper-parameters, vs Stable-Baselines3", "rlx_cleanrl", "sb3_cleanrl"),
            Comparison("cleanrl", "CleanRL's hyper-parameters, vs CleanRL", "rlx_cleanrl", "cleanrl"),
            Comparison("purejaxrl_zoo", "RL-Zoo's values, vs PureJaxRL (XLA)", "rlx_zoo", "purejaxrl_zoo", False),
            Comparison("purejaxrl", "CleanRL's values, vs PureJaxRL (XLA)", "rlx_cleanrl", "purejaxrl_cleanrl", False),
        ),
    ),
    "a2c": Bench(
        (Plan(("rlx_zoo", "sb3_zoo"), 250_000),),
        (Comparison("zoo", "RL-Zoo's hyper-parameters, vs Stable-Baselines3", "rlx_zoo", "sb3_zoo"),),
    ),
    "dqn": Bench(
        (
            Plan(("rlx_zoo", "sb3_zoo"), 50_000),
            # learning starts at 10,000; by 500,000, CleanRL's budget, it has learnt with CleanRL's loss on both sides
            Plan(("rlx_cleanrl", "cleanrl"), 500_000, short=12_288, long=True),
            Plan(("rlx_huber", "sb3_huber"), 500_000, short=12_288, long=True),
        ),
        (
            Comparison("zoo", "RL-Zoo's hyper-parameters, vs Stable-Baselines3", "rlx_zoo", "sb3_zoo"),
            Comparison("cleanrl", "CleanRL's hyper-parameters, vs CleanRL", "rlx_cleanrl", "cleanrl"),
            Comparison("huber", "CleanRL's values, vs Stable-Baselines3 (its loss)", "rlx_huber", "sb3_huber"),
        ),
    ),
    "ppo_lunarlander": Bench(
        (Plan(("rlx_lunarlander", "sb3_lunarlander"), 98_304, short=16_384, long=True),),
        (
            Comparison(
                "zoo", "RL-Zoo's hyper-parameters, vs Stable-Baselines3", "rlx_lunarlander", "sb3_lunarlander", False
            ),
        ),
    ),
    "ppo_halfcheetah": Bench(
        (Plan(("rlx_halfcheetah", "sb3_halfcheetah"), 40_960, short=4_096, long=True),),
        (
            Comparison(
                "defaults", "the defaults of Stable-Baselines3, normalised, vs Stable-Baselines3",
                "rlx_halfcheetah", "sb3_halfcheetah", False,
            ),
        ),
    ),
    "ppo_seeds": Bench(
        (Plan(("rlx_cleanrl_x16", "purejaxrl_cleanrl_x16"), 500_000, long=True),),
        (
            Comparison(
                "purejaxrl", "16 seeds in one command, CleanRL's values, vs PureJaxRL under vmap (XLA)",
                "rlx_cleanrl_x16", "purejaxrl_cleanrl_x16", False,
            ),
        ),
    ),
    **{
        algo: Bench(
            (Plan(("rlx_defaults", "sb3_defaults", "sbx_defaults"), 3_000, long=True),),
            tuple(
                Comparison(
                    f"defaults{peer}", f"Pendulum, the defaults of Stable-Baselines3, vs {name}",
                    "rlx_defaults", f"{peer or 'sb3'}_defaults", False,
                )
                for peer, name in (("", "Stable-Baselines3"), ("sbx", "SBX (XLA)"))
            ),
        )
        for algo in ("sac", "td3")
    },
    "ppo_workers": Bench(
        (
            Plan(("rlx_lunarlander_workers", "sb3_lunarlander_workers"), 98_304, short=16_384, long=True),
            Plan(("rlx_halfcheetah_workers", "sb3_halfcheetah_workers"), 40_960, short=4_096, long=True),
        ),
        tuple(
            Comparison(
                name, f"{title}, two cores, env.backend=async vs SubprocVecEnv",
                f"rlx_{name}_workers", f"sb3_{name}_workers", False, "wall",
            )
            for name, title in (("lunarlander", "LunarLander, 16 environments"), ("halfcheetah", "HalfCheetah, 4"))
        ),
        cores=2,
    ),
}  # fmt: skip


def parts(side: str) -> tuple[str, str, int, bool]:
    """Program, name of its values, seeds at once, environments in processes of their own?"""
    program, _, rest = side.partition("_")
    values, _, last = rest.partition("_")
    return program, values, int(last[1:]) if last.startswith("x") else 1, last == "workers"


def heading(name: str) -> str:
    """ppo_lunarlander: "PPO, lunarlander"."""
    algo, _, rest = name.partition("_")
    return algo.upper() + f", {rest}" * bool(rest)


def title(algo: str, side: str) -> str:
    """What a side is, for the record."""
    program, values, members, workers = parts(side)
    if side == "rlx_own":
        return f"rlx train algo={algo} env=cartpole"
    if program == "rlx":
        more = f" env.backend=async {WORKERS[values][0]}".rstrip() if workers else ""
        return f"rlx train {'-m ' * (members > 1)}experiment=bench_{algo}_{values}{more}"
    if program == "cleanrl":
        return f"CleanRL, {algo}.py"
    name = {"sb3": "Stable-Baselines3", "sbx": "SBX", "purejaxrl": "PureJaxRL"}[program]
    whose = {"zoo": "RL-Zoo's", "lunarlander": "RL-Zoo's", "cleanrl": "CleanRL's", "huber": "CleanRL's"}
    more = ", SubprocVecEnv" * workers + f", {members} seeds" * (members > 1)
    return f"{name}, {whose.get(values, 'its default')} hyper-parameters{more}"


# -- running one side ------------------------------------------------------------------------------------------


@dataclass
class Peers:
    """How the commands of one algorithm are started on this machine."""

    algo: str
    rlx: str
    python: str
    cleanrl: Path | None  # its script for this algorithm
    cleanrl_python: str
    purejaxrl: Path | None = None  # a checkout
    purejaxrl_python: str = sys.executable
    sbx: str | None = None  # the Python that has it

    def command(self, side: str, steps: int, seed: int, directory: Path) -> list[str]:
        program, values, members, workers = parts(side)
        seeds = str(seed) if members == 1 else f"range({seed},{seed + members})"
        end = [f"total_steps={steps}", f"seed={seeds}", f"runs_dir={directory}"]
        if program == "rlx":
            return [*title(self.algo, side).replace("rlx", self.rlx, 1).split(), *end]
        words = ["--seed", str(seed)]
        if program in ("sb3", "sbx"):
            what = [self.algo, values, "--total-steps", str(steps), "--log-dir", str(directory)]
            if program == "sbx" and self.sbx:
                return [self.sbx, str(SB3), *what, *words, "--sbx"]
            return [self.python, str(SB3), *what, *words, *(["--workers", *WORKERS[values][1]] if workers else ())]
        if program == "purejaxrl":
            what = [values, "--checkout", str(self.purejaxrl), "--total-steps", str(steps)]
            many = ["--members", str(members)] if members > 1 else []
            return [self.purejaxrl_python, str(PUREJAXRL), *what, *words, *many]
        return [self.cleanrl_python, str(self.cleanrl), "--total-timesteps", str(steps), "--no-cuda", *words]

    def measure(self, side: str, steps: int, seed: int) -> Sample:
        """Run one side once and read its log. Raises BenchmarkFailed."""
        with tempfile.TemporaryDirectory(prefix="rlx-bench-") as name:
            directory = Path(name)
            command, cwd, more = self.command(side, steps, seed, directory), ROOT, {}
            if side == "cleanrl" and self.cleanrl:
                cwd, more = directory, {"PYTHONPATH": str(self.cleanrl.parent.parent)}  # for its cleanrl_utils
            if side.startswith("purejaxrl_"):
                used = measure.run(command, directory / "output.txt", cwd, ONE_THREAD)
                said = json.loads((directory / "output.txt").read_text().splitlines()[-1])
                learnt = {"steps_to_475": None, "last_return": round(said["return"], 2)}
                done = steps * parts(side)[2]
                return {"side": side, "seed": seed, "steps": done, **used, **learnt, "run_cpu": said["run_cpu"]}
            if side.startswith("sbx_"):
                more = ONE_THREAD
            used = measure.run(command, directory / "output.txt", cwd, more)
            done, curves = read_log(side, directory)
        last = [curve[-1][1] for curve in curves if curve]
        learnt = {
            "steps_to_475": measure.steps_to(curves[0]) if len(curves) == 1 else None,
            "last_return": round(statistics.mean(last), 2) if last else None,
        }
        return {"side": side, "seed": seed, "steps": done, **used, **learnt}


def read_log(side: str, directory: Path) -> tuple[int, list[Curve]]:
    """Environment steps taken, and of each run the mean training return of the last 100 episodes by step.

    rlx and Stable-Baselines3 log that mean themselves (of all episodes, while there are fewer than 100); CleanRL logs
    episodes.
    """
    if side.startswith("rlx_"):
        logs = [measure.rlx_curve(path.read_text().splitlines()) for path in directory.rglob("metrics.jsonl")]
        return sum(steps for steps, _ in logs), [curve for _, curve in logs]
    found = measure.events(directory)
    if side.startswith(("sb3_", "sbx_")):
        last = (directory / "output.txt").read_text().splitlines()[-1]
        return int(last.removeprefix("steps: ")), [found.get("rollout/ep_rew_mean", [])]
    steps = max(step for curve in found.values() for step, _ in curve)
    return steps, [measure.means(found.get("charts/episodic_return", []))]


def measure_round(peers: Peers, sides: Sequence[str], steps: int, short: int, seed: int) -> list[Sample]:
    """Every side once with all its steps and once with few, in turns: A B A B. A compiled program says itself what it
    took besides running: it compiles for a number of steps, in a time that differs by more than its steps take."""
    samples: list[Sample] = []
    for count, kind in ((steps, "full"), (short, "short")):
        for side in sides:
            if kind == "short" and side.startswith("purejaxrl_"):
                full = next(sample for sample in samples if sample["side"] == side)
                samples.append({**full, "kind": kind, "steps": 0, "cpu": round(full["cpu"] - full["run_cpu"], 3)})
                continue
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
    """The comparisons of one algorithm as Markdown, columns aligned for the terminal."""
    lines = [["", "rlx", "peer", "ratio: median (min to max)"]]
    for found in result["comparisons"].values():
        same = found["same_hyperparameters"]
        lines.append([f"**{found['title']}**", "", "", _rounds(found["rounds"])])
        for key, what, form in ROWS:
            if found.get("clock") == "wall":
                what = what.replace("CPU s", "s, wall clock")
            if (row := found.get(key)) is None or row["rlx"] is row["peer"] is None and key == "last_return":
                continue
            if not same and not any(row.get("reached", [True])):
                continue  # on Pendulum nothing has a return of 475
            if key == "last_return" and min(row[side]["median"] for side in ("rlx", "peer")) <= 0:
                row = {**row, "ratio": None}
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
    pinned = place.get("pinned_to_core")
    cores = f"{len(pinned)} cores" if isinstance(pinned, list) else "one core"
    parts = [f"{name} {found[name]}" for name in names if name in found]
    own = {name: value for name, value in result.get("cleanrl_versions", {}).items() if found.get(name) != value}
    theirs = f" (CleanRL: {', '.join(f'{name} {value}' for name, value in own.items())})" if own else ""
    return (
        f"Measured {result['date'][:10]} at commit {result['commit']} on {cores} of {place['cpu']} "
        f"({place['cores']} cores, load {place['load'][0]:.1f} at the start), "
        f"Python {found['python']}, {', '.join(parts)}{theirs}. "
        "Medians; ratios above 1 are in rlx's favour."
    )


def short_table(results: dict[str, dict[str, Any]]) -> str:
    """A row a comparison in which both sides learn: CPU seconds that a person waits for, and how many times fewer."""
    lines = ["| work | rlx | peer | whole process | training alone |", "|---|---|---|---|---|"]
    for algo, result in results.items():
        ours = {comparison.name: comparison.ours for comparison in BENCHES[algo].comparisons}
        for name, comparison in result["comparisons"].items():
            whole, alone, last = (comparison[key] for key in ("whole_rate", "train_rate", "last_return"))
            if min((last[side] or {}).get("median") or 0.0 for side in ("rlx", "peer")) < measure.THRESHOLD:
                continue
            steps = max(sample["steps"] for sample in result["samples"] if sample["side"] == ours[name])
            seconds = [f"{steps / whole[side]['median']:.1f} s" for side in ("rlx", "peer")]
            ratios = [f"{row['ratio']['median']:.1f} x" for row in (whole, alone)]
            work = f"{heading(algo)}, {steps:,} steps, {comparison['title']}"
            learnt = (comparison["steps_to_475"]["ratio"] or {}).get("median", 1.0)
            if comparison["same_hyperparameters"] and learnt < 1 / GATE:
                work += f" ({1 / learnt:.1f} times its steps to a return of 475 in these {comparison['rounds']} seeds)"
            lines.append(f"| {' | '.join([work, *seconds, *ratios])} |")
    return "\n".join(lines)


def rewrite(pages: Sequence[Path], results: dict[str, dict[str, Any]]) -> list[Path]:
    """Put the tables, by algorithm, between the markers of each page that has them, and the short one between its own;
    the pages that changed."""
    long = [f"**{heading(algo)}.** {caption(result)}\n\n{table(result)}\n" for algo, result in results.items()]
    texts = {(BEGIN, END): "\n".join(long), (SHORT_BEGIN, SHORT_END): short_table(results) + "\n"}
    changed = []
    for page in pages:
        before = after = page.read_text() if page.exists() else ""
        for (begin, end), text in texts.items():
            if begin in after and end in after:
                head, _, rest = after.partition(begin)
                after = f"{head}{begin}\n{text}{end}{rest.partition(end)[2]}"
        if after != before:
            page.write_text(after)
            changed.append(page)
    return changed


# -- the command -----------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHES), help=f"some of {','.join(BENCHES)} (all)")
    parser.add_argument("--rounds", type=int, default=8, help="pairs, each with a seed of its own (8)")
    parser.add_argument(
        "--long-rounds", type=int, default=3, help="the same of CleanRL's hyper-parameters (3; 0: none)"
    )
    parser.add_argument("--quick", action="store_true", help="one round of few steps: does it run? Writes no results")
    parser.add_argument("--cleanrl", type=Path, metavar="PATH", help="a checkout of CleanRL, to run its scripts too")
    parser.add_argument("--cleanrl-python", default=sys.executable, metavar="PYTHON", help="with its requirements")
    parser.add_argument("--purejaxrl", type=Path, metavar="PATH", help="a checkout of PureJaxRL, to run its PPO too")
    parser.add_argument("--purejaxrl-python", default=sys.executable, metavar="PYTHON", help="with jax and gymnax")
    parser.add_argument("--sbx-python", metavar="PYTHON", help="one with sbx-rl, to run its SAC and TD3 too")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the directory of the JSON files (docs/results)")
    parser.add_argument("--tables", action="store_true", help="only rewrite the tables from the JSON files")
    args = parser.parse_args(argv)
    args.only = [word for word in args.only.split(",") if word]
    if unknown := [word for word in args.only if word not in BENCHES]:
        parser.error(f"--only={unknown[0]}: there are: {', '.join(BENCHES)}")
    return args


def find_cleanrl(path: Path | None, name: str) -> Path | None:
    """CleanRL's script for an algorithm in a checkout, if it is compared. Raises BenchmarkFailed."""
    if path is None or not any("cleanrl" in plan.sides for plan in BENCHES[name].plans):
        return None
    algo = name.partition("_")[0]
    script = path / "cleanrl" / f"{algo}.py"
    if script.is_file():
        return script.resolve()
    raise BenchmarkFailed(f"--cleanrl={path}: no cleanrl/{algo}.py there")


def sides_of(plan: Plan, absent: Sequence[str]) -> list[str]:
    """The sides that can run here, without programs that are absent; none where only rlx would."""
    sides = [side for side in plan.sides if side.partition("_")[0] not in absent]
    return sides if any(not side.startswith("rlx_") for side in sides) else []


def bench(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Measure everything of one Bench; the JSON."""
    algo, here = name.partition("_")[0], BENCHES[name]
    place = measure.machine(measure.pin(here.cores))
    beside = Path(sys.executable).parent / "rlx"
    rlx = str(beside) if beside.exists() else shutil.which("rlx")
    if rlx is None:
        raise BenchmarkFailed("no rlx command beside this Python: pip install -e .")
    peers = Peers(
        algo, rlx, sys.executable, find_cleanrl(args.cleanrl, name), args.cleanrl_python,
        args.purejaxrl and args.purejaxrl.resolve(), args.purejaxrl_python, args.sbx_python,
    )  # fmt: skip
    absent = [program for program in ("cleanrl", "purejaxrl", "sbx") if getattr(peers, program) is None]
    theirs = measure.versions_of(args.cleanrl_python, ("torch", "numpy", "gymnasium")) if peers.cleanrl else {}
    if not theirs.get("gymnasium", "0.").startswith("0."):
        print("note: with gymnasium 1, CleanRL logs no episodes: see --cleanrl-python", file=sys.stderr)
    commit = measure.commit()
    samples: list[Sample] = []
    for plan in here.plans:
        sides = sides_of(plan, absent)
        rounds, steps = args.long_rounds if plan.long else args.rounds, plan.steps
        if args.quick:
            rounds, steps = 1, plan.short + QUICK
        if not sides:
            continue
        if rounds and not args.quick:
            for side in sides:  # once unmeasured: byte code, files in the page cache
                peers.measure(side, plan.short, 1)
        for seed in range(1, rounds + 1):
            print(f"{name}, round {seed} of {rounds}, {steps:,} steps: {', '.join(sides)}", flush=True)
            samples += measure_round(peers, sides, steps, plan.short, seed)
    measured = {sample["side"]: title(algo, sample["side"]) for sample in samples}
    found = measure.versions(("rlx", "torch", "numpy", "gymnasium", "stable-baselines3", "hydra-core"))
    return {
        "algo": algo,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit,
        "machine": place,
        "versions": found,
        "cleanrl_versions": theirs,
        "sides": measured,
        "short_steps": {side: plan.short for plan in here.plans for side in plan.sides if side in measured},
        "threshold": measure.THRESHOLD,
        "episodes": measure.EPISODES,
        "comparisons": {
            it.name: {
                "title": it.title,
                "same_hyperparameters": it.same,
                "clock": it.clock,
                **compare(samples, it.ours, it.theirs, it.clock),
            }
            for it in here.comparisons
            if {it.ours, it.theirs} <= measured.keys()
        },
        "samples": samples,
    }


def result_path(args: argparse.Namespace, algo: str) -> Path:
    return args.output / f"speed_{algo}.json"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    results = {}
    try:
        if not args.tables:
            if importlib.util.find_spec("stable_baselines3") is None:
                raise BenchmarkFailed("Stable-Baselines3 is not installed: pip install -e '.[bench]'")
            for algo in args.only:
                results[algo] = bench(algo, args)
                if not args.quick:  # at once: the next algorithm may take long
                    args.output.mkdir(parents=True, exist_ok=True)
                    result_path(args, algo).write_text(json.dumps(results[algo], indent=1) + "\n")
                    print(f"written: {result_path(args, algo)}")
        there = {algo: path for algo in BENCHES if (path := result_path(args, algo)).exists()}
        if args.tables and not there:
            raise BenchmarkFailed(f"{result_path(args, args.only[0])}: not there; run python -m benchmarks.speed")
        everything = {algo: json.loads(path.read_text()) for algo, path in there.items()}
    except BenchmarkFailed as error:
        print(f"benchmarks.speed: {error}", file=sys.stderr)
        return 2
    for algo, result in (results or everything).items():
        print(f"\n{heading(algo)}. {caption(result)}\n\n{table(result)}\n")
    if args.quick:
        return 0
    for page in rewrite(PAGES, everything) if args.output == RESULTS else ():
        print(f"rewritten: {page}")
    judged = {
        f"{algo}, {found['title']}": found
        for algo, result in (results or everything).items()
        for found in result["comparisons"].values()
        if found["same_hyperparameters"] and found["rounds"] >= JUDGED
    }
    failed = [name for name, found in judged.items() if not passes_gate(found)]
    for name in failed:
        print(f"benchmarks.speed: needs more than {GATE} times the steps to 475: {name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
