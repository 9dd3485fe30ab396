"""DQN on probe environments with analytic answers, its invariants, and exact resume with its buffer in both places."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from composed import composed
from tiny_runs import Child, die_at, die_at_env_step, fail_at, result, resume
from training import train

from rlx.algos import dqn
from rlx.control.acting.q_values import Explorer
from rlx.control.networks import ModelConfig, QNetwork
from rlx.engine.learner import Learner
from rlx.run import Run
from rlx.training import runner

SMALL = (
    "algo=dqn", "env=gym", "env.name=probe", "preset=none", "model.hidden=[32]", "algo.num_envs=4",
    "algo.batch_size=64", "algo.train_freq=8", "algo.gradient_steps=16", "algo.rounds=4", "algo.lr=3e-3",
    "algo.gamma=0.9", "algo.learning_starts=100", "algo.target_update_every=100", "algo.buffer_size=2000",
)  # fmt: skip
VARIANTS = {
    "dqn": (),
    "mse": ("algo.loss=mse",),
    "double": ("algo=double_dqn",),
    "dueling": ("algo=dueling_dqn",),
    "dueling, streams in common": ("algo=dueling_dqn", "model.shared=true"),
    "prioritized": ("algo=prioritized_dqn", "algo.gradient_steps=8"),
    "3 steps": ("algo.n_step=3",),
    "soft": ("algo.tau=0.1", "algo.target_update_every=8"),
    "ordinary torch": ("algo.engine=torch", "algo.gradient_steps=8"),
    "normalized": ("env.normalize_obs=true",),
}


def probe(name: str, steps: int, *overrides: str) -> Run:
    run, _ = train(*SMALL, f"env.id='probe_envs:{name}-v0'", f"total_steps={steps}", *overrides)
    assert not run.notices
    return run


def q(run: Run, *obs: float) -> torch.Tensor:
    norm = run.tracked["normalizer"].obs
    seen = np.array(obs, np.float32)[:, None]
    with torch.no_grad():
        return run.tracked["policy"](torch.from_numpy(norm.normalize(seen) if norm else seen))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_values_both_actions_of_both_observations_rightly(variant: str) -> None:
    run = probe("Match", 1000, *VARIANTS[variant])
    expected = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    torch.testing.assert_close(q(run, -1.0, 1.0), expected, rtol=0, atol=0.1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reward_one_step_away_is_discounted_once_and_nothing_comes_after_a_termination(variant: str) -> None:
    run = probe("TwoSteps", 1600, *VARIANTS[variant])
    torch.testing.assert_close(q(run, 0.0, 1.0), torch.tensor([[0.9, 0.9], [1.0, 1.0]]), rtol=0, atol=0.05)


@pytest.mark.parametrize("variant", ["dqn", "3 steps", "double"])
def test_truncation_is_bootstrapped_so_that_an_endless_reward_is_worth_1_over_1_minus_gamma(variant: str) -> None:
    # Taken for termination, the value of 10 steps would be below (1 - .9^10) / .1 = 6.5.
    run = probe("Endless", 5000, *VARIANTS[variant], "algo.lr=1e-2", "algo.target_update_every=32")
    torch.testing.assert_close(q(run, 1.0), torch.full((1, 2), 10.0), rtol=0, atol=0.3)


# -- invariants


def minibatch(n: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "obs": normal(n, 4), "action": torch.randint(0, 3, (n,), generator=generator), "reward": normal(n),
        "next_obs": normal(n, 4), "target_q": normal(n, 3), "terminated": normal(n) > 0.5,
        "discount": torch.full((n,), 0.9), "weight": normal(n).abs(),
    }  # fmt: skip


def setup(**changes: Any) -> tuple[Any, QNetwork]:
    torch.manual_seed(0)
    cfg = SimpleNamespace(**{"double": False, "loss": "mse", "prioritized": False, **changes})
    return cfg, QNetwork((4,), 3, ModelConfig([16], "relu", False, False, 0.0, 32), torch.Generator())


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_the_gradient_is_that_of_a_loop_over_the_rows(double: bool, kind: str) -> None:
    """With targets that are numbers: nothing flows through them, and no row meets another's target."""
    cfg, model = setup(double=double, loss=kind, prioritized=True)
    batch = minibatch()
    total, info = dqn.loss(cfg, model, batch)
    expected = torch.tensor(0.0)
    for i in range(32):
        with torch.no_grad():
            best = model(batch["next_obs"][i]).argmax() if double else batch["target_q"][i].argmax()
            future = 0.0 if batch["terminated"][i] else 0.9 * float(batch["target_q"][i, best])
        error = model(batch["obs"][i])[batch["action"][i]] - (float(batch["reward"][i]) + future)
        square = 0.5 * error**2 if kind == "mse" or abs(float(error.detach())) <= 1 else abs(error) - 0.5
        expected = expected + batch["weight"][i] * square / 32
        assert float(info["td_error"][i].detach()) == pytest.approx(float(error.detach()), abs=1e-5)
    torch.testing.assert_close(total, expected)
    params = list(model.parameters())
    for got, wanted in zip(torch.autograd.grad(total, params), torch.autograd.grad(expected, params)):
        torch.testing.assert_close(got, wanted)


