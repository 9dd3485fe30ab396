"""`rlx explain RUN`: the run in words. Each rule is tested on the recorded metrics of a run broken on purpose.

runs/NAME.json has configuration, command, outcome and every n-th line of the metrics of a run of one command, which
stands in it.
"""

from __future__ import annotations

import json
import re
import resource
from functools import cache
from pathlib import Path

import pytest
import tiny_runs
import yaml
from command_line import Forks, imported

from rlx.config import registry
from rlx.explain import keys
from rlx.explain.answer import answer
from rlx.explain.runs import rules, story
from rlx.explain.runs.record import Record

RUNS = Path(__file__).parent / "runs"
BROKEN = {  # a run -> what is heard first, and what to try
    "lr_too_large": ("kl_too_large", "algo.lr=0.03"),
    "clip_1e9": ("no_clip", "algo.clip_coef=0.2"),
    "lr_too_small": ("nothing_moves", "algo.lr=3e-06"),
    "no_search": ("search_refused", "algo.line_search_steps=10 algo.cg_damping=0.1"),
    "q_diverges": ("q_diverges", "algo.double=true algo.lr=0.01"),
    "entropy_gone": ("entropy_gone", "algo.ent_coef=0.01"),
    "epsilon_high": ("epsilon_high", "algo.final_epsilon=0.05 algo.exploration_fraction=0.5"),
    "never_reached": ("same_return", "algo.ent_coef=0.01"),
    "no_critic": ("critic_explains_little", "algo.vf_coef=0.5"),
    "gamma_0": ("shortsighted", "algo.gamma=0.99"),
    "small_replay": ("replay_too_small", "algo.buffer_size=10112"),
    "grpo_equal": ("equal_groups", "init=latest:sft"),
    "grpo_collapse": ("lost_what_it_could", "algo.lr=0.003"),
    "rlhf_hacked": ("reward_model_gamed", "algo.kl_coef=0.15"),
    "left_reference": ("left_reference", "algo.kl_coef=0.15"),
    "dpo_far": ("both_improbable", "algo.beta=0.05 algo.lr=0.003"),
}
ALSO = {"lr_too_large": "fell_back", "epsilon_high": "still_rising", "grpo_equal": "cut_completions"}  # heard behind it


@cache
def recorded(name: str) -> Record:
    content = json.loads((RUNS / f"{name}.json").read_text())
    return Record(content["config"], content["rows"], content["about"], content["status"])


@cache
def heard(name: str) -> dict[str, rules.Advice]:
    return {rule.__name__: finding for rule, finding in rules.findings(recorded(name))}


@pytest.mark.parametrize("name", BROKEN)
def test_a_run_broken_on_purpose_is_told_what_broke_it_and_what_to_try(name: str) -> None:
    rule, words = BROKEN[name]
    first = next(iter(heard(name)))
    assert first == rule and " ".join(heard(name)[rule].words) == words
    page = story.tell(recorded(name))
    held = page.index("what held it back:")
    assert page[held + 1] == f"- {heard(name)[rule].text}"
    assert any(line.startswith("    rlx train ") and line.endswith(words) for line in page)


@pytest.mark.parametrize("name", ALSO)
def test_what_came_of_it_is_said_behind_it(name: str) -> None:
    assert ALSO[name] in [*heard(name)][1:]


@pytest.mark.parametrize("name", ["healthy", "grpo_healthy"])
def test_of_a_run_that_went_well_no_rule_says_anything(name: str) -> None:
    assert heard(name) == {} and recorded(name).solved
    page = story.tell(recorded(name))
    assert page[1].startswith("solved at step ") and "what held it back:" not in page
    assert any(line.startswith("    rlx train -m ") and line.endswith("seed=1,2,3") for line in page)


def test_every_rule_is_tested_and_has_a_source() -> None:
    every = {rule.__name__: rule for row in rules.RULES for rule in row}
    assert set(every) == {rule for rule, _ in BROKEN.values()} | {*ALSO.values()}
    for name, rule in every.items():
        source = r"\(arXiv:|\d{4}|rlx\.\w+|The converse of `\w+`"
        assert rule.__doc__ and re.search(source, rule.__doc__), name


@pytest.mark.parametrize("name", [*BROKEN, "healthy", "grpo_healthy"])
def test_a_command_to_try_has_keys_that_exist_and_each_once(name: str) -> None:
    lines = [line for line in story.tell(recorded(name)) if line.startswith("    rlx train")]
    for line in lines:
        words = [word.partition("=")[0] for word in line.split()[2:] if "=" in word]
        assert len(words) == len({*words}) and {"algo"} < {*words}
        for word in words:
            assert word in registry.groups() or word in keys.texts(), word


