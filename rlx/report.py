"""What the command line prints: the live line of a run, its final table, lists of runs. Never imports torch."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# -- a run in progress -----------------------------------------------------------------------------------------


class Live:
    """The live line: %, ETA, steps/s, return. A terminal gets one line that changes, a file a line each tenth of
    the run."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty() and not os.environ.get("CI")
        self._begin(0)

    def _begin(self, total: int) -> None:
        self.total, self.shown, self.tenth, self.width = total, 0.0, -1, 0

    def announce(self, cfg: Any, path: Path, device: str) -> None:
        with _to_the_end(1):
            self._announce(cfg, device)

    def _announce(self, cfg: Any, device: str) -> None:
        self.finish()
        self._begin(cfg.total_steps)
        print(f"{cfg.algo.name} on {cfg.env.id}, seed {cfg.seed}, {cfg.total_steps:,} steps, device {device}")
        if (expect := cfg.expect).score is not None:
            seconds = f", about {expect.seconds:g} s" if expect.seconds else ""
            steps = f" at {expect.steps:,} steps" if expect.steps else ""
            print(f"tuned preset: expect {expect.score:g}{steps}{seconds} ({expect.source or 'no source given'})")
        sys.stdout.flush()

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        now, tenth = time.monotonic(), 10 * step // self.total
        due = now - self.shown > 0.2 if self.terminal else tenth > self.tenth
        if not due and step < self.total:
            return
        self.shown, self.tenth = now, tenth
        rate = metrics.get("time/fps") or 0.0
        left = max(0.0, (self.total - step) / rate) if rate else 0.0
        parts = [
            f"{min(100, 100 * step // self.total):3d}%",
            f"{step:,} steps",
            f"{rate:,.0f} steps/s",
            f"ETA {_clock(left)}",
        ]
        if (found := metrics.get("rollout/ep_rew_mean")) is not None:
            parts.append(f"return {found:.1f}")
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        with _to_the_end(2):
            self._show(line)

    def _show(self, line: str) -> None:
        if self.terminal:
            columns = (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
            print("\r" + line[:columns].ljust(min(self.width, columns)), end="", file=sys.stderr, flush=True)
            self.width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self.terminal and self.width:
            print(file=sys.stderr)
            self.width = 0


@contextlib.contextmanager
def _to_the_end(number: int) -> Iterator[None]:
    """A run goes on when nobody reads stream 1 or 2 any more (`rlx train | head`)."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


# -- what came of it -------------------------------------------------------------------------------------------


def finished(path: Path, found: Mapping[str, Any]) -> None:
    """The final table, the next commands, and the run's path as the last line."""
    rows: list[tuple[str, Any]] = [
        (key, value) for key, value in sorted(found["metrics"].items()) if isinstance(value, int | float)
    ]
    if evaluation := found["evaluation"]:
        mean, std = evaluation["mean_reward"], evaluation["std_reward"]
        rows.insert(0, ("eval/mean_reward", f"{mean:.2f} +- {std:.2f} over {evaluation['episodes']} episodes"))
    width = max((len(key) for key, _ in rows), default=0)
    print()
    for key, value in rows:
        print(f"  {key:<{width}}  {value if isinstance(value, str) else f'{value:.6g}'}")
    name = quoted(path)
    print(f"\nnext: rlx eval {name} --episodes 100\n      rlx play {name} --gif out.gif\n      rlx dash")
    print(f"run: {near(path)}")


def sweep(directory: Path, jobs: Sequence[Mapping[str, Any]], planned: int | None, error: str | None) -> bool:
    """A line for each job, how many finished, and the sweep's path as the last line. True if all finished."""
    from rlx.analysis import runs

    same = set.intersection(*(set(job["overrides"]) for job in jobs)) if jobs else set()
    lines = [("job", "status", "eval", "", "")]
    for job in jobs:
        path = directory / str(job["run"])
        found: dict[str, Any] = runs.show(path) if path.is_dir() else {"status": "not started", "eval": None}
        swept = " ".join(word for word in job["overrides"] if word not in same)
        lines.append((str(job["run"]), found["status"], score(found), swept, str(job["error"] or "")))
    for path in runs.find(directory):  # what came to no end, because its process did
        if path.name not in [job["run"] for job in jobs]:
            found = runs.show(path)
            lines.append((path.name, found["status"], score(found), "", str(found["error"] or "")))
    print()
    if len(lines) > 1:
        table(lines, right=(2,))
    done = sum(job["error"] is None for job in jobs)
    count = max(planned or 0, len(jobs))
    if lost := count - len(jobs):
        print(f"{lost} did not come to an end: {error or 'a worker was killed?'}")
    print(f"{done} of {count} jobs finished")
    print(f"run: {near(directory)}")
    return done == count and error is None


def quoted(path: Path | str) -> str:
    """A path as the shell takes it."""
    return shlex.quote(str(near(Path(path))))


def near(path: Path) -> Path:
    """The path from the working directory, where that is above it."""
    with contextlib.suppress(ValueError):
        return path.relative_to(Path.cwd())
    return path


# -- runs that are there ---------------------------------------------------------------------------------------


def score(row: Mapping[str, Any]) -> str:
    try:
        return f"{row['eval']['mean_reward']:.2f}"
    except (TypeError, KeyError, ValueError):  # not evaluated, or a damaged file
        return "-"


def ranking(row: Mapping[str, Any]) -> float:
    """A run's mean evaluation return, to sort by."""
    found = score(row)
    return float("-inf") if found == "-" else float(found)


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def listing(rows: Iterable[Mapping[str, Any]]) -> None:
    """`rlx ls`."""
    lines = [("status", "algo", "env", "seed", "step", "eval", "run")]
    for row in rows:
        named = (row["status"], str(row["algo"]), str(row["env"]), str(row["seed"]))
        lines.append((*named, _number(row["step"]), score(row), row["run"]))
    table(lines, right=(3, 4, 5))


def details(found: Mapping[str, Any]) -> None:
    """`rlx show`."""
    for key, value in found.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, inner in value.items():
                print(f"  {name}: {_number(inner)}")
        elif key == "policy":
            print("policy:", *(f"  {line}" for line in value.splitlines()), sep="\n")
        elif key == "command" and value:
            print(f"command: {shlex.join(str(word) for word in value)}")
        elif isinstance(value, list):
            print(f"{key}: {'; '.join(str(item) for item in value) or '-'}")
        else:
            print(f"{key}: {'-' if value is None else _number(value)}")


def table(lines: Sequence[tuple[str, ...]], right: tuple[int, ...] = ()) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


NOTES = 6  # of a plot, at most


def plotted(found: Any, out: Path) -> None:
    """`rlx plot`."""
    lines = [("env", "line", "last", "range of seeds")]
    for env, group in found.panels.items():
        for line in group:
            last = [curve.y[-1] for curve in line.curves]
            lines.append((env, line.label, f"{line.mean[-1]:.6g}", f"{min(last):.6g} to {max(last):.6g}"))
    table(lines, right=(2,))
    if found.notes:
        more = f"; and {len(found.notes) - NOTES} more" if len(found.notes) > NOTES else ""
        print(f"note: {'; '.join(found.notes[:NOTES])}{more}")
    print(f"{out}: {found.metric}")


# -- this machine ----------------------------------------------------------------------------------------------

LIBRARIES = (
    "torch", "numpy", "gymnasium", "hydra-core", "omegaconf", "typer", "tensorboard", "safetensors", "matplotlib",
)  # fmt: skip
EXTRAS = {
    "box2d": "Box2D", "mujoco": "mujoco", "atari": "ale_py", "minigrid": "minigrid", "envpool": "envpool",
    "sweep": "optuna", "joblib": "hydra_plugins.hydra_joblib_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher", "ray": "hydra_plugins.hydra_ray_launcher",
    "bench": "stable_baselines3",
}  # fmt: skip


def doctor(version: str) -> None:
    """Versions, devices and optional extras. The one report that imports torch, to ask it for devices."""
    import platform
    from importlib import metadata
    from importlib.util import find_spec

    print(f"rlx {version}, Python {platform.python_version()}, {platform.platform()}")
    for name in LIBRARIES:
        try:
            print(f"  {name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"  {name} is missing: pip install rlx")
    import torch

    devices = ["cpu", *(f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    print(f"devices: {', '.join(devices)}; {os.cpu_count()} cores")
    print("extras:")
    for extra, module in EXTRAS.items():
        try:
            there = find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        install = f"no: pip install 'rlx[{extra}]'"
        print(f"  {extra:<9}{'yes' if there else install}")
