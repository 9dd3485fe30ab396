"""Kill a search with -9 again and again, and see that nothing was lost.

    python -m benchmarks.search_torture [--trials 40] [--seeds 3] [--kills 3] [--workers 2] [--out FILE]

A black box: `rlx sweep` and `rlx sweep resume` as processes, kill -9 for the whole of their process groups and for
every process below them, and files. The search is PPO on CartPole, 10,000 steps a run. Promised: exactly as many trials
as were planned, each complete or pruned; a complete trial has a finished run for each seed and their mean as its score;
a run that was cut and resumed has the weights of the same run never stopped. The second search has one configuration
that crashes. The third has two commands at once on one study.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "search_torture.json"
SPACE = (
    "algo.lr=tag(log, interval(1e-4, 1e-2))", "algo.clip_coef=interval(.1, .3)", "algo.num_epochs=range(2, 12)",
    "algo.ent_coef=0,0.01",
)  # fmt: skip
STEPS = 10_000
RUN = ("tensorboard=false", "eval_episodes=5")
CRASH = ("env=gym", "env.id=rlx_random.envs:Crash-v0")  # of tests/plugin


def start(place: Path, *words: str) -> subprocess.Popen[str]:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": plugin()}
    return subprocess.Popen(
        [sys.executable, "-m", "rlx", "sweep", *words], cwd=place, env=env, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def plugin() -> str:
    return os.pathsep.join([str(ROOT), str(ROOT / "tests" / "plugin")])


def rlx(place: Path, *words: str) -> tuple[int, str, str]:
    process = start(place, *words)
    out, err = process.communicate(timeout=7200)
    return process.returncode, out, err


def rows(study: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]
    except OSError:
        return []


def over(study: Path) -> int:
    return sum(row["state"] in ("complete", "pruned", "failed") for row in rows(study))


def kill(process: subprocess.Popen[str]) -> int:
    """kill -9 of the process group, and of all that is below it. Returns how many processes there were."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    os.killpg(process.pid, signal.SIGKILL)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, alive
    return len(family)


def tortured(
    place: Path, words: list[str], trials: int, kills: int, workers: int, rng: random.Random
) -> dict[str, Any]:
    """A search that is killed at `kills` random moments, spread over it, and resumed after each."""
    study = place / "runs" / "sweeps" / "tortured"
    process = start(place, *words, f"trials={trials}", "study=tortured", "-j", str(workers))
    killed, cut = [], 0
    for index in range(kills):
        wanted = trials * (index + rng.random()) / kills
        while process.poll() is None and over(study) < wanted:
            time.sleep(0.05)
        time.sleep(rng.random() * 2)
        if process.poll() is not None:
            break
        size = kill(process)
        states = Counter(json.loads(file.read_text())["status"] for file in study.glob("trial_*/status.json"))
        killed.append({"ended": over(study), "processes": size, "runs cut": states["running"]})
        cut += states["running"]
        process = start(place, "resume", "tortured", "-j", str(workers))
    out, err = process.communicate(timeout=7200)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "run: runs/sweeps/tortured", out
    return {"kills": killed, "runs cut": cut}


def lost(study: Path, seeds: int) -> list[str]:
    """What is not as promised in a study that has ended."""
    found = []
    for row in rows(study):
        name = f"trial {row['number']}"
        status = [json.loads((study / run / "status.json").read_text()) for run in row["runs"]]
        if row["state"] == "complete":
            scores = [one["evaluation"]["score"] for one in status if one["status"] == "finished"]
            if len(scores) != seeds or abs(statistics.fmean(scores) - row["score"]) > 1e-9:
                found.append(f"{name}: {row['score']} of {scores}")
        if row["state"] == "pruned" and [one["status"] for one in status][:-1] != ["finished"] * (len(status) - 1):
            found.append(f"{name}: {[one['status'] for one in status]}")
        for run in row["runs"]:
            record = json.loads((study / run / "run.json").read_text())
            if record["trial"] != row["number"] or record["params"] != row["params"]:
                found.append(f"{run}: is of another trial")
    return found


