"""One process, measured from outside: CPU time, peak memory, and what it logged. Standard library only, so that
this process stays small (Linux counts the parent's memory at the fork into the child's peak).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
THRESHOLD, EPISODES = 475.0, 100  # of CartPole-v1: its registered reward threshold, over 100 episodes
Curve = list[tuple[int, float]]  # environment steps so far, and a return


class BenchmarkFailed(Exception):
    """A measured process did not end well; the message is one line."""


CORES = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()  # those it may use at all


def pin(count: int = 1) -> int | list[int] | None:
    """This process, and so its children, to so many cores: the quietest of the last half second. None: not possible.

    Raises BenchmarkFailed where there are fewer.
    """
    if not CORES:
        return None
    if len(CORES) < count:
        raise BenchmarkFailed(f"this comparison takes {count} cores, and there is {len(CORES)}")
    before = _busy()
    time.sleep(0.5)
    after = _busy()
    cores = sorted(CORES, key=lambda core: after[core] - before[core])[:count]
    os.sched_setaffinity(0, set(cores))
    return cores[0] if count == 1 else sorted(cores)


def _busy() -> dict[int, int]:
    """Ticks each core has been busy."""
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            busy[int(name[3:])] = sum(map(int, ticks)) - int(ticks[3]) - int(ticks[4])  # all but idle and iowait
    return busy


def run(command: Sequence[str], log: Path, cwd: Path, more: Mapping[str, str] | None = None) -> dict[str, float]:
    """Run it to its end with one thread. CPU time (user and system, children included), wall time, peak memory.

    Raises BenchmarkFailed with the last line it wrote. Its output goes to `log`; `more` joins its environment.
    """
    env = {**os.environ, **dict.fromkeys(THREADS, "1"), "CUDA_VISIBLE_DEVICES": "", **(more or {})}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # as for everyone, modules are compiled once
    began = time.perf_counter()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkFailed(f"{' '.join(command)}: exit {process.returncode}: {' '.join(last)}")
    unit = 1024 if platform.system() == "Darwin" else 1
    return {
        "cpu": round(usage.ru_utime + usage.ru_stime, 3),
        "wall": round(time.perf_counter() - began, 3),
        "memory_mb": round(usage.ru_maxrss / unit / 1024, 1),
    }


# -- what they logged ------------------------------------------------------------------------------------------


def rlx_curve(lines: Iterable[str]) -> tuple[int, Curve]:
    """Steps taken, and the mean training return of the last episodes by step, of a metrics.jsonl."""
    steps, curve = 0, []
    for line in lines:
        row = json.loads(line)
        steps = max(steps, int(row["step"]))
        if (mean := row.get("rollout/ep_rew_mean")) is not None:
            curve.append((int(row["step"]), float(mean)))
    return steps, curve


def events(directory: Path) -> dict[str, Curve]:
    """The scalars of the TensorBoard files under a directory, by tag."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    found: dict[str, Curve] = {}
    for path in sorted(directory.rglob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(make_ndarray(value.tensor).ravel()[0])
                    found.setdefault(value.tag, []).append((int(event.step), number))
    return found


def means(episodes: Curve, window: int = EPISODES) -> Curve:
    """The mean of the last `window` episodes after each one, from the window's first full one."""
    last: deque[float] = deque(maxlen=window)
    found = []
    for step, value in episodes:
        last.append(value)
        if len(last) == window:
            found.append((step, sum(last) / window))
    return found


def steps_to(curve: Curve, threshold: float = THRESHOLD) -> int | None:
    """The first step at which the mean return is at least the threshold; None: never."""
    return next((step for step, mean in curve if mean >= threshold), None)


# -- where it was measured -------------------------------------------------------------------------------------


def machine(core: int | list[int] | None) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    load = [round(value, 2) for value in os.getloadavg()]
    return {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform(), "pinned_to_core": core, "load": load}


def versions(names: Iterable[str]) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


RUNS = ("rlx", "conf", "benchmarks", "pyproject.toml")  # what is measured; the tables of the last measurement are not


def commit() -> str:
    """The commit that was measured; -dirty where what runs differs from it."""
    name, changed = (
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
        for words in (("describe", "--always", "--abbrev=10"), ("status", "--porcelain", "--", *RUNS))
    )
    return f"{name}-dirty" if name and changed else name or "unknown"


def versions_of(python: str, names: Sequence[str]) -> Mapping[str, str]:
    """The same of another interpreter's packages."""
    code = (
        "import importlib.metadata as m, json, platform, sys;"
        "print(json.dumps({'python': platform.python_version(), **{n: m.version(n) for n in sys.argv[1:]}}))"
    )
    done = subprocess.run([python, "-c", code, *names], capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {}
