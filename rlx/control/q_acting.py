"""Acting with a Q network: epsilon-greedily into a replay buffer while it learns, greedily when it is evaluated."""

import math
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from rlx.base import stopwatch
from rlx.base.errors import ConfigError
from rlx.config.schema import Algo
from rlx.control.config import ControlConfig
from rlx.control.normalize import ObsNormalizer
from rlx.control.policy import engine_of, make_one, saved_statistics
from rlx.control.rollout import Normalizer
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.episodes import episode_metrics
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import mask_size, split_mask
from rlx.replay.buffer import Replay, num_frames
from rlx.replay.prioritized import Priorities
from rlx.replay.store import Disk, Memory
from rlx.run import Run


class Buffered(Algo, Protocol):
    """The section of an algorithm that learns from a replay buffer."""

    buffer_size: int
    buffer_ram_mb: float
    gamma: float
    n_step: int
    prioritized: bool
    per_alpha: float


class Exploring(Algo, Protocol):
    """The section of one that acts epsilon-greedily."""

    final_epsilon: float


E = TypeVar("E", bound=Exploring)


def num_discrete(envs: Envs) -> int:
    """How many actions there are, of environments whose space of them is Discrete."""
    return int(envs.action_space.n)  # type: ignore[attr-defined]


def any_allowed(uniforms: np.ndarray, obs: np.ndarray, masked: int) -> np.ndarray:
    """Actions [N] that the masks of obs allow, each of them as likely as the others, by uniform numbers [N, masked]."""
    return ((1 + uniforms) * split_mask(obs, masked, obs.dtype == np.uint8)[1]).argmax(-1)


