"""SAC, TD3 and DDPG on probe environments with analytic answers, their gradients, and exact resume with the buffer."""

from __future__ import annotations

import math
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import composed
from gymnasium.spaces import Box
from tiny_runs import Child, die_at, die_at_env_step, result, resume
from training import train

from rlx.algos import sac, td3
from rlx.base.errors import ConfigError
from rlx.control.acting.box import BoxExplorer, BoxPolicy
from rlx.control.acting.noise import OrnsteinUhlenbeck
from rlx.control.actors import Critics, DeterministicActor, SquashedGaussian, Target
from rlx.control.networks import ModelConfig
from rlx.engine.learner import Learner
from rlx.engine.tape import Tape
from rlx.envs.spaces import ActionDecoder
from rlx.run import Run
from rlx.training import runner

NAMES = ("sac", "td3", "ddpg")
SMALL = (
    "env=gym", "env.name=probe", "preset=none", "model.hidden=[32]", "model.activation=relu", "algo.num_envs=4",
    "algo.batch_size=64", "algo.train_freq=8", "algo.gradient_steps=16", "algo.rounds=4", "algo.lr=3e-3",
    "algo.gamma=0.9", "algo.learning_starts=100", "algo.buffer_size=2000", "algo.tau=0.05",
)  # fmt: skip
VARIANTS = {
    "sac": (),
    "sac, ordinary torch": ("algo.engine=torch", "algo.gradient_steps=12"),
    "sac, held noise": ("algo.noise=sde", "algo.noise_every=4"),
    "sac, normalized, 3 critics": ("env.normalize_obs=true", "algo.num_critics=3"),
    "sac, orthogonal, 3 steps": ("model.orthogonal_init=true", "algo.n_step=3"),
    "td3": (),
    "td3, ordinary torch": ("algo.engine=torch",),
    "td3, noise that remembers itself": ("algo.noise=ou", "algo.noise_std=1.0"),
    "ddpg": ("algo.noise_std=0.3", "algo.anneal_lr=true", "model.hidden=[64]"),
}  # fmt: skip


def probe(algo: str, name: str, steps: int, *overrides: str) -> Run:
    run, _ = train(f"algo={algo}", *SMALL, f"env.id='probe_envs:{name}-v0'", f"total_steps={steps}", *overrides)
    assert not [notice for notice in run.notices if "are rescaled" not in notice]
    return run


def seen(run: Run, *obs: float) -> torch.Tensor:
    norm, x = run.tracked["normalizer"].obs, np.array(obs, np.float32)[:, None]
    return torch.from_numpy(norm.normalize(x) if norm else x)


@torch.no_grad()
def q(run: Run, obs: torch.Tensor, action: Any) -> torch.Tensor:
    return run.tracked["critics"](obs, torch.tensor(action, dtype=torch.float32)).mean(0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_action_aims_at_half_the_observation(variant: str) -> None:
    run = probe(variant.partition(",")[0], "Aim", 3000, *VARIANTS[variant])
    with torch.no_grad():
        mode = run.tracked["policy"].mode(seen(run, -1.0, 1.0))
    torch.testing.assert_close(mode, torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), rtol=0, atol=0.1)


@pytest.mark.parametrize("algo", NAMES)
def test_the_critics_know_what_actions_are_worth_and_unequal_bounds_are_kept(algo: str) -> None:
    """One step an episode: Q is the reward, of actions scaled to the bounds; the best ones are (1, 11) + s / 2."""
    run = probe(algo, "AimUnequal", 3000, "algo.noise_std=0.3" if algo != "sac" else "algo.alpha=0.1")
    policy = load(run, algo, "AimUnequal")
    decode = ActionDecoder(Box(np.float32([-1, 10]), np.float32([3, 12])), "env").decode  # the second is rescaled
    np.testing.assert_allclose(decode(policy(np.float32([[-1], [1]]))), [[0.5, 10.5], [1.5, 11.5]], atol=0.15)
    for action in ([0.0, 0.0], [0.25, 0.5], [0.5, 0.25]):  # halves of the ranges: 2 and 1
        reward = -((2 * action[0] - 0.5) ** 2) - (action[1] - 0.5) ** 2
        assert q(run, seen(run, 1.0), [action]).item() == pytest.approx(reward, abs=0.15)


