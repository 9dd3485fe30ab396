"""Break runs from outside and compare what comes out with a run that was never touched.

    python -m benchmarks.torture [--quick] [--env cartpole,pendulum,...] [--kills N] [--jobs N]

A black box: `rlx train`, `rlx resume`, `rlx show`, `rlx eval` as processes, signals, and files. Two runs are equal
when `rlx show --json` gives the same weights_sha256 and metrics.jsonl the same lines but for the keys under time/.
Prints a table, and writes it with the details to docs/results/torture.json (and into docs/reliability.md).
What needs a hook inside the process (kill -9 at each file operation of a save) is in tests/.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "docs" / "results" / "torture.json", ROOT / "docs" / "reliability.md"
NORMALIZED = ("env.normalize_obs=true", "env.normalize_reward=true")
# What is run, and its steps in a full and a quick torture (about ten seconds, about two).
RUNS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "cartpole": (("env=cartpole",), 60_000, 12_000),
    "pendulum": (("env=pendulum", *NORMALIZED), 40_000, 12_000),
    "lunarlander": (("env=lunarlander", *NORMALIZED), 40_000, 12_000),
    "halfcheetah": (("env=halfcheetah", *NORMALIZED, "algo.num_steps=256"), 40_000, 12_000),
    "acrobot": (("env=acrobot", "algo=ppo_penalty", "preset=none"), 30_000, 12_000),
    "async": (("env=cartpole", "env.backend=async", "env.workers=2"), 30_000, 8_000),
    "not replayable": (("env=cartpole", "env.replay=false"), 60_000, 12_000),
}
QUICK = ("cartpole", "pendulum")
KEPT = 25  # checkpoints that are kept, so that one resume can meet 24 bad ones


class Table:
    """One row per fault: how many trials, how many as promised."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def add(self, fault: str, promise: str, trials: int, kept: int, **details: Any) -> None:
        row = {"fault": fault, "promise": promise, "trials": trials, "kept": kept, **details}
        with self._lock:
            self.rows.append(row)
            print(f"{'ok  ' if trials == kept else 'FAIL'} {fault}: {kept}/{trials} {details or ''}", flush=True)

    def markdown(self) -> str:
        lines = ["| fault | promise | trials | kept |", "|---|---|--:|--:|"]
        lines += [f"| {row['fault']} | {row['promise']} | {row['trials']} | {row['kept']} |" for row in self.rows]
        return "\n".join(lines)


# -- the black box ---------------------------------------------------------------------------------------------


