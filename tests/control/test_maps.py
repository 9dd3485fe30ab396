"""Maps: what a policy thinks of states, beside the exact optimum, and how that is drawn."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fake_envs  # noqa: F401  registers its environments
import numpy as np
import pytest
from composed import composed
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import train

from rlx.base.pages.canvas import Canvas, font
from rlx.control.policy import judge
from rlx.control.show import map_picture, maps
from rlx.tabular.mdp import value_iteration
from rlx.tabular.parts import Greedy
from rlx.training import runner

SVG = "{http://www.w3.org/2000/svg}"


def cfg(*words: str) -> Any:
    return runner.typed(composed(*words))[0]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def exact(env: str, gamma: float) -> tuple[Any, Greedy, maps.States]:
    """A configuration, and the map of the optimal policy in it, which has never been in its last open state."""
    configuration = cfg("algo=q_learning", env, f"algo.gamma={gamma}")
    mdp, best = maps._exact(configuration)
    assert mdp is not None and best is not None
    policy = Greedy(best, 0.0, np.ones(best.shape, np.int64))
    learned = maps.build(policy, configuration)
    assert isinstance(learned, maps.States)
    return configuration, policy, learned


def test_the_optimum_of_the_grid_without_discount_is_the_way_around() -> None:
    _, _, learned = exact("env=grid", 1.0)
    start = learned.table()[learned.letters.index("S")]
    assert start["V*"] == pytest.approx(0.7) and start["action"] == "up" and start["Q*"]["right"] == pytest.approx(-1.0)


def test_the_map_of_the_optimal_table_is_the_optimum() -> None:
    _, policy, learned = exact("env=frozenlake", 0.9)
    assert learned.mdp is not None and np.allclose(policy.q, value_iteration(learned.mdp, 0.9))
    for row in learned.table():
        assert row["V"] == pytest.approx(row["V*"]) and row["Q"] == pytest.approx(row["Q*"])
        assert row["Q*"][row["action"]] == pytest.approx(row["V*"])
    drawn = texts(map_picture.draw(learned, "x").svg())
    assert drawn.count("H") == 5 * 4 and drawn.count("G") == 5  # V, V*, visits, Q, Q*
    assert {"learned Q(s, a)", "optimum Q*(s, a)", "visits"} <= set(drawn)


def test_a_table_that_is_no_grid_is_drawn_as_actions_over_states() -> None:
    _, _, learned = exact("env=taxi", 0.9)
    drawn = texts(map_picture.draw(learned, "x").svg())
    assert "state 0 to 499" in drawn and "optimum Q*(s, a)" in drawn


def test_of_a_policy_that_says_nothing_the_map_shows_where_it_goes() -> None:
    configuration = cfg("algo=q_learning", "env=grid")
    learned = maps.build(lambda obs: np.full(len(obs), 1), configuration)
    assert isinstance(learned, maps.States) and learned.known == {} and learned.action.tolist() == [1] * 6
    assert "the policy" in texts(map_picture.draw(learned, "x").svg())


def test_a_plane_holds_what_the_policy_does_at_its_points() -> None:
    def policy(obs: np.ndarray) -> np.ndarray:
        return (obs[:, 2] + obs[:, 3] > 0).astype(int)

    learned = maps.build(policy, cfg("algo=ppo", "env=cartpole"))
    assert isinstance(learned, maps.Surface)
    grid = learned.action.reshape(maps.SIDE, maps.SIDE)
    assert grid[0, -1] == 1 and grid[-1, 0] == 0  # at the top right both are positive
    png = map_picture.draw(learned, "x").png(1)
    assert Image.open(io.BytesIO(png)).size[0] > 300


def test_a_plane_is_judged_a_line_at_a_time_which_takes_little_memory() -> None:
    asked = []

    class Watched:
        def judge(self, obs: np.ndarray) -> dict[str, np.ndarray]:
            asked.append(len(obs))
            return {"value": obs[:, 2]}

        def __call__(self, obs: np.ndarray) -> np.ndarray:
            asked.append(len(obs))
            return (obs[:, 2] > 0).astype(int)

    learned = maps.build(Watched(), cfg("algo=ppo", "env=cartpole"))
    assert isinstance(learned, maps.Surface) and max(asked) == maps.SIDE
    x = np.linspace(learned.plane.low[0], learned.plane.high[0], maps.SIDE)
    assert np.allclose(learned.known["value"].reshape(maps.SIDE, maps.SIDE), x, atol=1e-6)
    assert np.array_equal(learned.action.reshape(maps.SIDE, maps.SIDE)[7], x.astype(np.float32) > 0)


def test_other_dimensions_are_drawn_over_what_an_episode_meets_and_bad_ones_are_refused() -> None:
    def policy(obs: np.ndarray) -> np.ndarray:
        return np.zeros(len(obs), int)

    configuration = cfg("algo=ppo", "env=acrobot", "env.max_episode_steps=20")
    with pytest.raises(maps.NoMap, match=r"^env.id=Acrobot-v1: observations have 6 dimensions; --dims I,J says"):
        maps.build(policy, configuration)
    learned = maps.build(policy, configuration, (0, 4))
    assert isinstance(learned, maps.Surface) and learned.path is not None and len(learned.path) == 20
    assert (learned.path >= learned.plane.low).all() and (learned.path <= learned.plane.high).all()
    with pytest.raises(maps.NoMap, match=r"^--dims=0,6: must be two different dimensions from 0 to 5"):
        maps.build(policy, configuration, (0, 6))


def test_a_critic_counts_once_it_has_learned(tmp_path: Path) -> None:
    obs = np.zeros((3, 4), np.float32)
    for weight, valued in (("gae", True), ("whole_return", False)):
        path = train(tmp_path, algo="vpg", algo__weight=weight, name=weight, eval_every=0)
        _, policy = runner.open_policy(path)
        known = judge(policy, obs)
        assert ("value" in known) == valued
        assert known["probability"].shape == (3, 2) and np.allclose(known["probability"].sum(-1), 1)


def test_a_run_leaves_its_map_and_shows_it_in_tensorboard_ten_times_at_most(tmp_path: Path) -> None:
    path = train(
        tmp_path,
        "grid",
        algo="q_learning",
        tensorboard=True,
        total_steps=3200,
        checkpoint_every=32,
        eval_every=0,
        video=True,
    )
    assert "optimum V*(s)" in texts((path / "map.svg").read_text("utf-8"))
    events = EventAccumulator(str(path), size_guidance={"images": 0}).Reload().Images("map")
    assert 5 <= len(events) <= 11 and events[-1].step == 3200
    assert Image.open(io.BytesIO(events[-1].encoded_image_string)).format == "PNG"


def no_overlap(canvas: Canvas) -> bool:
    """Does no text lie on another, and none leave the picture?"""
    boxes = []
    for kind, what in canvas.items:
        if kind == "text" and what[2]:
            x, y, text, size, _, anchor = what
            width = 1.15 * font(size).getlength(text)  # browsers have wider ones
            left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
            boxes.append((left, left + width, y - size / 3, y + size / 3, text))
    for i, (a, b, c, d, text) in enumerate(boxes):
        assert a >= 0 and b <= canvas.width and c >= 0 and d <= canvas.height, text
        for e, f, g, h, other in boxes[:i]:
            assert b <= e or f <= a or d <= g or h <= c, f"{text!r} on {other!r}"
    return True


@pytest.mark.parametrize(
    "env", ["cartpole", "mountaincar", "pendulum", "grid", "frozenlake8x8", "cliffwalking", "taxi", "random_walk"]
)
def test_no_text_of_a_map_lies_on_another_or_leaves_the_picture(env: str) -> None:
    class Knowing:
        def __call__(self, obs: np.ndarray) -> np.ndarray:
            return np.zeros((len(obs), 1) if env == "pendulum" else len(obs), int)

        def judge(self, obs: np.ndarray) -> dict[str, np.ndarray]:
            actions = {"cliffwalking": 4, "frozenlake8x8": 4, "grid": 4, "taxi": 6, "random_walk": 2}.get(env)
            table = np.linspace(-1234.5, -0.001, len(obs))
            if actions is None:
                return {"value": table}
            q = np.repeat(table[:, None], actions, 1)
            return {"value": table, "q": q, "visits": np.full((len(obs), actions), 123_456)}

    canvas = map_picture.draw(maps.build(Knowing(), cfg("algo=ppo", f"env={env}", "preset=none")), f"ppo on {env}")
    assert no_overlap(canvas)


def test_an_environment_says_which_dimensions_its_map_shows_and_what_its_actions_are_called(tmp_path: Path) -> None:
    (tmp_path / "slope.py").write_text(
        "import gymnasium as gym, numpy as np\n"
        "class Slope(gym.Env):\n"
        "    map_dims, observation_names = (2, 1), ['position', 'velocity', 'wind']\n"
        "    action_names = [f'push to the {i}th' for i in range(9)]\n"
        "    observation_space, action_space = gym.spaces.Box(-9, 9, (3,)), gym.spaces.Discrete(9)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        return np.zeros(3, np.float32), {}\n"
        "    def step(self, action):\n"
        "        return np.full(3, action, np.float32), 0.0, False, False, {}\n"
    )
    words = ["algo=ppo", "env=gym", f"env.id={tmp_path}/slope.py:Slope", "env.max_episode_steps=9", "preset=none"]
    learned = maps.build(lambda obs: (obs[:, 2] * 2.2).clip(0, 8).astype(int), cfg(*words))
    assert isinstance(learned, maps.Surface) and learned.plane.names[0].startswith("wind")
    learned.action = np.resize(np.arange(9), len(learned.action))
    canvas = map_picture.draw(learned, "x")
    shown = {what[2] for kind, what in canvas.items if kind == "text"}
    assert {f"push to the {i}th" for i in range(9)} <= shown
    colours = [what[1] for kind, what in canvas.items if kind == "polygon"]
    assert len(set(colours)) == len(colours) == 9
    assert no_overlap(canvas)


def test_what_was_never_seen_is_grey_and_no_value() -> None:
    configuration, policy, before = exact("env=frozenlake", 0.9)
    assert isinstance(before, maps.States)
    last = int(before.open.nonzero()[0][-1])
    visits = np.ones(policy.q.shape, np.int64)
    visits[last] = 0
    drawn = []
    for initial in (-5.0, 0.9):
        q = policy.q.copy()
        q[last] = initial
        learned = maps.build(Greedy(q, 0.0, visits), configuration)
        drawn.append(map_picture.draw(learned, "x").svg())
    assert drawn[0] == drawn[1] and "-5" not in drawn[0]