def same_as_never_stopped(study: Path, place: Path, count: int) -> list[bool]:
    """Runs that were cut and resumed, beside the same configuration never stopped."""
    equal = []
    for file in sorted(study.glob("trial_*/run.json")):
        record, status = json.loads(file.read_text()), json.loads((file.parent / "status.json").read_text())
        if record["resumes"] and status["status"] == "finished" and len(equal) < count:
            words = record["command"][2:]
            env = {**os.environ, "PYTHONPATH": plugin(), "OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                [sys.executable, "-m", "rlx", "train", *words], cwd=place, env=env, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            whole = json.loads((place / done.stdout.splitlines()[-1].removeprefix("run: ") / "status.json").read_text())
            equal.append(whole["weights_sha256"] == status["weights_sha256"])
    return equal


def crashing(place: Path, workers: int) -> dict[str, Any]:
    """A search in which one of three choices crashes: it is recorded with its traceback, the others finish."""
    words = [*CRASH, "algo=ppo", "preset=none", "total_steps=512", "algo.num_steps=32", "algo.num_minibatches=4", *RUN]
    words += [
        "eval_every=256",
        "+env.kwargs.after=100000",
        "env.kwargs.after=40,100000,200000",
        "sampler=random",
        "pruner=none",
    ]
    code, out, err = rlx(place, *words, "trials=9", "seeds=1", "study=crashing", "-j", str(workers))
    study = place / "runs" / "sweeps" / "crashing"
    found = rows(study)
    right = all((row["state"] == "failed") == (row["params"]["env.kwargs.after"] == 40) for row in found)
    traced = all("ZeroDivisionError" in row["traceback"] for row in found if row["state"] == "failed")
    shown = rlx(place, "show", "crashing")[1]
    assert code == 0, err
    return {
        "exit": code, "trials": dict(Counter(row["state"] for row in found)), "the crashing ones and no other": right,
        "traceback kept": traced, "shown": "ZeroDivisionError" in shown and "failed" in out,
    }  # fmt: skip


def crowd(place: Path, words: list[str], trials: int) -> dict[str, Any]:
    """Two commands at once on one study: a rehearsal of two machines with a shared directory."""
    each = [*words, f"trials={trials}", "study=crowd"]
    both = [start(place, *each), start(place, *each)]
    codes = [process.wait(timeout=7200) for process in both]
    study = place / "runs" / "sweeps" / "crowd"
    found = rows(study)
    return {
        "exits": codes, "trials": dict(Counter(row["state"] for row in found)), "planned": trials,
        "points": len({json.dumps(row["params"]) for row in found}),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("trials", 40), ("seeds", 3), ("kills", 3), ("workers", 2), ("steps", STEPS)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=None, help="write the JSON here")
    options = parser.parse_args()
    began = time.monotonic()
    words = ["algo=ppo", "env=cartpole", *SPACE, f"total_steps={options.steps}", f"seeds={options.seeds}", *RUN]
    with tempfile.TemporaryDirectory(prefix="rlx search ü ") as name:
        place, rng = Path(name), random.Random(1)
        cut = tortured(place, words, options.trials, options.kills, options.workers, rng)
        study = place / "runs" / "sweeps" / "tortured"
        states = Counter(row["state"] for row in rows(study))
        equal = same_as_never_stopped(study, place, options.kills)
        found = {
            "command": " ".join(["python -m benchmarks.search_torture", *sys.argv[1:]]),
            "machine": f"{platform.platform()}, {os.cpu_count()} cores",
            "versions": {name: metadata.version(name) for name in ("rlx", "optuna", "torch", "gymnasium")},
            "search": {
                "planned": options.trials, "seeds": options.seeds, "workers": options.workers, **dict(states),
                **cut, "lost": lost(study, options.seeds),
                "resumed runs equal to never stopped ones": f"{sum(equal)} of {len(equal)}",
                "seconds": round(time.monotonic() - began),
            },
            "one configuration crashes": crashing(place, options.workers),
            "two commands at once": crowd(place, words, 6),
        }  # fmt: skip
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    search = found["search"]
    fine = states["complete"] + states["pruned"] == options.trials == sum(states.values())
    fine = fine and not search["lost"] and all(equal) and len(search["kills"]) == options.kills
    crash, two = found["one configuration crashes"], found["two commands at once"]
    fine = fine and crash["exit"] == 0 and crash["the crashing ones and no other"] and crash["traceback kept"]
    fine = fine and two["exits"] == [0, 0] and sum(two["trials"].values()) == two["planned"] == two["points"]
    sys.exit(not fine)


if __name__ == "__main__":
    main()