def start(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
    """`rlx words...`; `limit`: no file may grow beyond so many bytes, as on a disk that is full."""

    full = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit is not None else None
    return subprocess.Popen(
        [sys.executable, "-m", "rlx", *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}, preexec_fn=full,
    )  # fmt: skip


def rlx(*words: str, limit: int | None = None) -> tuple[int, str, str]:
    process = start(*words, limit=limit)
    out, err = process.communicate(timeout=1800)
    return process.returncode, out, err


class Case:
    """One configuration: its never-stopped run, and others of it to be tortured."""

    def __init__(self, name: str, place: Path, quick: bool) -> None:
        words, full, short = RUNS[name]
        steps = short if quick else full
        self.name, self.place, self.rng = name, place, random.Random(name)
        self.words = [
            *words, f"total_steps={steps}", f"eval_every={steps // 4}", "eval_episodes=2", "video=false",
            f"checkpoint_every={steps // 50}", f"keep_checkpoints={KEPT}",
        ]  # fmt: skip
        self.whole = self.new("whole")
        self.seconds = max(row.get("time/time_elapsed", 0.0) for row in self.rows(self.whole))

    def begin(self, name: str, *more: str) -> tuple[subprocess.Popen[str], Path]:
        """A training process, once its loop runs; and its run directory."""
        runs = self.place / name
        process = start("train", *self.words, f"runs_dir={runs}", *more)
        while process.poll() is None and not list(runs.rglob("metrics.jsonl")):
            time.sleep(0.01)
        return process, next(runs.rglob("metrics.jsonl")).parent

    def new(self, name: str, *more: str) -> Path:
        code, out, err = rlx("train", *self.words, f"runs_dir={self.place / name}", *more)
        assert code == 0, err
        return Path(ROOT, out.splitlines()[-1].removeprefix("run: "))

    def cut(self, name: str) -> Path:
        """A run killed near its end, with KEPT checkpoints and more."""
        process, path = self.begin(name)
        wanted = 0.8 * show(self.whole)["step"]
        while process.poll() is None and (show(path)["checkpoint"] or 0) < wanted:
            time.sleep(0.05)
        process.kill()
        process.communicate()
        return path

    @staticmethod
    def rows(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]

    def same(self, path: Path) -> bool:
        """Is this finished run equal to the one never stopped?"""
        found = show(path)
        if found["status"] != "finished" or found["weights_sha256"] != show(self.whole)["weights_sha256"]:
            return False
        ours, theirs = (
            [{key: value for key, value in row.items() if not key.startswith("time/")} for row in self.rows(each)]
            for each in (path, self.whole)
        )
        return ours == theirs


def show(path: Path) -> dict[str, Any]:
    from rlx.rundir import reader  # what `rlx show --json` prints, without 0.2 seconds of process

    return reader.show(path)


def repeated_steps(path: Path) -> int:
    """How many values TensorBoard shows at a step it has shown already."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()
    counts = (Counter(event.step for event in events.Scalars(tag)) for tag in events.Tags()["scalars"])
    return sum(count - 1 for steps in counts for count in steps.values())


def one_line(err: str) -> bool:
    """Is there one line of error, and no traceback?"""
    lines = [line for line in err.splitlines() if "error" in line.lower() or "Traceback" in line]
    return len(lines) == 1 and lines[0].startswith("rlx: error: ")


def orphans(processes: list[psutil.Process]) -> int:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return len(alive)


# -- the faults ------------------------------------------------------------------------------------------------


def kills(case: Case, table: Table, count: int) -> None:
    """kill -9 at random times, chained along one run after the other until there were `count` of them."""
    done, equal, runs, repeated, left = 0, 0, 0, 0, 0
    while done < count:
        runs += 1
        process, path = case.begin(f"kill{runs}")
        while True:
            if done < count and case.rng.random() < 0.2:  # while it starts
                time.sleep(3 * case.rng.random())
            elif done < count:  # while it trains; eight lives to a run or so
                while process.poll() is None and show(path)["status"] != "running":
                    time.sleep(0.01)
                time.sleep(case.seconds / 4 * case.rng.random())
            if done < count and process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                process.communicate()
                done, left = done + 1, left + orphans(children)
            else:
                _, err = process.communicate(timeout=1800)
                assert process.returncode == 0, err
                break
            process = start("resume", str(path))
        equal += case.same(path)
        repeated += repeated_steps(path)
    kept = done if equal == runs and not repeated and not left else 0
    table.add(
        f"kill -9 at random times, {case.name}",
        "resumed runs equal the one never stopped; TensorBoard has no step twice; no process is left",
        done, kept, runs=runs, equal_runs=equal, repeated_steps=repeated, orphans=left,
    )  # fmt: skip


def signals(case: Case, table: Table, count: int) -> None:
    kept, slowest, faster, broken = 0, 0.0, 0, []
    for trial in range(count):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)[trial % 4]
        process, path = case.begin(f"signal{trial}")
        time.sleep(case.rng.random() * 0.7 * case.seconds)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        began = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=600)
        slowest = max(slowest, time.monotonic() - began)
        stopped = show(path)
        if stopped["status"] == "finished":  # it was faster: then nothing is left to stop
            faster += 1
            fine = True
        else:
            fine = process.returncode == 128 + number and stopped["status"] == "interrupted" and not orphans(children)
            fine = fine and (case.name == "not replayable" or stopped["step"] == stopped["checkpoint"])
            rlx("resume", str(path))
        fine = fine and case.same(path)
        kept += fine
        if not fine:
            broken.append(f"{number.name} {process.returncode} {stopped['status']} {stopped['step']}")
    table.add(
        f"SIGINT, SIGTERM, SIGUSR1, SIGHUP at random times, {case.name}",
        "exit 130, 143, 138, 129; a checkpoint of that very step; no orphans; the resumed run is equal",
        count,
        kept,
        slowest_stop_s=round(slowest, 2),
        had_finished=faster,
        broken=broken,
    )


def damage(case: Case, table: Table, flips: int, cuts: int) -> None:
    """Bad checkpoints, as many as there are but one: found out, one line each, and the result is the same."""
    path = case.cut("damage")
    for kind, count in (("one flipped bit in a checkpoint", flips), ("a checkpoint cut short", cuts)):
        trials = found = 0
        equal = True
        while trials < count:
            copy = Path(shutil.copytree(path, case.place / f"damage{kind[:3]}{trials}"))
            files = sorted((copy / "checkpoints").glob("[bs]*"), key=lambda file: (file.stem[-12:], file.stem))
            bad = files[max(1, len(files) - (count - trials)) :]
            for file in bad:
                data = bytearray(file.read_bytes())
                place = case.rng.randrange(len(data))
                if "bit" in kind:
                    data[place] ^= 1 << case.rng.randrange(8)
                else:
                    del data[place:]
                file.write_bytes(data)
            code, _, err = rlx("resume", str(copy))
            trials += len(bad)
            found += sum(line.startswith("rlx: warning: skipped a checkpoint") for line in err.splitlines())
            equal = equal and code == 0 and case.same(copy)
            shutil.rmtree(copy)
        table.add(kind, "found out, one line; the last good one carries on to the equal result", trials, found * equal)


def nothing_good(case: Case, other: Case, table: Table) -> None:
    path = case.cut("bad")
    kept = 0

    def spoil(how: str, place: Path) -> None:
        for file in list((place / "checkpoints").iterdir()):
            if how == "empty":
                file.write_bytes(b"")
            elif how in ("gone", "another"):
                file.unlink()
            elif how == "linked":
                outside = case.place / f"outside-{file.name}"
                shutil.move(file, outside)
                file.symlink_to(outside)
        if how == "another":
            for file in (other.whole / "checkpoints").iterdir():
                shutil.copy(file, place / "checkpoints")

    ways = ("empty", "gone", "another", "linked")
    for how in ways:
        copy = Path(shutil.copytree(path, case.place / f"bad-{how}"))
        spoil(how, copy)
        before = (copy / "metrics.jsonl").read_bytes()
        code, _, err = rlx("resume", str(copy))
        kept += code == 2 and one_line(err) and (copy / "metrics.jsonl").read_bytes() == before
    table.add(
        "all checkpoints empty, deleted, of another run, links to elsewhere",
        "exit 2, one line, nothing changed; never from scratch", len(ways), kept,
    )  # fmt: skip


def crowd(case: Case, table: Table, count: int) -> None:
    process, path = case.begin("crowd", "total_steps=100_000_000")
    others = [start("resume", str(path)) for _ in range(count)]
    kept = 0
    for other in others:
        _, err = other.communicate(timeout=600)
        kept += other.returncode == 2 and one_line(err) and f"process {process.pid} on" in err
    process.terminate()
    process.communicate()
    table.add("more processes on a run in progress", "exit 2, one line with pid and host", count, kept)


def full_disk(case: Case, table: Table) -> None:
    """RLIMIT_FSIZE needs no root and no disk: a write beyond it fails as one on a full disk does."""
    size = {
        name: max(file.stat().st_size for file in case.whole.rglob(name))
        for name in ("*.safetensors", "*.jsonl", "*tfevents*")
    }
    ways = {
        "checkpoints": (size["*.safetensors"] - 1, ()),
        "metrics.jsonl": (
            size["*.jsonl"] // 2,
            ("tensorboard=false", "checkpoint_every=0", "eval_every=0", "model.hidden=[4]"),
        ),
    }
    kept = 0
    for what, (limit, more) in ways.items():
        runs = case.place / f"full-{what}"
        code, _, err = rlx("train", *case.words, *more, f"runs_dir={runs}", limit=limit)
        (record,) = runs.rglob("run.json")
        named = re.search(rf"cannot write {record.parent}/{what}\S*: .*\([\d,]+ bytes to write", err)
        again, _, _ = rlx("resume", str(record.parent))
        equal = case.same(record.parent) if not more else show(record.parent)["status"] == "finished"
        kept += code == 1 and one_line(err) and named is not None and again == 0 and equal
    table.add(
        "disk full at a checkpoint, at metrics.jsonl",
        "exit 1, one line with path and bytes; resumed with room: equal",
        2,
        kept,
    )
    code, out, err = rlx("train", *case.words, f"runs_dir={case.place / 'full-tb'}", limit=size["*tfevents*"] - 1)
    path = Path(ROOT, out.splitlines()[-1].removeprefix("run: "))
    warned = sum("TensorBoard" in line for line in err.splitlines()) == 1
    larger = size["*tfevents*"] > max(size["*.safetensors"], size["*.jsonl"])
    if larger:
        table.add(
            "disk full for TensorBoard alone",
            "one warning, training goes on to the equal result",
            1,
            int(code == 0 and warned and case.same(path)),
        )

    path = case.cut("full-resume")
    (path / "checkpoints" / ".tmp-x").mkdir()
    code, _, err = rlx("resume", str(path), limit=size["*.safetensors"] - 1)
    again, _, _ = rlx("resume", str(path))
    table.add(
        "disk full at a resume, beside a directory .tmp-x",
        "exit 1, one line with path and bytes; resumed with room: equal", 1,
        int(code == 1 and one_line(err) and "bytes to write" in err and again == 0 and case.same(path)),
    )  # fmt: skip


LINKS = ("metrics.jsonl", "rlx.log", "checkpoints", ".lock", "videos", "status.json", "run.json", "config.yaml")


def links(case: Case, table: Table) -> None:
    """Links inside a run directory to places outside of it, which must stay as they are."""
    path, kept = case.cut("links"), 0
    for name in LINKS:
        copy = Path(shutil.copytree(path, case.place / f"link-{name}"))
        outside = case.place / f"outside-of-{name}"
        if (copy / name).exists():
            shutil.move(copy / name, outside)
        elif name == "videos":
            outside.mkdir()
        else:
            outside.write_text("another's\n")
        (copy / name).symlink_to(outside)
        before = contents(outside)
        code, _, err = rlx("resume", str(copy))
        kept += code == 2 and one_line(err) and "is a link" in err and contents(outside) == before
    table.add("a link inside a run directory", "exit 2, one line, its target as it was", len(LINKS), kept)


def contents(place: Path) -> dict[str, bytes]:
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def flips(case: Case, table: Table, count: int) -> None:
    """One flipped bit in each of a run's texts. What is no text any more, or another one, is said."""
    path, kept, broken = case.cut("flips"), 0, []
    names = ("run.json", "config.yaml", "status.json", "metrics.jsonl")
    for trial in range(count):
        name = names[trial % len(names)]
        copy = Path(shutil.copytree(path, case.place / f"flip{trial}"))
        data = bytearray((copy / name).read_bytes())
        place = case.rng.randrange(len(data))
        data[place] ^= 1 << case.rng.randrange(8)
        (copy / name).write_bytes(data)
        code, _, err = rlx("resume", str(copy))
        said = code == 2 and one_line(err) or code == 0 and "rlx: warning: " in err
        fine = said or code == 0 and case.same(copy)
        kept += fine
        if not fine:
            broken.append(f"{name} byte {place}: exit {code} {err[-200:]}")
        shutil.rmtree(copy)
    table.add(
        "one flipped bit in run.json, config.yaml, status.json, metrics.jsonl",
        "the equal result, or one line that says what has changed", count, kept, broken=broken,
    )  # fmt: skip


def gone(case: Case, table: Table) -> None:
    """A run whose directory, or a file of it, is deleted under itself."""
    names, kept = (".", "metrics.jsonl", ".lock"), 0
    for name in names:
        process, path = case.begin(f"gone{name}", "total_steps=100_000_000")
        time.sleep(1.0)
        victim = path if name == "." else path / name
        victim.unlink() if victim.is_file() else shutil.rmtree(victim, ignore_errors=True)
        if name == ".":
            shutil.rmtree(victim, ignore_errors=True)  # a file may have come in between
        _, err = process.communicate(timeout=120)
        kept += process.returncode == 1 and one_line(err) and (name != "." or not (path / "config.yaml").exists())
    table.add(
        "a run, its log, its lock deleted under itself", "exit 1, one line; nothing comes back",
        len(names), kept,
    )  # fmt: skip


EVIL = """
import pathlib
import gymnasium
pathlib.Path(__file__).with_name("ran").touch()
class Evil(gymnasium.make("CartPole-v1").unwrapped.__class__): ...
"""


def trust(case: Case, table: Table) -> None:
    """A run directory of somebody else's that names code: nothing runs it without --trust."""
    place = case.place / "evil"
    place.mkdir()
    (place / "evil.py").write_text(EVIL)
    path = Path(shutil.copytree(case.whole, place / "run"))
    config = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(config.replace("id: CartPole-v1", f"id: '{place / 'evil.py'}:Evil'"))
    verbs, kept = (("resume",), ("eval",), ("play", "--gif", str(place / "a.gif")), ("export", "--to", "onnx")), 0
    for verb, *more in verbs:
        code, _, err = rlx(verb, str(path), *more)
        kept += code == 2 and one_line(err) and "--trust" in err and not (place / "ran").exists()
    table.add("a run directory that names a file of code", "exit 2, one line that names --trust", len(verbs), kept)


def closed(case: Case, table: Table) -> None:
    """Nobody listens."""
    kept = 0
    for streams in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        runs = case.place / f"closed{streams}".replace(" ", "")
        words = [sys.executable, "-m", "rlx", "train", *case.words, f"runs_dir={runs}"]
        code = subprocess.run(
            ["sh", "-c", f'exec "$@" {streams}', "sh", *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
        ).returncode  # fmt: skip
        kept += code == 0 and case.same(next(runs.rglob("run.json")).parent)
    table.add("stdout, stderr, stdin, all of them closed", "exit 0, the equal result", 4, kept)


def determinism(case: Case, table: Table) -> None:
    """Twice the same; and whether anyone looks does not matter."""
    again = case.same(case.new("again"))
    looks = {
        "eval_every=0": False, "video=true": True, "tensorboard=false": True, "checkpoint_every=0": True,
    }  # fmt: skip
    weights = show(case.whole)["weights_sha256"]
    kept = sum(show(case.new(f"look{k}", look))["weights_sha256"] == weights for k, look in enumerate(looks))
    kept += again
    other = show(case.new("seed", "seed=2"))["weights_sha256"] != weights
    code, out, err = rlx("train", "-m", *case.words, "seed=1,2", f"runs_dir={case.place / 'sweep'}")
    jobs = [path.parent for path in (case.place / "sweep").rglob("run.json")]
    swept = code == 0 and weights in [show(path)["weights_sha256"] for path in jobs]
    table.add(
        "the same seed again; other cadences of evaluation, video, TensorBoard, checkpoints; in a sweep; another seed",
        "the same weights; another seed: others", len(looks) + 3, kept + other + swept,
    )  # fmt: skip


# -- all of them -----------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few of each, four minutes of computing")
    parser.add_argument("--env", default=None, help=f"comma-separated, of: {', '.join(RUNS)}")
    parser.add_argument("--kills", type=int, default=None, help="kill -9s for each of them")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="at a time")
    parser.add_argument("--out", type=Path, default=None, help="write the JSON here")
    options = parser.parse_args()
    names = options.env.split(",") if options.env else list(QUICK if options.quick else RUNS)
    count = options.kills if options.kills is not None else 8 if options.quick else 50
    table, began = Table(), time.monotonic()

    with tempfile.TemporaryDirectory(prefix="rlx torture ü ") as place:  # with a space and a letter not in ASCII
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            cases = list(pool.map(lambda name: Case(name, Path(place, name.replace(" ", "-")), options.quick), names))
            first = cases[0]
            few = 4 if options.quick else 16
            jobs: list[Callable[[], None]] = [lambda case=case: kills(case, table, count) for case in cases]  # type: ignore[misc]
            jobs += [lambda case=case: signals(case, table, few) for case in cases[: 1 if options.quick else None]]  # type: ignore[misc]
            jobs.append(lambda: damage(first, table, *((40, 20) if options.quick else (300, 100))))
            jobs.append(lambda: nothing_good(first, cases[-1], table))
            jobs.append(lambda: crowd(first, table, 2 if options.quick else 20))
            jobs.append(lambda: full_disk(first, table))
            jobs.append(lambda: links(first, table))
            jobs.append(lambda: flips(first, table, 12 if options.quick else 200))
            jobs.append(lambda: gone(first, table))
            jobs.append(lambda: trust(first, table))
            jobs.append(lambda: closed(first, table))
            if not options.quick:
                jobs.append(lambda: determinism(first, table))
            for job in [pool.submit(job) for job in jobs]:
                job.result()

    failed = sum(row["trials"] != row["kept"] for row in table.rows)
    found = {
        "command": " ".join(["python -m benchmarks.torture", *sys.argv[1:]]),
        "seconds": round(time.monotonic() - began),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("rlx", "torch", "numpy", "gymnasium")},
        "rows": sorted(table.rows, key=lambda row: row["fault"]),
    }
    table.rows = found["rows"]
    print(f"\n{table.markdown()}\n\n{failed} of {len(table.rows)} promises broken; {found['seconds']} s")
    out = options.out or (None if options.quick or options.env or options.kills is not None else RESULTS)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found, indent=1) + "\n")
    if out == RESULTS and PAGE.is_file():
        page = re.sub(
            r"(<!-- torture:begin -->\n).*?(\n<!-- torture:end -->)",
            lambda match: f"{match[1]}{table.markdown()}{match[2]}", PAGE.read_text(), flags=re.S,
        )  # fmt: skip
        PAGE.write_text(page)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
