"""GridWorld, "rlx/Grid-v0": a start, a goal, forbidden red cells; the observation is the cell, one-hot.

The default is the smallest grid in which the short way is wrong: 2 rows, 3 columns,

    . . .        the way over the red cell X ends there, at -1;
    S X G        the way around it is worth -0.1 -0.1 -0.1 + 1 = 0.7, the optimum

    actions   0 up, 1 right, 2 down, 3 left; against the edge one stays where one is
    rewards   entering the goal +1 and entering a forbidden cell -1, either ends the episode; any other move -0.1
    slip      with this probability the move goes to one of the two sides instead, half to each
    limit     100 steps, as registered (env.max_episode_steps)

Its transition table is there to be read: `P[s][a] = [(probability, next state, reward, terminated), ...]` and
`initial_state_distrib`, as in Gymnasium's toy-text environments.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw

from rlx.envs.spaces import OneHot

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
COLOURS = {".": "white", "S": "lightgray", "G": "limegreen", "X": "red"}
PIXELS = 64  # of a cell's side


class GridWorld(gym.Env):
    """See the module. Cells are (row, column), from 0 at the top left. ValueError for a grid that cannot be."""

    metadata = {"render_modes": ["rgb_array", "ansi"], "render_fps": 4}

    def __init__(
        self,
        rows: int = 2,
        columns: int = 3,
        start: Sequence[int] = (1, 0),
        goal: Sequence[int] = (1, 2),
        forbidden: Sequence[Sequence[int]] = ((1, 1),),
        slip: float = 0.0,
        step_reward: float = -0.1,
        goal_reward: float = 1.0,
        forbidden_reward: float = -1.0,
        render_mode: str | None = None,
    ) -> None:
        for name, size in (("rows", rows), ("columns", columns)):
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 100:
                raise ValueError(f"{name}={size!r}: must be a whole number from 1 to 100")
        if not (_number(slip) and 0 <= slip <= 1):
            raise ValueError(f"slip={slip!r}: must be a probability, from 0 to 1")
        for name, reward in (("step", step_reward), ("goal", goal_reward), ("forbidden", forbidden_reward)):
            if not (_number(reward) and np.isfinite(reward)):
                raise ValueError(f"{name}_reward={reward!r}: must be a finite number")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode={render_mode!r}: must be one of {', '.join(self.metadata['render_modes'])}")
        self.rows, self.columns, self.render_mode = rows, columns, render_mode
        if not isinstance(forbidden, Sequence):
            raise ValueError(f"forbidden={forbidden!r}: must be a list of cells [row, column]")
        special = [self._cell("start", start), self._cell("goal", goal)]
        special += [self._cell(f"forbidden[{i}]", cell) for i, cell in enumerate(forbidden)]
        if len(set(special)) < len(special):
            raise ValueError(f"start={start}, goal={goal}, forbidden={forbidden}: must be different cells")
        cells = ["."] * (rows * columns)
        for letter, s in zip("SG" + "X" * len(special), special):
            cells[s] = letter
        self.desc = ["".join(cells[i : i + columns]) for i in range(0, len(cells), columns)]

        self.initial_state_distrib = np.zeros(len(cells))
        self.initial_state_distrib[special[0]] = 1.0
        rewards = {"G": float(goal_reward), "X": float(forbidden_reward)}
        self.P: dict[int, dict[int, list[tuple[float, int, float, bool]]]] = {}
        for s, letter in enumerate(cells):
            self.P[s] = {}
            for a in range(len(MOVES)):
                if letter in rewards:  # the episode is over
                    self.P[s][a] = [(1.0, s, 0.0, True)]
                    continue
                ways = [(1.0 - slip, a), (slip / 2, (a - 1) % 4), (slip / 2, (a + 1) % 4)]
                arrivals = [(p, self._neighbour(s, way)) for p, way in ways if p > 0]
                self.P[s][a] = [
                    (p, t, rewards.get(cells[t], float(step_reward)), cells[t] in rewards) for p, t in arrivals
                ]
        self.observation_space = OneHot(len(cells))
        self.action_space = spaces.Discrete(len(MOVES))
        self._eye = np.eye(len(cells), dtype=np.float32)
        self.s = special[0]

    def _cell(self, name: str, cell: Sequence[int]) -> int:
        whole = isinstance(cell, Sequence) and len(cell) == 2 and all(type(x) is int for x in cell)
        if not whole or not (0 <= cell[0] < self.rows and 0 <= cell[1] < self.columns):
            raise ValueError(
                f"{name}={cell!r}: must be [row, column], rows from 0 to {self.rows - 1}, "
                f"columns from 0 to {self.columns - 1}"
            )
        return cell[0] * self.columns + cell[1]

    def _neighbour(self, s: int, a: int) -> int:
        row, column = s // self.columns + MOVES[a][0], s % self.columns + MOVES[a][1]
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        return row * self.columns + column if inside else s

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.s = int(self.initial_state_distrib.argmax())
        return self._eye[self.s].copy(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        outcomes = self.P[self.s][int(action)]
        k = 0
        if len(outcomes) > 1:
            left = self.np_random.random() - outcomes[0][0]
            while left >= 0 and k < len(outcomes) - 1:
                k += 1
                left -= outcomes[k][0]
        _, self.s, reward, terminated = outcomes[k]
        return self._eye[self.s].copy(), reward, terminated, False, {}

    def render(self) -> Any:
        """rgb_array: the picture [H, W, 3]. ansi: text, with A where the agent is. None without a render mode."""
        if self.render_mode == "ansi":
            letters = "".join(self.desc)
            letters = letters[: self.s] + "A" + letters[self.s + 1 :]
            return "\n".join(" ".join(letters[i : i + self.columns]) for i in range(0, len(letters), self.columns))
        if self.render_mode == "rgb_array":
            return self._picture()
        return None

    def _picture(self) -> np.ndarray:
        image = Image.new("RGB", (self.columns * PIXELS + 1, self.rows * PIXELS + 1), "gray")
        draw = ImageDraw.Draw(image)
        for s, letter in enumerate("".join(self.desc)):
            y, x = s // self.columns * PIXELS, s % self.columns * PIXELS
            draw.rectangle((x + 1, y + 1, x + PIXELS - 1, y + PIXELS - 1), fill=COLOURS[letter])
        y, x = self.s // self.columns * PIXELS, self.s % self.columns * PIXELS
        inset = PIXELS // 4
        draw.ellipse((x + inset, y + inset, x + PIXELS - inset, y + PIXELS - inset), fill="royalblue")
        return np.array(image)


def _number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


gym.register("rlx/Grid-v0", entry_point="rlx.envs.gridworld:GridWorld", max_episode_steps=100)
