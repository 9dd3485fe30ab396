"""Many environments stepped together: what every backend shares.

Lane i plays episodes 0, 1, 2, ... Episode k of lane i is seeded with SeedSequence([seed, domain, i, k]), so
that no two lanes, run seeds or domains share one. An episode that ends is reset in the same step: `obs`
already holds the first observation of the next one, and the true final observation comes back beside the
reward. No transition is a dummy.

Resume is exact without pickling environments: the actions of the open episodes are kept, and an open episode
is restored from its seed by taking them again; the observation and the return must then be the stored ones.
"""

import warnings
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np

from rlx.base import stopwatch
from rlx.envs.episodes import TRAIN, ActionLog, Episode, episode_seed, first_difference
from rlx.envs.spaces import ActionDecoder, EnvError, EnvFault, all_finite, mask_size, observation_encoder, what_to_say

# What is too large for float32 becomes an infinity, which is found and named with its place.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning, r"rlx\.envs\.")

NO_LIMIT = 1 << 62
Ends = tuple[Any, Any, bool]  # terminated [N], truncated [N] (sequences or arrays), any of them
Final = list[tuple[int, np.ndarray]]


class Envs:
    """N environments. `obs` is one array, overwritten in place by `step`: copy what must last.

    valid       False where the last step of a lane was no transition but a reset that a NEXT_STEP vector
                environment makes us wait for; such rows must not reach a learner, nor its statistics
    waits       whether there are such rows (backend vector only)
    replayable  False where open episodes cannot be restored: `state_dict` then starts new ones in every
                lane, so that `obs` changes, and so does `load_state_dict`; `notice` tells the user
    """

    num_envs: int
    observation_space: gym.spaces.Box
    action_space: gym.Space
    obs: np.ndarray
    valid: np.ndarray
    waits: bool = False
    replayable: bool = True
    notice: str | None = None
    kernel: np.ndarray | None = None  # of environments that compiled kernels step: the struct Lanes of kernels.c

    def __init__(
        self,
        id: str,
        num_envs: int,
        observation_space: gym.Space,
        action_space: gym.Space,
        *,
        seed: int,
        domain: int = TRAIN,
        first_lane: int = 0,
        limit: int | None = None,
        clip_reward: bool = False,
        seed_once: bool = False,
        buffers: dict[str, np.ndarray] | None = None,
    ):
        if not 0 <= seed < 1 << 32:
            raise EnvError(f"seed={seed}: must lie between 0 and {(1 << 32) - 1}")
        self.id, self.num_envs = id, num_envs
        self.seed, self.domain, self.first_lane = seed, domain, first_lane
        self.limit = limit or NO_LIMIT
        self.clip_reward = clip_reward
        masked = isinstance(observation_space, gym.spaces.Tuple) and mask_size(action_space) > 0
        # Before it became an array, and without a mask:
        self.raw_observation_space = observation_space.spaces[0] if masked else observation_space  # type: ignore[attr-defined]
        self.raw_action_space = action_space
        self.notice = what_to_say(self.raw_observation_space, action_space)
        self.observation_space, self._encode = observation_encoder(observation_space, f"env.id={id}")
        self._actions = ActionDecoder(action_space, f"env.id={id}")
        self.action_space = self._actions.space
        self._action_shape = (num_envs, *self._actions.shape)
        buffers = buffers or make_buffers(num_envs, self.observation_space)
        self.obs, self._reward = buffers["obs"], buffers["reward"]
        self._terminated, self._truncated = buffers["terminated"], buffers["truncated"]
        self.valid = np.ones(num_envs, bool)
        self._flat = self.obs.reshape(-1)
        self._image = self.obs.dtype == np.uint8
        self._dirty = False
        self.episodes: list[Episode] = []
        # The clock: every lane has taken _t - _start[i] steps in its open episode.
        self._t = 0
        self._start = [0] * num_envs
        self._deadline = NO_LIMIT
        self._episode = [-1] * num_envs
        self._raw_reward = np.zeros(num_envs)
        self._return = np.zeros(num_envs)
        self._checked = self._raw_reward if clip_reward else self._reward  # sign(inf) is 1
        self._log: ActionLog | None = None
        self._unseeded = [False] * num_envs if seed_once else None  # whether a lane's next reset is to go without

    def add_notice(self, text: str) -> None:
        self.notice = f"{self.notice}; {text}" if self.notice else text

    def _accept(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, self._actions.dtype)
        if action.shape != self._action_shape:
            raise ValueError(f"{self.id} takes actions of shape {self._action_shape}, not {action.shape}")
        return action

    # What a backend provides
    def _advance(self, action: np.ndarray) -> Ends:
        """Step every lane: fill obs and _raw_reward."""
        raise NotImplementedError

    def _reset_lane(self, i: int, seed: int | None) -> None:
        """Start an episode and write its first observation into obs[i]."""
        raise NotImplementedError

    def _success(self, i: int) -> float | None:
        return None

    def close(self) -> None:
        pass

    # What the learner calls
    def reset(self) -> np.ndarray:
        """Start a new episode in every lane; open ones are dropped without a record."""
        for i in range(self.num_envs):
            self._begin(i)
        self._set_deadline()
        return self.obs

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Final]:
        """reward [N] float32, terminated [N], truncated [N] (overwritten by the next step) and `final`:
        (i, final observation) of each episode that ended. Action shapes: rlx.envs.spaces."""
        began = perf_counter()
        action = self._accept(action)
        if self._log is not None:
            self._log.put(self._t, action, self._start)
        ends = self._advance(action)
        self._t += 1
        self._return += self._raw_reward
        result = self._after(action, *ends)
        stopwatch.spent["env"] += perf_counter() - began
        return result

    def _after(self, action: np.ndarray, terminated: Any, truncated: Any, ended: bool) -> Any:
        """What follows a step: rewards, checks, the ends of episodes."""
        self._reward[:] = np.sign(self._raw_reward) if self.clip_reward else self._raw_reward
        if not (self._image or all_finite(self._flat)) or not all_finite(self._checked):
            self._blame(action)
        if self._dirty:
            self._terminated[:] = self._truncated[:] = self._dirty = False
        final = self._finish(terminated, truncated) if ended or self._t >= self._deadline else []
        return self._reward, self._terminated, self._truncated, final

    @property
    def room(self) -> int:
        """Steps until an episode may reach its limit."""
        return self._deadline - self._t

    def stepped(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, Final]:
        """What `step` gives for the last of the steps [k, N] that the compiled kernels have made; in the others no
        episode ended."""
        began = perf_counter()
        if self._log is not None:
            self._log.extend(self._t, actions, self._start)
        self._t += len(actions)
        result = self._after(actions[-1], *self._ends())
        stopwatch.spent["env"] += perf_counter() - began
        return result

    def _ends(self) -> Ends:
        """Of the step that the kernels have made last."""
        raise NotImplementedError

    def pop_episodes(self) -> list[Episode]:
        """(raw return, length, success or None) of the episodes that ended since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on exactly: arrays, numbers, strings. See `replayable`."""
        if not self.replayable:
            if self._unseeded is not None:
                self._unseeded = [False] * self.num_envs
            self.reset()
        return self._save([self._lane_state(i) for i in range(self.num_envs)])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. EnvError where the environment does not replay."""
        self._load_common(state)
        self._t = longest = max(len(lane.get("actions", ())) for lane in state["lanes"])
        if self.replayable:
            self._new_log(max(2 * longest, 256))
        for i, lane in enumerate(state["lanes"]):
            self._load_lane(i, lane)
        self._set_deadline()

    # Episodes
    def _begin(self, i: int) -> None:
        self._episode[i] += 1
        self._start[i] = self._t
        self._return[i] = 0.0
        self._reset_lane(i, self._seed_of(i, self.first_lane + i))
        self._check_first(i)

    def _seed_of(self, i: int, lane: int) -> int | None:
        """The seed of lane i's episode; None where only the first one has one."""
        if self._unseeded is not None:
            if self._unseeded[i]:
                return None
            self._unseeded[i] = True
        return episode_seed(self.seed, self.domain, lane, self._episode[i])

    def _finish(self, terminated: Any, truncated: Any) -> Final:
        """Record the episodes that ended, keep their final observations and start the next ones."""
        final, t = [], self._t
        for i, start in enumerate(self._start):
            late = t - start >= self.limit
            if not (terminated[i] or truncated[i] or late):
                continue
            self._dirty = True
            self._terminated[i] = terminated[i]
            self._truncated[i] = truncated[i] or late
            final.append((i, self.obs[i].copy()))
            self._next_episode(i)
        self._set_deadline()
        return final

    def _next_episode(self, i: int) -> None:
        self._record(i, (float(self._return[i]), self._t - self._start[i], self._success(i)))
        self._begin(i)

    def _record(self, i: int, episode: Episode) -> None:
        self.episodes.append(episode)

    def _set_deadline(self) -> None:
        self._deadline = min(self._start) + self.limit

    # Saving and restoring
    def _load_common(self, state: dict[str, Any]) -> None:
        saved = len(state["lanes"])
        if saved != self.num_envs:
            raise EnvError(f"num_envs={self.num_envs}: the saved state has {saved} environments")
        self.seed, self.domain = int(state["seed"]), int(state["domain"])
        self.episodes = [(float(total), int(length), won) for total, length, won in state["episodes"]]

    def _save(self, lanes: list[dict[str, Any]]) -> dict[str, Any]:
        episodes = [list(episode) for episode in self.episodes]
        return {"seed": self.seed, "domain": self.domain, "lanes": lanes, "episodes": episodes}

    def _lane_state(self, i: int) -> dict[str, Any]:
        if self._log is None:
            return {"episode": self._episode[i]}
        return {
            "episode": self._episode[i],
            "actions": self._log.get(self._start[i], self._t, i),
            "obs": self.obs[i].copy(),
            "return": float(self._return[i]),
        }

    def _load_lane(self, i: int, lane: dict[str, Any]) -> None:
        self._episode[i] = int(lane["episode"]) - 1
        self._begin(i)
        if "actions" not in lane or not self.replayable:
            return
        actions = np.asarray(lane["actions"])
        self._start[i] = self._t - len(actions)
        if self._log is not None:
            self._log.set(self._start[i], self._t, i, actions)
        problem = self._replay(i, actions) or first_difference(self.obs[i], lane["obs"])
        if not problem and self._return[i] != lane["return"]:
            problem = f"return {self._return[i]} instead of {lane['return']}"
        if problem:
            raise EnvError(
                f"env.id={self.id}: episode {self._episode[i]} of env {self.first_lane + i} does not replay "
                f"({problem} after {len(actions)} steps); set env.replay=false to start new episodes instead"
            )

    def _replay(self, i: int, actions: np.ndarray) -> str | None:
        """Take `actions` from the episode's start, leave obs[i] and _return[i]; text where that failed."""
        raise NotImplementedError

    def set_replayable(self, replayable: bool) -> None:
        """Keep the actions of open episodes or not; before the first reset."""
        self.replayable = replayable
        self._log = None
        if replayable:
            self._new_log()

    def _new_log(self, rows: int = 256) -> None:
        self._log = ActionLog(self._action_shape, self._actions.log_dtype, rows=rows)

    # Faults
    def _where(self, i: int, ahead: int = 0) -> str:
        step = self._t - self._start[i] + ahead
        return f"env {self.first_lane + i} ({self.id}), episode {self._episode[i]}, step {step}"

    def _check_first(self, i: int) -> None:
        if not (self._image or all_finite(self.obs[i])):
            raise EnvFault(f"{self._where(i)}: the first observation is not finite: {self.obs[i]}")

    def _blame(self, action: np.ndarray) -> None:
        """Find what is not finite and say so."""
        for i in range(self.num_envs):
            what = None
            if not np.isfinite(self._checked[i]):
                what = f"the reward is {self._raw_reward[i]}"
            elif not self._image:
                what = not_finite(self.obs[i])
            if what:
                given = "" if np.isfinite(action[i]).all() else f" after the action {action[i]}"
                raise EnvFault(f"{self._where(i)}: {what}{given}")


def not_finite(obs: np.ndarray) -> str | None:
    """What is not finite in an observation, in words."""
    where = np.flatnonzero(~np.isfinite(obs))
    return f"the observation is {obs.flat[where[0]]} at index {where[0]}" if len(where) else None


def make_buffers(num_envs: int, space: gym.spaces.Box) -> dict[str, np.ndarray]:
    """The arrays of a step, zeroed."""
    return {
        "obs": np.zeros((num_envs, *space.shape), space.dtype),
        "reward": np.zeros(num_envs, np.float32),
        "terminated": np.zeros(num_envs, bool),
        "truncated": np.zeros(num_envs, bool),
    }
