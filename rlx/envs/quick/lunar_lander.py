"""Gymnasium's LunarLander with a quicker step, equal to the last bit.

Box2D takes half of Gymnasium's step; most of the rest are NumPy's generators, clips and roots of single numbers, and
Box2D's vectors asked for one coordinate at a time. Before the first use in a process an episode is played by both; if
a bit differs Gymnasium's step stays, as it does with wind, and with a picture, for which it makes particles.
"""

import math
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.box2d import lunar_lander
from gymnasium.envs.box2d.lunar_lander import (
    FPS,
    LEG_DOWN,
    MAIN_ENGINE_POWER,
    MAIN_ENGINE_Y_LOCATION,
    SCALE,
    SIDE_ENGINE_AWAY,
    SIDE_ENGINE_HEIGHT,
    SIDE_ENGINE_POWER,
    VIEWPORT_H,
    VIEWPORT_W,
)

HALF_WIDTH, HALF_HEIGHT = VIEWPORT_W / SCALE / 2, VIEWPORT_H / SCALE / 2
LEGS, MAIN, AWAY = LEG_DOWN / SCALE, MAIN_ENGINE_Y_LOCATION / SCALE, SIDE_ENGINE_AWAY / SCALE
SIDE_BACK, SIDE_UP = 17 / SCALE, SIDE_ENGINE_HEIGHT / SCALE


def quicken(env: gym.Env) -> None:
    """Make one of Gymnasium's a quick one, in place, where that is exact."""
    if type(env) is lunar_lander.LunarLander and agrees(env.continuous):
        env.__class__ = LunarLander


@cache
def agrees(continuous: bool) -> bool:
    """Play one episode of random actions with both steps: is every bit the same?"""
    both = lunar_lander.LunarLander(continuous=continuous), lunar_lander.LunarLander(continuous=continuous)
    both[1].__class__ = LunarLander
    rng, over = np.random.default_rng(0), False
    same = np.array_equal(*(env.reset(seed=0)[0] for env in both))
    while same and not over:
        action = rng.uniform(-1.2, 1.2, 2).astype(np.float32) if continuous else int(rng.integers(4))
        theirs, ours = (env.step(action) for env in both)
        same = theirs[0].tobytes() == ours[0].tobytes() and theirs[1:] == ours[1:]
        over = theirs[2]
    return same


class LunarLander(lunar_lander.LunarLander):
    """See the module; what `quicken` makes of Gymnasium's."""

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        if self.enable_wind or self.render_mode is not None:
            return super().step(action)
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
                ox = sin * (MAIN + 2 * wide) + -cos * high
                oy = -cos * (MAIN + 2 * wide) - sin * high
                impulse = -ox * MAIN_ENGINE_POWER * main, -oy * MAIN_ENGINE_POWER * main
                lander.ApplyLinearImpulse(impulse, (x + ox, y + oy), True)
            if side:
                off = 3 * high + direction * AWAY
                ox, oy = sin * wide + -cos * off, -cos * wide - sin * off
                impulse = -ox * SIDE_ENGINE_POWER * side, -oy * SIDE_ENGINE_POWER * side
                lander.ApplyLinearImpulse(impulse, (x + ox - sin * SIDE_BACK, y + oy + cos * SIDE_UP), True)
        self.world.Step(1.0 / FPS, 6 * 30, 2 * 30)
        (x, y), (vx, vy), (left, right) = lander.position, lander.linearVelocity, self.legs
        x, y = (x - HALF_WIDTH) / HALF_WIDTH, (y - (self.helipad_y + LEGS)) / HALF_HEIGHT
        vx, vy = vx * HALF_WIDTH / FPS, vy * HALF_HEIGHT / FPS
        angle, turning = lander.angle, 20.0 * lander.angularVelocity / FPS
        left, right = 1.0 if left.ground_contact else 0.0, 1.0 if right.ground_contact else 0.0
        shaping = (
            -100 * math.sqrt(x * x + y * y)
            - 100 * math.sqrt(vx * vx + vy * vy)
            - 100 * abs(angle)
            + 10 * left
            + 10 * right
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
