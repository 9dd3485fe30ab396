"""Online actor-critic: targets by hand, the direction of the critic's step, fixed points on probe environments."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tiny_runs import train as start
from training import train

from rlx.algos import actor_critic
from rlx.base.errors import ConfigError
from rlx.control.distributions import Categorical
from rlx.control.networks import ActorCritic, ModelConfig
from rlx.run import Run

torch.set_num_threads(1)


def setup(num_values: int | None = 2) -> tuple[ActorCritic, Categorical, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    head = Categorical(2)
    net = ModelConfig([8], "tanh", False, False, 0.0, 32)
    model = ActorCritic((3,), head, net, generator, num_values).double()
    seen = {
        "obs": torch.randn(5, 1, 3, generator=generator, dtype=torch.float64),
        "next_obs": torch.randn(5, 1, 3, generator=generator, dtype=torch.float64),
        "action": torch.tensor([0, 1, 1, 0, 1])[:, None],
        "reward": torch.randn(5, 1, generator=generator, dtype=torch.float64),
        "terminated": torch.tensor([0, 0, 1, 0, 1]).bool()[:, None],
        "noise": torch.tensor([[99.0, 0.0], [0.0, 99.0], [99.0, 0.0], [0.0, 99.0], [99.0, 0.0]])[:, None],  # decides a'
    }
    return model, head, seen


@pytest.mark.parametrize("weight", ["value", "error", "advantage"])
def test_the_target_is_sarsas_and_the_weight_the_one_asked_for(weight: str) -> None:
    model, head, seen = setup()
    cfg = SimpleNamespace(gamma=0.9, weight=weight)
    target, got = (tensor.detach() for tensor in actor_critic.sarsa(cfg, model, head, seen))
    for k, next_action in enumerate([0, 1, 0, 1, 0]):
        params, q = (tensor.detach() for tensor in model(seen["obs"][k, 0]))
        next_q = model(seen["next_obs"][k, 0])[1].detach()
        after = 0.0 if seen["terminated"][k, 0] else 0.9 * float(next_q[next_action])
        expected = float(seen["reward"][k, 0]) + after
        taken = float(q[seen["action"][k, 0]])
        assert float(target[k, 0]) == pytest.approx(expected)
        average = float((params.softmax(-1) * q).sum())
        wanted = {"value": taken, "error": expected - taken, "advantage": taken - average}[weight]
        assert float(got[k, 0]) == pytest.approx(wanted)


@pytest.mark.parametrize("num_values", [None, 2])
def test_the_critic_moves_along_plus_delta(num_values: int | None) -> None:
    model, _, seen = setup(num_values)
    obs, action = seen["obs"][:1].flatten(0, 1), seen["action"][:1].flatten()

    def value() -> float:
        found = model.value(obs)
        return float((found if num_values is None else actor_critic.of_action(found, action)).detach())

    for sign in (1, -1):
        before = value()
        target = torch.tensor([before + sign], dtype=torch.float64)
        loss, _ = actor_critic.critic_loss(model, {"obs": obs, "action": action, "target": target})
        params = list(model.critic.parameters())
        for param, grad in zip(params, torch.autograd.grad(loss, params), strict=True):
            param.data -= 1e-3 * grad
        assert (value() - before) * sign > 0


def test_the_critic_holds_its_target_fixed_and_leaves_the_policy_alone() -> None:
    model, _, seen = setup()
    rows = {name: tensor.flatten(0, 1) for name, tensor in seen.items()}
    batch = {"obs": rows["obs"], "action": rows["action"], "target": torch.randn(5).double().requires_grad_()}
    loss, _ = actor_critic.critic_loss(model, batch)
    grads = torch.autograd.grad(loss, [batch["target"], *model.policy_parameters()], allow_unused=True)
    assert all(grad is None or float(grad.abs().max()) == 0 for grad in grads)


def probe(name: str, steps: int, *overrides: str) -> Run:
    env = ("env=gym", "env.name=probe", f"env.id='probe_envs:{name}-v0'", "preset=none", "model.hidden=[32]")
    rates = ("algo.gamma=0.9", "algo.lr=1e-3", "algo.critic_lr=1e-2", "algo.anneal_lr=true", "algo.max_grad_norm=0")
    return train(*env, *rates, f"total_steps={steps}", *overrides)[0]


def values(run: Run, *obs: float) -> torch.Tensor:
    with torch.no_grad():
        return run.tracked["policy"].value(torch.tensor(obs)[:, None])


@pytest.mark.parametrize("algo", ["actor_critic", "actor_critic_nstep"])
def test_v_of_a_reward_one_step_away_is_discounted_once(algo: str) -> None:
    assert values(probe("TwoSteps", 9_000, f"algo={algo}"), 0.0, 1.0).tolist() == pytest.approx([0.9, 1.0], abs=0.05)


@pytest.mark.parametrize("weight", ["value", "advantage", "error"])
def test_q_of_a_reward_one_step_away_is_discounted_once_for_both_actions(weight: str) -> None:
    run = probe("TwoSteps", 8_000, "algo=actor_critic_q", f"algo.weight={weight}", "algo.ent_coef=0.1")
    expected = torch.tensor([[0.9, 0.9], [1.0, 1.0]])
    torch.testing.assert_close(values(run, 0.0, 1.0), expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("algo", ["actor_critic", "actor_critic_q"])
def test_truncation_is_bootstrapped(algo: str) -> None:
    found = values(probe("Endless", 32_000, f"algo={algo}", "algo.ent_coef=0.1", "algo.num_envs=32"), 1.0)
    assert found.flatten().tolist() == pytest.approx([10.0] * found.numel(), abs=0.5)


def test_continuous_actions_aim_at_the_target() -> None:
    run = probe("Aim", 24_000, "algo=actor_critic", "algo.lr=1e-2", "algo.num_envs=32")
    with torch.no_grad():
        means = run.tracked["policy"].policy(torch.tensor([[-1.0], [1.0]]))[:, :2]
    torch.testing.assert_close(means, torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), rtol=0, atol=0.15)


REFUSED = {
    "algo.weight=value: V.s. says nothing of the action; critic=v needs weight=error": {"algo.weight": "value"},
    "algo.n_step=2: must be at most num_steps=1": {"algo.n_step": 2},
    "algo.n_step=2: critic=q has SARSA's one-step target": {"algo": "actor_critic_q", "algo.n_step": 2},
    "Pendulum-v1 has Box actions; algo.critic=q needs Discrete ones": {"algo": "actor_critic_q", "env": "pendulum"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_sense_is_refused_by_name(message: str, tmp_path) -> None:
    with pytest.raises(ConfigError, match=message):
        start(tmp_path / "runs", **{"algo": "actor_critic", **REFUSED[message]})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("algo", ["actor_critic", "actor_critic_q"])
def test_the_tape_and_ordinary_torch_learn_the_same(algo: str) -> None:
    runs = [
        train(f"algo={algo}", "env=cartpole", "preset=none", "total_steps=800", f"algo.engine={engine}")
        for engine in ("tape", "torch")
    ]
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # float32, 200 gradient steps by other kernels
    assert not runs[0][0].notices
