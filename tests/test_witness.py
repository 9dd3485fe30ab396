"""benchmarks/witness.py: this checkout trains the same bits as the commit it began from, and a difference is named."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from command_line import ROOT

from benchmarks import witness

QUICK = "ppo_clip,pretrain"
IN_CLONE = pytest.mark.skipif(
    not witness.has_commit(witness.BASE), reason=f"the commit {witness.BASE:.7} is not in this clone"
)


@IN_CLONE
def test_two_configurations_train_the_same_bits_as_at_the_base_commit(capsys: pytest.CaptureFixture) -> None:
    code = witness.main(["--only", QUICK])
    out = capsys.readouterr().out
    assert code == 0 and out.endswith("\n2 of 2 equal\n"), out


def of_base(*words: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True).stdout


@IN_CLONE
def test_the_twenty_cover_every_algorithm_a_grid_and_a_search() -> None:
    words = {name: witness.words(name) for name in witness.names()}
    files = of_base("ls-tree", "--name-only", witness.BASE, "rlx/algos/").split()
    algorithms = {Path(file).stem for file in files} - {"__init__"}
    assert len(words) == 20 and len(algorithms) == 13
    assert {f"algo.implementation={name}" for name in algorithms} <= set().union(*words.values())
    assert words["tabular_grid"][:2] == ("train", "-m") and words["ppo_search"][0] == "sweep"


@IN_CLONE
@pytest.mark.parametrize("name", witness.names())
def test_every_key_of_the_base_commit_is_written_out(name: str) -> None:
    given = [word.partition("=")[0] for word in witness.words(name)]
    parts = dict(word.split("=", 1) for word in witness.words(name) if "=" in word)
    world, model = ("config", "mlp") if "env" in parts else ("language", "gpt")
    for path, section in (
        (world, ""), (f"algo/{parts['algo.implementation']}", "algo."), (f"model/{model}", "model."),
    ):  # fmt: skip
        keys = yaml.safe_load(of_base("show", f"{witness.BASE}:conf/{path}.yaml"))
        assert {f"{section}{key}" for key in keys if key not in ("defaults", "hydra", "expect")} <= set(given)
    assert len(given) == len(set(given)) and parts["preset"] == parts["experiment"] == "none"


def test_a_configuration_brings_those_whose_runs_it_starts_from_before_it() -> None:
    assert witness.chosen("rlhf_ppo") == ["pretrain", "reward_model", "rlhf_ppo"]
    with pytest.raises(witness.WitnessError, match="--only=pppo: no such configuration"):
        witness.chosen("dqn,pppo")


def test_what_this_checkout_calls_otherwise_is_said_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(witness.words("dqn"))
    monkeypatch.setattr(witness, "RENAMED", {"algo.lr": "algo.step_size"})
    monkeypatch.setattr(witness, "ADDED", {"dqn": ["algo.noisy=false"]})
    after = [re.sub(r"^algo\.lr=", "algo.step_size=", word) for word in before]
    assert witness.renamed("dqn") == [*after, "algo.noisy=false"] != before


# -- a difference is named -------------------------------------------------------------------------------------

ROWS = [{"step": 1, "loss": 0.5, "time/fps": 9.0}, {"step": 2, "loss": float("nan"), "time/fps": 8.0}]


def run(path: Path, rows: list[dict], sha: str = "a1") -> Path:
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "status.json").write_text(json.dumps({"status": "finished", "step": 2, "weights_sha256": sha}))
    return path


@pytest.mark.parametrize(
    "rows, sha, text",
    [
        ([{**ROWS[0], "time/fps": 1.0}, ROWS[1]], "a1", None),
        ([ROWS[0], {**ROWS[1], "loss": 0.25}], "a1", r"line 2, step 2, loss: NaN \(base\), 0.25 \(head\)"),
        ([{**ROWS[0], "loss": 0.5000000000000001}, ROWS[1]], "a1", r"line 1, .*0.5000000000000001 \(head\)"),
        ([ROWS[0], {**ROWS[1], "kl": 0.0}], "a1", r"step 2, kl: absent \(base\), 0.0 \(head\)"),
        (ROWS[:1], "a1", r"2 lines \(base\), 1 \(head\)"),
        (ROWS, "a2", r'weights_sha256: "a1" \(base\), "a2" \(head\)'),
    ],
)
def test_the_first_difference_is_named_but_for_the_time(
    rows: list[dict], sha: str, text: str | None, tmp_path: Path
) -> None:
    difference = witness.difference(run(tmp_path / "base", ROWS), run(tmp_path / "head", rows, sha))
    assert difference is None if text is None else re.search(text, str(difference))


def test_a_run_that_trains_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(witness, "take_out", lambda *_: ROOT)  # both sides are this checkout
    monkeypatch.setattr(witness, "ADDED", {"dyna_q": ["algo.lr=0.11"]})
    assert witness.main(["--only", "dyna_q"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^dyna_q +differs  metrics.jsonl line \d+, step \d+, .* \(base\), .* \(head\)", out), out
    assert out.endswith("\n0 of 1 equal\n")
