"""Which device a run gets, and that two runs of one machine get different ones."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from command_line import ROOT, environment

from rlx.training import device

CLAIM = """
import sys, time
from rlx.training.device import claim_one
print(claim_one({names!r}, {wait}), flush=True)
time.sleep({hold})
"""


def claimer(place: Path, names: list[str], wait: bool, hold: float = 30) -> subprocess.Popen[str]:
    code = CLAIM.format(names=names, wait=wait, hold=hold)
    env = environment(TMPDIR=str(place))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_every_process_claims_another_device_and_a_dead_one_gives_its_back(tmp_path: Path) -> None:
    first, second, third = (claimer(tmp_path, ["0", "1"], False) for _ in range(3))
    try:
        assert sorted([said(first), said(second), said(third)]) == ["0", "1", "None"]
        for process in (first, second, third):
            process.kill()
            process.wait()
        after = claimer(tmp_path, ["0", "1"], False, hold=0)
        assert said(after) == "0"
        after.wait()
    finally:
        for process in (first, second, third):
            process.kill()


def test_a_job_of_a_grid_waits_for_a_device(tmp_path: Path) -> None:
    holder = claimer(tmp_path, ["0"], False)
    assert said(holder) == "0"
    waiting = claimer(tmp_path, ["0"], True, hold=0)
    try:
        time.sleep(1.5)
        assert waiting.poll() is None
        holder.kill()
        assert said(waiting) == "0"
    finally:
        for process in (holder, waiting):
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "count, large, kind", [(0, False, "cpu"), (0, True, "cpu"), (2, False, "cpu"), (2, True, "cuda")]
)
def test_auto_is_a_gpu_only_for_a_large_network(
    count: int, large: bool, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    chosen, why = device.choose("auto", large)
    assert chosen.type == kind and why.startswith(kind)


def test_a_named_device_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "claim_one", lambda *_: pytest.fail("claimed"))
    for name in ("cpu", "cuda:1"):
        assert device.claim(torch.device(name), wait=True) == torch.device(name)


def test_cuda_is_the_one_that_was_claimed_among_the_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    asked: list[list[str]] = []
    monkeypatch.setattr(device, "claim_one", lambda names, wait: asked.append(list(names)) or 1)
    assert device.claim(torch.device("cuda"), wait=False) == torch.device("cuda:1")
    assert asked == [["4", "7"]]
