"""The engine changes nothing but the speed: what a loss reads may belong to anybody and change at any time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from composed import composed
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from rlx.algos import ppo
from rlx.control.acting.q_values import Explorer
from rlx.control.distributions import make_head
from rlx.control.networks import ActorCritic, ModelConfig
from rlx.control.rollout import Rollout
from rlx.engine.learner import Learner
from rlx.engine.optim import Flat
from rlx.engine.tape import Forward, Tape, Untapeable
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.replay.buffer import Replay
from rlx.replay.store import Memory
from rlx.run import Run
from rlx.rundir import checkpoint
from rlx.training.runner import typed, world_of

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
        self.model = nn.ModuleDict({"policy": self.policy, "alpha": nn.ParameterDict({"log": self.log_alpha})})
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
        self.learners["alpha"].step(self.batch, None, 3e-3)
        return alpha


def test_a_temperature_that_another_learner_moves_is_seen_in_every_step() -> None:
    ends = {}
    for engine in ("tape", "torch"):
        agent = Temperature(engine)
        alphas = [agent.step() for _ in range(400)]
        ends[engine] = alphas[-1], agent.policy[0].weight.detach().clone()
        assert not agent.learners["policy"].notice
        assert alphas[0] == 1 and alphas[-1] == pytest.approx(math.exp(399 * 3e-3), rel=1e-3)  # Adam: lr a step
    assert ends["tape"][0] == pytest.approx(ends["torch"][0], rel=1e-6)
    torch.testing.assert_close(ends["tape"][1], ends["torch"][1], rtol=1e-3, atol=1e-4)  # float32, 400 steps


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
    assert [operation.name for operation in tape.program.operations] == ["mul"]


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
        assert ("writes into a tensor that existed before" in learner.notice) == (engine == "tape")
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_input_that_is_written_into_is_refused() -> None:
    with pytest.raises(Untapeable, match="writes into"):
        Tape(lambda i: (i["x"].mul_(2.0).sum(),), {"x": torch.ones(3)})


def test_what_is_refused_has_drawn_no_random_number() -> None:
    state = torch.get_rng_state()
    with pytest.raises(Untapeable):
        Tape(lambda i: (nn.functional.dropout(i["x"] * 2, 0.5),), {"x": torch.ones(3)})
    assert torch.equal(torch.get_rng_state(), state)


# -- what only the check can see -----------------------------------------------------------------------------------


class Hidden:
    """A loss that reads what a recording cannot see: a Python number, or a tensor that is bound anew."""

    def __init__(self, engine: str, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = net(3, 8, 1)
        self.weight, self.scale = 1.0, torch.ones(())
        self.learners = {"model": Learner(self.model, self.loss, engine=engine)}
        self.batch = points()

    def loss(self, batch: Batch) -> Result:
        y = self.model(batch["x"])
        loss = self.weight * self.scale * (y - 1).square().mean() + 2.0 * self.weight
        return loss, {"loss": loss}

    def step(self) -> float:
        return self.learners["model"].step(self.batch, None, 1e-3)["loss"]


def test_a_python_number_that_changes_after_call_3_is_found_at_call_10() -> None:
    agent = Hidden("tape")
    for call in range(1, 11):
        if call == 4:
            agent.weight = 0.0
        loss = agent.step()
        assert (loss > 2) == (call < 10)  # what the recording holds, until the check
    assert loss == 0
    assert "ordinary torch says 0; the 7 calls before may have been wrong" in agent.learners["model"].notice


def test_a_tensor_bound_anew_between_calls_is_found_before_it_is_one_percent_off() -> None:
    agent, losses = Hidden("tape"), []
    for _ in range(101):
        losses.append(agent.step())
        agent.scale = agent.scale * 1.0001
    assert "the 89 calls before may have been wrong" in agent.learners["model"].notice
    assert not agent.learners["model"]._tapes


def test_a_loss_that_is_no_function_of_what_it_reads_is_not_recorded() -> None:
    """Each call moves the scale by a ten thousandth: two calls with equal inputs differ."""
    agent = Hidden("tape")
    plain = agent.loss

    def loss(batch: Batch) -> Result:
        agent.scale = agent.scale * 1.0001
        return plain(batch)

    agent.learners["model"].loss = loss
    agent.step()
    assert "another result" in agent.learners["model"].notice


def test_the_calls_that_are_compared_are_1_2_10_100_and_every_1000th() -> None:
    agent, compared, calls = Hidden("tape"), [], 0
    plain = agent.loss

    def loss(batch: Batch) -> Result:
        compared.append(calls)
        return plain(batch)

    agent.learners["model"].loss = loss
    for calls in range(1, 3001):  # noqa: B007
        agent.step()
    assert sorted(set(compared)) == [1, 2, 10, 100, 1000, 2000, 3000]
    assert compared.count(1) == 3 and compared.count(1000) == 1  # recorded, recorded again and compared
    assert not agent.learners["model"].notice


@pytest.mark.parametrize("arrays", [False, True], ids=["tensors", "arrays"])
@pytest.mark.parametrize("whole", [False, True], ids=["floats", "actions"])
def test_forward_finds_a_changed_number_at_call_10_too(arrays: bool, whole: bool) -> None:
    number, x = [1.0], points(64, 4)["x"]
    forward = Forward(
        lambda i: ((i["x"] * number[0] + i["x"].roll(1, -1)).argmax(-1) if whole else i["x"] * number[0],), CPU
    )
    act = forward.on_arrays(x=x.numpy()) if arrays else lambda x: forward(x=torch.from_numpy(x))[0].numpy()
    first = np.copy(act(x.numpy()))
    for call in range(2, 13):
        if call == 4:
            number[0] = -2.0
        assert np.array_equal(act(x.numpy()), first) == (call < 10)
    assert "the 7 calls before may have been wrong" in forward.notice and not forward._tapes


def test_a_wrong_tape_puts_the_calls_of_all_shapes_in_doubt_and_all_of_them_end() -> None:
    number = [1.0]
    forward = Forward(lambda i: (i["x"] * number[0],), CPU)
    act = forward.on_arrays(x=np.ones((2, 3), np.float32))
    for _ in range(5):
        act(np.ones((2, 3), np.float32))
    number[0] = 3.0
    for _ in range(10):
        result = forward(x=torch.ones(4, 3))[0]
    assert result.unique().tolist() == [3] or forward.notice == ""
    for _ in range(10):
        forward(x=torch.ones(4, 3))
        act(np.ones((2, 3), np.float32))
    assert forward.notice and act(np.ones((2, 3), np.float32)).tolist() == [[3.0] * 3] * 2


def test_a_check_changes_no_bit() -> None:
    """The tape's own gradient is used where the two agree, torch's rounds differently."""
    ends = []
    for early in ((1, 2, 10, 100), tuple(range(1, 60))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rlx.engine.trust.EARLY", early)
            agent = Normed("tape")
            for _ in range(50):
                agent.step()
            ends.append(agent.learners["model"].flat.data.clone())
    assert torch.equal(*ends)


def test_a_difference_that_rounding_explains_is_none() -> None:
    """A gradient of nothing but rounding, and a value at the very edge of a clip: torch's own is as unsure."""
    torch.manual_seed(0)
    model, batch = net(3, 64, 1), points(256)
    with torch.no_grad():
        target = model(batch["x"]) + 1e-7 * torch.randn(256, 1)

    def loss(rows: Batch) -> Result:
        error = model(rows["x"]) - rows["target"]
        return error.square().mean(), {"loss": error.square().mean(), "share": (error > 0).float().mean()}

    learner = Learner(model, loss, engine="tape")
    for _ in range(12):
        learner.step({**batch, "target": target}, None, 0.0)
    assert not learner.notice and learner._tapes


