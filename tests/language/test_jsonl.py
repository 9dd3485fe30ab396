"""A user's own task: what is read from the file, the verifiers, and one line for everything that can be wrong."""

from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from composed import composed
from language_runs import train as start_run
from scipy import stats
from some_tasks import rng, task
from tiny_runs import record

from rlx.base.errors import ConfigError, UserError
from rlx.language.tasks import jsonl
from rlx.language.tasks.base import is_held_out, score
from rlx.training import runner

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(20) for b in range(20)]


def make(where: Path, rows: list[Any], **changes: Any) -> Any:
    file = where / "mine.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return task("jsonl", file=str(file), **changes)


def test_alphabet_and_lengths_are_those_of_the_file(tmp_path: Path) -> None:
    it = make(tmp_path, ROWS)
    assert it.alphabet == "+0123456789=" and it.prompt_length == 6 and it.max_new == 3
    it = make(tmp_path, ROWS, prompt_length=9, max_new=5, alphabet="=+9876543210")
    assert it.alphabet == "=+9876543210" and it.prompt_length == 9 and it.max_new == 5


def test_prompts_are_those_of_the_file_split_in_two(tmp_path: Path) -> None:
    it = make(tmp_path, ROWS)
    known = {row["prompt"]: row["answer"] for row in ROWS}
    train, held = set(it.prompts(rng(), 10_000)), set(it.prompts(rng(), 2_000, held_out=True))
    assert train | held == set(known) and not train & held and all(map(is_held_out, held))
    for prompt, answer in known.items():
        assert it.answer(prompt) == answer and it.reward(prompt, answer, True) == 1
        assert not it.correct(prompt, answer, False) and not it.correct(prompt, answer + "0", True)


def test_a_small_file_does_not_split(tmp_path: Path) -> None:
    it = make(tmp_path, ROWS[:20])
    assert not it.splits and set(it.prompts(rng(), 500, held_out=True)) == {row["prompt"] for row in ROWS[:20]}


def test_blank_lines_other_keys_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'\xef\xbb\xbf\r\n{"id": 7, "prompt": "\xc3\xa9", "answer": "b"}\r\n\n')
    it = task("jsonl", file=str(file))
    assert it.alphabet == "bé" and it.answer("é") == "b"


def test_every_answer_to_a_prompt_is_right(tmp_path: Path) -> None:
    it = make(tmp_path, [{"prompt": "x", "answer": "ab"}, {"prompt": "x", "answer": "ba"}], reward="dense")
    assert it.answer("x") == "ab"
    assert [it.reward("x", text, True) for text in ("ab", "ba", "bb")] == [1, 1, 2 / 3]
    assert [it.correct("x", text, True) for text in ("ab", "ba", "bb")] == [True, True, False]


def test_contains_takes_the_answer_anywhere(tmp_path: Path) -> None:
    it = make(tmp_path, [{"prompt": "x", "answer": "ab"}], verifier="contains")
    for text, right in {"ab": 1, "aab": 1, "aba": 1, "ba": 0, "a b": 0, "": 0}.items():
        assert it.reward("x", text, True) == right and not it.correct("x", text, False)


def test_numeric_is_equality_of_fractions(tmp_path: Path) -> None:
    it = make(tmp_path, [{"prompt": "x", "answer": "-1.50"}], verifier="numeric", max_new=50)
    texts = ["-1.5", "-1.500", " -01.5 ", "1.5", "-1.5000000000000000000001", "-15", "+1.5", "-1.", "-.5", "0"]
    for text in texts:
        assert it.correct("x", text, True) == (Fraction(text) == Fraction("-3/2")) and it.well_formed("x", text, True)
    for text in ["", "-", "nan", "1e3", "-3/2", "-1.5x", "-1,5", "- 1.5", ".", "-1.5\n-1.5", "٣"]:
        assert not it.correct("x", text, True) and not it.well_formed("x", text, True)


def test_regex_matches_from_beginning_to_end(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "answer": "aab", "pattern": "a+b"}]
    it = make(tmp_path, rows, verifier="regex", max_new=9, reward="dense")
    assert [it.correct("x", text, True) for text in ("ab", "aaab", "xab", "abx", "ab\n", "")] == [True, True] + [
        False
    ] * 4
    assert it.reward("x", "ab", True) == 1.0 and it.reward("x", "aax", True) == 3 / 4


