"""The life of a run by the command line: trained, listed, shown, evaluated, gone on with. Both worlds, in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, Forks
from tiny_runs import LANGUAGE

LIVES = {
    "control": (TINY, ["--episodes", "2"], "mean", 1024),
    "language": ([*LANGUAGE, "task=add2"], ["--prompts", "8"], "greedy_accuracy", 16),
}


@pytest.mark.parametrize("world", LIVES)
def test_a_run_is_trained_listed_shown_evaluated_and_gone_on_with(world: str, tmp_path: Path, forks: Forks) -> None:
    words, count, score, more = LIVES[world]
    trained = forks("train", *words, cwd=tmp_path)
    assert trained.code == 0, trained.err
    (listed,) = json.loads(forks("ls", "--json", cwd=tmp_path).out)
    shown = json.loads(forks("show", "latest", "--json", cwd=tmp_path).out)
    assert listed["run"] == shown["run"] and shown["status"] == "finished" and len(shown["weights_sha256"]) == 64
    evaluated = forks("eval", "latest", *count, "--json", cwd=tmp_path)
    assert evaluated.code == 0 and score in json.loads(evaluated.out), evaluated.err
    resumed = forks("resume", "latest", f"total_steps={more}", cwd=tmp_path)
    assert resumed.code == 0 and resumed.run == trained.run, resumed.err
    after = json.loads(forks("show", "latest", "--json", cwd=tmp_path).out)
    assert after["step"] == more and after["weights_sha256"] != shown["weights_sha256"]
