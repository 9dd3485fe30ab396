"""An environment of your own: a cart on a rail is to be held at a mark.

    observation   position of the cart, position of the mark, both in [-1, 1]
    action        0: to the left, 1: stay, 2: to the right
    reward        minus the distance to the mark, each step; an episode has 50 steps (see the YAML beside it)

Change what you like; `rlx check env NAME` says what an agent would stumble over.
"""

from typing import Any

import gymnasium as gym
import numpy as np

SPEED = 0.1  # of the cart, in a step


class Template(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)  # makes self.np_random: all chance comes from it, so that a seed is an episode
        self.cart, self.mark = self.np_random.uniform(-1.0, 1.0, 2)
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.cart = float(np.clip(self.cart + SPEED * (int(action) - 1), -1.0, 1.0))
        reward = -abs(self.cart - self.mark)
        terminated = False  # True where nothing more can be gained or lost; a time limit is no such end
        return self._observation(), reward, terminated, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([self.cart, self.mark], np.float32)

    def render(self) -> np.ndarray:  # type: ignore[override]
        """A picture [height, width, 3] for films: rlx play RUN --gif out.gif."""
        picture = np.full((60, 240, 3), 255, np.uint8)
        for place, half, colour in ((self.mark, 3, (200, 60, 60)), (self.cart, 9, (40, 80, 160))):
            middle = round(10 + 220 * (place + 1) / 2)
            picture[20:40, max(0, middle - half) : middle + half] = colour
        return picture
