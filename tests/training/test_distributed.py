"""torchrun: two processes compute one run. gloo on the CPU, the real command line, real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Done, Forks
from waiting import PATIENCE, until

WORDS = [
    "algo=grpo", "task=parity", "preset=none", "total_steps=6", "eval_every=3", "eval_prompts=8", "checkpoint_every=2",
    "tensorboard=false", "model.num_layers=1", "model.d_model=16", "model.num_heads=2", "task.reward=dense",
    "algo.group_size=4", "algo.kl_coef=0.05", "algo.micro_batch=2", "algo.num_prompts=7", "algo.num_minibatches=2",
]  # fmt: skip
pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="gloo between processes is tried on Linux")


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def torchrun(*words: str) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    return [*launch, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "rlx", *words]


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE)


def ranks(forks: Forks, *words: str, cwd: Path) -> list[Done]:
    """Two processes that find in their environment what torchrun would put there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none", **address}
    return forks.together(2, *words, cwd=cwd, env=[{**world, "RANK": f"{k}", "LOCAL_RANK": f"{k}"} for k in range(2)])


def only_run(place: Path) -> Path:
    (path,) = [config.parent for config in place.rglob("config.yaml")]
    return path


def metrics(path: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_two_ranks_are_one_run_with_the_gradients_of_one_rank(tmp_path: Path, forks: Forks) -> None:
    """7 prompts in 2 minibatches of 4 and 3: the shares are uneven, too."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one = forks("train", *WORDS, cwd=tmp_path / "one")
    two = run([*torchrun("train"), *WORDS], tmp_path / "two")
    for code, out, err in ((one.code, one.out, one.err), (two.returncode, two.stdout, two.stderr)):
        assert code == 0, err
        assert out.count("run: ") == 1  # one process speaks
    ours, theirs = (metrics(only_run(tmp_path / name)) for name in ("one", "two"))
    assert len(ours) == len(theirs) == 5
    for a, b in zip(ours, theirs):
        assert a.keys() == b.keys()
        for key in a:
            assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-6), key  # the order of sums, through Adam
    norms = [(a["grad_norm"], b["grad_norm"]) for a, b in zip(ours, theirs) if "grad_norm" in a]
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-6)


def test_a_stopped_run_of_two_ranks_goes_on_exactly(tmp_path: Path, forks: Forks) -> None:
    """SIGTERM to torchrun: the leader makes a checkpoint, nobody hangs; resumed, it equals the run never stopped."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for place in (whole, stopped):
        place.mkdir()
    words = [word.replace("total_steps=6", "total_steps=60") for word in WORDS]
    assert [done.code for done in ranks(forks, "train", *words, cwd=whole)] == [0, 0]
    process = subprocess.Popen(torchrun("train", *words), cwd=stopped, env=environment(), stderr=subprocess.PIPE)
    until(lambda: any(path.stat().st_size for path in stopped.rglob("metrics.jsonl")))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    path = only_run(stopped)
    status = json.loads((path / "status.json").read_text())
    assert status["status"] == "interrupted" and 0 < status["step"] < 60
    assert [done.code for done in ranks(forks, "resume", str(path), cwd=stopped)] == [0, 0]
    assert metrics(path) == metrics(only_run(whole))
    done = [json.loads((place / "status.json").read_text()) for place in (path, only_run(whole))]
    assert done[0]["weights_sha256"] == done[1]["weights_sha256"] and done[0]["status"] == "finished"


def test_what_cannot_be_shared_is_one_line_and_leaves_nothing(tmp_path: Path, forks: Forks) -> None:
    for words, said in (
        (
            ["algo=ppo", "env=cartpole", "total_steps=100"],
            "torchrun: runs in an environment are computed by one process",
        ),
        ([*WORDS, "init=latest:sft"], "no finished run of sft"),
    ):
        both = ranks(forks, "train", *words, cwd=tmp_path)
        lines = [line for done in both for line in done.err.splitlines() if line.startswith("rlx: error")]
        assert any(done.code for done in both) and len(lines) == 1 and said in lines[0], both
    assert not list(tmp_path.rglob("config.yaml"))


def test_variables_alone_do_not_silence_an_error(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "algo=pppo", cwd=tmp_path, env=[{"RANK": "1", "WORLD_SIZE": "2"}])
    assert done.code == 2 and done.err.startswith("rlx: error: algo=pppo: no such algorithm; did you mean 'ppo'?"), done