def load(run: Run, algo: str, name: str) -> BoxPolicy:
    cfg, module = runner.typed(composed(f"algo={algo}", *SMALL, f"env.id='probe_envs:{name}-v0'"))
    return module.load_policy(cfg, run)


@pytest.mark.parametrize("algo", NAMES)
def test_a_reward_one_step_away_is_discounted_once_and_nothing_comes_after_a_termination(algo: str) -> None:
    fixed = ("algo.tune_alpha=false", "algo.alpha=1e-4") if algo == "sac" else ()
    run = probe(algo, "TwoStepsBox", 3000, *fixed)
    values = q(run, seen(run, 0.0, 1.0), [[0.3], [-0.2]])
    torch.testing.assert_close(values, torch.tensor([0.9, 1.0]), rtol=0, atol=0.05)


@pytest.mark.parametrize("algo", ["td3", "ddpg"])
def test_truncation_is_bootstrapped_so_that_an_endless_reward_is_worth_1_over_1_minus_gamma(algo: str) -> None:
    # Taken for termination, the value of 10 steps would be below (1 - .9^10) / .1 = 6.5.
    run = probe(algo, "EndlessBox", 4000, "algo.tau=0.2", "algo.lr=1e-3")
    assert q(run, seen(run, 1.0), [[0.0]]).item() == pytest.approx(10.0, abs=0.3)


@pytest.mark.parametrize("algo", NAMES)
def test_with_targets_that_stand_still_a_value_is_one_step_and_the_target_behind_it(algo: str) -> None:
    fixed = ("algo.tune_alpha=false", "algo.alpha=1e-6") if algo == "sac" else ("algo.target_noise=0",)
    run = probe(algo, "EndlessBox", 2000, "algo.tau=1e-9", "algo.lr=1e-3", *fixed)
    obs, target = seen(run, 1.0), run.tracked["target_critics"]
    with torch.no_grad():
        obs = obs.expand(5000, 1)
        policy, noise = run.tracked["policy" if algo == "sac" else "target_policy"], torch.randn(5000, 1)
        action = policy.sample(obs, noise if algo == "sac" else 0 * noise)
        expected = 1 + 0.9 * target(obs, action).amin(0).mean().item()
    assert q(run, obs[:1], [[0.0]]).item() == pytest.approx(expected, abs=0.05) and expected < 2


