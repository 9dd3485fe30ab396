"""The learning tables: `make results` (python -m benchmarks.results [--only dqn,cartpole,ppo_hopper] [--jobs 2]).

The rule, fixed beforehand: the final policy (not the best), after the preset's own budget, on 100 fresh evaluation
episodes, deterministic; a target holds when at least 8 of 10 seeds reach it. A table of values is judged by the exact
value of its greedy policy instead. One JSON file a cell (algorithm, environment, seed) under docs/results/ALGO/ENV/; a
cell that is there is skipped, so the command can be stopped and goes on later. A run that fails is kept as a failure,
which counts as a seed that missed, and is tried again next time. The page is docs/results/README.md, the picture
docs/results/learning.png; --table makes both again without running anything. --promises writes the section `expect` of
every preset from these cells, and --seconds measures what a run takes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import measure, settings
from rlx.config import registry

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
SEEDS = range(1, 11)
EPISODES, EVAL_SEED = 100, 1_000_003
NEEDED = 8
SLACK = 1e-9  # of an exact value that has to equal its threshold
POINTS = 50  # of a cell's learning curve
CURVE = "rollout/ep_rew_mean"
STOPPED = (130, 143, -2, -15)  # by the user: no failure


@dataclass(frozen=True)
class Target:
    """What one algorithm has to reach on one environment, with the pair's preset."""

    algo: str
    env: str
    threshold: float | None  # of the mean return; None: the optimum, where the run logs it (exact/optimum), or none
    exact: bool = False  # judged by exact/value, not by sampled episodes
    slow: bool = False  # only with --all, or named by --only
    seeds: int = 10  # with fewer than 10, their median and range are an indication
    overrides: tuple[str, ...] = ()

    @property
    def pair(self) -> str:
        return f"{self.algo}_{self.env}"

    @property
    def words(self) -> list[str]:
        return [f"algo={self.algo}", f"env={self.env}", *self.overrides]


TABULAR = [("frozenlake", 0.73), ("frozenlake8x8", 0.86), ("cliffwalking", -13.0), ("taxi", 7.9), ("grid", None)]
TEACHING = ("double_q_learning", "sarsa_lambda", "n_step_sarsa", "monte_carlo")  # on the first and the last of them
NETWORKS = (  # on the grid, whose optimum is 0.7; another way round is 0.5
    "reinforce", "vpg", "actor_critic", "actor_critic_all_actions", "a2c", "trpo", "ppo", "ppo_surrogate",
    "semi_gradient_q", "dqn",
)  # fmt: skip
LONG = [  # three seeds: the least of their median (None: only reported), steps
    ("ppo", "halfcheetah", 4000.0, 1_000_000),
    ("td3", "halfcheetah", 6200.0, 300_000), ("td3", "hopper", 2200.0, 300_000), ("td3", "walker2d", 2000.0, 300_000),
    ("td3", "lunarlander_continuous", 200.0, 300_000), ("sac", "halfcheetah", None, 300_000),
    ("sac", "hopper", None, 1_000_000), ("sac", "walker2d", None, 1_000_000),
    ("sac", "bipedalwalker", None, 300_000), ("td3", "bipedalwalker", None, 1_000_000),
]  # fmt: skip
TARGETS = [
    *(Target(algo, "cartpole", 475.0) for algo in ("ppo", "ppo_penalty", "trpo", "dqn", "a2c", "actor_critic")),
    Target("vpg", "cartpole", 450.0),
    *(Target(algo, "cartpole", 475.0) for algo in ("double_dqn", "dueling_dqn", "prioritized_dqn")),
    *(Target(algo, "grid", 0.69) for algo in NETWORKS),
    *(Target(algo, "acrobot", -90.0) for algo in ("ppo", "trpo", "dqn", "a2c", "vpg")),
    Target("dqn", "mountaincar", -115.0),
    Target("ppo", "pendulum", -200.0),
    *(Target(algo, "pendulum", -180.0) for algo in ("sac", "td3", "ddpg")),
    *(Target(algo, "mountaincar_continuous", 80.0) for algo in ("ppo", "sac")),
    Target("ppo", "lunarlander", 200.0),
    Target("ppo", "hopper", 2000.0, slow=True),
    *(
        Target(algo, env, least, slow=True, seeds=3, overrides=(f"total_steps={steps:_}",))
        for algo, env, least, steps in LONG
    ),
    *(Target(algo, env, least, exact=True) for algo in ("q_learning", "sarsa", "dyna_q") for env, least in TABULAR),
    *(Target(algo, *TABULAR[i], exact=True) for algo in TEACHING for i in (0, -1)),
]


