"""Does this checkout train the same bits as the commit it began from?

    python -m benchmarks.witness [--base REV] [--only NAME,...] [--jobs N]

Trains the configurations of benchmarks/witness_runs twice on this machine, with the code of the base commit (taken out
of git into a temporary directory) and with this checkout, and compares every run's weights_sha256, its metrics.jsonl
less the keys under time/, and a search's trials. One line a configuration, and exit 1 where one differs.

A file of witness_runs holds the words of one command, one a line, with every key of its configuration (what
`rlx train ... --cfg job --resolve` of the base commit prints), so that another default in conf/ changes nothing.
{NAME} stands for the run of the configuration NAME. The base is given those words as they are; what this checkout
calls otherwise, or needs besides, stands in RENAMED and ADDED.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = ROOT / "benchmarks" / "witness_runs"
BASE = "d68863005f47418386354ff200a88dc87206c185"  # the commit before the modules were moved
RENAMED: dict[str, str] = {}  # a key of the base -> the same key of this checkout
ADDED: dict[str, list[str]] = {}  # words that this checkout needs besides, by configuration
TRIAL = ("number", "state", "score", "params", "seeds_done", "runs", "values")  # what is compared of a search's trial
SECONDS = 600  # that a command may take


class WitnessError(Exception):
    """The comparison cannot be made; one line."""


# -- the configurations ----------------------------------------------------------------------------------------


def names() -> list[str]:
    """All configurations, each behind those whose runs it starts from."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for other in needs(name):
            add(other)
        if name not in ordered:
            ordered.append(name)

    for file in sorted(CONFIGURATIONS.glob("*.txt")):
        add(file.stem)
    return ordered


@functools.cache
def words(name: str) -> tuple[str, ...]:
    """The words of a configuration's command."""
    lines = (CONFIGURATIONS / f"{name}.txt").read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def needs(name: str) -> list[str]:
    """The configurations whose runs this one starts from."""
    return [match[1] for word in words(name) if (match := re.search(r"=\{(\w+)\}$", word))]


def chosen(only: str) -> list[str]:
    """The configurations asked for, with those that they start from. Raises WitnessError."""
    known = names()
    wanted = set(only.split(",")) if only else set(known)
    if unknown := wanted - set(known):
        raise WitnessError(f"--only={','.join(sorted(unknown))}: no such configuration ({', '.join(known)})")
    for name in reversed(known):
        wanted |= set(needs(name)) if name in wanted else set()
    return [name for name in known if name in wanted]


def renamed(name: str) -> list[str]:
    """A configuration's words as this checkout wants them."""
    pairs = (word.partition("=") for word in words(name))
    return ["".join((RENAMED.get(key, key), equals, value)) for key, equals, value in pairs] + ADDED.get(name, [])


# -- the two sides ---------------------------------------------------------------------------------------------


@dataclass
class Side:
    """A tree of rlx's source, and where its runs go."""

    source: Path
    place: Path

    def __post_init__(self) -> None:
        self.place.mkdir(parents=True)
        module = self.python("-c", "import rlx; print(rlx.__file__)").stdout.strip()
        if not Path(module).resolve().is_relative_to(self.source.resolve()):
            raise WitnessError(f"{self.source}: python imports rlx from {module or 'nowhere'}")

    def train(self, name: str, command: Iterable[str]) -> list[Path]:
        """Run a configuration; returns its run directories in the order of their names. Raises WitnessError."""
        place = self.place / name
        place.mkdir()
        filled = [re.sub(r"=\{(\w+)\}$", lambda match: f"={self.runs(match[1])[0]}", word) for word in command]
        done = self.python("-m", "rlx", *filled, cwd=place)
        if done.returncode:
            line = (done.stderr.strip() or done.stdout.strip() or "nothing printed").splitlines()[-1]
            raise WitnessError(f"exit {done.returncode}: {line}")
        return self.runs(name)

    def runs(self, name: str) -> list[Path]:
        return sorted(file.parent for file in (self.place / name).rglob("config.yaml"))

    def trials(self, name: str) -> list[dict[str, Any]]:
        """What a search says of its trials; [] of what is no search."""
        rows = [row for file in (self.place / name).rglob("trials.jsonl") for row in lines(file)]
        return [{key: row.get(key) for key in TRIAL} for row in rows]

    def python(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A process that imports rlx from this side's source."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RLX_", "HYDRA_"))}
        quiet = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(self.source)}
        return subprocess.run(
            [sys.executable, *words], cwd=cwd or self.place, env={**kept, **quiet}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=SECONDS,
        )  # fmt: skip


