"""What is said of a run's score before it begins and when it has ended."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import Forks
from composed import by_hydra, composed

from rlx.config import promise

MEASURED = {"score": 400.0, "interval": [300.0, 450.0], "worst": 200.0, "seeds": 10, "steps": 100_096, "seconds": 6.2,
            "metric": "eval/mean_reward", "source": "docs/results/ppo/cartpole"}  # fmt: skip


def said(*words: str, expect: dict[str, Any] | None = None) -> str:
    raw = composed(*words)
    if expect:
        raw["expect"] |= expect
    [line] = promise.lines(raw, ["rlx", "train", *words])
    return line


PPO = ("algo=ppo", "env=cartpole")


def test_a_run_of_the_preset_is_told_what_was_measured() -> None:
    line = (
        "tuned preset: expect 400 [300, 450] after 100,096 steps, about 6.2 CPU s (10 seeds, worst 200; docs/results/"
    )
    assert said(*PPO, expect=MEASURED) == f"{line}ppo/cartpole)"
    same = ("algo.lr=0.001", "seed=9", "eval_every=0", "algo.gamma=.98", "env.workers=2", "total_steps=100_100")
    assert said(*PPO, *same, expect=MEASURED) == f"{line}ppo/cartpole)"


@pytest.mark.parametrize("number", ["1_000", "1e3", "1000.0"])
def test_a_number_may_be_written_in_any_way_and_is_recorded_as_its_key_has_it(
    number: str, forks: Forks, tmp_path: Path
) -> None:
    words = ["env=cartpole", f"total_steps={number}", "algo.num_envs=4.0", "algo.gamma=1", "video=false"]
    done = forks("train", *words, cwd=tmp_path)
    assert done.code == 0 and "1 % of the tuned budget" in done.out and "expected" not in done.out, done.out
    text = (tmp_path / done.run / "config.yaml").read_text()
    assert re.search(r"^total_steps: 1000$", text, re.M) and re.search(r"^  num_envs: 4$", text, re.M), text
    again = forks("resume", str(done.run), "total_steps=2e3", cwd=tmp_path)
    assert again.code == 0, again.err
    assert re.search(r"^total_steps: 2000$", (tmp_path / done.run / "config.yaml").read_text(), re.M)


def test_what_was_changed_is_said_beside_the_promise() -> None:
    line = said(*PPO, "algo.lr=0.01", "model.hidden=[8]", expect=MEASURED)
    assert line.endswith("; changed here: model.hidden, algo.lr") or line.endswith(
        "; changed here: algo.lr, model.hidden"
    )


def test_a_shorter_run_is_told_its_share_of_the_budget_and_no_score() -> None:
    assert "6 % of the tuned budget of 100,096 steps" in (line := said(*PPO, "total_steps=6_000", expect=MEASURED))
    assert "400" not in line


@pytest.mark.parametrize(
    "words",
    [
        ("algo=ppo", "env=cartpole", "preset=ppo_pendulum"),
        (*PPO, "env.id=Acrobot-v1"),
        ("algo=ppo_penalty", "env=acrobot"),
    ],
)
def test_a_promise_of_something_else_is_none(words: tuple[str, ...]) -> None:
    raw = composed(*words)
    assert promise.of(raw) is None and raw["expect"]["score"] is None
    assert "expect" not in "".join(promise.lines(raw, words))


def test_what_begins_with_another_run_promises_nothing_without_it() -> None:
    assert composed("algo=grpo", "task=add2")["expect"]["score"] is None
    assert by_hydra("algo=grpo", "task=add2", "init=latest:sft")["expect"]["score"] is not None
    assert "begins with init=latest:sft" in said("algo=grpo", "task=add2")


def test_what_was_never_run_here_says_whose_number_it_is() -> None:
    assert said("algo=td3", "env=ant").startswith("tuned preset: published, not measured here: RL-Baselines3-Zoo")


@pytest.mark.parametrize(
    "words, borrowed",
    [
        (("algo=a2c", "env=taxi"), "preset=a2c_cartpole"),
        (("algo=double_dqn", "env=taxi"), "preset=double_dqn_cartpole"),
        (("algo=ppo", "env=gym", "env.id=Blackjack-v1"), "preset=ppo_cartpole"),
        (("algo=ppo", "env=gym", "env.id=CartPole-v1"), "env=cartpole"),
        (("algo=sft", "task=names"), "preset=sft_add2"),
    ],
)
def test_no_preset_is_one_line_with_a_command_that_takes_one(words: tuple[str, ...], borrowed: str) -> None:
    line = said(*words)
    command = re.search(r"rlx train ([^)]*?)(?: is the same, tuned|\))", line)
    assert line.startswith("no tuned preset for") and command and borrowed in command[1]
    assert composed(*shlex.split(command[1]))["algo"] != composed(*words, "preset=none")["algo"]
    assert not promise.lines(composed(*words), ["rlx", "train", *words, "preset=none"])


@pytest.mark.parametrize(
    "value, verdict",
    [
        (430.0, "430.0: within the expected [300, 450]"),
        (300.0, "300.0: within the expected [300, 450]"),
        (470.0, "470.0: above the expected [300, 450]"),
        (250.0, "250.0: below the expected interval [300, 450], not below the worst of 10 seeds, 200"),
        (11.8, "11.8: below the expected interval [300, 450]"),
    ],
)
def test_the_end_of_a_run_is_judged_by_one_line(value: float, verdict: str) -> None:
    raw = composed(*PPO)
    raw["expect"] |= MEASURED
    assert (whole := promise.of(raw)) and whole.verdict({"mean_reward": value}) == verdict
    raw["algo"]["lr"] = 0.5
    assert (other := promise.of(raw)) and other.verdict({"mean_reward": value}) == f"{verdict}; changed here: algo.lr"
    raw["total_steps"] = 50_000
    assert (short := promise.of(raw)) and short.verdict({"mean_reward": value}) is None


def test_a_table_is_judged_by_its_exact_value() -> None:
    raw = composed("algo=q_learning", "env=frozenlake")
    assert (table := promise.of(raw))
    assert "within the expected" in str(table.verdict({"exact/value": 0.740165, "mean_reward": 0.6}))


def test_a_run_says_what_to_expect_and_whether_it_came(forks: Forks, tmp_path: Path) -> None:
    done = forks("train", "algo=q_learning", "env=grid", "tensorboard=false", "video=false", cwd=tmp_path)
    assert "tuned preset: expect 0.7 [0.7, 0.7] after 5,000 steps" in done.out
    assert "\n0.7: within the expected [0.7, 0.7]\n" in done.out
