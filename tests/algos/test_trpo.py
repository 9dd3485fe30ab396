"""TRPO: the step against what the paper promises of it, on probe environments and on CartPole."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_runs
import torch
from training import train

from rlx.algos import trpo
from rlx.base.errors import ConfigError
from rlx.control.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical
from rlx.control.networks import ActorCritic, ModelConfig
from rlx.engine.learner import Learner
from rlx.functional import trust_region as tr
from rlx.run import Run

SMALL = (
    "algo=trpo", "env=gym", "env.name=probe", "preset=none", "model.hidden=[32]", "algo.num_envs=4",
    "algo.num_steps=32", "algo.num_epochs=10", "algo.num_minibatches=4", "algo.lr=5e-3", "algo.gamma=0.9",
    "algo.target_kl=0.05", "algo.cg_damping=0.01", "algo.cg_steps=5",
)  # fmt: skip


def probe(name: str, steps: int, *overrides: str) -> Run:
    run, _ = train(*SMALL, f"env.id='probe_envs:{name}-v0'", f"total_steps={steps}", *overrides)
    return run


def value(run: Run, *obs: float) -> list[float]:
    model: ActorCritic = run.tracked["policy"]
    with torch.no_grad():
        return model(torch.tensor(obs)[:, None])[1].tolist()


def params(run: Run, *obs: float) -> torch.Tensor:
    with torch.no_grad():
        return run.tracked["policy"].policy(torch.tensor(obs)[:, None])


def test_a_constant_reward_of_1_is_worth_1() -> None:
    assert value(probe("Constant", 4_000), 0.0) == pytest.approx([1.0], abs=0.05)


def test_the_value_follows_the_observation() -> None:
    assert value(probe("Observation", 6_000), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.1)


def test_a_reward_one_step_away_is_discounted_once() -> None:
    assert value(probe("TwoSteps", 6_000), 0.0, 1.0) == pytest.approx([0.9, 1.0], abs=0.05)


def test_the_rewarded_action_is_chosen() -> None:
    assert float(params(probe("Action", 3_000), 0.0).softmax(-1)[0, 1]) > 0.95


@pytest.mark.parametrize("fraction", [1.0, 0.25])
def test_the_action_follows_the_observation(fraction: float) -> None:
    low, high = params(probe("Match", 6_000, f"algo.fvp_fraction={fraction}"), -1.0, 1.0).softmax(-1)[:, 1].tolist()
    assert low < 0.05 and high > 0.95


def test_truncation_is_bootstrapped_so_that_an_endless_reward_is_worth_1_over_1_minus_gamma() -> None:
    # Taken for termination, the value of 10 steps would be below (1 - .9^10) / .1 = 6.5 on average.
    assert value(probe("Endless", 12_000, "algo.lr=1e-2", "algo.num_epochs=20"), 1.0) == pytest.approx([10.0], abs=0.3)


def test_a_continuous_action_aims_at_the_target() -> None:
    means = params(probe("Aim", 15_000), -1.0, 1.0)[:, :2]
    torch.testing.assert_close(means, torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), rtol=0, atol=0.15)


def test_every_lever_of_a_multi_discrete_action_is_learnt() -> None:
    parts = params(probe("Levers", 6_000), 0.0)[0].split([3, 2, 4])
    assert [int(part.argmax()) for part in parts] == [2, 0, 1]
    assert all(float(part.softmax(-1).max()) > 0.9 for part in parts)


def test_every_bit_of_a_multi_binary_action_is_learnt() -> None:
    assert params(probe("Bits", 4_000), 0.0).sigmoid()[0].round().tolist() == [1, 0, 1]


# -- one step of the policy ----------------------------------------------------------------------------------------

HEADS = {
    "discrete": Categorical(3),
    "box": Gaussian(2),
    "multi-discrete": MultiCategorical([2, 3]),
    "bits": Bernoulli(2),
}
each_head = pytest.mark.parametrize("kind", HEADS)


def setup(kind: str = "discrete", n: int = 200, shape: tuple[int, ...] = (4,), **changes):
    """A policy in float64, its trust region, and data that it could have collected."""
    base = {"cg_steps": 20, "cg_damping": 0.1, "target_kl": 0.01, "line_search_steps": 10, "line_search_shrink": 0.8}
    head, generator = HEADS[kind], torch.Generator().manual_seed(0)
    hidden = [8] if len(shape) == 1 else []
    model = ActorCritic(shape, head, ModelConfig(hidden, "tanh", False, True, -0.3, 16), generator)
    with torch.no_grad():
        model.actor[-1].weight.mul_(50)  # from nearly uniform to opinionated
    obs = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    if len(shape) == 1:
        model.double()
    else:  # the CNN is float32
        obs = (obs.sigmoid() * 255).byte()
    with torch.no_grad():
        old = model.policy(obs)
        action = head.sample(old, torch.from_numpy(head.noise(np.random.default_rng(0), (n,))))
        logprob, _ = head.logprob_entropy(old, action)
    advantage = torch.randn(n, generator=generator, dtype=torch.float64).to(old.dtype)
    data = {"obs": obs, "action": action, "logprob": logprob, "params": old, "advantage": advantage}
    return trpo.TrustRegion(SimpleNamespace(**{**base, **changes}), model, head), model, data


def bits(model: ActorCritic) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def policy_is(model: ActorCritic, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(x, before[name]) for name, x in model.state_dict().items() if "critic" not in name)


@each_head
def test_an_accepted_step_improves_the_surrogate_and_moves_the_kl_no_further_than_the_target(kind: str) -> None:
    region, model, data = setup(kind)
    before = bits(model)
    found = region.step(data)
    assert found["is_line_search_success"] == 1 and not policy_is(model, before)
    with torch.no_grad():
        new = model.policy(data["obs"])
        logprob, _ = HEADS[kind].logprob_entropy(new, data["action"])
        kl = float(HEADS[kind].kl(data["params"], new).mean())
    objective = float(((logprob - data["logprob"]).exp() * data["advantage"]).mean())
    assert objective > float(data["advantage"].mean())  # what it was at ratio 1
    assert 0 < kl <= 0.01
    assert (found["policy_objective"], found["kl_divergence_loss"]) == pytest.approx((objective, kl))


@each_head
def test_the_full_step_solves_the_damped_system_and_its_quadratic_kl_is_the_target(kind: str) -> None:
    """Against a matrix from autograd's Hessian and LAPACK. So short a step is accepted as it is."""
    region, model, data = setup(kind, cg_steps=100, target_kl=1e-4)
    named = dict(model.named_parameters())
    own = [name for name in named if "critic" not in name]
    theta = torch.cat([named[name].detach().flatten() for name in own])

    def params(x: torch.Tensor) -> torch.Tensor:
        parts = x.split([named[name].numel() for name in own])
        new = {name: part.view_as(named[name]) for name, part in zip(own, parts)}
        return torch.func.functional_call(_Policy(model), {f"model.{k}": v for k, v in new.items()}, (data["obs"],))

    head = HEADS[kind]
    hessian = torch.autograd.functional.hessian(lambda x: head.kl(data["params"], params(x)).mean(), theta)
    x = theta.clone().requires_grad_()
    logprob, _ = head.logprob_entropy(params(x), data["action"])
    (gradient,) = torch.autograd.grad((logprob * data["advantage"]).mean(), x)  # A2C's, to go uphill
    damped = hessian + 0.1 * torch.eye(len(theta), dtype=torch.float64)
    direction = torch.linalg.solve(damped, gradient)
    expected = (2e-4 / (direction @ damped @ direction)).sqrt() * direction
    assert region.step(data)["line_search"] == 1
    got = torch.cat([p.detach().flatten() for name, p in model.named_parameters() if name in own]) - theta
    assert (got - expected).norm() < 1e-4 * expected.norm()  # conjugate gradient stops at a residual of 1e-5
    assert float(0.5 * got @ damped @ got) == pytest.approx(1e-4, rel=1e-4)