def test_a_dueling_network_is_the_mean_value_plus_centred_advantages() -> None:
    for shared in (False, True):
        cfg = ModelConfig([16], "relu", shared, True, 0.0, 32)
        model = QNetwork((4,), 3, cfg, torch.Generator().manual_seed(0), dueling=True)
        obs = torch.randn(7, 4)
        value = model.state_value(model.trunk(obs)).squeeze(-1)
        torch.testing.assert_close(model(obs).mean(-1), value)
        assert model(obs).std(-1).min() > 0


def epsilons(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seen: list[float] = []
    real = Explorer.collect
    monkeypatch.setattr(Explorer, "collect", lambda self, eps: (seen.extend(eps), real(self, eps))[1])
    return seen


RATES = ("preset=none", "algo=dqn", "algo.exploration_fraction=0.5", "algo.epsilon=1.0", "algo.final_epsilon=0.1",
         "algo.num_envs=2", "algo.train_freq=4", "algo.rounds=2", "total_steps=800")  # fmt: skip


def test_epsilon_falls_linearly_and_is_1_until_learning_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = epsilons(monkeypatch)
    train(*RATES, "algo.learning_starts=0")
    assert len(seen) == 400  # one for each step of two lanes
    assert seen[0] == 1.0 and seen[100] == pytest.approx(0.55) and seen[200] == seen[399] == 0.1
    np.testing.assert_allclose(np.diff(seen[:201]), -0.9 / 200)
    seen.clear()
    train(*RATES, "algo.learning_starts=100")
    assert seen[:50] == [1.0] * 50 and seen[50] == pytest.approx(1 - 0.9 * 100 / 400)


@pytest.mark.parametrize(
    "gradient_steps, starts, expected", [(3, 0, 100 * 3), (-1, 0, 100 * 8), (1, 400, 50), (1, 399, 51), (1, 800, 0)]
)
def test_gradient_steps_are_counted_exactly(gradient_steps: int, starts: int, expected: int) -> None:
    """800 steps of 2 lanes in rounds of 4 steps each: 100 rounds; the first to learn ends behind `learning_starts`."""
    _, history = train(*RATES, f"algo.gradient_steps={gradient_steps}", f"algo.learning_starts={starts}")
    assert history[-1]["train/n_updates"] == expected
    assert len(history) == 50 and [row["rollout/exploration_rate"] for row in history][-1] == pytest.approx(0.1)


def test_the_target_network_follows_exactly_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 40 steps it becomes the network as it was before that round's gradient steps, bit for bit."""
    versions, targets = [], []
    real = Learner.step

    def step(self: Learner, *args: Any, **kwargs: Any) -> Any:
        versions.append(self.flat.data.clone())
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Learner, "step", step)
    run_seen: list[Run] = []
    track = Run.track
    monkeypatch.setattr(Run, "track", lambda self, **kw: (run_seen.append(self), track(self, **kw))[1])
    collect = Explorer.collect

    def spy(self: Explorer, eps: Any) -> None:
        if run_seen:
            params = run_seen[0].tracked["target"].parameters()
            targets.append(torch.cat([p.detach().reshape(-1).clone() for p in params]))
        collect(self, eps)

    monkeypatch.setattr(Explorer, "collect", spy)
    train(*RATES, "algo.learning_starts=0", "algo.target_update_every=40", "algo.lr=1e-2")
    assert len(targets) == 100 and len(versions) == 100  # a gradient step each round of 8 environment steps
    for k, target in enumerate(targets):
        last = 8 * k // 40 * 5 - 1 if 8 * k >= 40 else 0  # the round in which the latest sync was due
        assert torch.equal(target, versions[last]), k


