"""What a rollout holds: true successors, the behaviour policy's log-probabilities, frozen statistics."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from rlx.control import rollout as rollouts
from rlx.control.acting.q_values import Explorer
from rlx.control.distributions import make_head
from rlx.control.networks import ActorCritic, ModelConfig, QNetwork
from rlx.control.policy import Policy
from rlx.control.rollout import Rollout, minibatches
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.replay.buffer import Replay
from rlx.replay.store import Disk, Memory

torch.set_num_threads(1)


def counter(num_envs: int = 3, num_steps: int = 20, **changes) -> Rollout:
    """A rollout over an environment that observes how many steps it has taken, with V(s) = the observation."""
    settings = {"id": "fake_envs:Counter-v0", "kwargs": {"end": "truncated"}, **changes}
    cfg = EnvConfig(name="counter", **settings)
    envs = make_envs(cfg, num_envs, seed=0)
    head = make_head(envs.action_space)
    model = ActorCritic(
        envs.observation_space.shape, head, ModelConfig([], "tanh", False, True, 0.0, 32), torch.Generator()
    )
    with torch.no_grad():
        model.critic[-1].weight.zero_()[0, 0] = 1.0
        model.critic[-1].bias.zero_()
    return Rollout(cfg, envs, model, head, num_steps, 0.99, np.random.default_rng(0), torch.device("cpu"))


def test_the_next_value_is_that_of_the_true_successor_at_every_truncation() -> None:
    rollout = counter()
    for _ in range(3):
        batch = rollout.collect()
        assert batch["done"].any() and not batch["terminated"].any()
        torch.testing.assert_close(batch["next_value"], batch["obs"][..., 0] + 1)  # never a reset observation's
        torch.testing.assert_close(batch["value"], batch["obs"][..., 0])


def test_every_step_is_stored_once_and_episodes_follow_each_other() -> None:
    rollout = counter(kwargs={"end": "terminated"})
    first, second = ({k: v.clone() for k, v in rollout.collect().items()} for _ in range(2))
    obs, done = torch.cat([first["obs"], second["obs"]])[..., 0], torch.cat([first["done"], second["done"]])
    expected = torch.where(done[:-1], torch.zeros(()), obs[:-1] + 1)
    torch.testing.assert_close(obs[1:], expected)
    lengths = [length for _, length, _ in rollout.episodes]
    assert len(lengths) == int(done.sum()) and sum(lengths) == int((done * (obs + 1)).sum())


def test_the_stored_logprob_is_that_of_the_stored_action_under_the_policy() -> None:
    rollout = counter()
    batch = rollout.collect()
    again, _ = rollout.head.logprob_entropy(batch["params"], batch["action"])
    torch.testing.assert_close(batch["logprob"], again)


@pytest.mark.parametrize("rows", [1, 4, 20, 59, 60])
def test_a_long_rollout_is_evaluated_in_pieces_to_the_same(rows, monkeypatch) -> None:
    whole, pieces = counter(), counter()
    for _ in range(3):
        monkeypatch.setattr(rollouts, "ROWS", 10_000)
        expected = {name: tensor.clone() for name, tensor in whole.collect().items()}
        monkeypatch.setattr(rollouts, "ROWS", rows)
        batch = pieces.collect()
        assert batch.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(batch[name], tensor, rtol=1e-6, atol=1e-6)


def test_statistics_are_frozen_while_a_rollout_is_collected_and_see_raw_observations() -> None:
    rollout = counter(normalize_obs=True, normalize_reward=True)
    norm = rollout.normalizer.obs
    batch = {name: tensor.clone() for name, tensor in rollout.collect().items()}
    assert batch["obs"][..., 0].min() == 0 and batch["obs"][..., 0].max() >= 2  # not normalised yet
    raw = batch["obs"].reshape(-1, 2).double().numpy()
    state = norm.state_dict()
    again = rollout.collect()["obs"]
    assert abs(float(again[..., 0].mean())) < 0.5  # by the statistics of the first rollout
    assert norm.state_dict() is not state
    assert raw[:, 0].std() > 1


def test_episode_statistics_are_of_raw_rewards() -> None:
    rollout = counter(normalize_reward=True, kwargs={"end": "truncated", "reward": 1000.0})
    rollout.collect()
    rollout.collect()
    found = rollout.metrics()
    assert found["rollout/ep_rew_mean"] == pytest.approx(1000 * found["rollout/ep_len_mean"])
    assert float(rollout.reward.max()) < 100


def test_a_restored_rollout_goes_on_bitwise() -> None:
    whole = counter(normalize_obs=True)
    whole.collect()
    state, stats, rng = whole.state_dict(), whole.normalizer.state_dict(), whole.rng.bit_generator.state
    stats = {
        k: v and {n: np.copy(x) if isinstance(x, np.ndarray) else x for n, x in v.items()} for k, v in stats.items()
    }
    expected = {name: tensor.clone() for name, tensor in whole.collect().items()}
    restored = counter(normalize_obs=True)
    restored.load_state_dict(state)
    restored.normalizer.load_state_dict(stats)
    restored.rng.bit_generator.state = rng
    for name, tensor in restored.collect().items():
        assert torch.equal(tensor, expected[name]), name


def test_minibatches_are_a_partition_in_random_order() -> None:
    found = minibatches(np.random.default_rng(0), 10, 3, torch.device("cpu"))
    assert [len(index) for index in found] == [4, 3, 3]
    for size, count in ((100, 32), (128, 32), (7, 7), (5, 8)):
        parts = minibatches(np.random.default_rng(0), size, count, torch.device("cpu"))
        lengths = [len(index) for index in parts]
        assert len(parts) == min(count, size) and max(lengths) - min(lengths) <= 1 <= min(lengths)
        if size % count == 0:  # as they always were
            assert torch.equal(torch.cat(parts), torch.from_numpy(np.random.default_rng(0).permutation(size)))
    assert sorted(torch.cat(found).tolist()) == list(range(10)) != torch.cat(found).tolist()
    assert minibatches(np.random.default_rng(0), 10, 1, torch.device("cpu")) == (None,)


def test_the_stored_action_is_the_unclipped_one_that_was_sampled() -> None:
    """The environment clips what it is given; a log-probability of the clipped action would be of another density."""
    cfg = EnvConfig(name="pendulum", id="Pendulum-v1")
    envs = make_envs(cfg, 2, seed=0)
    head = make_head(envs.action_space)
    model = ActorCritic((3,), head, ModelConfig([8], "tanh", False, True, 1.5, 32), torch.Generator())
    rollout = Rollout(cfg, envs, model, head, 50, 0.99, np.random.default_rng(0), torch.device("cpu"))
    batch = rollout.collect()
    assert float(batch["action"].abs().max()) > 3 > envs.action_space.high[0]
    noise = head.noise(np.random.default_rng(0), (50, 2))
    mean, log_std = batch["params"].chunk(2, -1)
    torch.testing.assert_close(batch["action"], mean + log_std.exp() * torch.from_numpy(noise))


def test_final_values_are_there_where_an_episode_was_truncated_and_nowhere_else() -> None:
    rollout = counter(num_steps=40, kwargs={"end": "truncated"})
    for _ in range(3):
        batch = rollout.experience()
        cut = batch["done"] & ~batch["terminated"]
        last = batch["obs"][:-1][..., 0] + 1  # V is the observation, and that counts the steps
        torch.testing.assert_close(batch["final_value"], torch.where(cut, last, torch.zeros(())))
        successors = rollout.successors(batch["obs"])[..., 0]
        torch.testing.assert_close(successors, last)


def test_a_step_that_only_waits_for_a_reset_is_no_row() -> None:
    rollout = counter(4, id="fake_envs:CounterVector-v0", backend="vector", kwargs={})  # resets in the NEXT step
    batch = rollout.collect()
    assert not batch["valid"].all() and (batch["reward"] == 0).any()  # they are there, with a reward of 0
    assert (rollout.rows(batch["reward"]) == 1).all()
    obs, reward = rollout.rows(batch["obs"]), rollout.rows(batch["reward"])
    assert len(obs) == len(reward) == int(batch["valid"].sum())


def test_a_policy_that_plays_keeps_the_statistics_it_was_saved_with() -> None:
    rollout = counter(normalize_obs=True)
    rollout.collect()
    norm = rollout.normalizer.obs
    policy = Policy(rollout._policy, rollout.head, norm, torch.device("cpu"))
    before = {name: np.copy(value) for name, value in norm.state_dict().items()}
    for _ in range(3):
        policy(np.full((5, 2), 1e3, np.float32))
    for name, value in norm.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


CLASSIC = ["CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1", "Acrobot-v1"]
LOOPS = [(id, {"max_episode_steps": 170}) for id in CLASSIC] + [
    ("CartPole-v1", {"normalize_reward": True}),
    ("CartPole-v1", {"max_episode_steps": 13}),
    ("MountainCar-v0", {"normalize_obs": True, "clip_obs": 1.0}),
    ("Pendulum-v1", {"normalize_obs": True, "kwargs": {"g": 9.81}}),
]


@pytest.mark.parametrize(("id", "settings"), LOOPS, ids=str)
def test_the_kernels_loop_gives_what_single_steps_of_gymnasium_give_to_the_last_bit(id: str, settings: dict) -> None:
    """Three environments, 12 rollouts through calls that are compared; then saved and restored in the middle."""
    rollouts = []
    for backend in ("auto", "sync"):
        cfg = EnvConfig(name="classic", id=id, backend=backend, **settings)
        envs = make_envs(cfg, 3, seed=0)
        head = make_head(envs.action_space)
        model = ActorCritic(
            envs.observation_space.shape, head, ModelConfig([16], "tanh", False, True, 0.5, 32),
            torch.Generator().manual_seed(0),
        )  # fmt: skip
        rollouts.append(Rollout(cfg, envs, model, head, 50, 0.99, np.random.default_rng(0), torch.device("cpu")))
    if rollouts[0]._act.kernels is None:
        pytest.skip("no kernels here")
    for turn in range(12):
        batches = [rollout.collect() for rollout in rollouts]
        assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
        assert list(rollouts[0].episodes) == list(rollouts[1].episodes)
        states = [rollout.state_dict() for rollout in rollouts]
        assert str(states[0]) == str(states[1])
        if turn == 8:
            for rollout, state in zip(rollouts, reversed(states)):
                rollout.load_state_dict(state)
    assert rollouts[0]._loop and not rollouts[1]._loop and rollouts[0].episodes


@pytest.mark.parametrize("store", [Memory, Disk])
@pytest.mark.parametrize("settings", [{}, {"normalize_obs": True, "normalize_reward": True}], ids=str)
def test_the_kernels_explore_as_single_steps_of_gymnasium_do_to_the_last_bit(
    settings: dict, store: type, tmp_path: Path
) -> None:
    """Two environments, bursts of 7 steps, epsilon from 1 to 0, a buffer that wraps; then restored in the middle."""
    explorers = []
    for backend in ("auto", "sync"):
        cfg = EnvConfig(name="cartpole", id="CartPole-v1", backend=backend, max_episode_steps=40, **settings)
        envs = make_envs(cfg, 2, seed=0)
        make_store = partial(Disk, directory=tmp_path / backend) if store is Disk else Memory
        replay = Replay(envs, 300, make_store, n_step=3)
        network = QNetwork((4,), 2, ModelConfig([16], "relu", False, True, 0.5, 32), torch.Generator().manual_seed(0))
        rng, cpu = np.random.default_rng(0), torch.device("cpu")
        explorers.append(Explorer(cfg, envs, network, replay, 0.99, rng, cpu))
    if explorers[0]._acting.kernels is None:
        pytest.skip("no kernels here")
    for turn in range(60):
        for explorer in explorers:
            explorer.collect([max(0.0, 1 - turn / 30)] * 7)
        samples = [explorer.sample(np.random.default_rng(turn), 32) for explorer in explorers]
        assert all(np.array_equal(samples[0][name], samples[1][name]) for name in samples[0])
        assert list(explorers[0].episodes) == list(explorers[1].episodes)
        states = [explorer.state_dict() for explorer in explorers]
        assert str(states[0]["envs"]) == str(states[1]["envs"])
        if turn == 40 and store is Memory:
            for explorer, state in zip(explorers, reversed(states)):
                explorer.load_state_dict({**state, "greedy": explorer.state_dict()["greedy"]})
    assert explorers[0]._loop and not explorers[1]._loop and explorers[0].episodes


@pytest.mark.parametrize("id", CLASSIC)
def test_compiled_environments_that_round_differently_are_not_used(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlx.engine import kernels
    from rlx.envs.quick import compiled

    if kernels.load() is None:
        pytest.skip(kernels.problem())
    cfg = EnvConfig(name="classic", id=id)
    envs = make_envs(cfg, 3, seed=0)
    assert isinstance(envs, compiled.CompiledEnvs) and envs.agrees()
    envs.kernel["k"][0] = np.nextafter(np.float32(envs.kernel["k"][0]), np.float32(np.inf))
    assert not envs.agrees()
    monkeypatch.setattr(compiled.CompiledEnvs, "agrees", lambda self: False)
    monkeypatch.setattr(compiled, "_verdicts", {})
    assert not isinstance(make_envs(cfg, 3, seed=0), compiled.CompiledEnvs)


def test_squares_are_those_of_pow_which_rounds_otherwise_than_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one number in a thousand: so many pendulums are compared."""
    from rlx.envs.quick import compiled

    envs = make_envs(EnvConfig(name="pendulum", id="Pendulum-v1"), 4, seed=0)
    if not isinstance(envs, compiled.CompiledEnvs):
        pytest.skip("no kernels here")
    monkeypatch.setattr(compiled, "COMPARED", 6000)
    assert envs.agrees()


