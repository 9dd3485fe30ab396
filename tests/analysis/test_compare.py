"""rlx compare and rlx diff: the sides, the verdict, the notes, the errors."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_line import Forks, imported
from fake_runs import make_run, ramp

from rlx.analysis import statistics
from rlx.analysis.compare import build, diff
from rlx.analysis.compare.result import ComparisonData, Result
from rlx.cli.printing import comparing, text


def side(root: Path, scores: Sequence[float], **options: Any) -> str:
    for i, score in enumerate(scores):
        make_run(root, f"{options.get('env', 'cartpole')}_{i:02d}_s{i}", ramp(1), seed=i, score=float(score), **options)
    return str(root)


def only(found: ComparisonData) -> Result:
    [pair] = found.pairs
    [result] = pair.results
    return result


def edit(path: Path, name: str, **changes: Any) -> None:
    file = path / name
    read, write = (yaml.safe_load, yaml.safe_dump) if name.endswith("yaml") else (json.loads, json.dumps)
    file.write_text(write({**read(file.read_text()), **changes}))


RNG = np.random.default_rng(0)
HIGH, LOW = list(RNG.normal(480, 10, 10)), list(RNG.normal(400, 30, 10))


# -- the verdict ---------------------------------------------------------------------------------------------------


def test_what_is_printed_is_what_the_statistics_say(tmp_path: Path) -> None:
    found = build.build([side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)])
    result = only(found)
    assert result.difference == statistics.difference(HIGH, LOW) and result.seeds == (10, 10)
    assert result.improvement == statistics.improvement(HIGH, LOW)
    assert result.better == "A" and result.verdict.startswith("A is better than B (probability of improvement 1.00 [.")
    [(place, of)] = found.sides[1].summary(found.names, False)
    assert place == "cartpole" and of["iqm"] == statistics.estimate(LOW)
    assert (of["seeds"], of["mean"], of["worst"]) == (10, pytest.approx(np.mean(LOW)), min(LOW))
    assert found.notes == []


def test_the_other_way_round_the_other_side_is_better_with_the_same_interval(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH[:5]), side(tmp_path / "b", LOW[:5])
    one, other = only(build.build([a, b])), only(build.build([b, a]))
    assert (one.better, other.better) == ("A", "B")
    assert one.verdict.partition("(")[2] == other.verdict.partition("(")[2]


def test_lower_can_be_better(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    found = build.build([a, b], lower=True)
    assert only(found).better == "B" and only(found).improvement.value < 0.1
    assert found.sides[0].summary(found.names, True)[0][1]["worst"] == max(HIGH)


def test_what_three_seeds_cannot_tell_is_said_with_the_seeds_that_could(tmp_path: Path) -> None:
    x, y = [480.0, 500.0, 470.0], [460.0, 475.0, 450.0]
    result = only(build.build([side(tmp_path / "a", x), side(tmp_path / "b", y)]))
    assert result.better is None and result.needed == statistics.difference(x, y).seeds_needed(3, 3)
    assert result.verdict.startswith(f"not distinguishable with 3 seeds; about {result.needed} seeds per side would")


def test_a_difference_that_a_hundred_seeds_would_not_find_is_more_than_100(tmp_path: Path) -> None:
    x = [480.0, 500.0, 470.0]
    result = only(build.build([side(tmp_path / "a", x), side(tmp_path / "b", [each + 0.1 for each in x])]))
    assert "; more than 100 seeds per side would settle it" in result.verdict and result.needed is None


@pytest.mark.parametrize(
    "a, b, said",
    [
        ([500.0], [400.0], "one seed does not show the spread"),
        ([500.0], HIGH, "one seed does not show the spread"),
        ([500.0] * 3, [500.0] * 4, "equal: every seed scored 500"),
        ([500.0] * 2, [400.0] * 2, "not distinguishable with 2 seeds, which agree"),
        ([500.0] * 3, [400.0] * 3, "A is better than B (probability of improvement 1.00)"),
        ([500.0] * 3, [400.0, 401.0, 399.0], "A is better than B"),
        ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], "not distinguishable with 3 seeds: the observed difference is 0"),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 2.0, 2.1], "not distinguishable with 3 and 5 seeds; "),
    ],
)
def test_the_verdict_of_few_or_equal_scores(a: list[float], b: list[float], said: str, tmp_path: Path) -> None:
    assert only(build.build([side(tmp_path / "a", a), side(tmp_path / "b", b)])).verdict.startswith(said)


def test_over_several_environments_only_the_probability_of_improvement_is_averaged(tmp_path: Path) -> None:
    for name, scores in (("a", HIGH), ("b", LOW)):
        side(tmp_path / name, scores[:3])
        side(tmp_path / name, [score / 1000 for score in scores[3:6]], env="acrobot")
    [pair] = build.build([str(tmp_path / "a"), str(tmp_path / "b")]).pairs
    assert [result.place for result in pair.results] == ["acrobot", "cartpole", "all 2"]
    total = pair.results[-1]
    assert total.difference is None and total.better == "A"
    assert total.improvement == statistics.mean_improvement([result.improvement for result in pair.results[:2]])


# -- the sides -----------------------------------------------------------------------------------------------------


def test_a_side_is_a_directory_or_a_pattern_and_one_word_is_grouped_by_configuration(tmp_path: Path) -> None:
    side(tmp_path / "ppo", HIGH, name="ppo")
    side(tmp_path / "dqn", LOW, name="dqn")
    by_word = build.build([str(tmp_path / "dqn"), f"{tmp_path}/p*/*"])
    alone = build.build([str(tmp_path)])
    assert [found.label for found in alone.sides] == ["dqn", "ppo"]
    assert only(by_word).difference == only(alone).difference
    assert only(build.build([f"{tmp_path}/*/*"], by=["algo.name"])).better == "B"


def test_a_pattern_that_the_shell_expanded_is_grouped_again(tmp_path: Path) -> None:
    for name, scores in (("ppo", HIGH), ("dqn", LOW)):
        side(tmp_path / name, scores[:4], name=name)
    found = build.build([str(path) for path in sorted(tmp_path.glob("*/*"))])
    assert [each.label for each in found.sides] == ["dqn", "ppo"] and only(found).seeds == (4, 4)
    assert found.notes[0].startswith("each word is one run, so they are grouped by configuration")


def test_a_group_of_the_configuration_groups_by_its_name(tmp_path: Path) -> None:
    for name, scores in (("ppo", HIGH), ("dqn", LOW)):
        side(tmp_path / name, scores[:4], name=name)
    short, whole = (build.build([str(tmp_path)], by=keys) for keys in (["algo", "env"], ["algo.name", "env.name"]))
    assert short.to_json() == whole.to_json() and len(short.sides) == 2


def test_three_sides_are_three_pairs(tmp_path: Path) -> None:
    for lr in (1, 2, 3):
        side(tmp_path / str(lr), [score * lr for score in HIGH[:5]], lr=lr)
    found = build.build([str(tmp_path)])
    assert [side.label for side in found.sides] == ["lr=1", "lr=2", "lr=3"]
    assert [(pair.first.name, pair.second.name) for pair in found.pairs] == [("A", "B"), ("A", "C"), ("B", "C")]
    assert all(pair.results[0].better == pair.second.name for pair in found.pairs)


def test_another_metric_is_its_last_value(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    found = build.build([a, b], "ep_rew_mean")
    assert found.metric == "rollout/ep_rew_mean" and only(found).verdict == "equal: every seed scored 100"


# -- what is said beside it ----------------------------------------------------------------------------------------


def notes(*words: str) -> str:
    return "\n".join(build.build(list(words)).notes)


def test_runs_that_did_not_finish_are_left_out_and_counted(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    for i, status in enumerate(("failed", "failed", "pruned", "running")):
        make_run(tmp_path / "a", f"x{i}", ramp(1), seed=20 + i, score=0.0, status=status)
    make_run(tmp_path / "b", "y", ramp(1), seed=20)
    found = build.build([a, b])
    assert only(found).seeds == (10, 10)
    assert found.notes == ["A: left out 2 failed, 1 pruned, 1 killed", "B: left out 1 without an evaluation"]


def test_a_repeated_seed_is_no_further_seed(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    make_run(tmp_path / "a", "z", ramp(1), seed=0, score=1.0)
    found = build.build([a, b])
    assert only(found).seeds[0] == 10 and min(found.sides[0].scores(next(iter(found.names)))) == 1.0
    assert found.notes == ["A: 1 earlier run of the same configuration and seed left out"]


def test_of_fewer_than_ten_seeds_the_note_says_what_intervals_are_worth(tmp_path: Path) -> None:
    said = notes(side(tmp_path / "a", HIGH[:4]), side(tmp_path / "b", LOW))
    assert "fewer than 10 seeds (4)" in said and "75, 89, 94 %" in said


def test_what_else_differs_between_the_sides_is_noted(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW, lr=0.5)
    assert notes(a, b) == ""  # the one key that is compared
    for path in (tmp_path / "b").iterdir():
        edit(path, "config.yaml", total_steps=200, model={"hidden": [8]})
        edit(path, "run.json", versions={"torch": "2.9"}, git={"commit": "f" * 40})
    said = notes(a, b)
    assert "A and B were trained for different steps: 100 and 200" in said
    assert "A and B differ in algo.lr, model.hidden" in said
    assert "made by different versions: " in said and "torch 2.13.0 and 2.9" in said and "git commit" in said


def test_step_counts_are_numbers_and_all_of_them_are_said(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    for i, path in enumerate(sorted((tmp_path / "b").iterdir())):
        edit(path, "config.yaml", total_steps=16_000 if i % 2 else 8_000)
    for path in (tmp_path / "a").iterdir():
        edit(path, "config.yaml", total_steps=8_000)
    assert "A and B were trained for different steps: 8000 and 8000/16000" in notes(a, b)


def test_each_environment_has_its_own_step_counts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        side(tmp_path / name, HIGH, env="acrobot")
        side(tmp_path / name, LOW)
    for path in (tmp_path / "b").glob("acrobot*"):
        edit(path, "config.yaml", total_steps=8_000)
    said = notes(str(tmp_path / "a"), str(tmp_path / "b"))
    assert "A and B were trained for different steps on acrobot: 100 and 8000" in said and "on cartpole" not in said


def test_keys_that_cannot_matter_are_not_blamed(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH), side(tmp_path / "b", LOW)
    for i, path in enumerate((tmp_path / "b").iterdir()):
        edit(path, "config.yaml", checkpoint_every=100 + i)
    assert notes(a, b) == ""


def test_a_pattern_that_pools_sweeps_says_so(tmp_path: Path) -> None:
    for name in ("one", "two"):
        side(tmp_path / "sweeps" / name, HIGH[:5])
        (tmp_path / "sweeps" / name / "sweep.json").write_text("{}")
    b = side(tmp_path / "b", LOW)
    said = notes(f"{tmp_path}/sweeps/*/*", b)
    assert "A: 5 earlier runs of the same configuration and seed left out" in said  # those of the older sweep
    for path in (tmp_path / "sweeps" / "two").iterdir():
        if path.is_dir():
            edit(path, "config.yaml", seed=70 + int(path.name[-1]))
    assert "A pools the runs of 2 sweeps: one, two" in notes(f"{tmp_path}/sweeps/*/*", b)


def test_below_five_seeds_the_scores_are_shown_and_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    comparing.compared(build.build([side(tmp_path / "a", [0.0, 500.0]), side(tmp_path / "b", [480.0, 500.0])]))
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if "note:" not in line]
    assert "0 500" in out and "480 500" in out and not any("[" in line for line in rows)
    assert "note: fewer than 5 seeds (2): too few for an interval, so only the scores are shown" in out


def test_every_row_of_a_csv_names_its_side(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any) -> None:
    sides = [[str(side(tmp_path / f"{name}_{env}", HIGH, env=env)) for env in ("one", "two")] for name in "ab"]
    monkeypatch.setattr(text, "form", "csv")
    comparing.compared(build.build(sides))
    rows = list(csv.reader(capsys.readouterr().out.splitlines()))
    assert rows[0][:3] == ["side", "env", "seeds"] and rows[0][-1] == "configuration"
    assert [row[:2] for row in rows[1:5]] == [["A", "one"], ["A", "two"], ["B", "one"], ["B", "two"]]


def test_an_interval_of_shares_keeps_inside_what_is_possible(tmp_path: Path) -> None:
    x, y = [0.0, 1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0, 0.9]
    assert statistics.estimate(x).high > 1 and statistics.difference(x, y).high > 1
    found = build.build([side(tmp_path / "a", x, task="add2"), side(tmp_path / "b", y, task="add2")])
    for each in found.to_json()["sides"]:
        at = each["places"][0]["iqm"]
        assert 0 <= at["low"] < at["high"] <= 1
    assert -1 <= only(found).difference.low < only(found).difference.high <= 1


def test_an_interval_of_returns_keeps_inside_what_an_episode_can_give(tmp_path: Path) -> None:
    x, y = [500.0, 500.0, 500.0, 500.0, 9.0], [10.0, 300.0, 0.0, 0.0, 0.0]
    assert statistics.estimate(x).high > 500 and statistics.estimate(y).low < 0
    sides = [side(tmp_path / "a", x), side(tmp_path / "b", y)]
    for path in tmp_path.glob("*/*"):
        edit(path, "config.yaml", env={"name": "cartpole", "id": "CartPole-v1", "wrappers": []})
    found = build.build(sides)
    for each in found.to_json()["sides"]:
        at = each["places"][0]["iqm"]
        assert 0 <= at["low"] < at["high"] <= 500
    assert -500 <= only(found).difference.low < only(found).difference.high <= 500


def test_of_two_algorithms_every_differing_key_that_both_have_is_noted(tmp_path: Path) -> None:
    a, b = side(tmp_path / "a", HIGH, name="ppo"), side(tmp_path / "b", LOW, name="dqn", tau=1, gamma=0.9)
    assert notes(a, b) == ""  # gamma and tau: of one only
    c = side(tmp_path / "c", LOW, name="dqn", tau=1, lr=0.5)
    assert notes(a, c) == "A and B differ in algo.lr too"
    d = side(tmp_path / "d", LOW, name="dqn", lr=0.5, **dict.fromkeys("abcde", 0))
    e = side(tmp_path / "e", HIGH, name="ppo", **dict.fromkeys("abcde", 1))
    assert notes(d, e) == "A and B differ in algo.lr, algo.a, algo.b, algo.c, algo.d, algo.e too"
    for path in (tmp_path / "b").iterdir():
        edit(path, "config.yaml", env={"name": "cartpole", "id": "cartpole-v1", "wrappers": ["x"]})
    assert "A and B differ in env.wrappers too" in notes(a, b)


def test_sides_that_share_runs_or_no_environment_are_noted(tmp_path: Path) -> None:
    a = side(tmp_path / "a", HIGH)
    assert "A and B share 10 runs" in notes(a, f"{a}/*")
    other = side(tmp_path / "b", LOW, env="acrobot")
    assert "A and B have no environment or task in common" in notes(a, other)
    make_run(tmp_path / "c", "x", ramp(1), status="failed")
    assert "B has no finished run to compare" in notes(a, str(tmp_path / "c"))


def test_a_side_of_several_configurations_says_so_and_is_stratified(tmp_path: Path) -> None:
    side(tmp_path / "a" / "1", [1.0, 1.1, 1.2], lr=1)
    side(tmp_path / "a" / "2", [9.0, 9.1, 9.2], lr=2)
    found = build.build([str(tmp_path / "a"), side(tmp_path / "b", HIGH)])
    [(_, of)] = found.sides[0].summary(found.names, False)
    assert "A pools runs that differ in algo.lr" in found.notes
    assert only(found).difference.high - only(found).difference.low < 14  # 12.5, nearly all of it of B
    assert (
        of["iqm"].high - of["iqm"].low < 1 < statistics.estimate([1.0, 1.1, 1.2, 9.0, 9.1, 9.2]).high - of["iqm"].value
    )


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "GLOB is missing"),
        (["a"], "there is only one side"),
        (["nix", "a"], "nix: no such directory"),
        (["a", "nix*"], "nix*: no run matches"),
        (["a", "b", "--metric", "rollout/ep_rew"], "did you mean 'rollout/ep_rew_mean'?"),
        (["a", "b", "--metric", "zzz"], "no run has it (there are: eval, eval/mean_reward, rollout/"),
        (["a", "b", "--by", "name"], "which of algo.name, env.name?"),
        (["c", "c/*"], "no finished run has eval; A: left out 1 failed; B: left out 1 failed"),
        (["c", "--by", "algo.lr"], "no finished run has eval; left out 1 failed (--metric takes any key"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(words: list[str], said: str, tmp_path: Path, forks: Forks) -> None:
    for name in "ab":
        side(tmp_path / name, HIGH[:2])
    make_run(tmp_path / "c", "x", ramp(1), status="failed")
    done = forks("compare", *words, cwd=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done


def test_comparing_needs_no_torch(tmp_path: Path) -> None:
    for name in "ab":
        side(tmp_path / name, HIGH[:3])
    modules, out = imported("compare", "a", "b", cwd=tmp_path)
    assert modules == set() and "not distinguishable" in out


def test_the_table_and_the_json_say_the_same(tmp_path: Path, forks: Forks) -> None:
    side(tmp_path / "a", HIGH, name="ppo")
    side(tmp_path / "b", LOW, name="dqn")
    done, raw = (forks("compare", "a", "b/*", *more, cwd=tmp_path) for more in ((), ("--json",)))
    found = json.loads(raw.out)
    [result] = found["pairs"][0]["results"]
    assert result["verdict"] in done.out and done.code == raw.code == 0 and done.err == raw.err == ""
    assert [side["label"] for side in found["sides"]] == ["a", "b/*"] and len(found["sides"][0]["runs"]) == 10
    assert f"{found['sides'][0]['places'][0]['iqm']['value']:.4g}" in done.out and found["level"] == 0.95


# -- rlx diff ------------------------------------------------------------------------------------------------------


def test_two_seeds_are_the_same_configuration(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / str(seed), "x", ramp(seed), seed=seed, score=float(seed)) for seed in (1, 2))
    found = diff.build(a, b)
    assert found["same_config"] and not found["same_seed"]
    assert found["config"] == {"seed": [1, 2], "video": [True, False]}  # what is filmed changes no result
    assert found["origin"] == {} and found["same_weights"] is None
    assert found["outcome"]["eval"] == [1.0, 2.0] and found["outcome"]["seconds"] == [10.0, 10.0]


def test_weights_are_compared_by_their_hash_and_versions_by_name(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path, name, ramp(1), lr=lr) for name, lr in (("a", 1), ("b", 2)))
    for path in (a, b):
        edit(path, "status.json", weights_sha256="5" * 64)
    edit(b, "run.json", host="other", versions={"torch": "3"})
    found = diff.build(a, b)
    assert found["same_weights"] and found["same_seed"] and not found["same_config"]
    assert found["config"] == {"algo.lr": [1, 2]} and found["origin"]["versions.torch"] == ["2.13.0", "3"]
    assert found["origin"]["host"] == ["box", "other"] and found["origin"]["versions.rlx"] == ["0.1.0", None]
    edit(b, "status.json", weights_sha256="6" * 64)
    assert diff.build(a, b)["same_weights"] is False


def test_diff_prints_what_json_says(place: Path, forks: Forks) -> None:
    done = forks("diff", "runs/done", "latest", cwd=place)
    assert done.code == 0 and "same configuration, the same seed; weights equal bit for bit" in done.out
    found = json.loads(forks("diff", "runs/done", "latest", "--json", cwd=place).out)
    assert found["config"] == found["origin"] == {} and found["same_weights"] and len(found["outcome"]["eval"]) == 2


@pytest.mark.parametrize(
    "words, said",
    [(["runs/done"], "RUN is missing"), (["runs/done", "nix"], "nix: no such run"), (["runs", "latest"], "not a run")],
)
def test_a_mistake_of_diff_is_one_line(words: list[str], said: str, place: Path, forks: Forks) -> None:
    done = forks("diff", *words, cwd=place)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done
