"""What is said of a run: each sentence where it belongs, once, with a remedy that can be set, and nothing of a healthy
run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from composed import composed
from language_runs import train
from some_tasks import task
from tiny_lm import run
from tiny_runs import record

from rlx.language import diagnose
from rlx.language.diagnose import CHECKS, GAP, PATIENCE, SHARE, Diagnosis, Seen, most_common
from rlx.training import runner

# What two healthy runs measured (seed 1): grpo on add2 from sft to accuracy 1, iterations 1-60, 271-330 and 941-1,000;
# rlhf_ppo on names with a reward model, all 100.
HEALTHY = json.loads((Path(__file__).parent / "golden/healthy.json").read_text())
GRPO, RLHF = ("algo=grpo", "task=add2"), ("algo=rlhf_ppo", "task=names")
MAX_NEW = 8
FINE = {
    "reward": 0.3, "accuracy": 0.3, "frac_reward_zero_std": 0.1, "completions/mean_length": 4.0, "entropy": 0.5,
    "completions/clipped_ratio": 0.01, SHARE: 0.05, GAP: 2e-6, "objective/kl": 3.0, "kl_coef": 0.15,
}  # fmt: skip
EQUAL, CUT = "frac_reward_zero_std", "completions/clipped_ratio"
LONG = {"completions/mean_length": 8.0, CUT: 0.97, "accuracy": 0.0}
FIRED: dict[str, tuple[Callable[[Seen], str | None], tuple[str, ...], dict[str, Any], dict[str, float], list[str]]] = {
    # check, words of the configuration, changes of it, what the last iterations measure, what the sentence says
    "all right from the start": (
        diagnose.equal_rewards, GRPO, {"first": {"accuracy": 0.99}}, {EQUAL: 1.0, "accuracy": 1.0},
        ["frac_reward_zero_std=1 ", "accuracy=1:", "all completions are right", "too easy", "lower task.sft_stop"],
    ),
    "all wrong, new weights": (
        diagnose.equal_rewards, GRPO, {"first": {"accuracy": 0.0}}, {EQUAL: 0.984, "accuracy": 0.002},
        ["frac_reward_zero_std=0.984", "all completions are wrong", "too hard", "init=latest:sft"],
    ),
    "all wrong, after sft": (
        diagnose.equal_rewards, GRPO, {"init": "there", "first": {"accuracy": 0.01}}, {EQUAL: 1.0, "accuracy": 0.0},
        ["all completions are wrong", "a higher task.sft_stop"],
    ),
    "all wrong, after it was better": (
        diagnose.equal_rewards, GRPO, {"init": "there"}, {EQUAL: 1.0, "accuracy": 0.0},
        ["accuracy=0 (it began at 0.3)", "has lost what it could do", "algo.lr=0.0002"],
    ),
    "each prompt all right or all wrong": (
        diagnose.equal_rewards, GRPO, {}, {EQUAL: 1.0, "accuracy": 0.6}, [EQUAL, "algo.dynamic_sampling=5"],
    ),
    "the same with dynamic sampling": (
        diagnose.equal_rewards, GRPO, {"algo.dynamic_sampling": 3}, {EQUAL: 1.0, "accuracy": 0.6},
        [EQUAL, "algo.temperature=1.5"],
    ),
    "the length trap": (
        diagnose.length_trap, GRPO, {"task.reward": "dense", "first": {"reward": 0.2}}, {**LONG, "reward": 0.4},
        ["reward=0.4 (it began at 0.2)", "completions/mean_length=8", "accuracy=0", "task.max_new=8",
         "task.reward=exact"],
    ),
    "no end, new weights": (
        diagnose.never_ends, GRPO, {}, {CUT: 1.0}, [f"{CUT}=1 ", "end token is never sampled", "init=latest:sft"],
    ),
    "no end": (
        diagnose.never_ends, GRPO, {"init": "there"}, {CUT: 1.0}, ["end token is never sampled", "task.max_new=16"],
    ),
    "hardly an end": (diagnose.truncated, GRPO, {}, {CUT: 0.96}, [f"{CUT}=0.96", "are cut", "task.max_new=16"]),
    "one answer": (
        diagnose.constant_answer, GRPO, {}, {SHARE: 0.9, "accuracy": 0.1},
        ["one text is 90% of", "whatever the prompt", "accuracy=0.1;", "algo.ent_coef=0.01"],
    ),
    "one answer, rlhf": (
        diagnose.constant_answer, RLHF, {"algo.kl_coef": 0.2}, {SHARE: 0.9, "accuracy": 0.1},
        ["one text is 90% of", "algo.kl_coef=0.4"],
    ),
    "no entropy": (
        diagnose.entropy_collapsed, GRPO, {}, {"entropy": 0.02}, ["entropy=0.02", "began at 0.5", "algo.ent_coef=0.01"],
    ),
    "no entropy in spite of a bonus": (
        diagnose.entropy_collapsed, GRPO, {"algo.ent_coef": 0.1, "algo.lr": 3e-3}, {"entropy": 0.02},
        ["entropy=0.02", "algo.lr=0.001"],
    ),
    "no entropy, no penalty": (
        diagnose.entropy_collapsed, RLHF, {"algo.kl_coef": 0.0}, {"entropy": 0.02},
        ["entropy=0.02", "algo.kl_coef=0.15"],
    ),
    "float32 disagrees": (
        diagnose.sampler_disagrees, GRPO, {}, {GAP: 2e-3}, [f"{GAP}=0.002", "0.001 that float32", "device=cpu"],
    ),
    "bfloat16 disagrees": (
        diagnose.sampler_disagrees, GRPO, {"model.dtype": "bfloat16"}, {GAP: 0.2},
        [f"{GAP}=0.2", "0.1 that rounding", "model.dtype=float32"],
    ),
    "rounded products disagree": (
        diagnose.sampler_disagrees, GRPO, {"model.matmul": "medium"}, {GAP: 0.2},
        [f"{GAP}=0.2", "model.matmul=highest"],
    ),
    "kl": (
        diagnose.kl_explodes, RLHF, {}, {"objective/kl": 40.0, "kl_coef": 0.5},
        ["objective/kl=40 ", "5 times algo.kl_target=6", "algo.kl_coef=0.5"],
    ),
    "kl without a target": (
        diagnose.kl_explodes, RLHF, {"algo.kl_target": 0.0}, {"objective/kl": 60.0},
        ["objective/kl=60", "above 50", "algo.kl_coef=0.3"],
    ),
}  # fmt: skip
SILENT: dict[str, tuple[Callable[[Seen], str | None], tuple[str, ...], dict[str, Any], dict[str, float]]] = {
    "a run that has become all right": (diagnose.equal_rewards, GRPO, {}, {EQUAL: 1.0, "accuracy": 0.99}),
    "rewards that are compared with no group": (
        diagnose.equal_rewards, GRPO, {"algo.baseline": "none", "algo.scale": "none"}, {EQUAL: 1.0, "accuracy": 0.0},
    ),
    "steps that are compared": (
        diagnose.equal_rewards, GRPO, {"algo.supervision": "process"}, {EQUAL: 1.0, "accuracy": 0.0},
    ),
    "a critic instead of a group": (diagnose.equal_rewards, RLHF, {}, {EQUAL: 1.0, "accuracy": 0.0}),
    "an exact reward has no trap": (diagnose.length_trap, GRPO, {"first": {"reward": 0.2}}, {**LONG, "reward": 0.4}),
    "answers of full length that end": (
        diagnose.length_trap, GRPO, {"task.reward": "dense", "first": {"reward": 0.2}}, {**LONG, CUT: 0.0},
    ),
    "a reward that does not rise": (diagnose.length_trap, GRPO, {"task.reward": "dense"}, {**LONG, "reward": 0.3}),
    "one right answer": (diagnose.constant_answer, GRPO, {}, {SHARE: 1.0, "accuracy": 0.9}),
    "certain because right": (diagnose.entropy_collapsed, GRPO, {}, {"entropy": 0.01, "accuracy": 0.95}),
    "less entropy": (diagnose.entropy_collapsed, GRPO, {}, {"entropy": 0.05}),
    "bfloat16 rounds": (diagnose.sampler_disagrees, GRPO, {"model.dtype": "bfloat16"}, {GAP: 0.05}),
    "no penalty was asked for": (diagnose.kl_explodes, RLHF, {"algo.kl_coef": 0.0}, {"objective/kl": 99.0}),
    "kl near its target": (diagnose.kl_explodes, RLHF, {}, {"objective/kl": 12.0}),
    "a KL that is in nobody's charge": (diagnose.kl_explodes, GRPO, {"algo.kl_coef": 0.1}, {"objective/kl": 99.0}),
}  # fmt: skip
fired, silent = pytest.mark.parametrize("case", FIRED), pytest.mark.parametrize("case", SILENT)


def raw(words: tuple[str, ...], **changes: Any) -> dict[str, Any]:
    """A configuration with some of its keys changed."""
    found = composed(*words, "preset=none")
    for key, value in changes.items():
        *section, last = key.split(".")
        part = found[section[0]] if section else found
        assert last in part, key
        part[last] = value
    return found


@lru_cache
def typed(words: tuple[str, ...], changes: str = "{}") -> Any:
    return runner.typed(raw(words, **json.loads(changes)))[0]


def seen(words: tuple[str, ...], changes: dict[str, Any], row: dict[str, float], num: int = PATIENCE) -> Seen:
    changes = dict(changes)
    first = {**FINE, **changes.pop("first", {})}
    return Seen(first, [{**FINE, **row}] * num, typed(words, json.dumps(changes)), MAX_NEW)


def hear(cfg: Any, rows: list[dict[str, float]]) -> list[str]:
    """What is said when a Diagnosis hears these iterations."""
    mine = run()
    diagnosis = Diagnosis(cfg, mine, SimpleNamespace(max_new=MAX_NEW, answer=str))
    for row in rows:
        texts = ["same"] * round(100 * row[SHARE]) + [str(i) for i in range(100 - round(100 * row[SHARE]))]
        diagnosis.hear(row, SimpleNamespace(prompts=["a", "b"], texts=texts))  # type: ignore[arg-type]
    return mine.notices


def test_every_check_has_a_case() -> None:
    assert {check for row in CHECKS for check in row} == {check for check, *_ in FIRED.values()}


@fired
def test_it_is_said_with_the_metric_its_value_and_a_remedy(case: str) -> None:
    check, words, changes, row, says = FIRED[case]
    text = check(seen(words, changes, row))
    assert text is not None and "\n" not in text and len(text) < 300
    assert f"for {PATIENCE} iterations" in text
    for part in says:
        assert part in text, text


@fired
def test_the_remedy_can_be_set(case: str) -> None:
    """Every key=value of a sentence is one that the run would take."""
    check, words, changes, row, _ = FIRED[case]
    text = check(seen(words, changes, row)) or ""
    keys = re.findall(r"\b((?:algo|task|model)\.\w+|init|device)(?:=([\w.:-]*\w))?", text)
    assert keys
    own = {key: value for key, value in changes.items() if key != "first"}
    for key, value in keys:
        if value:
            runner.typed(raw(words, **{**own, key: json.loads(value) if value[0].isdigit() else value}))
        else:
            assert raw(words, **{key: None})


@fired
def test_nothing_is_said_of_healthy_metrics_or_if_one_iteration_was_healthy(case: str) -> None:
    check, words, changes, row, _ = FIRED[case]
    changes = {key: value for key, value in changes.items() if key != "first"}
    assert check(seen(words, changes, {})) is None
    bad = seen(words, FIRED[case][2], row)
    for at in (0, PATIENCE // 2, PATIENCE - 1):
        for other in (FINE, dict.fromkeys(FINE, float("nan"))):
            rows = [*bad.rows[:at], other, *bad.rows[at + 1 :]]
            assert check(bad._replace(rows=rows)) is None, (at, other)


@silent
def test_nothing_is_said_where_the_same_numbers_mean_no_harm(case: str) -> None:
    check, words, changes, row = SILENT[case]
    assert check(seen(words, changes, row)) is None


@fired
def test_it_is_said_after_so_many_iterations_and_once(case: str) -> None:
    check, words, changes, row, says = FIRED[case]
    bad = seen(words, changes, row)
    rows = [bad.first, *bad.rows]
    assert hear(bad.cfg, rows[:PATIENCE]) == []
    told = hear(bad.cfg, [*rows, *bad.rows, *bad.rows, FINE, *bad.rows])
    assert len(told) == 1 and all(part in told[0] for part in says), told


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_said_of_a_healthy_run(name: str) -> None:
    columns = HEALTHY[name]
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    assert len(rows) >= 5 * PATIENCE
    assert hear(typed(GRPO if name == "grpo_add2" else RLHF), rows) == []


def test_it_takes_so_many_iterations_from_the_first_on() -> None:
    bad = seen(GRPO, {}, {CUT: 1.0})
    assert hear(bad.cfg, list(bad.rows[1:])) == [] and len(hear(bad.cfg, list(bad.rows))) == 1


def test_what_says_more_about_the_same_comes_first_and_silences_the_rest() -> None:
    trap = seen(GRPO, {"task.reward": "dense", "first": {"reward": 0.2}}, {**LONG, CUT: 1.0, "reward": 0.4})
    told = hear(trap.cfg, [trap.first, *trap.rows, *trap.rows])
    assert len(told) == 1 and "task.reward=exact" in told[0]
    late = [{**trap.rows[0], "reward": 0.2}] * PATIENCE  # at first it only never ends
    told = hear(trap.cfg, [trap.first, *late, *trap.rows, *trap.rows])
    assert len(told) == 2 and "end token" in told[0] and "task.reward=exact" in told[1]


def test_a_metric_that_is_absent_or_no_number_says_nothing() -> None:
    for words in (GRPO, RLHF):
        for value in ({}, dict.fromkeys(FINE, float("nan"))):
            bad = Seen(FINE, [{"accuracy": 0.0, "reward": 0.0, **value}] * PATIENCE, typed(words), MAX_NEW)
            assert [check(bad) for row in CHECKS for check in row] == [None] * sum(map(len, CHECKS))


def test_a_task_without_demonstrations_begins_with_pretrain() -> None:
    mine = run()
    diagnosis = Diagnosis(typed(("algo=grpo", "task=names")), mine, task("names"))
    for _ in range(PATIENCE):
        diagnosis.hear({**FINE, CUT: 1.0}, SimpleNamespace(prompts=[""], texts=["a"]))  # type: ignore[arg-type]
    (told,) = mine.notices
    assert "init=latest:pretrain" in told


def test_the_most_common_completion_counts_only_where_prompts_differ() -> None:
    assert most_common(["1+1=", "2+2="], ["7", "7", "4", "7"]) == 0.75
    assert most_common(["", ""], ["7", "7", "4", "7"]) == 0.0


def test_a_run_that_cannot_learn_says_so_once_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A new policy is never right by chance: add2 with an exact reward."""
    path = train(tmp_path, "grpo", "add2", total_steps=PATIENCE + 3, eval_every=0)
    (told,) = [text for text in record(path)["notices"] if "frac_reward_zero_std" in text]
    assert "all completions are wrong" in told and "init=latest:sft" in told
    assert capsys.readouterr().err.count(told) == 1