def test_soft_updates_of_one_round_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lerps: list[float] = []
    real = torch.Tensor.lerp_

    def lerp(self: torch.Tensor, end: torch.Tensor, weight: float) -> torch.Tensor:
        lerps.append(weight)
        return real(self, end, weight)

    monkeypatch.setattr(torch.Tensor, "lerp_", lerp)
    train(*RATES, "algo.tau=0.1", "algo.target_update_every=2", "total_steps=80")
    assert lerps == [pytest.approx(1 - 0.9**4)] * 10


@pytest.mark.parametrize("variant", ["dqn", "double", "prioritized", "3 steps"])
def test_the_tape_and_ordinary_torch_learn_the_same(variant: str) -> None:
    runs = [
        train(*SMALL[4:], "env=cartpole", "algo=dqn", "preset=none", *VARIANTS[variant], f"algo.engine={engine}",
              "total_steps=512", "algo.gradient_steps=2", "model.activation=relu")
        for engine in ("tape", "torch")
    ]  # fmt: skip
    a, b = (torch.cat([p.flatten() for p in run.parameters().values()]) for run, _ in runs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # float32, 24 gradient steps by other kernels
    assert not runs[0][0].notices


def test_images_are_learnt_from_by_the_same_file() -> None:
    sizes = ("algo.learning_starts=16", "algo.rounds=2", "algo.batch_size=2", "algo.buffer_size=40", "total_steps=48")
    run, history = train("algo=dqn", "env=pong", "preset=none", "model=cnn", *sizes)
    assert history[-1]["train/n_updates"] == 8 and np.isfinite(history[-1]["train/loss"])
    assert run.tracked["explorer"].replay.frames == 4


def test_epsilon_greedy_evaluation_explores_and_the_greedy_one_does_not() -> None:
    run, _ = train(*RATES, "env=cartpole", "algo.final_epsilon=0.5")
    cfg, module = runner.typed(composed(*RATES, "env=cartpole", "algo.final_epsilon=0.5"))
    policy, obs = module.load_policy(cfg, run), np.zeros((1000, 4), np.float32)
    greedy = policy(obs)
    assert len(set(greedy.tolist())) == 1
    assert np.mean(policy(obs, np.random.default_rng(0)) != greedy[0]) == pytest.approx(0.25, abs=0.05)


def test_no_gradient_step_and_continuous_actions_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="algo.gradient_steps=0: must be at least 1, or -1 for one a transition"):
        train("algo=dqn", "algo.gradient_steps=0")
    with pytest.raises(ValueError, match="Pendulum-v1 has Box actions; dqn needs Discrete ones"):
        start(tmp_path, "env=pendulum")


def test_dqn_learns_cartpole_in_12_000_steps() -> None:
    # Double Q-learning with 3-step returns learns sooner than the preset, whose ten seeds are in docs/results.
    overrides = (
        "algo=double_dqn", "env=cartpole", "preset=none", "total_steps=12_000", "model.hidden=[128,128]",
        "model.activation=relu", "model.orthogonal_init=false", "algo.n_step=3", "algo.train_freq=4",
        "algo.gradient_steps=2", "algo.batch_size=64", "algo.lr=1e-3", "algo.anneal_lr=true",
        "algo.target_update_every=500", "algo.final_epsilon=0.04", "algo.exploration_fraction=0.2",
    )  # fmt: skip
    cfg, module = runner.typed(composed(*overrides))
    run, _ = train(*overrides, "seed=1")
    assert runner.evaluate_policy(module.load_policy(cfg, run), cfg, 20, seed=7)["mean"] >= 195


# -- exact resume

