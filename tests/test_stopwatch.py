"""Where the time went: each second in one part, and in every run's metrics."""

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training import train

from rlx.base import stopwatch
from rlx.control.acting.kernel_loop import KernelLoop
from rlx.rundir import reader


def test_each_second_is_in_one_part_and_a_whole_part_keeps_what_is_inside() -> None:
    before = dict(stopwatch.spent)
    with stopwatch.part("act"):
        time.sleep(0.02)
        with stopwatch.part("env"):
            time.sleep(0.03)
    with stopwatch.part("eval", whole=True), stopwatch.part("env"):
        time.sleep(0.04)
    spent = {name: stopwatch.spent[name] - before[name] for name in stopwatch.PARTS}
    assert spent["act"] == pytest.approx(0.02, abs=0.015) and spent["env"] == pytest.approx(0.03, abs=0.015)
    assert spent["eval"] == pytest.approx(0.04, abs=0.015) and spent["log"] == 0
    shares = stopwatch.shares(before, 0.2)
    assert sum(shares.values()) == pytest.approx(1) and shares["learn"] == pytest.approx(0.55, abs=0.2)


def test_steps_timed_in_a_stall_are_no_longer_than_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kernels' steps one in 16 is timed; if the CPU was elsewhere just then, that is not 16 times as much."""
    loops, real = [], KernelLoop.__init__

    def remembered(self: KernelLoop, *words: Any) -> None:
        real(self, *words)
        loops.append(self)
        if self:
            kernels, *rest = self._acts

            def rollout(address: int, t: int, count: int) -> int:
                steps = kernels.rollout(address, t, count)
                self._struct["env_seconds"] = 1e3
                return steps

            self._acts = (SimpleNamespace(rollout=rollout), *rest)

    monkeypatch.setattr(KernelLoop, "__init__", remembered)
    _, history = train("algo=dqn", "env=cartpole", "preset=none", "total_steps=2000")
    if not any(loops):
        pytest.skip("no C compiler")
    shares = [row[f"time/{part}"] for row in history for part in stopwatch.PARTS if "time/env" in row]
    assert min(shares, default=0.0) >= 0 and stopwatch.spent["env"] < 1e3


@pytest.mark.parametrize(
    "words",
    ["algo=ppo env=cartpole", "algo=dqn env=cartpole", "algo=q_learning env=frozenlake", "algo=td3 env=pendulum"],
)
def test_a_run_says_where_its_time_went(tmp_path: Path, words: str) -> None:
    small = ["total_steps=2000", "preset=none", "eval_episodes=1", "video=false", "device=cpu"]
    small += ["total_steps=300", "algo.learning_starts=100"] if "td3" in words else []
    command = [sys.executable, "-m", "rlx", "train", *words.split(), *small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = next((tmp_path / "runs").rglob("metrics.jsonl")).parent
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shares = [{part: row[f"time/{part}"] for part in (*stopwatch.PARTS, "learn")} for row in rows if "time/env" in row]
    for each in shares:
        assert sum(each.values()) == pytest.approx(1, abs=0.01) and min(each.values()) >= 0
    most = {part: max(each[part] for each in shares) for part in shares[0]}  # a row may be of a stall
    assert 0 < most["env"] < 1 and most["learn"] > 0 and (most["act"] > 0) == ("q_learning" not in words)
    shown = reader.show(run)["time"]
    assert set(shown) == set(most) and list(shown.values()) == sorted(shown.values(), reverse=True)
