"""PPO on probe environments with analytic answers, and its invariants on CartPole."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composed import composed
from training import train

from rlx.algos import ppo
from rlx.control.distributions import Categorical
from rlx.control.networks import ActorCritic, ModelConfig
from rlx.functional import kl
from rlx.run import Run
from rlx.training.runner import typed

SMALL = (
    "env=gym", "env.name=probe", "preset=none", "model.hidden=[32]", "algo.num_envs=4", "algo.num_steps=32",
    "algo.num_epochs=10", "algo.num_minibatches=4", "algo.lr=5e-3", "algo.gamma=0.9",
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
    assert value(probe("Constant", 2_000), 0.0) == pytest.approx([1.0], abs=0.05)


def test_the_value_follows_the_observation() -> None:
    assert value(probe("Observation", 3_000), -1.0, 1.0) == pytest.approx([-1.0, 1.0], abs=0.1)


def test_a_reward_one_step_away_is_discounted_once() -> None:
    assert value(probe("TwoSteps", 4_000), 0.0, 1.0) == pytest.approx([0.9, 1.0], abs=0.05)


@pytest.mark.parametrize("algo", ["ppo", "ppo_penalty"])
def test_the_rewarded_action_is_chosen(algo: str) -> None:
    run = probe("Action", 2_000, f"algo={algo}")
    assert float(params(run, 0.0).softmax(-1)[0, 1]) > 0.95


@pytest.mark.parametrize("shared", ["true", "false"])
def test_the_action_follows_the_observation(shared: str) -> None:
    run = probe("Match", 4_000, f"model.shared={shared}")
    low, high = params(run, -1.0, 1.0).softmax(-1)[:, 1].tolist()
    assert low < 0.05 and high > 0.95


def test_truncation_is_bootstrapped_so_that_an_endless_reward_is_worth_1_over_1_minus_gamma() -> None:
    # Taken for termination, the value of 10 steps would be below (1 - .9^10) / .1 = 6.5 on average.
    run = probe("Endless", 16_000, "algo.gae_lambda=0.95", "algo.lr=1e-2", "algo.max_grad_norm=0", "algo.num_epochs=4")
    assert value(run, 1.0) == pytest.approx([10.0], abs=0.3)


def test_a_continuous_action_aims_at_the_target() -> None:
    run = probe("Aim", 16_000, "algo.num_epochs=5")
    means = params(run, -1.0, 1.0)[:, :2]
    torch.testing.assert_close(means, torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), rtol=0, atol=0.15)


def test_every_lever_of_a_multi_discrete_action_is_learnt() -> None:
    run = probe("Levers", 6_000)
    parts = params(run, 0.0)[0].split([3, 2, 4])
    assert [int(part.argmax()) for part in parts] == [2, 0, 1]
    assert all(float(part.softmax(-1).max()) > 0.9 for part in parts)


def test_every_bit_of_a_multi_binary_action_is_learnt() -> None:
    run = probe("Bits", 5_000)
    assert params(run, 0.0).sigmoid()[0].round().tolist() == [1, 0, 1]


def test_normalisation_does_not_change_what_is_right() -> None:
    run = probe("Match", 4_000, "env.normalize_obs=true", "env.normalize_reward=true")
    norm = run.tracked["normalizer"].obs
    obs = norm.normalize(np.array([[-1.0], [1.0]], np.float32))[:, 0].tolist()
    low, high = params(run, *obs).softmax(-1)[:, 1].tolist()
    assert low < 0.1 and high > 0.9


# -- invariants ----------------------------------------------------------------------------------------------------


def minibatch(model: ActorCritic, head: Categorical, n: int = 64) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    obs, action = torch.randn(n, 4), torch.randint(0, 2, (n,))
    with torch.no_grad():
        params, value = model(obs)
        logprob, _ = head.logprob_entropy(params, action)
    hyper = {"clip_coef": torch.tensor(0.2), "kl_coef": torch.tensor(1.0)}
    rows = {"obs": obs, "action": action, "logprob": logprob, "params": params, "value": value}
    return {**rows, "advantage": torch.randn(n), "return_": torch.randn(n), **hyper}


def setup(**changes) -> tuple[SimpleNamespace, ActorCritic, Categorical]:
    base = {"normalize_advantage": False, "objective": "clip", "clip_vloss": 0.0, "vf_coef": 0.5, "ent_coef": 0.0}
    head = Categorical(2)
    model = ActorCritic((4,), head, ModelConfig([16], "tanh", False, False, 0.0, 32), torch.Generator().manual_seed(0))
    return SimpleNamespace(**{**base, **changes}), model, head


def test_in_the_first_minibatch_ratio_is_1_kl_0_and_nothing_is_clipped() -> None:
    _, history = train("algo.num_epochs=1", "algo.num_minibatches=1", "total_steps=1000", "preset=none")
    for metrics in history:
        assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-6)
        assert metrics["train/clip_fraction"] == 0


def test_on_policy_the_gradient_is_the_policy_gradient_of_a2c() -> None:
    cfg, model, head = setup()
    batch = minibatch(model, head)
    loss, _ = ppo.loss(cfg, model, head, batch)
    got = torch.autograd.grad(loss, list(model.actor.parameters()))
    logprob, _ = head.logprob_entropy(model.policy(batch["obs"]), batch["action"])
    expected = torch.autograd.grad(-(logprob * batch["advantage"]).mean(), list(model.actor.parameters()))
    for a, b in zip(got, expected):
        torch.testing.assert_close(a, b)


def test_the_policy_loss_does_not_reach_the_critic() -> None:
    cfg, model, head = setup(vf_coef=0.0)
    loss, _ = ppo.loss(cfg, model, head, minibatch(model, head))
    assert all(float(g.abs().max()) == 0 for g in torch.autograd.grad(loss, list(model.critic.parameters())))


def test_a_minibatch_of_one_row_has_a_finite_loss() -> None:
    cfg, model, head = setup(normalize_advantage=True)
    rows = minibatch(model, head, 1)
    assert math.isfinite(float(ppo.loss(cfg, model, head, rows)[0].detach()))


def test_minibatches_that_do_not_divide_the_batch_are_all_used() -> None:
    sizes = ("algo.num_envs=3", "algo.num_steps=11", "algo.num_minibatches=4", "algo.num_epochs=2")
    _, history = train("total_steps=500", "preset=none", *sizes)
    assert history[0]["train/n_updates"] == 8  # 33 rows in 9 + 9 + 9 + 6, twice


def test_the_learning_rate_starts_at_lr_and_ends_at_lr_over_the_number_of_updates() -> None:
    _, history = train("total_steps=2048", "preset=none", "algo.num_envs=4", "algo.num_steps=64", "algo.lr=1e-3",
                       "algo.anneal_lr=true", "algo.anneal_clip=true")  # fmt: skip
    assert history[0]["train/learning_rate"] == 1e-3
    assert history[-1]["train/learning_rate"] == pytest.approx(1e-3 / 8)
    assert history[-1]["train/clip_range"] == pytest.approx(0.2 / 8)


def test_the_kl_stop_ends_the_whole_iteration() -> None:
    _, history = train("total_steps=4096", "preset=none", "algo.lr=0.05", "algo.target_kl=1e-6")
    steps = np.diff([0] + [metrics["train/n_updates"] for metrics in history])
    assert (steps < 10 * 32).all() and (steps <= 3).all()


def test_beta_doubles_above_the_target_and_halves_below_it() -> None:
    beta = ppo.AdaptiveKL(1.0)
    for divergence, expected in [(0.016, 2.0), (0.006, 1.0), (0.01, 1.0), (0.0, 0.5)]:
        beta.adapt(divergence, 0.01)
        assert beta.coef == expected == float(kl.adaptive_kl_coef(expected, 0.01, 0.01))


@pytest.mark.parametrize("objective", ["clip", "penalty"])
def test_the_tape_and_ordinary_torch_learn_the_same(objective: str) -> None:
    runs = [
        train("preset=none", "total_steps=4096", f"algo.objective={objective}", f"algo.engine={engine}",
              "algo.clip_vloss=0.2", "algo.ent_coef=0.01", "algo.num_epochs=2", "algo.num_minibatches=4")
        for engine in ("tape", "torch")
    ]  # fmt: skip
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # float32, 16 gradient steps by other kernels
    assert not runs[0][0].notices


def test_ppo_solves_cartpole() -> None:
    # The preset; final training return over 100 episodes, two seeds of three: a processor of other vectors rounds
    # otherwise, and any one seed may be unlucky there (docs/results has the ten seeds of the full claim).
    reached = missed = 0
    for seed in (1, 2, 3):
        if max(reached, missed) < 2:
            _, history = train("algo=ppo", "env=cartpole", f"seed={seed}")
            solved = history[-1]["rollout/ep_rew_mean"] >= 475
            reached, missed = reached + solved, missed + (not solved)
    assert reached == 2


def test_more_minibatches_than_rows_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"algo.num_minibatches=33: must be at most num_envs \* num_steps = 32"):
        train("preset=none", "algo.num_envs=2", "algo.num_steps=16", "algo.num_minibatches=33")


def test_minibatches_of_one_row_are_refused_where_their_advantage_would_be_0() -> None:
    """Normalised, a single advantage is 0: 4.8 of 10 was learnt, which is chance."""
    words = ["env=cartpole", "preset=none", "algo.num_envs=2", "algo.num_steps=16"]
    for count in (17, 32):
        with pytest.raises(
            ValueError, match=rf"algo.num_minibatches={count}: of 32 rows leaves one row in a minibatch"
        ):
            typed(composed("algo=ppo", *words, f"algo.num_minibatches={count}"))
    typed(composed("algo=ppo", *words, "algo.num_minibatches=16"))
    typed(composed("algo=ppo", *words, "algo.num_minibatches=32", "algo.normalize_advantage=false"))
    for algo in ("a2c", "trpo"):
        one = ["algo.num_envs=1", "algo.num_steps=1", "algo.normalize_advantage=true"]
        more = ["algo.num_minibatches=1"] if algo == "trpo" else []
        with pytest.raises(ValueError, match="a single row has the normalised advantage 0"):
            typed(composed(f"algo={algo}", "env=cartpole", "preset=none", *one, *more))


def test_the_surrogate_is_the_clip_that_never_clips() -> None:
    words = (
        "env=cartpole",
        "preset=none",
        "total_steps=512",
        "algo.num_envs=4",
        "algo.num_steps=64",
        "model.hidden=[8]",
    )
    (one, _), (other, _) = (
        train(*words, *more) for more in (("algo=ppo_surrogate",), ("algo=ppo", "algo.clip_coef=1e9"))
    )
    for mine, theirs in zip(one.tracked["policy"].parameters(), other.tracked["policy"].parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)  # float32
