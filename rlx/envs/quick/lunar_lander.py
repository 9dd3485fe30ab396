"""Gymnasium's LunarLander with a quicker step, equal to the last bit.

Box2D takes half of Gymnasium's step; most of the rest are NumPy's generators, clips and roots of single numbers, and
Box2D's vectors asked for one coordinate at a time. Before the first use in a process an episode is played by both; if
a bit differs Gymnasium's step stays, as it does with wind, and with a picture, for which it makes particles.
"""

import math
from functools import cache
from typing import Any

import numpy as np

LANDER = "gymnasium.envs.box2d.lunar_lander", "LunarLander"  # which imports Box2D
FPS, SCALE = 50, 30.0  # its constants; where they are others, the steps do not agree
HALF_WIDTH, HALF_HEIGHT = 600 / SCALE / 2, 400 / SCALE / 2
LEGS, JET, AWAY = 18 / SCALE, 4 / SCALE, 12 / SCALE
SIDE_BACK, SIDE_UP = 17 / SCALE, 14 / SCALE
MAIN_POWER, SIDE_POWER = 13.0, 0.6


def quicken(env: Any) -> None:
    """Make Gymnasium's lander a quick one, in place, where that is exact; leave every other environment."""
    plain: Any = type(env)
    if (plain.__module__, plain.__qualname__) == LANDER and agrees(plain, env.continuous):
        env.__class__ = quick(plain)


@cache
def quick(plain: type) -> type:
    """The class with the quicker step, of the same name."""
    return type(plain.__name__, (plain,), {"step": step, "step_of_gymnasium": plain.step})  # type: ignore[attr-defined]


@cache
def agrees(plain: type, continuous: bool) -> bool:
    """Play one episode of random actions with both steps: is every bit the same?"""
    both = [kind(continuous=continuous) for kind in (plain, quick(plain))]
    rng, over = np.random.default_rng(0), False
    same = np.array_equal(*(env.reset(seed=0)[0] for env in both))
    while same and not over:
        action = rng.uniform(-1.2, 1.2, 2).astype(np.float32) if continuous else int(rng.integers(4))
        theirs, ours = (env.step(action) for env in both)
        same = theirs[0].tobytes() == ours[0].tobytes() and theirs[1:] == ours[1:]
        over = theirs[2]
    return same


def step(self: Any, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
    if self.enable_wind or self.render_mode is not None:
        return self.step_of_gymnasium(action)  # type: ignore[no-any-return]
    assert self.lander is not None, "You forgot to call reset()"
    lander, draw, main, side = self.lander, self.np_random.random, 0.0, 0.0
    if self.continuous:
        throttle, turn = (min(max(float(each), -1.0), 1.0) for each in action)
        if throttle > 0.0:
            main = (throttle + 1.0) * 0.5
        if abs(turn) > 0.5:
            side, direction = abs(turn), math.copysign(1.0, turn)
    else:
        assert self.action_space.contains(action), f"{action!r} ({type(action)}) invalid "
        if action == 2:
            main = 1.0
        elif action != 0:
            side, direction = 1.0, int(action) - 2
    wide, high = (-1.0 + 2.0 * draw()) / SCALE, (-1.0 + 2.0 * draw()) / SCALE
    if main or side:
        angle = lander.angle
        sin, cos = math.sin(angle), math.cos(angle)
        x, y = lander.position
        if main:
            ox = sin * (JET + 2 * wide) + -cos * high
            oy = -cos * (JET + 2 * wide) - sin * high
            impulse = -ox * MAIN_POWER * main, -oy * MAIN_POWER * main
            lander.ApplyLinearImpulse(impulse, (x + ox, y + oy), True)
        if side:
            off = 3 * high + direction * AWAY
            ox, oy = sin * wide + -cos * off, -cos * wide - sin * off
            impulse = -ox * SIDE_POWER * side, -oy * SIDE_POWER * side
            lander.ApplyLinearImpulse(impulse, (x + ox - sin * SIDE_BACK, y + oy + cos * SIDE_UP), True)
    self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
    (x, y), (vx, vy), (left, right) = lander.position, lander.linearVelocity, self.legs
    x, y = (x - HALF_WIDTH) / HALF_WIDTH, (y - (self.helipad_y + LEGS)) / HALF_HEIGHT
    vx, vy = vx * HALF_WIDTH / FPS, vy * HALF_HEIGHT / FPS
    angle, turning = lander.angle, 20.0 * lander.angularVelocity / FPS
    left, right = 1.0 if left.ground_contact else 0.0, 1.0 if right.ground_contact else 0.0
    shaping = (
        -100 * math.sqrt(x * x + y * y) - 100 * math.sqrt(vx * vx + vy * vy) - 100 * abs(angle) + 10 * left + 10 * right
    )
    reward = 0.0 if self.prev_shaping is None else shaping - self.prev_shaping
    self.prev_shaping = shaping
    reward = reward - main * 0.30 - side * 0.03
    over = self.game_over or abs(x) >= 1.0
    if not lander.awake:
        over, reward = True, 100.0
    elif over:
        reward = -100.0
    return np.array((x, y, vx, vy, angle, turning, left, right), np.float32), reward, over, False, {}