# -- cells -----------------------------------------------------------------------------------------------------


class CellFailed(Exception):
    """A run that came to no result; the message is one line."""


def cell_path(target: Target, seed: int) -> Path:
    return RESULTS / target.algo / target.env / f"seed_{seed:02d}.json"


def read_cell(path: Path) -> dict[str, Any]:
    """A cell; {} where there is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _run(command: list[str]) -> tuple[str, float]:
    """What it wrote, and the CPU seconds it took. Raises CellFailed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code in STOPPED:
            raise KeyboardInterrupt
        if code:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1].removeprefix("rlx: error: ")
            raise CellFailed(f"exit {code}: {last}")
        output.seek(0)
        return output.read(), usage.ru_utime + usage.ru_stime


def run_cell(target: Target, seed: int) -> dict[str, Any]:
    """Train one seed with the pair's preset and judge its final policy, both through the command line."""
    rlx = [sys.executable, "-m", "rlx"]
    train = [*target.words, f"seed={seed}"]
    cell = {"command": " ".join(["rlx", "train", *train]), "algo": target.algo, "env": target.env, "seed": seed}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            quiet = ["video=false", "tensorboard=false", "eval_every=0", f"runs_dir={scratch}"]
            output, cpu = _run([*rlx, "train", *train, *quiet])
            path = output.splitlines()[-1].removeprefix("run: ")
            shown = json.loads(_run([*rlx, "show", path, "--json"])[0])
            engines = json.loads((Path(path) / "run.json").read_text()).get("engine") or {}
            rows = [json.loads(line) for line in (Path(path) / "metrics.jsonl").read_text().splitlines()]
            if target.exact:
                scored = exact(shown["metrics"])
            else:
                evaluation = ["eval", path, "--episodes", str(EPISODES), "--seed", str(EVAL_SEED), "--json"]
                found = json.loads(_run([*rlx, *evaluation])[0])
                scored = {
                    "evaluation": f"rlx eval RUN --episodes {EPISODES} --seed {EVAL_SEED}",
                    "mean": found["mean"],
                    "std": found["std"],
                    "episodes": found["n"],
                }
        except (CellFailed, OSError, ValueError) as error:
            return {**cell, "failed": " ".join(str(error).split())}
    return {
        **cell,
        **scored,
        "steps": shown["step"],
        "engine": ", ".join(sorted({str(engine).partition(" ")[0] for engine in engines.values()})) or None,
        "cpu_seconds": round(cpu, 1),
        "seconds": round(max(row.get("time/time_elapsed", 0.0) for row in rows), 1),
        "weights_sha256": shown["weights_sha256"],
        "versions": shown["versions"],
        "curve": thinned([(row["step"], row[CURVE]) for row in rows if isinstance(row.get(CURVE), int | float)]),
    }