def buffer_bytes(cfg: ControlConfig[Buffered], envs: Envs) -> int:
    """How large the replay buffer is when it is full; of stacked frames it keeps one a step."""
    shape, dtype = envs.observation_space.shape, envs.obs.dtype
    frames = num_frames(shape, dtype, cfg.env.wrapper_names)
    return cfg.algo.buffer_size * (math.prod(shape) * dtype.itemsize // max(1, frames) + 7)


def check_room(cfg: ControlConfig[Buffered], envs: Envs) -> None:
    """A buffer that goes to the disk must fit there. Raises ConfigError."""
    size, place = buffer_bytes(cfg, envs), Path(cfg.runs_dir).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if size > cfg.algo.buffer_ram_mb * 2**20 and size > free:
        raise ConfigError(
            f"algo.buffer_size={cfg.algo.buffer_size}: {size / 1e9:.1f} GB on disk, and in {place} "
            f"{free / 1e9:.1f} GB are free"
        )


def make_replay(cfg: ControlConfig[Buffered], envs: Envs, directory: Path) -> Replay:
    """The buffer `cfg.algo` describes; its files, where it is too large for RAM, come into `directory`."""
    algo = cfg.algo
    frames = num_frames(envs.observation_space.shape, envs.obs.dtype, cfg.env.wrapper_names)
    on_disk = buffer_bytes(cfg, envs) > algo.buffer_ram_mb * 2**20
    return Replay(
        envs,
        algo.buffer_size,
        partial(Disk, directory=directory) if on_disk else Memory,
        frames=frames,
        gamma=algo.gamma,
        n_step=algo.n_step,
        priorities=partial(Priorities, alpha=algo.per_alpha) if algo.prioritized else None,
    )


class Explorer:
    """Steps the environments epsilon-greedily and stores every step.

    With the normalisation the environment's configuration asks for, the buffer holds raw values: they are normalised
    when they are sampled, by the statistics of all that was seen until then. `horizon` is how many finished episodes
    the running averages cover; `engine` is that of the learner.
    """

    def __init__(
        self,
        cfg: EnvConfig,
        envs: Envs,
        q_network: nn.Module,
        replay: Replay,
        gamma: float,
        rng: np.random.Generator,
        device: torch.device,
        horizon: int = 100,
        engine: Engine = "auto",
    ) -> None:
        self.envs, self.replay, self.rng = envs, replay, rng
        self.num_actions, self.masked = num_discrete(envs), mask_size(envs.action_space)
        self.normalizer = Normalizer(cfg, envs, gamma)
        self.episodes: deque[tuple[float, int, float | None]] = deque(maxlen=horizon)
        self._greedy = Forward(lambda x: (q_network(x["obs"]).argmax(-1),), device, engine=engine)
        self._act: Callable[[np.ndarray], np.ndarray] | None = None
        self._started = False

    @stopwatch.part("act")
    def collect(self, epsilons: Sequence[float]) -> None:
        """One step of every lane for each of `epsilons`: with that probability a random action, else the greedy one."""
        envs, add, T, N = self.envs, self.replay.add, len(epsilons), self.envs.num_envs
        if not self._started:
            self.replay.begin(envs.reset())
            self._started = True
        greedy = self._act or self._first()
        normalize = self.normalizer.obs.normalize if self.normalizer.obs else None
        explore: Any = self.rng.random((T, N)) < np.array(epsilons)[:, None]
        random = self.rng.random((T, N, self.masked)) if self.masked else self.rng.integers(0, self.num_actions, (T, N))
        some, all_ = explore.any(1).tolist(), explore.all(1).tolist()
        for t in range(T):
            any_ = any_allowed(random[t], envs.obs, self.masked) if self.masked and some[t] else random[t]
            if all_[t]:
                action = any_
            else:
                action = greedy(normalize(envs.obs) if normalize else envs.obs)
                if some[t]:
                    action = np.where(explore[t], any_, action)
            reward, terminated, truncated, final = envs.step(action)
            add(action, reward, terminated, truncated, final, envs)
        if envs.episodes:
            self.episodes.extend(envs.pop_episodes())
        self._update(T)

    def _first(self) -> Callable[[np.ndarray], np.ndarray]:
        obs = self.envs.obs
        self._act = self._greedy.on_arrays(obs=self.normalizer.obs.normalize(obs) if self.normalizer.obs else obs)
        return self._act

    def _update(self, T: int) -> None:
        """The last T rows enter the statistics."""
        if not (self.normalizer.obs or self.normalizer.reward):
            return
        seen = self.replay.recent(T)
        if self.normalizer.obs:
            self.normalizer.obs.update(seen["obs"])
        if self.normalizer.reward:
            self.normalizer.reward.update(seen["reward"], seen["done"])

    def sample(self, rng: np.random.Generator, size: int, beta: float = 1.0) -> dict[str, np.ndarray]:
        """`Replay.sample`, normalised."""
        scale = self.normalizer.reward.normalize if self.normalizer.reward else None
        batch = self.replay.sample(rng, size, beta, scale)
        if self.normalizer.obs:
            batch |= {name: self.normalizer.obs.normalize(batch[name]) for name in ("obs", "next_obs")}
        return batch

    @property
    def engine(self) -> str:
        return self._greedy.engine

    @property
    def notice(self) -> str:
        """Why ordinary torch acts, where it has to."""
        return self._greedy.notice

    def metrics(self) -> dict[str, float]:
        """Means over the last finished episodes, of raw rewards (nothing before the first one)."""
        return episode_metrics(self.episodes)

    def state_dict(self) -> dict[str, Any]:
        envs = self.envs.state_dict()
        if not self.envs.replayable and self._started:  # saving them has begun new episodes
            self.replay.cut(self.envs.obs)
        return {
            "envs": envs,
            "replay": self.replay.state_dict(),
            "started": self._started,
            "episodes": [list(episode) for episode in self.episodes],
            "greedy": self._greedy.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._started = state["started"]
        self.envs.load_state_dict(state["envs"])
        self.replay.load_state_dict(state["replay"])
        if not self.envs.replayable and self._started:
            self.replay.reopen(self.envs.obs)
        self.episodes.clear()
        self.episodes.extend((r, n, success) for r, n, success in state["episodes"])
        self._greedy.load_state_dict(state.get("greedy", {}))  # checkpoints before 0.2.0 have none


def in_pieces(forward: Forward, obs: torch.Tensor, rows: int = 512) -> torch.Tensor:
    """`forward(obs=obs)[0]`, on the CPU a number of rows at a time: what one layer wrote is then still in the cache
    when the next one reads it."""
    if len(obs) <= rows or obs.device.type != "cpu":
        return forward(obs=obs)[0]
    return torch.cat([forward(obs=piece)[0].clone() for piece in obs.split(rows)])


class QPolicy:
    """`policy(obs [N, ...]) -> action [N]`: the greedy one, or epsilon-greedy with draws from `rng`."""

    def __init__(
        self,
        q_network: nn.Module,
        num_actions: int,
        epsilon: float,
        obs_norm: ObsNormalizer | None,
        device: torch.device,
        engine: Engine = "auto",
        masked: int = 0,
    ) -> None:
        self.num_actions, self.epsilon, self.obs_norm, self.masked = num_actions, epsilon, obs_norm, masked
        self._greedy = Forward(lambda x: (q_network(x["obs"]).argmax(-1),), device, engine=engine)

    def __call__(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs)
        action = self._greedy(obs=seen)[0].cpu().numpy()
        if rng is None:
            return action
        explores = rng.random(len(obs)) < self.epsilon
        if self.masked:
            return np.where(explores, any_allowed(rng.random((len(obs), self.masked)), obs, self.masked), action)
        return np.where(explores, rng.integers(0, self.num_actions, len(obs)), action)

    @classmethod
    def restore(
        cls, cfg: ControlConfig[E], run: Run, make_network: Callable[[ControlConfig[E], Envs, Run], nn.Module]
    ) -> "QPolicy":
        """The policy of a run in progress or of a checkpoint, with its normalisation statistics."""
        envs = make_one(cfg.env)
        q_network = make_network(cfg, envs, run)
        envs.close()
        q_network.load_state_dict(run.state("policy"))
        obs_norm, masked = saved_statistics(cfg, run, envs), mask_size(envs.action_space)
        epsilon, engine = cfg.algo.final_epsilon, engine_of(cfg)
        return cls(q_network.eval(), num_discrete(envs), epsilon, obs_norm, run.device, engine, masked)
