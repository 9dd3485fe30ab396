"""LunarLander's quicker step against Gymnasium's own, bit for bit."""

import math

import gymnasium as gym
import numpy as np
import pytest

gymnasium_lander = pytest.importorskip("gymnasium.envs.box2d.lunar_lander")

from rlx.envs.make import make_envs  # noqa: E402
from rlx.envs.quick import lunar_lander as quick  # noqa: E402
from rlx.envs.single import EnvConfig, make_env  # noqa: E402


def cfg(**changes):
    return EnvConfig(**{"name": "test", "id": "LunarLander-v3", **changes})


def pair(**kwargs):
    """Gymnasium's, and the one that rlx makes of it."""
    return gym.make("LunarLander-v3", **kwargs).unwrapped, make_env(cfg(kwargs=kwargs)).unwrapped


def is_quick(env):
    return type(env).step is quick.step and type(env).__name__ == "LunarLander"


def actions(kind, env, rng):
    """A way to choose: at random, beyond the bounds, at their edges, always one engine, or a pilot that lands."""
    special = [0.0, -0.0, 0.5, -0.5, np.nextafter(0.5, 1), 1e-9, 1.0, -1.0, 3.0, math.nan, math.inf, -math.inf]
    if kind == "lands":
        return lambda obs: gymnasium_lander.heuristic(env, obs)
    if not env.continuous:
        return lambda obs: {"random": rng.integers(4), "numpy": np.int8(rng.integers(4))}.get(
            kind, int(kind == "one") * 3
        )
    if kind == "random":
        return lambda obs: rng.uniform(-1.5, 1.5, 2).astype(np.float32)
    if kind == "numpy":
        return lambda obs: rng.choice(special, 2)
    return lambda obs: [1.0, 0.7]


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("kind", ["random", "numpy", "one", "lands"])
def test_every_step_is_gymnasiums_to_the_last_bit(kind, continuous):
    theirs, ours = pair(continuous=continuous)
    assert type(theirs) is gymnasium_lander.LunarLander and is_quick(ours)
    rng, ends = np.random.default_rng(1), set()
    for seed in range(6):
        obs = theirs.reset(seed=seed)[0]
        assert obs.tobytes() == ours.reset(seed=seed)[0].tobytes()
        choose, over, steps = actions(kind, theirs, rng), False, 0
        while not over and steps < 1000:
            action, steps = choose(obs), steps + 1
            obs, reward, over, *rest = theirs.step(action)
            mine = ours.step(action)
            assert obs.tobytes() == mine[0].tobytes() and mine[0].dtype == np.float32
            assert np.float64(reward).tobytes() == np.float64(mine[1]).tobytes() and mine[2:] == (over, *rest)
        assert theirs.np_random.bit_generator.state == ours.np_random.bit_generator.state
        ends.add(reward)
    assert ends & ({100} if kind == "lands" else {-100})


@pytest.mark.parametrize("kwargs", [{"enable_wind": True}, {"render_mode": "rgb_array"}, {"gravity": -3.0}])
def test_wind_pictures_and_another_gravity_are_gymnasiums(kwargs):
    theirs, ours = pair(**kwargs)
    theirs.reset(seed=3), ours.reset(seed=3)
    for k in range(40):
        assert theirs.step(k % 4)[0].tobytes() == ours.step(k % 4)[0].tobytes()
    assert len(theirs.particles) == len(ours.particles)
    if "render_mode" in kwargs:
        assert ours.particles and np.array_equal(theirs.render(), ours.render())


def test_wind_that_rises_later_blows(monkeypatch):
    theirs, ours = pair()
    for env in (theirs, ours):
        env.enable_wind = True
        env.reset(seed=3)
    assert all(theirs.step(0)[0].tobytes() == ours.step(0)[0].tobytes() for _ in range(40))


def test_where_gymnasium_steps_otherwise_its_own_step_stays(monkeypatch):
    quick.agrees.cache_clear()
    monkeypatch.setattr(gymnasium_lander, "MAIN_ENGINE_POWER", 14.0)  # somebody's other rocket
    assert type(make_env(cfg()).unwrapped) is gymnasium_lander.LunarLander
    quick.agrees.cache_clear()


def test_a_derived_lander_keeps_its_own_step():
    class Heavy(gymnasium_lander.LunarLander):
        pass

    gym.register("Heavy-v0", entry_point=lambda **kwargs: Heavy(**kwargs))
    try:
        assert type(make_env(cfg(id="Heavy-v0")).unwrapped) is Heavy
    finally:
        del gym.registry["Heavy-v0"]


def test_a_lander_that_was_not_reset_and_a_wrong_action_are_answered_as_gymnasium_does():
    theirs, ours = pair()
    for env in (theirs, ours):
        with pytest.raises(AssertionError):
            env.step(0)
        env.reset(seed=0)
        with pytest.raises(AssertionError, match="4 .*invalid"):
            env.step(4)


def test_a_run_saves_and_restores_open_episodes():
    envs = make_envs(cfg(), 3, seed=5)
    envs.reset()
    rng = np.random.default_rng(0)
    for _ in range(150):
        envs.step(rng.integers(0, 4, 3))
    again = make_envs(cfg(), 3, seed=5)
    again.load_state_dict(envs.state_dict())
    assert again.obs.tobytes() == envs.obs.tobytes() and is_quick(again.envs[0].unwrapped)
    for _ in range(30):
        action = rng.integers(0, 4, 3)
        assert all(
            a.tobytes() == b.tobytes() for a, b in zip(envs.step(action)[:3], again.step(action)[:3], strict=True)
        )