# -- killed and resumed --------------------------------------------------------------------------------------------


class SharedTrunk:
    """One learner over a trunk and two heads, with the sum of two losses."""

    def __init__(self, engine: str) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"trunk": net(3, 16, 8), "actor": nn.Linear(8, 2), "critic": nn.Linear(8, 1)})
        self.learners = {"model": Learner(self.model, self.loss, engine=engine)}
        self.batch = points()

    def loss(self, batch: Batch) -> Result:
        features = self.model["trunk"](batch["x"]).tanh()
        value = self.model["critic"](features).squeeze(-1)
        policy_loss = -self.model["actor"](features).log_softmax(-1)[:, 0].mean()
        value_loss = (value - batch["x"].sum(-1)).square().mean()
        return policy_loss + value_loss, {"policy_loss": policy_loss, "value_loss": value_loss}

    def step(self) -> float:
        return self.learners["model"].step(self.batch, None, 1e-2)["value_loss"]


class Replaced(Hidden):
    """A scale that is bound anew once, after 300 calls: found at call 1,000."""

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self.calls = 0

    def step(self) -> float:
        self.calls += 1
        if self.calls == 301:
            self.scale = self.scale * 3.0
        return super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls, self.scale = state["calls"], state["scale"]


class Acting(Hidden):
    """A policy that acts by a Forward; its function holds a number that changes after call 20 (found at call 100)."""

    def __init__(self, engine: str) -> None:
        super().__init__(engine)
        self.calls, self.sum = 0, torch.zeros(32, 1)
        self.forward = Forward(lambda i: (self.model(i["x"]) * (1.0 if self.calls <= 20 else 0.5),), CPU, engine=engine)

    def step(self) -> float:
        self.calls += 1
        self.sum += self.forward(x=self.batch["x"])[0]
        return super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls, "sum": self.sum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls, self.sum = state["calls"], state["sum"]


