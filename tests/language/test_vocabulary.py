"""What a run's ids mean, and which files it learns from, belong to the run: a file that changes afterwards changes
nothing in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from language_runs import train as start_run
from tiny_runs import result, resume

from rlx.base.errors import ConfigError, UserError
from rlx.training import loop, runner

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(9) for b in range(9)]


def write(file: Path, rows: list[dict[str, str]] = ROWS, old: str = "+", new: str = "+") -> Path:
    file.write_text("\n".join(json.dumps(row).replace(old, new) for row in rows))
    return file


def train(place: Path, file: Path, algo: str = "sft", **changes: Any) -> Path:
    return start_run(place, algo, "jsonl", **{"task.file": str(file), "task.sft_stop": 0.0, **changes})


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said on the terminal."""
    said: list[str] = []
    monkeypatch.setattr(loop, "say", said.append)
    monkeypatch.setattr(runner, "say", said.append)
    return said


def evaluate(path: Path) -> dict[str, Any]:
    return runner.report(*runner.open_run(path), 16, 0, k=2)


def test_ids_keep_their_meaning_where_characters_of_the_file_go(tmp_path: Path, lines: list[str]) -> None:
    file = write(tmp_path / "mine.jsonl", [*ROWS, {"prompt": "#", "answer": "#"}])  # first in the alphabet
    path = train(tmp_path, file)
    before = runner.open_policy(path)[1]
    assert before.tokenizer.alphabet[0] == "#"
    write(file)
    after = runner.open_policy(path)[1]
    assert after.tokenizer.alphabet == before.tokenizer.alphabet and after.model.context == before.model.context
    assert after.complete(["1+1="]) == before.complete(["1+1="])
    assert "warning: task.file=" in lines[-1] and "has changed since these weights were trained" in lines[-1]


def test_a_character_that_the_weights_never_read_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl")
    path = train(tmp_path, file)
    evaluate(path)
    write(file, new="x")
    for act in (lambda: evaluate(path), lambda: runner.open_policy(path), lambda: resume(path, total_steps=20)):
        with pytest.raises(UserError, match=r"task.file=.*: has the character 'x', for which these weights have no to"):
            act()
    with pytest.raises(ConfigError, match=r"its alphabet \+0123456789= .* is not that of task=jsonl, 0123456789=x"):
        train(tmp_path, file, "grpo", init=str(path))


def test_a_prompt_longer_than_the_network_reads_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl")
    path = train(tmp_path, file)
    write(file, [*ROWS, {"prompt": "1+1+1=", "answer": "3"}])
    with pytest.raises(ConfigError, match="needs 10 tokens .*the network of these weights reads 8"):
        evaluate(path)


def test_a_changed_file_is_named_by_eval_resume_and_init(tmp_path: Path, lines: list[str]) -> None:
    file = write(tmp_path / "mine.jsonl")
    path = train(tmp_path, file)
    assert not lines
    expected = evaluate(path)
    assert not lines
    write(file, ROWS[::-1])
    evaluate(path)
    train(tmp_path, file, "grpo", init=str(path))
    resume(path, total_steps=14)
    named = [line for line in lines if f"task.file={file}" in line and "changed since" in line]
    assert len(named) >= 3 and all("\n" not in line for line in named)
    lines.clear()
    evaluate(path)  # of the run as it went on with it
    assert not lines and expected["prompts"] == 16


def test_a_run_reads_its_files_once(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl")
    whole = train(tmp_path, file, name="whole")
    other = train(tmp_path, file, name="other", progress=lambda step, _: file.write_text("{oops"))
    assert result(whole) == result(other)


def test_latest_never_crosses_to_another_file(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one.jsonl"), write(tmp_path / "other.jsonl")
    path = train(tmp_path, one)
    train(tmp_path, other)
    last = train(tmp_path, one, "grpo", init="latest:sft")
    assert runner.read_config(last)["init"] == str(path)
    with pytest.raises(ConfigError, match=r"no finished run of sft on task=jsonl task.file=.*/third.jsonl under"):
        train(tmp_path, write(tmp_path / "third.jsonl"), "grpo", init="latest:sft")


def test_a_checkpoint_from_before_this_was_saved_is_read_as_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    file = write(tmp_path / "mine.jsonl")
    path = train(tmp_path, file)
    cfg, module, run = runner.open_run(path)
    del run._saved["vocabulary"]
    assert runner.report(cfg, module, run, 16, 0, k=2) == evaluate(path)
