"""What a message proposes works: each proposal is in the message, and does what it says once it is typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from command_line import ROOT, TINY, Forks

from rlx.cli.verbs import app
from rlx.launch.arguments import SHORT, SWITCHES, VALUED

TRAIN = [  # after `rlx train`: what is wrong, what the message proposes, what is right
    ("model.hidden[0]=32 model.hidden=[16,16]", "'model.hidden.0=32'", "model.hidden=[32,16]"),
    ("model.hidden.x=1", "model.hidden=[64,64]", "model.hidden=[64,64]"),
    ("model.hidden=64", "model.hidden=[64]", "model.hidden=[64]"),
    ("seed=1,2,", "'seed=1,2'", "-m seed=1,2"),
    ("seed=1,2", "rlx train -m seed=1,2", "-m seed=1,2"),
    ("algo=ppo,", "'algo=ppo'", "algo=ppo"),
    ("preset=dqn_cartpole algo=ppo", "[set by preset=dqn_cartpole]", "algo=ppo"),
    ("algo=pppo", "did you mean 'ppo'", "algo=ppo"),
    ("algo=[ppo,a2c]", "-m algo=ppo,a2c", "-m algo=ppo,a2c"),
    ("alggo=ppo", "did you mean 'algo'", "algo=ppo"),
    ("ppo", "did you mean algo=ppo", "algo=ppo"),
    ("lr=1e-3", "did you mean 'algo.lr'", "algo.lr=1e-3"),
    ("+seed=3", "seed=3", "seed=3"),
    ("env=CartPole-v1", "env=gym env.id=CartPole-v1", "env=gym env.id=CartPole-v1"),
    ("env.id=CartPole-v99", "v1", "env.id=CartPole-v1"),
    ("env.wrappers=flatten", "env.wrappers=[flatten]", "env.wrappers=[flatten]"),
    ("env.kwargs.foo=1", "there are: sutton_barto_reward", "env.kwargs.sutton_barto_reward=true"),
    ("device=cuda", "device=cpu", "device=cpu"),
    ("algo=dqn env=pendulum", "(use a2c, actor_critic, ppo, ", "algo=ppo env=pendulum"),
    (
        "algo=actor_critic_q env=pendulum",
        "algo.critic=v algo.weight=error",
        "algo=actor_critic_q env=pendulum algo.critic=v algo.weight=error",
    ),
    ("--mutlirun seed=1,2", "did you mean --multirun?", "--multirun seed=1,2"),
    ("--continue", "rlx train -m ... --continue", "-m seed=1,2 --continue"),
    ("--resolve", "rlx train --cfg job --resolve", "--cfg job --resolve"),
    ("algo.lrr=1e-3 algo=a2c", "did you mean 'algo.lr'", "algo=a2c algo.lr=1e-3"),
]


@pytest.mark.parametrize("wrong, proposed, right", TRAIN, ids=[row[0] for row in TRAIN])
def test_what_rlx_train_proposes_trains(wrong: str, proposed: str, right: str, tmp_path: Path, forks: Forks) -> None:
    refused = forks("train", *shlex.split(wrong), *TINY, cwd=tmp_path)
    assert refused.code == 2 and proposed in refused.err and not (tmp_path / "runs").exists(), refused
    done = forks("train", *shlex.split(right), *TINY, cwd=tmp_path)
    assert done.code == 0, done


def test_what_is_proposed_of_a_run_without_a_checkpoint_goes_on_with_it(tmp_path: Path, forks: Forks) -> None:
    path = forks("train", *TINY, cwd=tmp_path).run
    for file in (tmp_path / path / "checkpoints").iterdir():
        file.unlink()
    status = tmp_path / path / "status.json"
    status.write_text(
        re.sub(r'"checkpoint": \d+', '"checkpoint": null', status.read_text()).replace("finished", "failed")
    )
    refused = forks("eval", path, cwd=tmp_path)
    (proposed,) = re.findall(r"rlx (resume \S+) goes on with it", refused.err)
    assert refused.code == 2 and forks(*shlex.split(proposed), cwd=tmp_path).code == 0
    assert forks("eval", path, "--episodes", "1", cwd=tmp_path).code == 0


LOOK = [  # in a directory with one run of PPO: what is wrong, the command in the message, what was left out of it
    ("sample latest", r"use (rlx play latest)", " --gif a.gif"),
    ("show nope", r"`(rlx ls)`", ""),
    ("compare", r"\((rlx compare --help)\)", ""),
    ("rm", r"\((rlx rm --help)\)", ""),
    ("resume latest algo=a2c", r"\(start a new one with (rlx train)\)", f" algo=a2c {shlex.join(TINY)}"),
    ("resume latest seed=7", r"\((rlx train) starts another\)", f" seed=7 {shlex.join(TINY)}"),
    ("sweep", r": (rlx sweep algo=ppo env=cartpole) ", " --help"),
    ("new algo mine --from pppo", r"(rlx list algos)", ""),
    ("check algo pppo", r"(rlx list algos)", ""),
    ("check env cartpoll", r"(rlx list envs)", ""),
    ("rm runs", r"(rlx rm '[^']*')", " --yes"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, forks: Forks) -> Path:
    place = tmp_path_factory.mktemp("trained")
    assert forks("train", *TINY, cwd=place).code == 0
    return place


@pytest.mark.parametrize("wrong, proposed, more", LOOK, ids=[row[0] for row in LOOK])
def test_what_other_verbs_propose_works(wrong: str, proposed: str, more: str, trained: Path, forks: Forks) -> None:
    refused = forks(*shlex.split(wrong), cwd=trained)
    found = re.search(proposed, refused.err)
    assert refused.code == 2 and found, refused
    done = forks(*shlex.split(found[1] + more)[1:], cwd=trained)
    assert done.code == 0, done


# -- all of them -----------------------------------------------------------------------------------------------


def texts() -> Iterator[tuple[str, str]]:
    """(file, text) of every string of rlx that is no docstring; what is filled in when it is said is X."""
    for file in sorted((ROOT / "rlx").rglob("*.py")):
        tree = ast.parse(file.read_text())
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield file.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                yield file.name, node.value


def proposals() -> set[tuple[str, tuple[str, ...]]]:
    """(file, words) of each command in them, up to where a sentence goes on."""
    found = set()
    for file, text in texts():
        for command in re.findall(r"(?:^|[\s`'(:])rlx ([a-z]+(?: +[^\s`();,|]+)*)", text):
            found.add((file, tuple(command.split())))
    return found


VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FLAGS = {name: {flag for parameter in verb.params for flag in parameter.opts} for name, verb in VERBS.items()}
FLAGS["train"] |= {*SHORT, *SWITCHES, *VALUED}


SENTENCES = {"env", "follows", "has", "it", "reads", "say", "serves", "takes", "writes"}  # "this rlx reads format 1"


def test_every_command_in_a_text_of_rlx_has_a_verb_and_flags_that_there_are() -> None:
    found = proposals()
    assert len(found) > 100
    wrong = []
    for file, (verb, *rest) in found:
        if verb in VERBS:
            flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            wrong += [(file, verb, flag) for flag in flags - FLAGS[verb] - {"--help", "-h"}]
        elif verb not in SENTENCES:
            wrong.append((file, verb))
    assert wrong == []