def exact(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a run says about its greedy policy. Raises CellFailed."""
    if "exact/value" not in metrics:
        raise CellFailed("no exact/value in its metrics")
    return {
        "evaluation": "exact/value of the last line of metrics.jsonl",
        "mean": metrics["exact/value"],
        "optimum": metrics.get("exact/optimum"),
    }


def thinned(curve: Sequence[tuple[int, float]]) -> list[list[float]]:
    """At most POINTS of its points, the first and the last among them; four digits are enough to draw."""
    chosen = np.unique(np.linspace(0, len(curve) - 1, min(POINTS, len(curve))).round().astype(int))
    return [[int(curve[i][0]), float(f"{curve[i][1]:.4g}")] for i in chosen]


def fill(cells: Iterable[tuple[Target, int]], jobs: int) -> int:
    """Run the cells that are missing, `jobs` at a time; how many failed."""

    def one(cell: tuple[Target, int]) -> bool:
        target, seed = cell
        path = cell_path(target, seed)
        if "mean" in read_cell(path):
            return True
        found = run_cell(target, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(dumped(found))
        temporary.replace(path)
        said = f"FAILED: {found['failed']}" if "failed" in found else f"{found['mean']:.5g} in {found['seconds']:.0f} s"
        print(f"{target.algo} {target.env} seed {seed}: {said}", flush=True)
        return "failed" not in found

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return sum(not fine for fine in pool.map(one, cells))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def dumped(cell: dict[str, Any]) -> str:
    """JSON with the curve on one line."""
    text = json.dumps({**cell, "curve": "CURVE"} if "curve" in cell else cell, indent=1)
    return text.replace('"CURVE"', json.dumps(cell.get("curve"))) + "\n"


# -- the table -------------------------------------------------------------------------------------------------


def iqm(x: np.ndarray, axis: int = -1) -> Any:
    return stats.trim_mean(x, 0.25, axis=axis)


def bootstrap(x: np.ndarray) -> list[float]:
    """95 % interval of the IQM of one number a seed: percentile bootstrap of 10,000 samples."""
    found = stats.bootstrap((x,), iqm, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0))
    return [float(found.confidence_interval.low), float(found.confidence_interval.high)]


def summary(target: Target, cells: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """IQM over seeds with a 95 % bootstrap interval (from 10 seeds on), the worst seed, and whether the rule holds.

    A run that failed has reached nothing; with one there is no interval, and no score of the worst seed."""
    done = [cell for cell in cells if "mean" in cell]
    if not cells:
        return None
    means = np.array([cell["mean"] for cell in done])
    least = target.threshold
    few = target.seeds < len(SEEDS)
    if least is None:  # the optimum
        least = next((cell["optimum"] for cell in done if cell.get("optimum") is not None), math.nan)
    passed = int((means >= least - (SLACK if target.exact else 0.0)).sum())
    failed = len(cells) - len(done)
    interval = None
    if len(means) >= len(SEEDS) and not failed:
        interval = bootstrap(means)
    return {
        "algo": target.algo, "env": target.env, "threshold": None if math.isnan(least) else float(least),
        "judged": "exact" if target.exact else "sampled",
        "seeds": len(cells), "passed": passed, "failed": failed,
        "holds": passed >= NEEDED if len(cells) >= len(SEEDS) else None,  # None: too few seeds to say
        "iqm": float(iqm(means)) if done else None, "interval": interval,
        "range": [float(f(means)) for f in (np.min, np.median, np.max)] if done and few else None,
        "worst": float(means.min()) if done and not failed else None,
        "steps": done[0]["steps"] if done else None,
        "seconds": float(np.median([cell.get("cpu_seconds", cell["seconds"]) for cell in done])) if done else None,
    }  # fmt: skip


def _score(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| algorithm | environment | steps | target | seeds at target | IQM [95 % interval] | worst seed | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        digits = ".4f" if row["judged"] == "exact" and abs(row["threshold"] or 1.0) <= 1 else ".1f"
        low_high = row["interval"]
        interval = f" [{low_high[0]:{digits}}, {low_high[1]:{digits}}]" if low_high else ""
        words = [f"{row['passed']} of {row['seeds']}"]
        words += [f"{row['failed']} failed"] * bool(row["failed"])
        words += ["missed"] * (row["holds"] is False)
        words += ["an indication" if row["range"] else f"fewer than {len(SEEDS)} seeds"] * (row["holds"] is None)
        words[0] = words[0] if row["threshold"] is not None else f"{row['seeds']} run"
        verdict = words[0] + (f" ({', '.join(words[1:])})" if words[1:] else "")
        score = f"{_score(row['iqm'], digits)}{interval}"
        if row["range"]:
            low, middle, high = (format(value, digits) for value in row["range"])
            score = f"median {middle}, {low} to {high}"
        least = f"{_score(row['threshold'], '.10g')}{', exact' if row['judged'] == 'exact' else ''}"
        worst = "failed" if row["failed"] else _score(row["worst"], digits)
        lines.append(
            f"| {row['algo']} | {row['env']} | {_score(row['steps'], ',')} | {least} | {verdict} "
            f"| {score} | {worst} | {_score(row['seconds'], '.0f')} |"
        )
    for target in TARGETS:
        if target.pair not in {f"{row['algo']}_{row['env']}" for row in rows}:
            budget = f"{int(target.overrides[0].partition('=')[2]):,}" if target.overrides else "-"
            least = _score(target.threshold, ".10g")
            lines.append(f"| {target.algo} | {target.env} | {budget} | {least} | not run | - | - | - |")
    return "\n".join(lines)


INTRODUCTION = f"""# Results

`make results` makes this page and the JSON files beside it, one for each row and seed.

- **Rule**: the final policy after the preset's budget plays {EPISODES} fresh evaluation episodes (seed
  {EVAL_SEED}), deterministically; its score is their mean return. A target holds if {NEEDED} of {len(SEEDS)}
  seeds (1 to {len(SEEDS)}) reach it.
