"""rlx new: what it writes runs as it is, and as what it was copied from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from command_line import Done, Forks, entries

from rlx.config import registry

FROM_RUNS = ("reward_model", "rlhf_ppo")  # that begin with other runs
ALGORITHMS = [name for name in registry.options("algo") if name not in FROM_RUNS]
SHORT = {  # a place with a preset where there is one, and few steps
    "control": ["total_steps=600", "eval_every=0", "video=false", "tensorboard=false"],
    "language": ["total_steps=2", "eval_every=0", "tensorboard=false", "model.d_model=16", "model.num_layers=1"],
}


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def weights(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["weights_sha256"]


def place_of(algo: str) -> list[str]:
    world = registry.world_name(registry.values("algo", algo)["implementation"])
    boxes = algo in ("sac", "td3", "ddpg")
    group, default = ("env", "pendulum" if boxes else "frozenlake") if world == "control" else ("task", "names")
    tuned = [
        name
        for name in ("cartpole", "frozenlake", "add2", "names", "parity")
        if f"{algo}_{name}" in registry.options("preset")
    ]
    place = next((name for name in tuned if name in registry.options(group)), default)
    own = {"learning_starts": 100, "data": "task", "num_pairs": 64}
    more = [f"algo.{key}={value}" for key, value in own.items() if key in registry.values("algo", algo)]
    few = ["total_steps=200"] * boxes  # a hundred of acting, a hundred updates of wide networks
    return [f"{group}={place}", *SHORT[world], *few, *more]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_copy_is_bit_for_bit_what_it_was_copied_from_with_its_tuning(algo: str, forks: Forks, tmp_path: Path) -> None:
    written = ok(forks("new", "algo", "mine", "--from", algo, cwd=tmp_path)).out
    assert "wrote algos/mine.py\nwrote conf/algo/mine.yaml\n" in written
    words = place_of(algo)
    runs = [tmp_path / ok(forks("train", f"algo={name}", *words, cwd=tmp_path)).run for name in (algo, "mine")]
    assert weights(runs[0]) == weights(runs[1])
    code = json.loads((runs[1] / "run.json").read_text())["code"]
    assert code["references"]["algo.implementation"]["file"] == "./algos/mine.py"
    facts = [json.loads((run / "run.json").read_text())["facts"] for run in runs]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("algo", FROM_RUNS)
def test_a_copy_of_one_that_begins_with_other_runs_has_its_values(algo: str, forks: Forks, tmp_path: Path) -> None:
    ok(forks("new", "algo", "mine", "--from", algo, cwd=tmp_path))
    shown = [
        ok(forks("train", f"algo={name}", "task=names", "--cfg", "job", cwd=tmp_path)).out for name in (algo, "mine")
    ]
    one, other = (yaml.safe_load(text) for text in shown)
    assert other["algo"].pop("preset_of") == algo and {*other.pop("expect").values()} == {None}
    del one["expect"]
    one["algo"] |= {"name": "mine", "implementation": "mine"}
    assert other == one


def test_a_copy_takes_the_tuned_values_and_no_promise(forks: Forks, tmp_path: Path) -> None:
    ok(forks("new", "algo", "mine", "--from", "ppo", cwd=tmp_path))
    assert (tmp_path / "algos" / "mine.py").read_text().startswith("# Copied from algos/ppo.py of rlx 0.2.0")
    assert "preset_of: ppo" in (tmp_path / "conf" / "algo" / "mine.yaml").read_text()
    assert "mine" in ok(forks("list", "algos", cwd=tmp_path)).out
    ok(forks("new", "algo", "again", "--from", "mine", cwd=tmp_path))  # of one's own, too
    assert (tmp_path / "conf" / "sweep" / "again.yaml").exists()
    shown = ok(forks("train", "algo=again", "env=cartpole", "--cfg", "job", cwd=tmp_path)).out
    assert "num_steps: 32" in shown and "score: null" in shown


def test_a_new_environment_learns_and_is_filmed(forks: Forks, tmp_path: Path) -> None:
    ok(forks("new", "env", "my_env", cwd=tmp_path))
    scores = {}
    for algo, more in (("ppo", ["total_steps=20_000"]), ("dqn", ["total_steps=12_000", "algo.learning_starts=500"])):
        run = ok(forks("train", f"algo={algo}", "env=my_env", *more, "tensorboard=false", cwd=tmp_path)).run
        scores[algo] = json.loads((tmp_path / run / "status.json").read_text())["evaluation"]["mean_reward"]
        assert list((tmp_path / run / "videos").glob("*.gif"))
    assert min(scores.values()) > -12  # at random -34, at best -4
    ok(forks("play", "latest", "--gif", "a.gif", cwd=tmp_path))


def test_a_new_task_is_learnt_from_answers_and_by_reward(forks: Forks, tmp_path: Path) -> None:
    ok(forks("new", "task", "my_task", cwd=tmp_path))
    small = ["model.d_model=32", "model.num_layers=1", "tensorboard=false", "threads=1"]
    ok(forks("train", "algo=sft", "task=my_task", "total_steps=150", "algo.lr=3e-3", *small, cwd=tmp_path))
    run = ok(
        forks(
            "train",
            "algo=grpo",
            "task=my_task",
            "init=latest:sft",
            "total_steps=20",
            "log_every=1",
            *small[2:],
            cwd=tmp_path,
        )
    ).run
    rows = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert sum(rewards[-5:]) > sum(rewards[:5])


@pytest.mark.parametrize(
    "words, named",
    [
        ("algo my_ppo --from pppo", "did you mean 'ppo'"),
        ("algo ppo", "there is one already"),
        ("algo My-PPO", "small letters"),
        ("algo class", "small letters"),
        ("alg my_ppo", "did you mean 'algo'"),
        ("env cartpole", "there is one already"),
        ("env x --from ppo", "only an algorithm is copied"),
        ("task add2", "there is one already"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(words: str, named: str, forks: Forks, tmp_path: Path) -> None:
    done = forks("new", *words.split(), cwd=tmp_path)
    assert done.code == 2 and named in done.err and done.err.count("\n") == 1 and not entries(tmp_path)


def test_nothing_is_overwritten_and_it_is_all_or_nothing(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "conf" / "sweep").mkdir(parents=True)
    (tmp_path / "conf" / "sweep" / "mine.yaml").write_text("mine: 1\n")
    before = entries(tmp_path)
    done = forks("new", "algo", "mine", "--from", "ppo", cwd=tmp_path)
    assert done.code == 2 and "conf/sweep/mine.yaml: exists already" in done.err and entries(tmp_path) == before
