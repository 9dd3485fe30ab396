"""The engine changes nothing but the speed: what a loss reads may belong to anybody and change at any time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from rlx.engine.learner import Learner
from rlx.engine.tape import Forward, Tape, Untapeable

torch.set_num_threads(1)
CPU = torch.device("cpu")
Batch = Mapping[str, Tensor]
Result = tuple[Tensor, dict[str, Tensor]]


def net(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def points(rows: int = 32, columns: int = 3) -> dict[str, Tensor]:
    return {"x": torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))}


class Temperature:
    """Two learners: a policy whose loss reads alpha = exp(log_alpha), and the one that moves log_alpha."""

    def __init__(self, engine: str) -> None:
        torch.manual_seed(0)
        self.policy, self.log_alpha = net(3, 8, 1), nn.Parameter(torch.zeros(()))
        self.learners = {
            "policy": Learner(self.policy, self.loss, engine=engine),
            "alpha": Learner([self.log_alpha], self.alpha_loss, engine=engine),
        }
        self.batch = points()

    def loss(self, batch: Batch) -> Result:
        alpha = self.log_alpha.exp().detach()
        loss = (alpha * self.policy(batch["x"]) - 1).square().mean()
        return loss, {"loss": loss, "alpha": alpha}

    def alpha_loss(self, batch: Batch) -> Result:
        loss = -self.log_alpha * batch["x"].square().mean()
        return loss, {"loss": loss}

    def step(self) -> float:
        alpha = self.learners["policy"].step(self.batch, None, 1e-4)["alpha"]
        self.learners["alpha"].step(self.batch, None, 3e-4)
        return alpha


def test_a_temperature_that_another_learner_moves_is_seen_in_every_step() -> None:
    ends = {}
    for engine in ("tape", "torch"):
        agent = Temperature(engine)
        alphas = [agent.step() for _ in range(4000)]
        ends[engine] = alphas[-1], agent.policy[0].weight.detach().clone()
        assert not agent.learners["policy"].notice
        assert alphas[0] == 1 and alphas[-1] == pytest.approx(math.exp(3999 * 3e-4), rel=1e-3)  # Adam: lr a step
    assert ends["tape"][0] == pytest.approx(ends["torch"][0], rel=1e-6)
    torch.testing.assert_close(ends["tape"][1], ends["torch"][1], rtol=1e-3, atol=1e-4)  # float32, 4,000 steps


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b) / (a.norm() * b.norm()))


@pytest.mark.parametrize("of_action", [False, True], ids=["a weight", "through the action"])
def test_an_actor_follows_a_critic_that_is_replaced(of_action: bool) -> None:
    """`-q(s, pi(s))` as in DDPG, or log pi weighted by q(s): somebody else's parameters, derived from or read."""
    torch.manual_seed(0)
    actor, critic, batch = net(3, 16, 2), net(5, 16, 1), points()

    def loss(rows: Batch) -> Result:
        action = actor(rows["x"])
        q = critic(torch.cat([rows["x"], action if of_action else action.detach()], -1)).squeeze(-1)
        loss = -q.mean() if of_action else (-action.log_softmax(-1)[:, 0] * q.detach()).mean()
        return loss, {"loss": loss}

    learner = Learner(actor, loss, engine="tape")
    learner.step(batch, None, 0.0)
    first = learner.flat.grad.clone()
    for seed in range(1, 4):
        torch.manual_seed(seed)
        for mine, other in zip(critic.parameters(), net(5, 16, 1).parameters(), strict=True):
            mine.data.copy_(other)
        learner.step(batch, None, 0.0)
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss(batch)[0], list(actor.parameters()))])
        assert cosine(learner.flat.grad, expected) > 0.999 > cosine(first, expected)
    assert not learner.notice


READ = {  # what a function may read besides its inputs, and a change of it
    "a parameter through a clamp": lambda t, x: x * t.clamp(-1, 5).exp(),
    "a scale": lambda t, x: x / (t.abs() + 1).sqrt(),
    "a view of it": lambda t, x: x + t[1:].flip(0).exp().sum(),
    "a mean of it alone": lambda t, x: x.sum() + (t.square().mean() + 1).log(),
    "an integer made of it": lambda t, x: x * (t > 0.5).sum(),
}


