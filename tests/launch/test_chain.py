"""Chains: what the words of one command become, that nothing begins before all of it is checked, and how to go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from command_line import Done, Forks, entries
from tiny_runs import LANGUAGE

from rlx.base.errors import ConfigError
from rlx.config import registry
from rlx.launch import arguments, chain
from rlx.training.init_from import PLANNED

STAGES = """# Three runs, each from the one before.
stages:
  - [algo=pretrain, task=add2]
  - [algo=sft, task=add2, "init={pretrain}"]
  - [algo=grpo, task=add2, "init={sft}", algo.group_size=2]
"""
TINY = [*(word for word in LANGUAGE if not word.startswith("algo=")), "total_steps=2", "pretrain:algo.batch_size=4"]
TINY += ["sft:algo.batch_size=4", "grpo:algo.num_prompts=2"]


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "three.yaml").write_text(STAGES)
    return tmp_path / "conf"


def given(conf: Path, *overrides: str) -> arguments.Words:
    return arguments.Words({"--config-dir": str(conf)}, ["experiment=three", *overrides])


def test_words_go_to_every_stage_and_those_with_a_name_to_that_one(conf: Path) -> None:
    stages = chain.plan("three", given(conf, "seed=3", "sft:seed=4", "grpo:algo.group_size=8", "sft:algo.lr=1e-3"))
    assert [stage.name for stage in stages] == ["pretrain", "sft", "grpo"]
    assert stages[0].words == ["algo=pretrain", "task=add2", "seed=3"]
    assert stages[1].words == ["algo=sft", "task=add2", "init={pretrain}", "seed=4", "algo.lr=1e-3"]
    assert stages[2].words == ["algo=grpo", "task=add2", "init={sft}", "algo.group_size=8", "seed=3"]
    assert stages[2].filled({"sft": "'a b'"})[2] == "init='a b'"


def test_one_command_makes_the_runs_one_after_the_other_each_from_the_one_before(conf: Path, forks: Forks) -> None:
    here = conf.parent
    done = forks("train", "experiment=three", *TINY, "seed=3", cwd=here)
    assert done.code == 0, done.err
    made = [line.removeprefix("run: ") for line in done.out.splitlines() if line.startswith("run: ")]
    assert [Path(path).parent.name for path in made] == ["pretrain", "sft", "grpo"] and done.run == made[-1]
    found = [json.loads(forks("show", path, "--json", cwd=here).out) for path in made]
    assert [(row["status"], row["seed"], row["step"]) for row in found] == [("finished", 3, 2)] * 3
    for before, after in zip(found, found[1:]):
        assert after["init"]["run"] == str(here / before["run"])
        assert after["init"]["weights_sha256"] == before["weights_sha256"]
    assert f"init={here / made[1]}" in found[2]["command"]
    again = forks(*found[2]["command"][1:], cwd=here)  # each is an ordinary run
    assert json.loads(forks("show", again.run, "--json", cwd=here).out)["weights_sha256"] == found[2]["weights_sha256"]


def one_line(done: Done, *named: str) -> None:
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and all(name in done.err for name in named), done


@pytest.mark.parametrize(
    "overrides, named",
    [
        ("grpo:algo.group_sise=3", ("grpo: algo.group_sise", "'algo.group_size'")),
        ("grpo:seed=-1", ("grpo: seed=-1",)),
        ("grpo:task=names sft:task=names", ("sft: task=names", "demonstrations")),
        ("algo.group_size=3", ("pretrain: algo.group_size",)),
        ("dpo:seed=3", ("dpo:seed=3", "no such stage", "grpo, pretrain, sft")),
        ("algo=dpo", ("algo=dpo", "pretrain, sft, grpo")),
        ("env=cartpole", ("env=cartpole", "pretrain learns on a task")),
        ("hydra.run.dir=x", ("hydra.run.dir=x",)),
        ("seed=1,2", ("seed=1,2", "grid")),
        ("-m", ("--multirun", "chain")),
        ("--cfg job", ("--cfg", "chain")),
    ],
)
def test_a_mistake_in_any_stage_is_one_line_before_the_first_begins(
    overrides: str, named: tuple[str, ...], conf: Path, forks: Forks
) -> None:
    before = entries(conf.parent)
    one_line(forks("train", "experiment=three", *shlex.split(overrides), cwd=conf.parent), *named)
    assert entries(conf.parent) == before


@pytest.mark.parametrize(
    "text, named",
    [
        ("stages: [[algo=sft], [algo=grpo]]\nseed: 3\n", ("nothing else (seed)",)),
        ("stages: sft\n", ("list of lists",)),
        ("stages: []\n", ("list of lists",)),
        ("stages: [[task=add2]]\n", ("algo=NAME",)),
        ("stages: [[algo=sft, 'init={grpo}'], [algo=grpo]]\n", ("{grpo}", "no earlier stage")),
        ("stages: [[algo=sft, seed]]\n", ("sft: ", "key=value")),
    ],
)
def test_a_file_that_is_no_chain_is_one_line(text: str, named: tuple[str, ...], conf: Path, forks: Forks) -> None:
    (conf / "experiment" / "three.yaml").write_text(text)
    one_line(forks("train", "experiment=three", cwd=conf.parent), *named)
    assert not (conf.parent / "runs").exists()


def test_help_and_the_list_know_chains(conf: Path, forks: Forks) -> None:
    done = forks("train", "experiment=three", "--help", cwd=conf.parent)
    assert done.code == 0 and "rlx train" in done.out
    assert "three" in forks("list", "experiments", cwd=conf.parent).out


class Stopped(Exception):
    path = Path("/there/that run")


@pytest.mark.parametrize("error, resumed", [(Stopped(), True), (ConfigError("task=x"), False)])
def test_a_stage_that_does_not_finish_leaves_the_commands_of_the_rest(
    error: Exception, resumed: bool, conf: Path, capsys: pytest.CaptureFixture
) -> None:
    begun: list[list[str]] = []

    def start(raw: dict, command: list[str]) -> Path:
        begun.append(command)
        if len(begun) == 2:
            raise error
        return Path("/there/first")

    with pytest.raises(type(error)):
        chain.run("three", given(conf, "seed=3"), start)
    assert [command[2] for command in begun] == ["algo=pretrain", "algo=sft"] and "init=/there/first" in begun[1]
    line = capsys.readouterr().err
    commands = [shlex.split(part) for part in line.strip().partition("the rest: ")[2].split(" && ")]
    sft = ["rlx", "train", "algo=sft", "task=add2", "init=/there/first", "seed=3"]
    grpo = ["rlx", "train", "algo=grpo", "task=add2", "init=latest:sft", "algo.group_size=2", "seed=3"]
    assert line.startswith("rlx: stage 2 of 3 did not finish") and line.count("\n") == 1
    assert commands == [["rlx", "resume", "/there/that run"] if resumed else sft, grpo]


@pytest.mark.parametrize(
    "name", [name for name in registry.options("experiment") if chain.find(arguments.Words({}, [f"experiment={name}"]))]
)
def test_every_chain_of_rlx_can_be_planned_and_checked(name: str) -> None:
    begun: list[list[str]] = []

    def start(_raw: dict, command: list[str]) -> Path:
        raise Stopped(begun.append(command))

    with pytest.raises(Stopped):
        chain.run(name, arguments.Words({}, [f"experiment={name}"]), start)
    assert len(begun) == 1


def test_a_run_that_is_planned_has_one_name(conf: Path) -> None:
    assert chain.LATER == PLANNED