class _Policy(torch.nn.Module):
    def __init__(self, model: ActorCritic) -> None:
        super().__init__()
        self.model = model

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.model.policy(obs)


def test_damping_turns_the_step_from_the_natural_gradient_towards_the_gradient() -> None:
    cosines = []
    for damping in (1e-6, 0.1, 1e3):
        region, model, data = setup(cg_damping=damping, cg_steps=100)
        objective, _ = region.loss_and_kl(data)
        gradient = -tr.flat_gradient(objective, region.flat.params)
        before = region.flat.data.clone()
        region.step(data)
        cosines.append(float(torch.cosine_similarity(region.flat.data - before, gradient, 0)))
    assert cosines[0] < cosines[1] < cosines[2] and cosines[2] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("fault", ["never better", "too far", "nan"])
def test_where_no_step_is_accepted_the_parameters_come_back_bit_for_bit(fault: str, monkeypatch) -> None:
    region, model, data = setup("box")
    real, before = region.loss_and_kl, bits(model)
    tried = []

    def failing(rows):
        objective, kl = real(rows)
        if torch.is_grad_enabled():
            return objective, kl
        tried.append(region.flat.data.clone())
        return {"never better": (objective * 0, kl), "too far": (objective, kl * 0 + 0.010001),
                "nan": (objective * torch.nan, kl * torch.nan)}[fault]  # fmt: skip

    # An objective that is 0 is no improvement on one that is below it.
    data["advantage"] = data["advantage"] - data["advantage"].mean() + (fault == "never better")
    monkeypatch.setattr(region, "loss_and_kl", failing)
    found = region.step(data)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert (found["is_line_search_success"], found["line_search"], found["kl_divergence_loss"]) == (0, 10, 0)
    start = torch.cat([p.detach().flatten() for p in model.policy_parameters()])
    full = tried[0] - start
    assert full.abs().max() > 0
    for k, candidate in enumerate(tried):  # the steps that were tried: 1, .8, .64, ...
        torch.testing.assert_close(candidate - start, 0.8**k * full)