@pytest.mark.parametrize("name", READ)
def test_a_replay_reads_what_others_own_where_it_lives_now(name: str) -> None:
    outside, x = torch.tensor([0.1, 0.2, 0.3]), torch.ones(3)
    forward = Forward(lambda i: (READ[name](outside, i["x"]),), CPU)
    forward(x=x)
    for value in (1.0, -2.0):
        outside.fill_(value)
        torch.testing.assert_close(forward(x=x)[0], READ[name](outside, x))
    assert forward._tapes and not forward.notice


def test_a_numpy_array_is_read_where_it_lives_too() -> None:
    scale = np.ones(3, np.float32)
    forward = Forward(lambda i: (i["x"] * torch.as_tensor(scale).exp(),), CPU)
    for scale[:] in (0.0, 1.0, 2.0):
        torch.testing.assert_close(forward(x=torch.ones(3))[0], torch.tensor(scale).exp())
    assert forward._tapes and not forward.notice


def test_what_a_recording_makes_from_numbers_alone_is_not_computed_again() -> None:
    """The constant is a chain of four operations; the replay has the one that reads the input."""
    tape = Tape(lambda i: (i["x"] * (torch.arange(3.0) + torch.full((3,), 2.0)).exp(),), {"x": torch.ones(3)})
    assert tape.source.count("\n        ") == 1 and "exp" not in tape.source


class Normed:
    """A network whose weights are parametrised: g v / |v|."""

    def __init__(self, engine: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(weight_norm(nn.Linear(3, 16)), nn.Tanh(), weight_norm(nn.Linear(16, 1)))
        self.learners = {"model": Learner(self.model, self.loss, engine=engine)}
        self.forward = Forward(lambda i: (self.model(i["x"]),), CPU)
        self.batch = points()

    def loss(self, batch: Batch) -> Result:
        loss = (self.model(batch["x"]).squeeze(-1) - batch["x"].sum(-1)).square().mean()
        return loss, {"loss": loss}

    def step(self) -> float:
        return self.learners["model"].step(self.batch, None, 1e-2)["loss"]


def test_weight_norm_acts_as_it_learns() -> None:
    losses = {}
    for engine in ("tape", "torch"):
        agent = Normed(engine)
        losses[engine] = [agent.step() for _ in range(100)]
        with torch.no_grad():
            torch.testing.assert_close(agent.forward(**agent.batch)[0], agent.model(agent.batch["x"]))
        assert not agent.learners["model"].notice
    assert losses["tape"] == pytest.approx(losses["torch"], rel=1e-3)  # float32, 100 steps
    assert losses["tape"][-1] < 0.3 * losses["tape"][0]


WRITES: dict[str, Callable[[], nn.Module]] = {
    "a count": lambda: Counting(),
    "running statistics": lambda: nn.BatchNorm1d(3),
    "running statistics, no count": lambda: Batchnorm(),
    "power iteration": lambda: spectral_norm(nn.Linear(3, 3)),
    "an out argument": lambda: Out(),
}


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x * self.scale * self.count


class Batchnorm(Counting):
    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.mean, self.var
        return nn.functional.batch_norm(x, mean, var, self.scale, training=True) + self.mean

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))


class Out(Counting):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            torch.add(self.count, x.detach().abs().mean(), out=self.count)
        return x * self.scale * self.count


@pytest.mark.parametrize("name", WRITES)
def test_a_loss_that_writes_does_so_once_a_step_and_is_ordinary_torch(name: str) -> None:
    """Equal bits, buffers too: neither a recording nor a check has run it once more."""
    states = []
    for engine in ("tape", "torch"):
        torch.manual_seed(0)
        model = WRITES[name]()

        def loss(batch: Batch, model: nn.Module = model) -> Result:
            loss = (model(batch["x"]) - 1).square().mean()
            return loss, {"loss": loss}

        learner = Learner(model, loss, engine=engine)
        for _ in range(12):
            learner.step(points(), None, 1e-2)
        states.append(model.state_dict())
        assert ("writes into a tensor that was there before" in learner.notice) == (engine == "tape")
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_input_that_is_written_into_is_refused() -> None:
    with pytest.raises(Untapeable, match="writes into"):
        Tape(lambda i: (i["x"].mul_(2.0).sum(),), {"x": torch.ones(3)})


def test_what_is_refused_has_drawn_no_random_number() -> None:
    state = torch.get_rng_state()
    with pytest.raises(Untapeable):
        Tape(lambda i: (nn.functional.dropout(i["x"] * 2, 0.5),), {"x": torch.ones(3)})
    assert torch.equal(torch.get_rng_state(), state)