- ***exact***: the score is the expected return of the greedy table from the start, computed with the
  environment's own transition probabilities (`exact/value`); nothing is sampled.
- **IQM**: the interquartile mean over seeds, with a 95 % percentile bootstrap interval where there are
  {len(SEEDS)} seeds. Three seeds give a median and a range, which are only an indication. `make results-long`
  runs the rows that were not run.
- **Seconds**: the median of one training run on a core of a shared machine; CPU time where the JSON file says
  so, else wall time. Each JSON file states the seed, the steps, the engine and the CPU seconds.
- `python -m benchmarks.results --promises` writes what a preset promises (`expect` in `conf/preset`) from these
  files; a test checks that the two agree.

"""
PICTURE_TEXT = """
![Learning curves against the targets](learning.png)

Left: mean training return over the seeds, exploration included, shaded from the smallest to the largest seed.
Right: the score of the table, one dot per seed. Dashed: the target. An environment without a stored curve has
no panel, and an algorithm without one has only dots.
"""


# -- the picture -----------------------------------------------------------------------------------------------

BOX = ("sac", "td3", "ddpg")  # whose environments have a picture of their own
COLOURS = {  # Okabe and Ito 2008; an algorithm has its colour in every panel where that is free
    "ppo": "#0072B2", "trpo": "#D55E00", "dqn": "#009E73", "a2c": "#CC79A7", "vpg": "#E69F00",
    "actor_critic": "#56B4E9", "ppo_penalty": "#000000", "sac": "#009E73", "td3": "#D55E00", "ddpg": "#CC79A7",
    "q_learning": "#0072B2", "sarsa": "#D55E00", "dyna_q": "#009E73",
}  # fmt: skip


def draw(found: Sequence[tuple[Target, list[dict[str, Any]]]], path: Path) -> None:
    """A panel an environment: on the left learning curves, on the right what the table judges, and the target."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    panels = _panels(found)
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout="constrained")
    for axis, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, [*panels, *[None] * columns]):
        if panel is None:
            axis.set_visible(False)
            continue
        title, here = panel
        final = axis.inset_axes((1.02, 0, 0.05 + 0.05 * len(here), 1), sharey=axis)
        for i, ((target, cells), colour) in enumerate(zip(here, _colours([target.algo for target, _ in here]))):
            _curves(axis, cells, colour)
            x = i + np.linspace(-0.25, 0.25, len(cells))
            final.scatter(x, [cell["mean"] for cell in cells], s=12, color=colour, edgecolor="white", linewidth=0.4)
            axis.plot([], [], color=colour, linewidth=2, label=target.algo)
        for least in {row["threshold"] for target, cells in here if (row := summary(target, cells))} - {None}:
            for part in (axis, final):
                part.axhline(least, color="0.35", linestyle=(0, (5, 3)), linewidth=1, zorder=1)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k"))
        axis.xaxis.set_minor_formatter("")
        axis.set_title(title, fontsize=11, loc="left")
        final.set_title("final", fontsize=8, color="0.35")
        final.set_xlim(-0.7, len(here) - 0.3)
        final.tick_params(left=False, labelleft=False, bottom=False, labelbottom=False)
        for part in (axis, final):
            part.grid(True, axis="y", color="0.92", linewidth=0.8)
            part.set_axisbelow(True)
            part.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.legend(frameon=False, fontsize=8, loc="best")
    figure.supxlabel("environment steps", fontsize=10)
    figure.supylabel("return", fontsize=10)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panels(found: Sequence[tuple[Target, list[dict[str, Any]]]]) -> list[tuple[str, list[tuple[Target, Any]]]]:
    """(title, targets with their cells): an environment with curves each, in parts where a panel would be too full."""
    with_curves = [target.env for target, cells in found if any(len(cell.get("curve", ())) > 1 for cell in cells)]
    panels = []
    for env in dict.fromkeys(with_curves):
        here = [(target, [cell for cell in cells if "mean" in cell]) for target, cells in found if target.env == env]
        parts = math.ceil(len(here) / len({*COLOURS.values()}))
        for part, members in enumerate(np.array_split(np.arange(len(here)), parts), 1):
            panels.append((f"{env} ({part} of {parts})" if parts > 1 else env, [here[i] for i in members]))
    return panels