def test_a_step_that_is_too_long_is_shortened_until_its_kl_fits() -> None:
    """Without damping and with few rows the quadratic model is too optimistic: the line search has work to do."""
    shortened = 0
    for n in (10, 20, 40, 80):
        region, model, data = setup(n=n, cg_damping=1e-3, target_kl=0.5)
        found = region.step(data)
        with torch.no_grad():
            kl = HEADS["discrete"].kl(data["params"], model.policy(data["obs"])).mean()
        assert kl <= 0.5
        shortened += found["line_search"] > 1
    assert shortened


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_advantage_that_is_not_finite_is_an_error_and_changes_nothing(bad: float) -> None:
    region, model, data = setup()
    before = bits(model)
    data["advantage"][3] = bad
    with pytest.raises(FloatingPointError, match="the policy gradient is not finite"):
        region.step(data)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_without_an_advantage_there_is_nothing_to_improve() -> None:
    region, model, data = setup()
    before = bits(model)
    data["advantage"].zero_()
    assert region.step(data)["is_line_search_success"] == 0 and policy_is(model, before)


def test_on_policy_the_gradient_is_the_policy_gradient_of_a2c() -> None:
    region, model, data = setup()
    objective, divergence = region.loss_and_kl(data)
    got = tr.flat_gradient(objective, region.flat.params)
    logprob, _ = HEADS["discrete"].logprob_entropy(model.policy(data["obs"]), data["action"])
    grads = torch.autograd.grad(-(logprob * data["advantage"]).mean(), model.policy_parameters())
    torch.testing.assert_close(got, torch.cat([grad.flatten() for grad in grads]))
    assert float(divergence.detach()) == 0