@pytest.mark.parametrize("acts", ["rollout", "explorer"])
def test_a_row_that_only_waits_for_a_reset_is_in_no_statistics(acts: str) -> None:
    """Each episode observes 0, 1, 2, ... before its steps, and every step is worth 1."""
    settings = {"id": "fake_envs:CounterVector-v0", "backend": "vector", "normalize_obs": True}
    rollout = counter(3, 40, kwargs={}, normalize_reward=True, **settings)
    if acts == "rollout":
        batch = rollout.experience()
        valid, norm, raw = batch["valid"].numpy(), rollout.normalizer, rollout._raw[:40]
    else:
        cfg = EnvConfig(name="counter", kwargs={}, normalize_reward=True, **settings)
        envs = rollout.envs
        replay = Replay(envs, 200, Memory)
        q_network, rng = torch.nn.Linear(1, 2), np.random.default_rng(0)
        explorer = Explorer(cfg, envs, q_network, replay, 0.99, rng, torch.device("cpu"))
        explorer.collect([1.0] * 40)
        recent, norm = replay.recent(40), explorer.normalizer
        valid, raw = recent["valid"], recent["obs"]
        rollout.episodes = explorer.episodes
    rows = raw[valid]
    assert 0 < len(rows) < valid.size and norm.obs.stats.count == norm.reward.stats.count == len(rows)
    assert norm.obs.stats.mean == pytest.approx(rows.mean(0)) and norm.obs.stats.var == pytest.approx(rows.var(0))
    lengths = [length for _, length, _ in rollout.episodes]
    assert lengths and min(lengths) >= 2 and max(lengths) <= 6  # no episode counts the row that waits