def track(agent: Any, saved: dict[str, Any] | None = None) -> Run:
    """The agent as a run tracks it, restored from what another one saved."""
    parts = {"network": agent.model, **agent.learners}
    parts |= {name: part for name, part in {"agent": agent, "forward": getattr(agent, "forward", None)}.items()
              if hasattr(part, "state_dict")}  # fmt: skip
    run = Run(Path("unused"), CPU, 0, saved)
    run.track(**parts)
    return run


@pytest.mark.parametrize(
    "make, stop, end",
    [
        (Temperature, 150, 300),
        (Normed, 7, 30),
        (SharedTrunk, 150, 300),
        (Hidden, 1005, 1010),
        (Replaced, 1500, 1600),
        (Replaced, 250, 1100),
        (Acting, 120, 130),
        (Acting, 15, 130),
    ],
)
def test_one_killed_and_resumed_equals_one_never_stopped(make: Any, stop: int, end: int, tmp_path: Path) -> None:
    """Weights to the bit, verdicts and their notices."""
    whole, first, second = make("tape"), make("tape"), make("tape")
    for _ in range(stop):
        first.step()
    saved = checkpoint.Checkpoints(tmp_path)
    saved.save("step", 1, track(first).state_dict())
    track(second, saved.load().state)
    for _ in range(end):
        whole.step()
    for _ in range(end - stop):
        second.step()
    states = [track(agent).state_dict()["tracked"] for agent in (whole, second)]
    for name, state in states[0].items():
        for key, value in state.items():
            other = states[1][name][key]
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, (name, key)


def test_a_run_that_falls_back_at_call_1000_says_so_after_a_resume_too() -> None:
    agent, again = Replaced("tape"), Replaced("tape")
    for _ in range(1001):
        agent.step()
    track(again, track(agent).state_dict())
    notice = again.learners["model"].notice
    assert notice == agent.learners["model"].notice and "the 899 calls before may have been wrong" in notice


def test_the_state_of_an_older_version_fits() -> None:
    """Version 0.1.0 counted compared calls, of the learner alone."""
    agent = Acting("tape")
    for _ in range(3):
        agent.step()
    saved = track(agent).state_dict()
    del saved["tracked"]["forward"]
    for old in ({"taping": True, "compared": {"32": 2}}, {"taping": False, "compared": {"32": 1}}):
        optimizer = {key: saved["tracked"]["model"][key] for key in ("m", "v", "t")}
        again = Acting("tape")
        track(again, {**saved, "tracked": {**saved["tracked"], "model": {**optimizer, **old}}})
        again.step()
        assert bool(again.learners["model"]._tapes) == old["taping"] and again.forward._tapes


# -- one engine everywhere -----------------------------------------------------------------------------------------


class Clamped(ActorCritic):
    """A Gaussian policy whose log standard deviation is kept between -5 and 2."""

    def _params(self, features: Tensor) -> Tensor:
        mean = self.actor(features)
        return torch.cat([mean, self.log_std.clamp(-5, 2).expand_as(mean)], -1)


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_a_clamped_log_std_acts_as_it_learns(engine: str) -> None:
    """The policy that is taught is the one that acted: before the first step of an iteration their KL is 0."""
    env = EnvConfig(name="pendulum", id="Pendulum-v1")
    envs = make_envs(env, 2, seed=0)
    head = make_head(envs.action_space)
    model = Clamped((3,), head, ModelConfig([16], "tanh", False, True, 0.0, 32), torch.Generator())
    algo = SimpleNamespace(normalize_advantage=True, objective="clip", clip_vloss=0.0, vf_coef=0.5, ent_coef=0.01)
    learner = Learner(model, partial(ppo.loss, algo, model, head), engine=engine)
    rollout = Rollout(env, envs, model, head, 32, 0.99, np.random.default_rng(0), CPU, engine=engine)
    first = []
    for _ in range(30):
        batch = rollout.collect()
        batch |= {"advantage": batch["reward"] - batch["reward"].mean(), "return_": batch["reward"]}
        data = {name: rollout.rows(batch[name]) for name in ("obs", "action", "logprob", "advantage", "return_")}
        steps = [learner.step(data, slice(k % 4 * 16, k % 4 * 16 + 16), 3e-2, clip_coef=0.2) for k in range(8)]
        first.append(steps[0]["approx_kl"])
    assert max(first) < 1e-6 and steps[-1]["approx_kl"] > 1e-4  # float32: r - 1 - log r of r = 1 + 1e-7
    assert abs(float(model.log_std.detach())) > 0.15 and not learner.notice and not rollout.notice


