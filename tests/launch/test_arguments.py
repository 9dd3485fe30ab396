"""What a message proposes can be typed."""

import re
from typing import get_type_hints

import pytest

from rlx.base.errors import ConfigError
from rlx.cli import printing
from rlx.config import kind, registry, schema
from rlx.launch import arguments, foreign
from rlx.launch.composing import compose

UNREADABLE = [
    "model.hidden[0]=32", "env.wrappers[1]=x", "model.hidden.-1=3", "seed=1,2,", "algo=ppo,", "seed=,1",
    "runs_dir=a,,b", "runs_dir=a(b)c", "runs_dir=a{b}c", "x[=1", "runs_dir='a", "seed=[1",
]  # fmt: skip


@pytest.mark.parametrize("word", UNREADABLE)
def test_a_word_that_cannot_be_read_is_answered_with_one_that_can_or_with_none(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        arguments.overrides([word])
    start = f"cannot read '{word}': "
    assert str(error.value).startswith(start) and "\n" not in str(error.value)
    for proposal in re.findall(r"'([^' ]+=[^']*)'$", str(error.value)[len(start) :]):
        assert arguments.overrides([proposal], multirun=True)


# -- text that looks like a number -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1_1_1", "1e3", "1.10", "-1", ".5", "1_0.5", "007", "nan", "1E5", "0x10", "a"])
@pytest.mark.parametrize("key", ["runs_dir", "init"])
def test_text_stays_as_it_is_typed(key: str, text: str) -> None:
    words = ["algo=sft"] if key == "init" else []
    assert compose([*words, f"{key}={text}"])[key] == text


def test_a_path_in_the_home_directory_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a b")
    assert compose(["runs_dir=~/x"])["runs_dir"] == "/home/a b/x"
    assert compose(['runs_dir="~/x"'])["runs_dir"] == "/home/a b/x"


def test_what_is_no_text_stays_what_it_was() -> None:
    assert compose(["algo=sft", "init=null"])["init"] is None
    assert compose(["seed=1_0"])["seed"] == 10 and compose(["algo.lr=1e-3"])["algo"]["lr"] == 1e-3


def test_every_key_that_takes_text_alone_keeps_it() -> None:
    found = set()
    for algo in registry.options("algo"):
        implementation = registry.values("algo", algo)["implementation"]
        module, world = registry.algorithm(implementation), registry.world(implementation)
        for place in registry.options(world.NAME):
            raw = {"algo": {"implementation": implementation}, world.NAME: registry.values(world.NAME, place)}
            kinds = {"": world.Config, "algo": module.Config, "expect": schema.Expect, **world.sections(raw)}
            for section, part in kinds.items():
                for key, hint in get_type_hints(part, include_extras=True).items():
                    if str in schema._kinds(hint) and not schema._kinds(hint) & {int, float}:
                        found.add(f"{section}.{key}".lstrip("."))
    assert {"runs_dir", "task.file", "model.path"} <= found <= set(arguments.TEXT)


def test_counts_and_seeds_are_printed_as_integers(capsys: pytest.CaptureFixture[str]) -> None:
    printing.evaluated({"greedy_accuracy": 0.5, "prompts": 1_000_000, "seed": 1_000_000}, seed=1_000_000)
    out = capsys.readouterr().out
    assert "e+" not in out and re.search(r"prompts +1000000\b", out) and "0.5" in out


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--seed 3", "seed=3"),
        ("--algo sac --env pendulum --learning-rate 3e-4", "algo=sac env=pendulum algo.lr=3e-4"),
        ("--env-id=Ant-v5 --total-timesteps 1000 --track", "env=gym env.id=Ant-v5 total_steps=1000 logger=[wandb]"),
        ("--algo dqn --batch_size 32 --seed 1", "algo=dqn algo.batch_size=32 seed=1"),
        ("algo=sac --ent_coef 0.1", "algo.alpha=0.1"),
    ],
)
def test_flags_of_other_tools_are_answered_by_the_words_to_type(words: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f": rlx takes key=value: {meant}") + "$"):
        arguments.split(words.split())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("learning_rate=1e-3", "algo.lr"),
        ("n_steps=8", "algo.num_steps"),
        ("n_envs=8", "algo.num_envs"),
        ("timesteps=1000", "total_steps"),
        ("batch_size=8", "algo.num_minibatches"),
        ("algo=sac env=pendulum algo.polyak=.99", "algo.tau"),
        ("policy_kwargs.net_arch=[64]", "model.hidden"),
        ("algo=grpo task=add2 num_generations=4", "algo.group_size"),
    ],
)
def test_keys_of_other_tools_are_answered_by_rlxs(words: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"no such key; in rlx it is '{re.escape(key)}'"):
        compose(words.split())


def test_what_a_foreign_name_means_is_there() -> None:
    """Whatever the table promises, some algorithm has."""
    words = [["algo=ppo"], *([f"algo={name}", "env=pendulum"] for name in ("sac", "td3", "dqn", "a2c"))]
    words += [["algo=grpo", "task=add2"], ["algo=rlhf_ppo", "task=add2"], ["env=gym"], ["algo=actor_critic"]]
    known = {key for each in words for key in kind.keys(each)}
    assert set(foreign.NAMES) <= known