TINY = (
    "log_every=1",
    "algo=dqn", "preset=none", "total_steps=320", "eval_every=96", "eval_episodes=2", "checkpoint_every=64",
    "video=false", "tensorboard=false", "model.hidden=[8,8]", "algo.num_envs=2", "algo.train_freq=4", "algo.rounds=2",
    "algo.learning_starts=40", "algo.batch_size=8", "algo.target_update_every=48", "algo.buffer_size=100",
)  # fmt: skip
DISK = ("algo.buffer_ram_mb=0",)
CASES = {
    "soft, annealed, mse": ("algo.tau=0.2", "algo.anneal_lr=true", "algo.loss=mse"),
    "truncated": ("env.max_episode_steps=9", "algo.n_step=2"),
    "truncated, on disk": ("env.max_episode_steps=9", *DISK),
    "prioritized, 3 steps": ("algo=prioritized_dqn", "algo.n_step=3"),
    "prioritized, on disk": ("algo=prioritized_dqn", *DISK),
    "normalized, dueling, torch": ("env.normalize_obs=true", "env.normalize_reward=true", "algo=dueling_dqn",
                                   "algo.engine=torch"),
    "not replayed": ("env.replay=false",),
    "not replayed, on disk": ("env.replay=false", *DISK),
    "reset rows": ("env=gym", "env.name=any", "env.id=CounterVector-v0", "env.backend=vector", "eval_every=0"),
    "stacks on disk": ("env=pong", "env.wrappers=[atari,episodic_life,clip_reward]", "model=cnn", "model.features=16",
                       "eval_every=0", "total_steps=112", "checkpoint_every=32", "algo.buffer_size=60",
                       "algo.batch_size=2", *DISK),
}  # fmt: skip


def config(root: Path, *overrides: str) -> dict[str, Any]:
    return composed(*TINY, *overrides, f"runs_dir={root}")


def start(root: Path, *overrides: str, name: str | None = None, progress: Any = None) -> Path:
    place = {"parent": root, "name": name} if name else {}
    return runner.start(config(root, *overrides), ["rlx", "train"], progress or (lambda *_: None), **place)[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_a_run_killed_again_and_again_equals_one_never_stopped(case: str, tmp_path: Path) -> None:
    overrides, path = CASES[case], tmp_path / "run"
    end = 112 if "total_steps=112" in overrides else 320
    lives = [
        lambda: start(tmp_path, *overrides, name="run", progress=die_at(16)),
        lambda: resume(path, progress=die_at(end // 16 * 8)),
        lambda: (die_at_env_step(10), resume(path)),
        lambda: resume(path, progress=die_at(end)),
    ]
    for life in lives:
        assert Child(life).wait() == -signal.SIGKILL
    resume(path)
    whole = start(tmp_path / "whole", *overrides)
    assert result(path) == result(whole)
    assert (path / "buffer").exists() == ("algo.buffer_ram_mb=0" in overrides)


def test_a_run_on_disk_killed_at_any_file_operation_equals_one_never_stopped(tmp_path: Path) -> None:
    overrides = (*DISK, "total_steps=128", "checkpoint_every=32", "keep_checkpoints=1", "env.max_episode_steps=9")
    whole = result(start(tmp_path / "whole", *overrides))
    operation, code = 21, None
    while code != 0:
        name = f"run{operation}"
        code = Child(lambda n=operation, name=name: (fail_at(n), start(tmp_path, *overrides, name=name))).wait()
        if (tmp_path / name / "config.yaml").exists():
            resume(tmp_path / name)
            assert result(tmp_path / name) == whole, f"killed at file operation {operation}"
        operation += 19  # coprime to before and after: both come
    assert operation > 100


def test_a_damaged_buffer_stops_the_resume_with_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert Child(lambda: start(tmp_path, *DISK, name="run", progress=die_at(208))).wait() < 0
    (file,) = (path / "buffer").glob("rows_*")
    data = file.read_bytes()
    file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(runner.ConfigError.__mro__[1], match="'explorer' does not fit: .*rows_000000.bin is damaged"):
        resume(path)
    file.write_bytes(data)
    shutil.copytree(path, tmp_path / "copy")
    resume(path)
    assert result(path) == result(start(tmp_path / "whole", *DISK))


def test_a_policy_is_opened_without_the_buffer(tmp_path: Path) -> None:
    path = start(tmp_path, *DISK)
    shutil.rmtree(path / "buffer")
    cfg, policy = runner.open_policy(path, "best")
    assert runner.evaluate_policy(policy, cfg, 3, 1)["n"] == 3
