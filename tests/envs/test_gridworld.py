"""The grid world: Gymnasium's contract, its rewards, its slips, its pictures, its refusals."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from training import train

import rlx.envs.gridworld  # noqa: F401  registers rlx/Grid-v0
from rlx.envs.gridworld import GridWorld
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig, make_env, time_limit
from rlx.envs.spaces import EnvError, OneHot
from rlx.tabular.mdp import optimum, transition_table

UP, RIGHT, DOWN, LEFT = range(4)
BIG = {"rows": 5, "columns": 4, "start": [4, 0], "goal": [0, 3], "forbidden": [[2, 2], [3, 1]], "slip": 0.3}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("kwargs", [{}, BIG], ids=["default", "big"])
def test_it_keeps_gymnasiums_contract(kwargs):
    check_env(gym.make("rlx/Grid-v0", **kwargs).unwrapped, skip_render_check=True)
    for mode in ("rgb_array", "ansi"):
        check_env(gym.make("rlx/Grid-v0", render_mode=mode, **kwargs).unwrapped)


def test_it_is_found_by_its_name_and_has_a_time_limit():
    config = EnvConfig(name="grid", id="rlx/Grid-v0")
    made = make_env(config)
    assert isinstance(made, GridWorld) and time_limit(config, made) == 100
    envs = make_envs(config, 2, seed=1)
    assert envs.replayable and envs.observation_space.shape == (6,)
    np.testing.assert_array_equal(envs.reset(), np.eye(6)[[3, 3]])


@pytest.mark.parametrize(
    "actions, total, cell, over",
    [
        ([UP, RIGHT, RIGHT, DOWN], 0.7, 5, True),  # around the red cell
        ([RIGHT], -1.0, 4, True),  # into it
        ([LEFT, DOWN], -0.2, 3, False),  # against the edges
        ([UP, UP, RIGHT, LEFT], -0.4, 0, False),
    ],
)
def test_rewards_and_ends_are_those_of_the_description(actions, total, cell, over):
    env = GridWorld()
    env.reset(seed=0)
    steps = [env.step(action) for action in actions]
    assert sum(step[1] for step in steps) == pytest.approx(total)
    np.testing.assert_array_equal(steps[-1][0], np.eye(6)[cell])
    assert [step[2] for step in steps] == [False] * (len(steps) - 1) + [over] and not any(step[3] for step in steps)


def test_the_optimum_of_the_2x3_grid_is_a_detour_worth_0_7():
    assert optimum(transition_table(EnvConfig(name="grid", id="rlx/Grid-v0"))) == pytest.approx(0.7)


def test_slips_go_to_the_sides_as_often_as_said():
    env = GridWorld(rows=3, columns=3, start=(1, 1), goal=(0, 0), forbidden=(), slip=0.3)
    counts = dict.fromkeys(range(9), 0)
    env.reset(seed=0)
    for _ in range(4000):
        env.reset()
        counts[int(env.step(UP)[0].argmax())] += 1
    expected = {1: 0.7, 3: 0.15, 5: 0.15}
    assert sum(counts[cell] for cell in expected) == 4000
    for cell, p in expected.items():
        assert abs(counts[cell] / 4000 - p) < 4 * np.sqrt(p * (1 - p) / 4000)


def test_the_table_has_a_distribution_for_every_cell_and_action_and_ends_at_the_special_ones():
    env = GridWorld(**BIG)
    assert env.initial_state_distrib.tolist() == np.eye(20)[16].tolist()
    for s, row in env.P.items():
        for outcomes in row.values():
            assert sum(outcome[0] for outcome in outcomes) == pytest.approx(1)
            if s in (3, 10, 13):
                assert outcomes == [(1.0, s, 0.0, True)]
            else:
                assert all((t in (3, 10, 13)) == over for _, t, _, over in outcomes)


def test_pictures_show_the_cells_and_the_agent():
    env = GridWorld(render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (129, 193, 3) and picture.dtype == np.uint8
    centre = {s: tuple(picture[s // 3 * 64 + 32, s % 3 * 64 + 32]) for s in range(6)}
    assert centre[4] == (255, 0, 0) and centre[5] == (50, 205, 50) and centre[0] == (255, 255, 255)
    assert centre[3] == (65, 105, 225)  # the agent
    text = GridWorld(render_mode="ansi")
    text.reset(seed=0)
    assert text.render() == ". . .\nA X G"
    text.step(UP)
    assert text.render() == "A . .\nS X G"


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"rows": 0}, r"rows=0: must be a whole number from 1 to 100"),
        ({"columns": 2.5}, r"columns=2.5: must be a whole number"),
        ({"start": [2, 0]}, r"start=\[2, 0\]: must be \[row, column\], rows from 0 to 1, columns from 0 to 2"),
        ({"goal": 5}, r"goal=5: must be \[row, column\]"),
        ({"forbidden": [[1, 1], [0, 9]]}, r"forbidden\[1\]=\[0, 9\]: must be \[row, column\]"),
        ({"forbidden": [1, 1]}, r"forbidden\[0\]=1: must be \[row, column\]"),
        ({"forbidden": 3}, r"forbidden=3: must be a list of cells"),
        ({"goal": [1, 0]}, r"must be different cells"),
        ({"slip": 1.5}, r"slip=1.5: must be a probability"),
        ({"slip": "much"}, r"slip='much': must be a probability"),
        ({"step_reward": float("nan")}, r"step_reward=nan: must be a finite number"),
        ({"goal_reward": "x"}, r"goal_reward='x': must be a finite number"),
        ({"walls": []}, r"walls: rlx/Grid-v0 takes no such argument"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(kwargs, message):
    with pytest.raises(EnvError, match=rf"^env\.kwargs[.=][^\n]*{message}[^\n]*$"):
        make_env(EnvConfig(name="grid", id="rlx/Grid-v0", kwargs=kwargs))


def test_a_one_hot_space_holds_the_unit_vectors_and_nothing_else():
    space = OneHot(3)
    space.seed(0)
    assert all(space.contains(space.sample()) for _ in range(20)) and isinstance(space, gym.spaces.Box)
    for bad in ([1, 1, 0], [0, 0, 0], [0.5, 0.5, 0], [1, 0]):
        assert not space.contains(np.array(bad, np.float32))


def test_ppo_learns_the_detour():
    _, history = train("algo=ppo", "env=grid", "preset=none", "total_steps=8000", "algo.num_steps=64", "algo.lr=3e-3",
                       "algo.num_minibatches=4", "model.hidden=[16]")  # fmt: skip
    assert history[-1]["rollout/ep_rew_mean"] > 0.6