def _colours(algos: Sequence[str]) -> list[str]:
    """Of the algorithms of a panel: their own, and for those without one, or whose is taken, what is left."""
    owners = {COLOURS[algo]: algo for algo in reversed(algos) if algo in COLOURS}
    left = iter(dict.fromkeys(colour for colour in COLOURS.values() if colour not in owners))
    return [COLOURS[algo] if owners.get(COLOURS.get(algo, "")) == algo else next(left) for algo in algos]


def _curves(axis: Any, cells: Sequence[dict[str, Any]], colour: str) -> bool:
    """Mean and range of the training returns, where the cells have them and all runs have ended an episode."""
    curves = [np.array(cell["curve"]) for cell in cells if len(cell.get("curve", ())) > 1]
    if not curves:
        return False
    grid = np.geomspace(max(1, max(c[0, 0] for c in curves)), min(c[-1, 0] for c in curves), 4 * POINTS)
    y = np.array([np.interp(grid, c[:, 0], c[:, 1]) for c in curves])
    axis.plot(grid, y.mean(0), color=colour, linewidth=1.6, zorder=3)
    axis.fill_between(grid, y.min(0), y.max(0), color=colour, alpha=0.13, linewidth=0)
    return True


# -- what presets promise --------------------------------------------------------------------------------------

PRESETS = ROOT / "conf" / "preset"
BLOCK = re.compile(r"(?m)^expect:.*\n(?:  .*\n)*")
SECTION = re.compile(r"(?m)^(env|task|model|algo):")


def promises() -> dict[Path, str]:
    """Each preset as it has to be: with what its cells say in `expect`, and without that section where there are too
    few. A variant with cells and no preset gets one, which takes the values of its parent's."""
    known = {**_measured_control(), **_measured_language()}
    places = [*registry.options("env"), *registry.options("task")]
    files = {}
    for algo, place in itertools.product(registry.options("algo"), places):
        path = PRESETS / f"{algo}_{place}.yaml"
        owner = registry.preset_owner(algo, place)
        if path.exists():
            files[path] = _promising(path.read_text(), known.get((algo, place)))
        elif owner and (algo, place) in known:
            head = (
                f"# @package _global_\n# The values of {owner}_{place}.\ndefaults:\n  - {owner}_{place}\n  - _self_\n\n"
            )
            files[path] = _promising(head, known[algo, place])
    return files


def _promising(text: str, expect: dict[str, Any] | None) -> str:
    text = BLOCK.sub("", text)
    if expect is None:
        return text
    block = "expect:\n" + "".join(f"  {key}: {_yaml(value)}\n" for key, value in expect.items())
    place = SECTION.search(text)
    return text[: place.start()] + block + text[place.start() :] if place else text + block


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        return f"{float(f'{value:.5g}')}"
    return "null" if value is None else f"{value:_}" if isinstance(value, int) else str(value)


def _measured_control() -> dict[tuple[str, str], dict[str, Any]]:
    """(algo, env) -> what ten seeds and more of it say."""
    known = {}
    for row in filter(None, (summary(target, cells) for target, cells in measured())):
        if row["interval"] and not row["failed"]:
            metric = "exact/value" if row["judged"] == "exact" else "eval/mean_reward"
            source = f"docs/results/{row['algo']}/{row['env']}"
            known[row["algo"], row["env"]] = _expect(row, metric, source, _seconds(f"{row['algo']}_{row['env']}"))
    return known


def _measured_language() -> dict[tuple[str, str], dict[str, Any]]:
    known = {}
    for row in json.loads((RESULTS / "language" / "summary.json").read_text()):
        if row["interval"] and not row["failed"]:
            start = f", from {row['starts']}" if row["starts"] else ""
            source = f"docs/results/language/{row['task']}/{row['stage']}{start}"
            known[row["stage"], row["task"]] = _expect(row, f"eval/{row['judged']}", source, row["cpu_seconds"])
    return known


def _expect(row: dict[str, Any], metric: str, source: str, seconds: float | None) -> dict[str, Any]:
    return {
        "score": row["iqm"], "interval": row["interval"], "worst": row["worst"], "seeds": row["seeds"],
        "steps": row["steps"], "seconds": seconds and float(f"{seconds:.2g}"), "metric": metric, "source": source,
    }  # fmt: skip


