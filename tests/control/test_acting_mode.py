"""A network of one's own acts as it is evaluated: without dropout, and by BatchNorm's running statistics."""

import copy

import pytest
import torch
from composed import composed
from torch import nn
from training import train

from rlx.control import networks
from rlx.control.acting.mode import acting
from rlx.training.runner import typed

SHORT = ["total_steps=600", "model.hidden=[16]", "model.features=8", "video=false", "eval_every=0"]
RUNS = {
    "ppo": ["env=cartpole", "algo.num_envs=2", "algo.num_steps=64"],
    "a2c": ["env=cartpole"],
    "vpg": ["env=cartpole", "algo.num_steps=128"],
    "trpo": ["env=cartpole", "algo.num_envs=1", "algo.num_steps=128"],
    "dqn": ["env=cartpole", "algo.learning_starts=100", "algo.exploration_fraction=0.1"],
    "sac": ["env=pendulum", "algo.learning_starts=100"],
    "td3": ["env=pendulum", "algo.learning_starts=100"],
}


class Moody(nn.Module):
    """Everything in it depends on the mode, and it counts in which one it was called with a single observation."""

    singles: list[bool] = []

    def __init__(self, shape, features):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(shape[0], 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, features))

    def forward(self, obs):
        if len(obs) == 1:
            Moody.singles.append(self.training)
        return self.body(obs)


class Frozen(nn.Module):
    """Part of it never trains, as its owner wants."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.drop(self.norm(x))


@pytest.mark.parametrize("algo", RUNS)
def test_batch_norm_and_dropout_serve_every_algorithm(algo, monkeypatch):
    monkeypatch.setattr(networks, "encoder_of", lambda name: Moody)
    monkeypatch.setattr(Moody, "singles", [])
    run, rows = train(f"algo={algo}", "preset=none", *RUNS[algo], *SHORT, "+model.encoder=mine")
    assert run.step >= 600 and rows
    assert not any(Moody.singles)


@pytest.mark.parametrize("env, algo", [("cartpole", "ppo"), ("cartpole", "dqn"), ("pendulum", "sac"), ("pong", "ppo")])
def test_rlxs_own_networks_are_asked_as_before(env, algo):
    cfg, _ = typed(composed(f"algo={algo}", f"env={env}", "preset=none"))
    network = networks.Network((4, 84, 84) if env == "pong" else (4,), cfg.model, 0)
    assert acting(network, len) is len


def test_acting_is_evaluation_and_leaves_everything_as_it_was():
    network, obs = Moody((4,), 3), torch.randn(5, 4)
    network(torch.randn(64, 4) * 3 + 1)  # running statistics that are not those of obs
    before, evaluated = copy.deepcopy(network.state_dict()), copy.deepcopy(network).eval()(obs)
    acts = acting(network, lambda x: network(x))
    assert torch.equal(acts(obs), evaluated) and torch.equal(acts(obs), evaluated)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(part.training for part in network.modules())


def test_what_its_owner_froze_stays_frozen_and_an_error_leaves_no_trace():
    network = Frozen().train()

    def fails(x):
        assert not network.drop.training
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        acting(network, fails)(torch.ones(2, 4))
    assert [part.training for part in network.modules()] == [True, False, True]
