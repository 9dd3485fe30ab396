"""The wrappers of a registration, and one's own, see the time limit that rlx counts itself."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import WrapperSpec
from gymnasium.wrappers import TimeAwareObservation

from rlx.envs.single import EnvConfig, make_env, time_limit
from rlx.envs.sync import make_lanes

AWARE = WrapperSpec("aware", "gymnasium.wrappers:TimeAwareObservation", {"flatten": True, "normalize_time": True})
SCALED = WrapperSpec("scaled", "gymnasium.wrappers:RescaleAction", {"min_action": -2.0, "max_action": 2.0})


@pytest.fixture(params=[True, False], ids=["ordered", "bare"])
def id(request):
    gym.register(
        "Aware-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=40,
        order_enforce=request.param, additional_wrappers=(SCALED, AWARE),
    )  # fmt: skip
    yield "Aware-v0"
    gym.registry.pop("Aware-v0")


def test_a_registered_environment_is_the_one_that_gymnasium_makes(id):
    ours, theirs = make_env(EnvConfig("aware", id)), gym.make(id)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    for env in (ours, theirs):
        env.reset(seed=3)
    for k in range(40):
        action = np.full(1, np.sin(k), np.float32)
        ours_row, theirs_row = ours.step(action), theirs.step(action)
        assert (ours_row[0] == theirs_row[0]).all() and ours_row[1] == theirs_row[1]
        assert ours_row[3] is False and theirs_row[3] == (k == 39)  # rlx counts itself


@pytest.mark.parametrize("limit, expected", [(None, 40), (8, 8)])
def test_the_limit_they_see_is_the_limit_that_counts(id, limit, expected):
    cfg = EnvConfig("aware", id, max_episode_steps=limit)
    assert time_limit(cfg, make_env(cfg)) == expected
    envs = make_lanes(cfg, range(1), 1, 0)
    envs.reset()
    for k in range(1, expected + 1):
        final = envs.step(np.zeros((1, 1), np.float32))[-1]
        assert len(final) == (k == expected)
        row = final[0][1] if final else envs.obs[0]
        assert row[-1] == pytest.approx(k / expected)


def test_ones_own_wrapper_sees_it_too(tmp_path, monkeypatch):
    (tmp_path / "aware.py").write_text("from gymnasium.wrappers import TimeAwareObservation as Aware\n")
    monkeypatch.syspath_prepend(tmp_path)
    cfg = EnvConfig("pendulum", "Pendulum-v1", wrappers=["aware:Aware", "repeat_action_2"])
    env = make_env(cfg)
    assert isinstance(env.env, TimeAwareObservation) and env.observation_space.shape == (4,)