@pytest.mark.parametrize("algo", NAMES)
def test_targets_follow_by_tau_at_each_step_of_the_policy(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[tuple[torch.Tensor, torch.Tensor]] = []
    real = Target.follow

    def follow(self: Target, learner: Learner, tau: float) -> None:
        before = self._flat.data.clone()
        real(self, learner, tau)
        expected = 0.7 * before + 0.3 * learner.flat.data
        followed.append((self._flat.data.clone(), expected))

    monkeypatch.setattr(Target, "follow", follow)
    run, history = train(f"algo={algo}", *RATES, "algo.tau=0.3", "algo.learning_starts=0")
    updates = history[-1]["train/n_updates"]
    assert len(followed) == {"sac": updates, "td3": updates // 2 * 2, "ddpg": 2 * updates}[algo]
    for got, expected in followed:
        torch.testing.assert_close(got, expected)
    last = torch.cat([p.flatten() for p in run.tracked["target_critics"].parameters()])
    assert torch.equal(last, followed[-1][0])


def test_an_endless_reward_and_the_entropy_of_uniform_actions_are_worth_what_the_soft_bellman_equation_says() -> None:
    """Nothing depends on the action, so the best policy is uniform on [-1, 1], of entropy log 2:
    Q = (1 + gamma alpha log 2) / (1 - gamma)."""
    run = probe("sac", "EndlessBox", 4000, "algo.tau=0.2", "algo.tune_alpha=false", "algo.alpha=2.0")
    expected = (1 + 0.9 * 2.0 * math.log(2)) / 0.1  # 22.5; without the entropy 10
    assert q(run, seen(run, 1.0), [[0.0]]).item() == pytest.approx(expected, rel=0.03)
    assert float(run.tracked["temperature"].alpha()) == 2.0  # it stays


def test_the_entropy_comes_to_its_target_and_alpha_is_what_it_costs() -> None:
    for target in (-1.0, 0.5):
        words = ("algo=sac", *SMALL, "env.id='probe_envs:Aim-v0'", "total_steps=6000", f"algo.target_entropy={target}")
        _, history = train(*words)
        assert np.mean([row["train/entropy"] for row in history[-10:]]) == pytest.approx(target, abs=0.25)


@pytest.mark.parametrize("low, high, expected", [(0.5, 10.0, 0.5), (0.0, 1.0, 1.0)])
def test_alpha_stays_within_its_limits(low: float, high: float, expected: float) -> None:
    """Aim's alpha falls far below .5; with a target that no policy on [-1, 1] has it would rise for ever."""
    entropy = "-2.0" if expected == 0.5 else "9.0"
    limits = (f"algo.alpha_min={low}", f"algo.alpha_max={high}", f"algo.target_entropy={entropy}", "algo.lr=3e-2")
    run = probe("sac", "Aim", 1000, *limits)
    assert float(run.tracked["temperature"].alpha()) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="alpha=1.0: must lie between alpha_min=2.0 and 10000.0"):
        runner.typed(composed("algo=sac", "env=pendulum", "algo.alpha_min=2.0"))


# -- gradients


def model() -> ModelConfig:
    return ModelConfig([32, 32], "relu", False, False, -1.0, 32)


def actor_learner(algo: str, engine: Any) -> tuple[Learner, Critics, Any]:
    """A policy's learner, its critics, and its loss."""
    generator = torch.Generator().manual_seed(0)
    critics = Critics((3,), 2, model(), generator, 1 if algo == "ddpg" else 2)
    if algo == "sac":
        gaussian, temperature = SquashedGaussian((3,), 2, model(), generator), sac.Temperature(0.2)
        loss: Any = partial(sac.actor_loss, gaussian, critics, temperature)
        return Learner(gaussian, loss, engine=engine), critics, loss
    actor = DeterministicActor((3,), 2, model(), generator, 0.1)
    loss = partial(td3.actor_loss, actor, critics)
    return Learner(actor, loss, engine=engine), critics, loss


@pytest.mark.parametrize("engine", ["native", "tape", "torch"])
@pytest.mark.parametrize("algo", NAMES)
def test_an_actor_whose_critic_is_replaced_between_calls_follows_it(algo: str, engine: str) -> None:
    learner, critics, loss = actor_learner(algo, engine)
    generator = torch.Generator().manual_seed(1)
    for call in range(30):
        batch = {"obs": torch.randn(64, 3, generator=generator), "noise": torch.randn(64, 2, generator=generator)}
        batch = batch if algo == "sac" else {"obs": batch["obs"]}
        if call % 3 == 2:  # another critic; every other time the last layer alone changes its sign
            for layer in critics.layers if call % 2 else critics.layers[-1:]:
                for p in layer.parameters():
                    p.data.mul_(-1.0) if call % 2 == 0 else p.data.normal_(0, 0.3, generator=generator)
        params = learner.flat.params
        true = torch.cat([g.flatten() for g in torch.autograd.grad(loss(batch)[0], params)])
        learner.step(batch, None, 1e-3)
        assert float(torch.cosine_similarity(learner.flat.grad, true, 0)) > 0.999, call
    assert not learner.notice


@pytest.mark.parametrize("algo", NAMES)
def test_a_policy_at_its_bounds_everywhere_is_still_recorded_and_can_come_back(algo: str) -> None:
    """tanh(10) is 1 in float32, and torch's derivative of it 0."""
    learner, _, loss = actor_learner(algo, "tape")
    loss.args[0].actor[-1].bias.data[:2] = 10.0  # of the mean
    for _ in range(12):
        learner.step({"obs": torch.randn(64, 3), "noise": 0.1 * torch.randn(64, 2)}, None, 1e-9)
    assert not learner.notice and learner.flat.grad.norm() > 0


def minibatch(rows: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "obs": normal(rows, 3), "action": normal(rows, 2).tanh(), "reward": normal(rows), "next_obs": normal(rows, 3),
        "terminated": normal(rows) > 0.5, "discount": torch.full((rows,), 0.9), "noise": normal(rows, 2),
        "next_noise": normal(rows, 2),
    }  # fmt: skip


@pytest.mark.parametrize("algo", NAMES)
def test_the_critics_gradient_is_that_of_a_loop_over_rows_and_critics(algo: str) -> None:
    """With targets that are numbers: nothing flows through them, and no row meets another's target."""
    generator, batch = torch.Generator().manual_seed(0), minibatch()
    count = 1 if algo == "ddpg" else 2
    critics, target = (Critics((3,), 2, model(), generator, count) for _ in range(2))
    if algo == "sac":
        gaussian, temperature = SquashedGaussian((3,), 2, model(), generator), sac.Temperature(0.2)
        total, _ = sac.critic_loss(gaussian, critics, target, temperature, batch)
    else:
        actor = DeterministicActor((3,), 2, model(), generator, 0.1)
        total, _ = td3.critic_loss(0.5, critics, actor, target, batch)
    expected = torch.tensor(0.0)
    for i in range(32):
        row = {name: x[i : i + 1] for name, x in batch.items()}
        with torch.no_grad():
            if algo == "sac":
                action, logprob = gaussian(row["next_obs"], row["next_noise"])
                extra = -0.2 * float(logprob)
            else:
                action, extra = (actor(row["next_obs"]) + row["noise"].clamp(-0.5, 0.5)).clamp(-1, 1), 0.0
            future = min(target(row["next_obs"], action)[:, 0].tolist()) + extra
        y = float(row["reward"]) + (0.0 if row["terminated"] else 0.9 * future)
        for value in critics(row["obs"], row["action"])[:, 0]:
            expected = expected + 0.5 * (value - y) ** 2 / 32
    torch.testing.assert_close(total, expected)
    params = list(critics.parameters())
    for got, wanted in zip(torch.autograd.grad(total, params), torch.autograd.grad(expected, params)):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("algo", [*NAMES, "sac, held noise"])
def test_the_tape_and_ordinary_torch_learn_the_same(algo: str) -> None:
    name, held, _ = algo.partition(",")
    runs = [
        train(*SMALL[2:], "env=pendulum", f"algo={name}", f"algo.engine={engine}", "total_steps=256",
              "algo.gradient_steps=4", *(["algo.noise=sde"] if held else []))
        for engine in ("tape", "torch")
    ]  # fmt: skip
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)  # float32, 20 gradient steps by other kernels
    assert not runs[0][0].notices


