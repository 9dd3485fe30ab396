"""An algorithm of one's own under rlx's loop: the engine follows what its losses read, and a resume is exact."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from installed import pretend
from own_algorithm import CHANGES
from tiny_runs import Child, config, die_at, record, result, resume

from rlx.training import runner

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path / "site", "own", "[rlx.algos]\nown = own_algorithm\n")
    monkeypatch.syspath_prepend(tmp_path / "site")


def learn(root: Path, name: str, progress=lambda *_: None, engine: str = "auto") -> Path:
    raw = config(root, "pendulum", total_steps=480, eval_every=0)
    raw["algo"] = {"name": "own", "implementation": "own", "lr": 3e-3, "engine": engine}
    return runner.start(raw, ["rlx", "train"], progress, parent=root, name=name)[0]


def test_a_run_of_it_killed_before_and_after_it_falls_back_equals_one_never_stopped(tmp_path: Path) -> None:
    """Its coefficient changes at step 160 and is found out at gradient step 100, which is step 320."""
    path = tmp_path / "killed"
    lives = [
        lambda: learn(tmp_path, "killed", die_at(96)),
        lambda: resume(path, progress=die_at(CHANGES)),
        lambda: resume(path, progress=die_at(416)),
    ]
    for life in lives:
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    whole = learn(tmp_path, "whole")
    assert result(path) == result(whole)
    notices = record(whole)["notices"]
    assert len(notices) == 2 and all("the 89 calls before may have been wrong" in line for line in notices)


def test_what_it_acts_with_is_what_it_learns_and_its_temperature_moves(tmp_path: Path) -> None:
    runs = {engine: result(learn(tmp_path, engine, engine=engine))[1] for engine in ("auto", "torch")}
    for rows in runs.values():
        rows = [row for row in rows if "train/alpha" in row]
        assert max(row["train/first"] for row in rows) < 1e-4  # |log pi - log pi_old| before an iteration's first step
        assert abs(rows[-1]["train/alpha"] - 1) > 0.3
    before = [[row for row in rows if "train/alpha" in row and row["step"] <= CHANGES] for rows in runs.values()]
    for mine, torchs in zip(*before, strict=True):
        assert mine["train/alpha"] == pytest.approx(torchs["train/alpha"], rel=1e-4)  # float32, other kernels
