"""Vector environments that reset themselves: no dummy transition may look like one."""

import numpy as np
import pytest

from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvError
from rlx.envs.vector import VectorEnvs


def config(**changes):
    return EnvConfig(**{"name": "test", "id": "fake_envs:CounterVector-v0", "backend": "vector", **changes})


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_every_valid_successor_is_the_true_one_in_each_autoreset_mode(mode):
    envs = make_envs(config(kwargs={"mode": mode}), 4, seed=0)
    obs = envs.reset().copy()
    transitions = dummies = 0
    lengths = envs.venv.length
    for _ in range(50):
        reward, terminated, truncated, final = envs.step(np.zeros(4, int))
        successor = envs.obs.copy()
        for i, last in final:
            assert terminated[i] and last[0] == lengths[i]
            successor[i] = last
        valid = envs.valid
        assert (successor[valid] == obs[valid] + 1).all()
        assert (reward[valid] == 1).all() and (reward[~valid] == 0).all()
        assert not (terminated | truncated)[~valid].any() and (envs.obs[~valid] == 0).all()
        transitions, dummies = transitions + valid.sum(), dummies + (~valid).sum()
        obs = envs.obs.copy()
    episodes = envs.pop_episodes()
    assert {(total, length) for total, length, _ in episodes} == {(n, n) for n in lengths}
    assert (dummies > 0) == (mode == "NextStep")
    open_steps = sum(o[0] for i, o in enumerate(obs) if not envs._waiting[i])
    assert sum(length for _, length, _ in episodes) + open_steps == transitions


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_saving_restarts_all_lanes_equally_in_both_runs(mode):
    cfg = config(kwargs={"mode": mode})
    envs, again = make_envs(cfg, 4, seed=3), make_envs(cfg, 4, seed=3)
    assert not envs.replayable and "each checkpoint starts new ones" in envs.notice
    envs.reset()
    first = envs.venv.length.tolist()
    for _ in range(7):
        envs.step(np.zeros(4, int))
    state = envs.state_dict()
    assert (envs.obs == 0).all() and envs.venv.length.tolist() != first
    again.load_state_dict(state)
    for _ in range(30):
        one = [x.copy() for x in envs.step(np.zeros(4, int))[:3]]
        two = again.step(np.zeros(4, int))
        assert all(np.array_equal(a, b) for a, b in zip(one, two)) and np.array_equal(envs.obs, again.obs)
    assert envs.pop_episodes() == again.pop_episodes()


def test_gymnasiums_own_vector_cartpole_goes_through_the_general_way():
    envs = make_envs(config(id="CartPole-v1", kwargs={"sutton_barto_reward": True}), 3, seed=0)
    assert type(envs) is VectorEnvs
    envs.reset()
    for _ in range(100):
        envs.step(np.ones(3, int))
    assert len(envs.pop_episodes()) > 20


def test_a_vector_environment_takes_no_wrappers_but_clips_rewards():
    with pytest.raises(EnvError, match="takes no wrappers"):
        make_envs(config(wrappers=["flatten"]), 2, seed=0)
    envs = make_envs(config(wrappers=["clip_reward"]), 2, seed=0)
    envs.reset()
    assert envs.step(np.zeros(2, int))[0].tolist() == [1, 1]


# EnvPool, where it is installed


def pool(**changes):
    pytest.importorskip("envpool")
    return make_envs(config(**{"id": "CartPole-v1", "backend": "envpool", **changes}), 5, seed=1)


def test_envpool_gives_true_transitions_only():
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    envs, cart = pool(), CartPoleEnv()
    obs = envs.reset().copy()
    ends, rng = 0, np.random.default_rng(0)
    for _ in range(300):
        action = rng.integers(0, 2, 5)
        _, terminated, truncated, final = envs.step(action)
        successor = envs.obs.copy()
        for i, last in final:
            successor[i] = last
            assert np.abs(envs.obs[i]).max() <= 0.05  # where an episode begins
        for i in range(5):  # its dynamics are CartPole's up to float32
            cart.state, cart.steps_beyond_terminated = obs[i].astype(float), None
            expected, *_ = cart.step(int(action[i]))
            assert np.allclose(expected, successor[i], atol=1e-5)
        ends += len(final)
        obs = envs.obs.copy()
    assert ends > 30 and envs.valid.all() and len(envs.pop_episodes()) == ends


def test_envpool_lanes_and_run_seeds_differ_and_saving_restarts_equally():
    envs, again = pool(), pool()
    first = envs.reset().copy()
    other = make_envs(config(id="CartPole-v1", backend="envpool"), 5, seed=2).reset()
    assert len(np.unique(np.concatenate([first, other])[:, 0])) == 10
    for _ in range(30):
        envs.step(np.ones(5, int))
    again.load_state_dict(envs.state_dict())
    assert not np.array_equal(first, envs.obs)
    for _ in range(60):
        envs.step(np.ones(5, int)), again.step(np.ones(5, int))
        assert np.array_equal(envs.obs, again.obs)


def test_envpool_keeps_the_time_limit_of_the_config():
    envs = pool(id="Pendulum-v1", max_episode_steps=30)
    envs.reset()
    for k in range(30):
        _, terminated, truncated, final = envs.step(np.zeros((5, 1)))
        assert truncated.all() == (k == 29) and not terminated.any()
    assert len(final) == 5 and {n for _, n, _ in envs.pop_episodes()} == {30}


def test_envpool_plays_atari_by_its_gymnasium_id():
    envs = pool(id="ALE/Pong-v5", wrappers=["atari", "clip_reward"], kwargs={"frameskip": 1})
    assert envs.reset().shape == (5, 4, 84, 84) and envs.obs.dtype == np.uint8
    envs.step(np.zeros(5, int))