ENGINES = ["algo=ppo", "algo=dqn", "algo=actor_critic_q", "algo=a2c", "algo=trpo", "algo=vpg"]


@pytest.mark.parametrize("algo", ENGINES)
def test_engine_torch_means_that_nothing_is_taped(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = Tape.__init__
    monkeypatch.setattr(
        Tape, "__init__", lambda self, *args, **kwargs: (made.append(1), real(self, *args, **kwargs))[1]
    )
    sizes = ["algo.learning_starts=100"] if "dqn" in algo else []
    for engine in ("torch", "auto"):
        made.clear()
        words = [algo, "env=cartpole", "preset=none", "total_steps=400", f"algo.engine={engine}", *sizes]
        cfg, module = typed(composed(*words))
        run = Run(Path("unused"), CPU, cfg.seed)
        for _ in module.train(cfg, run):
            pass
        learnt = len(made)
        world_of(cfg).load_policy(cfg, module, run)(np.zeros((2, 4), np.float32))
        assert (learnt > 0, len(made) > learnt) == ((False, False) if engine == "torch" else (True, True))


# -- parameters of two learners ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["tape", "torch"])
def test_two_learners_that_share_a_trunk_are_refused_in_one_line(engine: str) -> None:
    trunk, actor, critic = nn.Linear(3, 8), nn.Linear(8, 2), nn.Linear(8, 1)
    loss = Hidden("torch").loss
    first = Learner(nn.ModuleDict({"trunk": trunk, "actor": actor}), loss, engine=engine)
    with pytest.raises(ValueError, match=r"parameter trunk.weight, shape \(8, 3\), belongs to another learner: give"):
        Learner(nn.ModuleDict({"critic": critic, "trunk": trunk}), loss, engine=engine)
    with pytest.raises(ValueError, match="parameter 1"):
        Flat([*critic.parameters()][:1] + [trunk.bias])
    assert trunk.weight.data_ptr() == first.flat.data.data_ptr()  # as it was
    del first
    Learner(nn.ModuleDict({"critic": critic, "trunk": trunk}), loss, engine=engine)  # nobody else's any more


def test_a_learner_thrown_away_in_a_circle_holds_nothing() -> None:
    model = net(3, 2)
    flat = Flat(model)
    flat.itself = flat  # type: ignore[attr-defined]
    del flat
    Flat(model)


def test_a_parameter_given_twice_is_taken_once() -> None:
    model = net(3, 2)
    assert len(Flat([*model.parameters(), *model.parameters()]).data) == 8


def test_how_a_rollout_acts_and_evaluates_is_saved_with_it() -> None:
    rollouts = []
    for _ in range(2):
        env = EnvConfig(name="cartpole", id="CartPole-v1")
        envs = make_envs(env, 2, seed=0)
        head = make_head(envs.action_space)
        model = ActorCritic((4,), head, ModelConfig([8], "tanh", False, True, 0.0, 32), torch.Generator())
        rollouts.append(Rollout(env, envs, model, head, 16, 0.99, np.random.default_rng(0), CPU))
    first, second = rollouts
    first.collect()
    first.collect()
    assert first.state_dict()["act"]["calls"] == {"2x4 2x2": 32} and list(
        first.state_dict()["evaluate"]["calls"].values()
    ) == [2]
    first._act._trust.refuses("of a reason")
    second.load_state_dict(first.state_dict())
    second.collect()
    assert not second._act._tapes and second._evaluate._tapes and "of a reason" in second.notice
    assert second.state_dict()["evaluate"]["calls"] == {"34x4 32": 3}
    del (state := first.state_dict())["act"], state["evaluate"]  # version 0.1.0 had none
    first.load_state_dict(state)


def test_how_a_q_network_acts_is_saved_with_its_explorer(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        env = EnvConfig(name="cartpole", id="CartPole-v1")
        envs = make_envs(env, 2, seed=0)
        replay = Replay(envs, 100, Memory, frames=0, gamma=0.99, n_step=1, priorities=None)
        made.append(Explorer(env, envs, net(4, 8, 2), replay, 0.99, np.random.default_rng(0), CPU))
    first, second = made
    first.collect([0.0] * 7)
    assert first.state_dict()["greedy"]["calls"] == {"2x4 2x2": 7}
    first._acting._trust.refuses("of a reason")
    second.load_state_dict(first.state_dict())
    second.collect([0.0])
    assert not second._acting._tapes and "of a reason" in second.notice