@pytest.mark.parametrize("algo", NAMES)
def test_engine_torch_means_that_nothing_is_taped(algo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = Tape.__init__
    monkeypatch.setattr(Tape, "__init__", lambda self, *args, **named: (made.append(1), real(self, *args, **named))[1])
    for engine, learnt, acted in (("torch", 0, 0), ("auto", 4 if algo == "sac" else 3, 1)):  # losses, and acting
        made.clear()
        words = (f"algo={algo}", *RATES, "algo.learning_starts=8", f"algo.engine={engine}")
        run, _ = train(*words)
        assert len(made) == learnt
        cfg, module = runner.typed(composed(*words))
        module.load_policy(cfg, run)(np.zeros((2, 3), np.float32))
        assert len(made) == learnt + acted


# -- counters


RATES = ("preset=none", "env=pendulum", "algo.num_envs=2", "algo.train_freq=4", "algo.rounds=2", "total_steps=160",
         "algo.batch_size=8", "model.hidden=[8]")  # fmt: skip


@pytest.mark.parametrize("algo", NAMES)
@pytest.mark.parametrize("gradient_steps, starts, expected", [(3, 0, 20 * 3), (-1, 0, 20 * 8), (1, 80, 10)])
def test_gradient_steps_are_counted_exactly(algo: str, gradient_steps: int, starts: int, expected: int) -> None:
    """160 steps of 2 lanes in rounds of 4 steps each: 20 rounds; the first to learn ends behind `learning_starts`."""
    words = (f"algo={algo}", *RATES, f"algo.gradient_steps={gradient_steps}", f"algo.learning_starts={starts}")
    run, history = train(*words)
    assert history[-1]["train/n_updates"] == expected and len(history) == 10
    policy = run.tracked["optimizer"].num_steps
    assert policy == (expected // 2 if algo == "td3" else expected)  # policy_delay=2


def test_actions_are_uniform_until_learning_starts_and_then_the_policys(monkeypatch: pytest.MonkeyPatch) -> None:
    actions: list[np.ndarray] = []
    real = BoxExplorer.collect

    def collect(self: BoxExplorer, steps: range) -> None:
        real(self, steps)
        t = self.replay.t
        actions.extend(self.replay.store.action[t - len(steps) : t].copy())

    monkeypatch.setattr(BoxExplorer, "collect", collect)
    train("algo=td3", *RATES, "total_steps=1600", "algo.learning_starts=804", "algo.gradient_steps=1",
          "algo.noise_std=0.01", "model.orthogonal_init=true", "algo.lr=1e-9")  # fmt: skip
    early, late = np.abs(actions[:402]), np.abs(actions[402:])
    assert early.max() > 0.95 and early.mean() == pytest.approx(0.5, abs=0.05) and late.max() < 0.1


def test_an_episode_begins_without_the_noise_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two environments with episodes of 20 steps, each a policy that does nothing but the noise."""
    noise: list[np.ndarray] = []
    real = OrnsteinUhlenbeck.draw

    def draw(self: OrnsteinUhlenbeck, rng: np.random.Generator, fresh: bool) -> np.ndarray:
        noise.append(self.x.copy())  # what it goes on from
        return real(self, rng, fresh)

    monkeypatch.setattr(OrnsteinUhlenbeck, "draw", draw)
    train("algo=td3", *RATES, "algo.noise=ou", "algo.learning_starts=0", "env.max_episode_steps=20")
    begins = [k for k, x in enumerate(noise) if not x.any()]
    assert begins == [0, 20, 40, 60] and all(x.all() for k, x in enumerate(noise) if k % 20)


@pytest.mark.parametrize("space", ["Picture", "Dict", "Whole"])
def test_images_and_any_box_of_actions_are_learnt_from_by_the_same_files(space: str) -> None:
    """A matrix of float64 with bounds of its own each, and whole numbers: the environment refuses what is no action."""
    sizes = ("algo.learning_starts=8", "algo.rounds=2", "algo.batch_size=2", "algo.buffer_size=40", "total_steps=12",
             "env.max_episode_steps=5", f"env.id='fake_envs:Spaces{space}-v0'", "model.features=16")  # fmt: skip
    for algo in ("sac", "td3"):
        run, history = train(f"algo={algo}", "env=gym", "env.name=any", "preset=none", *sizes)
        assert history[-1]["train/n_updates"] == 4 and np.isfinite(history[-1]["train/critic_loss"])


# -- evaluation, and what does not fit


def test_a_stochastic_evaluation_samples_and_the_plain_one_does_not() -> None:
    for algo in NAMES:
        run, _ = train(f"algo={algo}", *SMALL[2:], "env=pendulum", "total_steps=128")
        cfg, module = runner.typed(composed(f"algo={algo}", *SMALL[2:], "env=pendulum"))
        policy, obs = module.load_policy(cfg, run), np.zeros((500, 3), np.float32)
        assert len(np.unique(policy(obs))) == 1 and len(np.unique(policy(obs, np.random.default_rng(0)))) > 400
        assert np.abs(policy(obs, np.random.default_rng(0))).max() <= 2.0


@pytest.mark.parametrize("algo", NAMES)
def test_what_cannot_be_served_is_refused_in_one_line(algo: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"CartPole-v1 has Discrete actions; {algo} needs Box ones \(use .*ppo"):
        start(tmp_path, f"algo={algo}", "env=cartpole")
    with pytest.raises(ConfigError, match=r"env.id=probe_envs:Unbounded-v0: actions are scaled by their bounds.*inf"):
        start(tmp_path, f"algo={algo}", "env=gym", "env.name=any", "env.id='probe_envs:Unbounded-v0'")
    with pytest.raises(ConfigError, match="learning_starts=400: must be below total_steps=320"):
        start(tmp_path, f"algo={algo}", "env=pendulum", "algo.learning_starts=400")
    with pytest.raises(ConfigError, match=r"algo\.batch_size=101: must be at most buffer_size=100"):
        start(tmp_path, f"algo={algo}", "env=pendulum", "algo.batch_size=101", "algo.buffer_size=100")
    assert not list(tmp_path.iterdir())


# -- exact resume


TINY = (
    "log_every=1", "preset=none", "total_steps=320", "eval_every=96", "eval_episodes=2", "checkpoint_every=64",
    "video=false", "tensorboard=false", "model.hidden=[8,8]", "algo.num_envs=2", "algo.train_freq=4", "algo.rounds=2",
    "algo.learning_starts=40", "algo.batch_size=8", "algo.buffer_size=100", "env=pendulum", "env.max_episode_steps=30",
)  # fmt: skip
DISK = "algo.buffer_ram_mb=0"
CASES = {
    "sac": (),
    "sac, on disk, 2 steps": (DISK, "algo.n_step=2", "algo.anneal_lr=true"),
    "sac, held noise": ("algo.noise=sde", "algo.noise_every=3", "algo.train_freq=8"),
    "sac, normalized, not replayed": ("env.normalize_obs=true", "env.normalize_reward=true", "env.replay=false"),
    "td3": (),
    "td3, noise that remembers itself": ("algo.noise=ou", "algo.policy_delay=3", "algo.gradient_steps=-1"),
    "td3, ordinary torch": ("algo.engine=torch",),
    "ddpg, on disk, not replayed": (DISK, "env.replay=false"),
}  # fmt: skip


def start(root: Path, *overrides: str, name: str | None = None, progress: Any = None) -> Path:
    place = {"parent": root, "name": name} if name else {}
    raw = composed(*TINY, *overrides, f"runs_dir={root / 'runs'}")
    return runner.start(raw, ["rlx", "train"], progress or (lambda *_: None), **place)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_equals_one_never_stopped(case: str, tmp_path: Path) -> None:
    overrides, path = (f"algo={case.partition(',')[0]}", *CASES[case]), tmp_path / "run"
    lives = [
        lambda: start(tmp_path, *overrides, name="run", progress=die_at(16)),
        lambda: resume(path, progress=die_at(160)),
        lambda: (die_at_env_step(10), resume(path)),
        lambda: resume(path, progress=die_at(320)),
    ]
    for life in lives:
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    assert result(path) == result(start(tmp_path / "whole", *overrides))
    assert (path / "buffer").exists() == (DISK in overrides)


def test_a_temperature_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    paths: list[Run] = []
    track = Run.track

    def tracked(self: Run, **objects: Any) -> None:
        paths.append(self)
        track(self, **objects)

    def plant(step: int, _metrics: Any) -> None:
        if step >= 160:
            paths[0].tracked["temperature"].log_alpha.data.fill_(math.nan)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "track", tracked)
        with pytest.raises(runner.RunFailed, match="finite"):
            start(tmp_path, "algo=sac", progress=plant)