def test_preferences_come_from_the_file_and_stand_for_answers(tmp_path: Path) -> None:
    rows = [{"prompt": f"{a}?", "chosen": "yes", "rejected": "no!"} for a in range(100)]
    it = make(tmp_path, rows)
    pairs = it.pairs(rng(), 500)
    assert {pair[1:] for pair in pairs} == {("yes", "no!")} and it.answer("7?") == "yes"
    assert {prompt for prompt, _, _ in pairs} == {f"{a}?" for a in range(100) if not is_held_out(f"{a}?")}


def test_every_row_of_a_prompt_is_taught_as_often_as_the_others(tmp_path: Path) -> None:
    names = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "amelia", "harper"]
    it = make(tmp_path, [{"prompt": "name:", "answer": name} for name in names])
    drawn = Counter(answer for _, answer in it.demonstrations(rng(), 8_000))
    assert set(drawn) == set(names) and stats.chisquare([*drawn.values()]).pvalue > 1e-3
    texts = Counter(it.text(rng(), 8_000))
    assert set(texts) == {f"name:{name}" for name in names} and min(texts.values()) > 800
    assert {answer for _, answer, _ in it.pairs(rng(), 500)} == set(names)


def test_demonstrations_are_of_training_prompts_and_those_of_old_where_each_has_one(tmp_path: Path) -> None:
    it = make(tmp_path, ROWS)
    drawn = it.demonstrations(rng(), 5_000)
    assert drawn == [(prompt, it.answer(prompt)) for prompt in it.prompts(rng(), 5_000)]
    assert not any(is_held_out(prompt) for prompt, _ in drawn)


def test_preferences_that_are_all_held_out_are_not_replaced_by_invented_ones(tmp_path: Path) -> None:
    held = [f"{a}?" for a in range(100) if is_held_out(f"{a}?")]
    rows = [{"prompt": prompt, "chosen": "yes", "rejected": "no!"} for prompt in held]
    rows += [{"prompt": f"{a}?", "answer": "yes"} for a in range(100) if f"{a}?" not in held]
    it = make(tmp_path, rows)
    with pytest.raises(UserError, match=f"the prompts of all its {len(held)} preferences are held out for evaluation"):
        it.pairs(rng(), 1)
    words = ["algo=dpo", "task=jsonl", f"task.file={it.file}", "algo.data=task", f"runs_dir={tmp_path / 'runs'}"]
    with pytest.raises(ConfigError, match="preferences are held out"):
        runner.start(composed(*words), ["rlx", "train"], lambda *_: None)
    assert not (tmp_path / "runs").exists()


def test_keys_that_count_for_nothing_are_said(tmp_path: Path) -> None:
    assert not make(tmp_path, ROWS).notices
    odd = [OK, {**OK, "anwser": "3"}, '{"prompt": "1+2=", "answer": "4", "answer": "3"}', {**OK, "id": "7"}]
    it = make(tmp_path, odd)
    file = f"task.file={tmp_path / 'mine.jsonl'}"
    assert it.notices == [
        f"{file}: line 2 (and 1 other lines): the unknown key 'anwser', 'id' is not read",
        f"{file}: line 3: the duplicate key 'answer' counts with its last value",
    ]
    assert it.answer("1+2=") == "3"


def test_a_run_says_so_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({**OK, "id": "7"}))
    path = start_run(tmp_path, "sft", "jsonl", **{"task.file": str(file), "task.sft_stop": 0.0, "total_steps": 2})
    assert [line for line in record(path)["notices"] if "unknown key 'id' is not read" in line]
    assert not runner.open_policy(path)[1].task.reward("1+1=", "3", True)


def test_without_preferences_a_rejected_answer_is_a_changed_one(tmp_path: Path) -> None:
    for prompt, chosen, rejected in make(tmp_path, ROWS).pairs(rng(), 200):
        assert chosen == str(eval(prompt[:-1])) != rejected
    one = make(tmp_path, [{"prompt": "x", "answer": "aa"}], max_new=4).pairs(rng(), 50)
    assert {rejected for _, _, rejected in one} == {"a", "aaa"}  # no other character there is
    empty = make(tmp_path, [{"prompt": "x", "answer": ""}], max_new=4).pairs(rng(), 9)
    assert {pair[1:] for pair in empty} == {("", "x")}
    with pytest.raises(UserError, match="^task=jsonl: no wrong answer found by changing one character of a$"):
        make(tmp_path, [{"prompt": "x", "answer": "a", "pattern": ".*"}], verifier="regex").pairs(rng(), 1)


OK = {"prompt": "1+1=", "answer": "2"}


