"""Make tests/fixtures/base_runs: run directories as an older commit wrote them, for tests/test_older_runs.py.

    python -m benchmarks.make_fixtures [--base REV]

A control run and a plug-in's, stopped midway; a language run, too; a grid and a search that have finished. All are
tiny, and the same commands make others again but for times and the steps of the stops. The processes are told another
name of the machine and of its system, and the identifier of its boot and the path of the temporary directory are
replaced afterwards, so that nothing of the machine is kept; what could not be replaced ends the script.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.witness import BASE, ROOT, take_out

FIXTURES = ROOT / "tests" / "fixtures" / "base_runs"
BOOT, NO_BOOT = Path("/proc/sys/kernel/random/boot_id"), "00000000-0000-0000-0000-000000000000"
ELSEWHERE = "/home/user"  # instead of the temporary directory
CUSTOM = "import platform, socket\nsocket.gethostname = lambda: 'host'\nplatform.platform = lambda *_, **__: 'Linux'\n"
CONTROL = ["preset=none", "eval_episodes=2", "keep_checkpoints=1"]
SMALL = [
    *CONTROL,
    "log_every=1000",
    "algo.num_steps=64",
    "algo.num_minibatches=4",
    "algo.num_epochs=2",
    "model.hidden=[8]",
]
MODEL = ["model.num_layers=1", "model.d_model=16", "model.num_heads=2"]
# The words of each run, and the step from which on it is stopped.
STOPPED = {
    "control": (["algo=ppo", "env=cartpole", *SMALL, "total_steps=32768", "eval_every=8192"], 16384),
    "language": (
        ["algo=grpo", "task=names", "preset=none", *MODEL, "algo.num_prompts=8", "algo.kl_coef=0.04", "total_steps=100",
         "log_every=5", "eval_every=20", "eval_prompts=16", "samples=2", "keep_checkpoints=1"], 50,
    ),
    "plug-in": (
        ["algo=random", "env=corridor", *CONTROL, "log_every=20000", "total_steps=200000", "eval_every=80000",
         "video=false"], 100_000,
    ),
}  # fmt: skip
FINISHED = {
    "grid": [
        "train", "-m", "algo=ppo", "env=cartpole", *SMALL, "total_steps=1024", "eval_every=512", "video=false",
        "algo.lr=1e-3,3e-3",
    ],
    "search": [
        "sweep", "algo=ppo", "env=cartpole", *SMALL, "total_steps=1024", "eval_every=512", "tensorboard=false",
        "algo.lr=tag(log, interval(1e-4, 1e-2))", "study=older", "trials=2", "seeds=2", "pruner=none",
    ],
}  # fmt: skip


def install(plugin: Path, site: Path) -> Path:
    """Leave the plug-in's package in this directory as pip would, without its seconds."""
    shutil.copytree(plugin / "rlx_random", site / "rlx_random", ignore=shutil.ignore_patterns("__pycache__"))
    metadata = site / "rlx_random-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rlx-random\nVersion: 0.1.0\n")
    points = (
        "[rlx.algos]\nrandom = rlx_random.algo\nbabble = rlx_random.babble\n[rlx.conf]\nrlx_random = rlx_random.conf\n"
    )
    (metadata / "entry_points.txt").write_text(points)
    return site


def start(words: list[str], place: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(str(place / name) for name in ("custom", "source", "site"))
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-m", "rlx", *words], cwd=place / "work", env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int) -> None:
    _, err = process.communicate()
    if process.returncode != code:
        sys.exit(f"exit {process.returncode}, not {code}: {err}")


def step(runs: Path) -> int:
    """The last step in the metrics of the newest run."""
    files = sorted(runs.glob("*/*/*/metrics.jsonl"), key=lambda file: file.parent.name)
    rows = files[-1].read_text().splitlines(keepends=True) if files else []
    whole = [json.loads(row)["step"] for row in rows if row.endswith("\n")]
    return max(whole, default=0)


def stop_midway(words: list[str], at: int, place: Path) -> None:
    """Train until this step and interrupt."""
    process, runs = start(["train", *words], place), place / "work" / "runs"
    before = len(list(runs.glob("*/*/*/metrics.jsonl")))
    while process.poll() is None and (len(list(runs.glob("*/*/*/metrics.jsonl"))) == before or step(runs) < at):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    finish(process, 130)


def scrub(place: Path, runs: Path) -> None:
    """Let nothing in these files tell the machine."""
    boot = BOOT.read_text().strip() if BOOT.exists() else NO_BOOT
    secrets = {boot: NO_BOOT, str(place / "work"): ELSEWHERE, str(place): ELSEWHERE}
    for file in filter(Path.is_file, runs.rglob("*")):
        data = file.read_bytes()
        for secret, instead in secrets.items():
            if secret.encode() in data:
                if b"\0" in data:
                    sys.exit(f"{file}: holds {secret}, and cannot be changed")
                data = data.replace(secret.encode(), instead.encode())
        if f'"{socket.gethostname()}"'.encode() in data or f".{socket.gethostname()}." in file.name:
            sys.exit(f"{file}: names the machine")
        file.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", default=BASE, help="the commit that makes them (default: %(default).7s)")
    base = parser.parse_args().base
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        take_out(base, place / "source", "rlx", "conf", "tests/plugin")
        install(place / "source" / "tests" / "plugin", place / "site")
        for name in ("custom", "work"):
            (place / name).mkdir()
        (place / "custom" / "sitecustomize.py").write_text(CUSTOM)
        for words, at in STOPPED.values():
            stop_midway(words, at, place)
        for words in FINISHED.values():
            finish(start(words, place), 0)
        runs = place / "work" / "runs"
        scrub(place, runs)
        shutil.rmtree(FIXTURES / "runs", ignore_errors=True)
        shutil.copytree(runs, FIXTURES / "runs")
    sizes = [file.stat().st_size for file in FIXTURES.rglob("*") if file.is_file()]
    print(f"{FIXTURES.relative_to(ROOT)}: {len(sizes)} files, {sum(sizes):,} bytes")


if __name__ == "__main__":
    main()
