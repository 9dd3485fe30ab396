"""Which device a run gets, and that two runs of one machine get different ones."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rlx.training import device

FORK = multiprocessing.get_context("fork")


class Claimer:
    """A process that claims one of these devices and keeps it for `hold` seconds."""

    def __init__(self, place: Path, names: list[str], wait: bool, hold: float = 30) -> None:
        self.answer, end = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=self._work, args=(end, place, names, wait, hold))
        self.process.start()
        end.close()

    @staticmethod
    def _work(end: Any, place: Path, names: list[str], wait: bool, hold: float) -> None:
        tempfile.tempdir = str(place)
        end.send(device.claim_one(names, wait))
        time.sleep(hold)

    def claimed(self) -> int | None:
        return self.answer.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def test_every_process_claims_another_device_and_a_dead_one_gives_its_back(tmp_path: Path) -> None:
    three = [Claimer(tmp_path, ["0", "1"], False) for _ in range(3)]
    try:
        assert {claimer.claimed() for claimer in three} == {0, 1, None}
        for claimer in three:
            claimer.kill()
        after = Claimer(tmp_path, ["0", "1"], False, hold=0)
        assert after.claimed() == 0
        after.process.join()
    finally:
        for claimer in three:
            claimer.kill()


def test_a_job_of_a_grid_waits_for_a_device(tmp_path: Path) -> None:
    holder = Claimer(tmp_path, ["0"], False)
    assert holder.claimed() == 0
    waiting = Claimer(tmp_path, ["0"], True, hold=0)
    try:
        time.sleep(1.5)
        assert waiting.process.is_alive() and not waiting.answer.poll()
        holder.kill()
        assert waiting.claimed() == 0
    finally:
        for claimer in (holder, waiting):
            claimer.kill()


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
