"""init=RUN in environments: a run begins with the policy of another."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY

import rlx
from rlx.rundir import checkpoint
from rlx.rundir.provenance import Provenance


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tensors(view: rlx.RunView, name: str = "policy") -> dict[str, torch.Tensor]:
    [file] = (view.path / "checkpoints").glob("final_*")
    return dict(checkpoint.load(file)["state"]["run"]["tracked"][name])


@pytest.mark.parametrize(
    "words",
    [
        ["algo=ppo", "env=cartpole", "env.normalize_obs=true"],
        ["algo=dqn", "env=cartpole", "algo.buffer_size=1000", "algo.learning_starts=500"],
        ["algo=sac", "env=pendulum", "algo.learning_starts=500"],
        ["algo=q_learning", "env=frozenlake"],
    ],
)
def test_a_run_without_a_step_size_keeps_the_policy_that_it_begins_with(here: Path, words: list[str]) -> None:
    first = rlx.train([*words, *TINY, "preset=none"], quiet=True)
    same: dict[str, Any] = {} if "q_learning" in words[0] else {"lr": 1e-30}
    second = rlx.train([*words, *TINY, "preset=none"], seed=2, init=first, algo=same, quiet=True)
    name = "table" if "q_learning" in words[0] else "policy"
    before, after = tensors(first, name), tensors(second, name)
    if name == "policy":
        assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(after["visits"].flatten() >= before["visits"].flatten()) if name == "table" else True
    assert Provenance.read(second.path).init["run"] == str(first.path.absolute())  # type: ignore[index]


def test_another_algorithm_on_policy_takes_the_policy_and_others_are_refused(here: Path) -> None:
    first = rlx.train(["algo=ppo", *TINY, "preset=none", "model.hidden=[8]"], quiet=True)
    second = rlx.train(["algo=a2c", *TINY, "preset=none", "algo.lr=1e-30", "init=latest:ppo"], quiet=True)
    assert all(torch.equal(tensor, tensors(second)[key]) for key, tensor in tensors(first).items())
    for words, said in (
        (["algo=dqn"], "is a run of ppo, with another kind of policy than dqn"),
        (["algo=ppo", "model.hidden=[16]"], r"has a network with model.hidden=\[8\]"),
        (["algo=ppo", "env=acrobot"], "its observation space is"),
        (["algo=ppo", "env.normalize_obs=true"], "was trained with false"),
        (["algo=sft", "task=add2"], r"sft learns on a task \(task=NAME\), not in an environment"),
    ):
        with pytest.raises(rlx.UserError, match=said):
            rlx.train([*words, "preset=none"], init=first, quiet=True)
    assert len(rlx.runs()) == 2