def test_a_subset_of_the_rows_gives_the_fisher_matrix_of_those_rows(monkeypatch) -> None:
    region, model, data = setup()
    seen = []
    monkeypatch.setattr(
        tr, "conjugate_gradient", lambda product, b, steps: (seen.append(product(torch.ones_like(b))), b)[1]
    )
    index = torch.arange(0, 200, 7)
    region.step(data, index)
    fresh, _, _ = setup()
    fresh.step({name: rows[index] for name, rows in data.items()})
    torch.testing.assert_close(seen[0], seen[1])
    fresh, _, _ = setup()
    fresh.step(data)
    assert (seen[2] - seen[0]).abs().max() > 1e-3


# -- policy and critic ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (1, 36, 36)], ids=["vector", "image"])
def test_the_policys_step_leaves_the_critic_alone_and_the_critics_steps_the_policy(shape) -> None:
    region, model, data = setup("box", n=20, shape=shape)
    critic = Learner(model.critic, lambda batch: trpo.value_loss(model.critic, batch), engine="torch")
    before = bits(model)
    assert region.step(data)["is_line_search_success"] == 1
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert {name for name in before if "critic" not in name} == moved  # log_std and the CNN among them
    before = bits(model)
    with torch.no_grad():
        features = model.features(data["obs"])
    critic.step({"features": features, "return_": data["advantage"].to(features.dtype)}, None, 1e-3)
    moved = {name for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert {name for name in before if "critic" in name} == moved


def test_a_shared_trunk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^model\.shared=true: trpo needs false \([^\n]*\)$"):
        tiny_runs.train(tmp_path, algo="trpo", model__shared=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"^model\.shared=true"):
        train("algo=trpo", "model.shared=true")


def test_more_minibatches_than_rows_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"algo.num_minibatches=33: must be at most num_envs \* num_steps = 32"):
        train("algo=trpo", "preset=none", "algo.num_envs=2", "algo.num_steps=16", "algo.num_minibatches=33")


# -- runs ----------------------------------------------------------------------------------------------------------


CASES = {
    "cartpole": ("cartpole", {"algo__fvp_fraction": 0.5}),
    "pendulum, normalized": ("pendulum", {"env__normalize_obs": True, "env__normalize_reward": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_equals_one_never_stopped(case: str, tmp_path: Path) -> None:
    env, changes = CASES[case]
    path = tmp_path / "run"

    def start(name: str, **more) -> Path:
        return tiny_runs.train(tmp_path, env, name=name, algo="trpo", **changes, **more)

    whole = tiny_runs.result(start("whole"))
    lives = [
        lambda: start("run", progress=tiny_runs.die_at(32)),
        lambda: tiny_runs.resume(path, progress=tiny_runs.die_at(160)),
        lambda: (tiny_runs.die_at_env_step(50), tiny_runs.resume(path)),
    ]
    for life in lives:
        assert tiny_runs.Child(life).wait() == -signal.SIGKILL
    tiny_runs.resume(path)
    assert tiny_runs.result(path) == whole == tiny_runs.result(start("again"))
    assert tiny_runs.result(start("other", seed=2))[0] != whole[0]


def test_no_update_of_a_run_moves_the_kl_beyond_its_target_and_it_learns() -> None:
    _, history = train("algo=trpo", "env=cartpole", "total_steps=30_000")
    kls = [metrics["train/kl_divergence_loss"] for metrics in history]
    assert max(kls) <= 0.01 and min(kls) >= 0 and np.mean(kls) > 0.005
    assert all(metrics["train/line_search"] in range(1, 11) for metrics in history)
    assert history[-1]["rollout/ep_rew_mean"] > 5 * history[0]["rollout/ep_rew_mean"]
    json.dumps(history)  # plain numbers
    assert history[-1]["train/n_updates"] == len(history)


def test_the_tape_and_ordinary_torch_train_the_same_critic() -> None:
    runs = [
        train("algo=trpo", "preset=none", "total_steps=2048", f"algo.engine={engine}", "algo.num_steps=512",
              "algo.num_epochs=2", "algo.num_minibatches=4")
        for engine in ("tape", "torch")
    ]  # fmt: skip
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)  # float32, 32 gradient steps by other kernels
    assert not runs[0][0].notices