def _seconds(pair: str) -> float | None:
    """CPU seconds of one run as a person starts it, evaluations and films included (--seconds)."""
    return read_cell(SECONDS).get(pair, {}).get("cpu_seconds")


SECONDS = RESULTS / "seconds.json"


def measure_seconds(targets: Iterable[Target]) -> None:
    """Run each pair once with all that is on by default, and keep what it took."""
    for target in targets:
        with tempfile.TemporaryDirectory() as scratch:
            words = [f"algo={target.algo}", f"env={target.env}", "seed=1", *target.overrides]
            command = [sys.executable, "-m", "rlx", "train", *words, f"runs_dir={scratch}"]
            used = measure.run(command, Path(scratch) / "log", ROOT)
            versions = json.loads(next(Path(scratch).glob("**/run.json")).read_text())["versions"]
        known = read_cell(SECONDS)
        known[target.pair] = {
            "command": " ".join(["rlx", "train", *words]), "cpu_seconds": used["cpu"],
            "rlx": versions["rlx"], "torch": versions["torch"],
        }  # fmt: skip
        SECONDS.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        print(f"{target.pair}: {used['cpu']:.1f} CPU s", flush=True)


# -- the command -----------------------------------------------------------------------------------------------


def chosen(only: str, everything: bool) -> list[Target]:
    """The targets that --only names by algorithm, environment or pair. Raises SystemExit where a word names none."""
    words = [word for word in only.split(",") if word]
    known = {word for target in TARGETS for word in (target.algo, target.env, target.pair)}
    if unknown := [word for word in words if word not in known]:
        raise SystemExit(
            f"benchmarks.results: --only={unknown[0]}: no such target (there are: {', '.join(sorted(known))})"
        )
    if not words:
        return [target for target in TARGETS if everything or not target.slow]
    pairs = {target.pair for target in TARGETS} & set(words)
    rest = set(words) - pairs
    algos, envs = rest & {t.algo for t in TARGETS}, rest & {t.env for t in TARGETS}
    return [
        target for target in TARGETS
        if target.pair in pairs
        or (rest and (not algos or target.algo in algos) and (not envs or target.env in envs))
        and (everything or not target.slow or target.env in envs)
    ]  # fmt: skip


def measured() -> list[tuple[Target, list[dict[str, Any]]]]:
    """The cells that are there, by target."""
    found = []
    for target in TARGETS:
        files = sorted((RESULTS / target.algo / target.env).glob("seed_*.json"))
        if cells := [cell for file in files if (cell := read_cell(file))]:
            found.append((target, cells))
    return found


def write_page() -> list[dict[str, Any]]:
    """Table, summary and picture from the cells that are there."""
    found = measured()
    rows = [row for target, cells in found if (row := summary(target, cells))]
    (RESULTS / "README.md").write_text(INTRODUCTION + table(rows) + "\n" + PICTURE_TEXT)
    (RESULTS / "summary.json").write_text(json.dumps(rows, indent=1) + "\n")
    drawn = [(target, cells) for target, cells in found if any("mean" in cell for cell in cells)]
    draw(drawn, RESULTS / "learning.png")
    envs = {target.env for target, _ in drawn if target.algo in BOX}
    if envs:
        draw([(target, cells) for target, cells in drawn if target.env in envs], RESULTS / "continuous.png")
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="algorithms, environments or pairs: dqn,cartpole or ppo_hopper")
    parser.add_argument("--all", action="store_true", help="the slow ones too (MuJoCo)")
    parser.add_argument("--seeds", type=int, help="the first so many (10; of a target with fewer, those)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--table", action="store_true", help="only make table and picture again")
    parser.add_argument("--seconds", action="store_true", help="only measure the CPU seconds of one run each")
    parser.add_argument("--promises", action="store_true", help="only write what presets promise (conf/preset)")
    options = parser.parse_args(argv)
    failed = 0
    if options.seconds:
        measure_seconds(chosen(options.only, options.all))
    if options.seconds or options.promises:
        for path, text in promises().items():
            path.write_text(text)
        return 0
    if not options.table:
        targets = chosen(options.only, options.all)
        for target in targets:
            settings.settle(cell_path(target, 1).parent, target.words)
        try:
            cells = [(target, seed) for target in targets for seed in SEEDS[: options.seeds or target.seeds]]
            failed = fill(cells, options.jobs)
        except KeyboardInterrupt:
            print("benchmarks.results: stopped; the same command goes on", file=sys.stderr)
            return 130
    print(table(write_page()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