@pytest.mark.parametrize(
    "rows, changes, fault",
    [
        ([], {}, "is empty (needed: one JSON object a line"),
        (["", "  "], {}, "is empty"),
        ([OK, "{oops"], {}, "line 2: is not JSON: Expecting property name"),
        ([OK, "", "[1]"], {}, "line 3: [1]: must be an object"),
        (["[" * 100_000], {}, "line 1: is not JSON"),
        ([OK, {"answer": "2"}], {}, "line 2: no prompt (task.verifier=exact needs prompt, answer)"),
        ([{"prompt": "x"}], {}, "line 1: no answer"),
        ([OK], {"verifier": "regex"}, "line 1: no pattern (task.verifier=regex needs prompt, answer, pattern)"),
        ([{"prompt": "x", "answer": 2}], {}, "line 1: answer=2: must be a string in quotes"),
        ([{"prompt": None, "answer": "2"}], {}, "line 1: prompt=null: must be a string"),
        ([{**OK, "chosen": "2"}], {}, "line 1: has chosen alone"),
        ([{**OK, "chosen": "2", "rejected": "2"}], {}, "line 1: chosen and rejected are both 2"),
        ([OK, {**OK, "answer": "\ud83d"}], {}, "line 2: answer has '\\ud83d', half of a character"),
        ([{**OK, "prompt": "a\udc00b"}], {}, "line 1: prompt has '\\udc00', half of a character"),
        ([{**OK, "answer": ""}], {"verifier": "contains"}, "line 1: answer='': every completion contains that"),
        (
            [{"prompt": "x", "anwser": "y"}],
            {},
            "line 1: no answer (task.verifier=exact needs prompt, answer; it has 'anw",
        ),
        (
            [OK, {**OK, "prompt": "10+1="}],
            {"prompt_length": 4},
            "line 2: the prompt has 5 characters; task.prompt_length=4",
        ),
        ([OK, {**OK, "answer": "22"}], {"max_new": 2}, "line 2: answer and its end have 3 tokens; task.max_new=2"),
        (
            [OK, {**OK, "answer": "3"}],
            {"alphabet": "12+="},
            "line 2: answer has '3', which is not in task.alphabet=12+=",
        ),
        ([{**OK, "answer": "two"}], {"verifier": "numeric"}, "line 1: answer=two: must be a number"),
        ([{**OK, "pattern": "("}], {"verifier": "regex"}, "line 1: pattern=(: is no regular expression: missing )"),
        ([{**OK, "pattern": "3"}], {"verifier": "regex"}, "line 1: answer=2: does not match pattern=3"),
    ],
)
def test_a_fault_is_one_line_that_names_its_place(
    tmp_path: Path, rows: list[Any], changes: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make(tmp_path, rows, **changes)
    message = str(error.value)
    assert message.startswith("task.file=") and fault in message and "\n" not in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{}")
    for name, fault in (
        ("gone", "no such file"),
        (".", "cannot be read: Is a directory"),
        ("bytes", "is not UTF-8 text"),
    ):
        with pytest.raises(ConfigError, match=f"^task.file=.*: {fault}"):
            task("jsonl", file=str(tmp_path / name))


# -- verifiers that do not come back, or raise -------------------------------------------------------------------

ENDLESS = "(a+)+b"


def test_a_pattern_that_never_ends_on_its_own_answer_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(jsonl, "SECONDS", 0.2)
    row = {"prompt": "x", "answer": "a" * 40, "pattern": ENDLESS}
    with pytest.raises(
        ConfigError, match=r"line 1: pattern=\(a\+\)\+b: takes more than 0.2 seconds to match answer=aaa"
    ):
        make(tmp_path, [row], verifier="regex")


def test_a_pattern_that_never_ends_on_a_completion_ends_the_run_and_names_both(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(jsonl.Task, "seconds", 0.2)
    it = make(tmp_path, [{"prompt": "x", "answer": "ab", "pattern": ENDLESS}], verifier="regex")
    assert score(it, ["x", "x"], ["aab", "c"], [True, True])["reward"].tolist() == [1, 0]
    with pytest.raises(TimeoutError, match="^task=jsonl: judging completion a{40} to prompt x takes more than 0.2 sec"):
        score(it, ["x", "x"], ["ab", "a" * 40], [True, True])


@pytest.mark.parametrize("name", ["reward", "correct", "well_formed"])
def test_a_reward_that_raises_names_prompt_and_completion(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    it = make(tmp_path, ROWS[:2])
    monkeypatch.setattr(it, name, lambda *_: 1 // 0)
    with pytest.raises(RuntimeError) as error:
        score(it, ["0+0="], ["7"], [True])
    assert str(error.value) == (
        "task=jsonl: judging completion 7 to prompt 0+0= raises ZeroDivisionError: integer division or modulo by zero"
    )