def test_without_its_broken_value_a_rule_is_silent() -> None:
    """Each number that a rule reads decides: the same metrics, sound ones in place of the broken one."""
    sound = {
        "lr_too_large": ("train/approx_kl", 0.01, "kl_too_large"),
        "no_search": ("train/is_line_search_success", 1.0, "search_refused"),
        "q_diverges": ("train/q_value", 80.0, "q_diverges"),
        "entropy_gone": ("train/entropy_loss", -1.0, "entropy_gone"),
        "epsilon_high": ("rollout/exploration_rate", 0.05, "epsilon_high"),
        "no_critic": ("train/explained_variance", 0.8, "critic_explains_little"),
        "grpo_equal": ("frac_reward_zero_std", 0.2, "equal_groups"),
        "left_reference": ("objective/kl", 0.6, "left_reference"),
    }
    for name, (metric, value, rule) in sound.items():
        content = json.loads((RUNS / f"{name}.json").read_text())
        rows = [{**row, metric: value} if metric in row else row for row in content["rows"]]
        mended = Record(content["config"], rows, content["about"], content["status"])
        assert rule not in {each.__name__ for each, _ in rules.findings(mended)}, name


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_says_what_ran_how_it_ended_and_whether_it_kept_its_promise() -> None:
    page = story.tell(recorded("healthy"))
    assert page[0].startswith("ppo on env=cartpole, seed 1: finished after 60,160 steps in ")
    assert page[1] == "solved at step 30,208, steady since: 500 at the end, target 500"
    assert page[2].startswith("promise: 500 after 100,000 steps in 6 s (") and page[2].endswith(": kept")
    assert story.tell(recorded("lr_too_large"))[2].endswith(": open, it ran 40% of those steps")


def test_a_promise_is_judged_by_the_metric_that_it_names() -> None:
    promise = {"score": 0.9, "metric": "eval/greedy_accuracy"}
    config = {"algo": {"name": "grpo"}, "task": {"name": "add2"}, "seed": 1, "total_steps": 50, "expect": promise}
    about, status = {"task": "add2", "algo": "grpo"}, {"status": "finished"}
    rows = [{"step": step, "reward": step / 100} for step in range(10, 60, 10)]
    page = story.tell(Record(config, rows, about, status))
    assert page[1].startswith("score: 0.5 at the end") and page[2].endswith("open, the run has no eval/greedy_accuracy")
    page = story.tell(Record(config, [*rows, {"step": 50, "eval/greedy_accuracy": 0.92}], about, status))
    assert page[1].startswith("solved at step 50") and page[2].endswith(": kept")


def test_a_run_that_writes_no_completions_is_evaluated_and_not_sampled() -> None:
    config = {"algo": {"name": "reward_model"}, "task": {"name": "names"}, "seed": 1, "total_steps": 5}
    about = {"task": "names", "algo": "reward_model", "facts": {"scores": True}}
    page = story.tell(Record(config, [{"step": 5, "eval/accuracy": 0.9}], about, {"status": "finished"}), "X")
    assert "    rlx eval X" in page


def test_where_the_time_went_is_said_where_the_run_recorded_it() -> None:
    content = json.loads((RUNS / "healthy.json").read_text())
    assert not any("time went" in line for line in story.tell(recorded("healthy")))
    rows = [{**row, "time/time_elapsed": 4.0, "time/env": 0.25, "time/learn": 0.75} for row in content["rows"]]
    page = story.tell(Record(content["config"], rows, content["about"], content["status"]))
    assert "where the time went: learning 3.0 s (75%), environments 1.0 s (25%)" in page


def test_a_run_that_was_interrupted_is_resumed_and_one_without_metrics_is_told_too() -> None:
    about, status = {"env": "cartpole", "algo": "ppo"}, {"status": "interrupted", "error": "by SIGINT"}
    config = {"algo": {"name": "ppo"}, "env": {"name": "cartpole"}, "seed": 1, "total_steps": 100}
    page = story.tell(Record(config, [], about, status), "runs/x y")
    assert page[0] == "ppo on env=cartpole, seed 1: interrupted after 0 of 100 steps (by SIGINT)"
    assert page[1].startswith("no score yet") and page[-1] == "    rlx resume 'runs/x y'"


def test_a_run_is_explained_by_its_path_and_as_the_latest(tmp_path: Path, forks: Forks) -> None:
    run = tiny_runs.train(tmp_path / "runs", total_steps=320)
    by_path = forks("explain", str(run), cwd=tmp_path)
    latest = forks("explain", "latest", cwd=tmp_path)
    for done in (by_path, latest):
        assert done.code == 0 and "ppo on env=cartpole, seed 1: finished after 320 steps" in done.out
    missing = forks("explain", "latest:dqn", cwd=tmp_path)
    assert missing.code == 2 and "there is no run of dqn" in missing.err
    assert imported("explain", "latest", cwd=tmp_path)[0] == set()
    (run / "metrics.jsonl").write_bytes(b'{"step": 1, "train/approx_kl": "x"}\n[]\n{"step": null}\n\xff\n{"st')
    torn = forks("explain", str(run), cwd=tmp_path)
    assert torn.code == 0 and "no score yet" in torn.out
    (run / "config.yaml").write_text("a: [")
    broken = forks("explain", str(run), cwd=tmp_path)
    assert broken.code == 2 and len(broken.err.splitlines()) == 1


def test_a_run_is_explained_without_importing_anything_slow(tmp_path: Path) -> None:
    content = json.loads((RUNS / "lr_too_large.json").read_text())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content["config"]))
    (tmp_path / "run.json").write_text(json.dumps(content["about"]))
    (tmp_path / "status.json").write_text(json.dumps(content["status"]))
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in content["rows"]))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    slow, out = imported("explain", str(tmp_path), cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert slow == set() and "what held it back:" in out and "rlx train" in out
    assert after.ru_utime - before.ru_utime < 0.5  # .2 on a machine of its own
    assert answer([str(tmp_path)])[1:3] == story.tell(Record.read(tmp_path))[:2]
