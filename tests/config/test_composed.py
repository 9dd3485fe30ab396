"""tests/helpers/composed.py: what most tests train with is what a command trains with."""

from __future__ import annotations

import pytest
from composed import by_hydra, composed

WORDS = {
    "the values of a preset": ["algo=ppo", "env=cartpole", "total_steps=7", "algo.lr=5e-3", "seed=3"],
    "the last word counts": ["algo=dqn", "algo.lr=1", "algo=double_dqn", "algo.lr=2e-3", "model.hidden=[8,8]"],
    "keys that others refer to": ["env=gym", "env.id='probe_envs:Aim-v0'", "preset=none", "algo.num_envs=4"],
    "a name in place of the one referred to": ["env=gym", "env.name=probe", "env.id=A-v0", "preset=none"],
    "no value, yes and no": ["env.max_episode_steps=9", "env.replay=false", "device=null", "video=true"],
    "lists of names": ["env=pong", "env.wrappers=[atari,episodic_life]", "model=cnn", "preset=none"],
    "keys inside an open section": ["env=grid", "preset=none", "env.kwargs.rows=1", "env.kwargs.start=[0,0]"],
    "a new key": ["+env.kwargs.after=100", "++env.kwargs.after=7", "+env.kwargs.once=x"],
    "a file": ["algo=sft", "task=jsonl", "task.file=mine.jsonl"],
    "another task's digits": ["algo=grpo", "task=add", "task.digits=3", "algo.num_prompts=2"],
    "hyper-parameters as others have them": ["algo=grpo", "as=trl", "task=add2", "algo.clip_high=0.3"],
    "an experiment": ["experiment=bench_a2c_zoo", "total_steps=4000", "algo.ent_coef=0.01"],
}


@pytest.mark.parametrize("case", WORDS)
def test_what_tests_are_composed_of_is_what_hydra_composes(case: str) -> None:
    assert composed(*WORDS[case]) == by_hydra(*WORDS[case])


def test_types_are_hydras_too() -> None:
    words = ["preset=none", "algo.lr=1", "total_steps=1_000", "algo.num_envs=4.0", "env.name='3'"]
    ours, theirs = composed(*words), by_hydra(*words)
    for section, key in (("algo", "lr"), ("algo", "num_envs"), ("env", "name")):
        assert type(ours[section][key]) is type(theirs[section][key])
    assert type(ours["total_steps"]) is int and ours == theirs


def test_a_key_that_does_not_exist_is_refused_as_by_hydra() -> None:
    with pytest.raises(Exception, match="lrr"):
        composed("algo.lrr=1")


def test_a_configuration_is_ones_own() -> None:
    composed("algo=ppo")["algo"]["lr"] = "changed"
    assert composed("algo=ppo")["algo"]["lr"] != "changed"