def has_commit(revision: str) -> bool:
    """Whether this is a clone with that commit in it."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"]
    try:
        return subprocess.run(asked, capture_output=True).returncode == 0
    except OSError:
        return False


def take_out(revision: str, place: Path, *paths: str) -> Path:
    """The files of a commit (rlx and conf, or these paths), without a trace in the repository. Raises WitnessError."""
    if not has_commit(revision):
        raise WitnessError(f"--base={revision}: no such commit here (a shallow clone? git fetch --unshallow)")
    asked = ["git", "-C", str(ROOT), "archive", revision, *(paths or ("rlx", "conf"))]
    archive = subprocess.run(asked, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(place, filter="data")
    return place


# -- comparing -------------------------------------------------------------------------------------------------


def compare(name: str, base: Side, head: Side) -> str | None:
    """Train a configuration on both sides; the first difference, in words, or None."""
    try:
        before = base.train(name, words(name))
    except WitnessError as error:
        return f"base: {error}"
    try:
        after = head.train(name, renamed(name))
    except WitnessError as error:
        return f"head: {error}"
    labels = [", ".join(map(label, runs)) for runs in (before, after)]
    if labels[0] != labels[1]:
        return f"runs: {labels[0]} (base), {labels[1]} (head)"
    for one, other in zip(before, after):
        if text := difference(one, other):
            return f"{label(one)}: {text}".removeprefix(": ")
    for one, other in itertools.zip_longest(base.trials(name), head.trials(name), fillvalue={}):
        if text := first(one, other):
            return f"trial {one.get('number')}, {text}"
    return None


def label(run: Path) -> str:
    """A run's name in its grid or search; empty for a single run, whose name is the time."""
    return run.name if run.parent.parent.name == "sweeps" else ""


def difference(base: Path, head: Path) -> str | None:
    """The first difference between two runs, in words, or None."""
    before, after = metrics(base), metrics(head)
    for number, (one, other) in enumerate(zip(before, after), 1):
        if text := first(one, other):
            return f"metrics.jsonl line {number}, step {one.get('step')}, {text}"
    if len(before) != len(after):
        return f"metrics.jsonl: {len(before)} lines (base), {len(after)} (head)"
    return first(weights(base), weights(head))


def first(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first key with another value, and both values. NaN equals NaN here."""
    for key in dict.fromkeys([*before, *after]):
        values = [json.dumps(row[key]) if key in row else "absent" for row in (before, after)]
        if values[0] != values[1]:
            return f"{key}: {values[0]} (base), {values[1]} (head)"
    return None


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl less the keys under time/."""
    rows = lines(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def weights(run: Path) -> dict[str, Any]:
    status = json.loads((run / "status.json").read_text("utf-8"))
    return {key: status.get(key) for key in ("status", "step", "weights_sha256")}


# -- all of them -----------------------------------------------------------------------------------------------


def witness(wanted: list[str], base: str, jobs: int = 1) -> int:
    """Compare these configurations and print a line for each; how many are equal. Raises WitnessError."""
    with tempfile.TemporaryDirectory(prefix="rlx-witness-") as temporary:
        place = Path(temporary)
        sides = Side(take_out(base, place / "source"), place / "base"), Side(ROOT, place / "head")
        began: dict[str, concurrent.futures.Future[str | None]] = {}

        def one(name: str) -> str | None:
            start = time.monotonic()
            if broken := [other for other in needs(name) if began[other].result()]:
                text: str | None = f"not compared: {', '.join(broken)} differs, and it starts from that"
            else:
                text = compare(name, *sides)
            count = len(sides[1].runs(name))
            verdict = f"differs  {text}" if text else f"equal    {count} run{'s' * (count != 1)}"
            print(f"{name:15} {verdict}  ({time.monotonic() - start:.0f} s)", flush=True)
            return text

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for name in wanted:  # those that others start from begin first, so that no worker waits for one not begun
                began[name] = pool.submit(one, name)
        return sum(future.result() is None for future in began.values())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.witness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default=BASE, help="the commit to compare with (default: %(default).7s)")
    parser.add_argument("--only", default="", help=f"comma-separated, of: {', '.join(names())}")
    parser.add_argument("--jobs", type=int, default=1, help="configurations at a time (default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        wanted = chosen(options.only)
        equal = witness(wanted, options.base, max(1, options.jobs))
    except WitnessError as error:
        print(f"witness: error: {error}", file=sys.stderr)
        return 2
    print(f"{equal} of {len(wanted)} equal")
    return int(equal < len(wanted))


if __name__ == "__main__":
    sys.exit(main())
