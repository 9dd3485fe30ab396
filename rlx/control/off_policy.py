"""What algorithms that learn from a replay buffer have in common: the buffer, and stepping environments into it."""

import math
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, NonNegative, Positive, Unit
from rlx.control.config import ControlConfig
from rlx.control.rollout import Normalizer
from rlx.engine.optim import Optimizer
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.episodes import episode_metrics
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import ActionDecoder, num_states
from rlx.replay.buffer import Replay, layout_of, num_frames
from rlx.replay.prioritized import Priorities
from rlx.replay.store import Disk, Memory, file_bytes


@dataclass
class OffPolicy:
    """The section of an algorithm that learns from a replay buffer: what its own keys are added to."""

    name: str
    implementation: str
    num_envs: Count  # N
    buffer_size: Annotated[int, Field(ge=1, le=100_000_000)]  # transitions
    buffer_ram_mb: NonNegative  # a larger buffer is on disk, in the run's directory
    learning_starts: Annotated[int, Field(ge=0, le=1_000_000_000)]  # actions are random until then
    train_freq: Count  # k: steps of each environment between two bursts of gradient steps
    gradient_steps: Annotated[int, Field(ge=-1, le=1_000_000)]  # of a burst; -1: as many as transitions came in
    rounds: Count  # of acting and learning in an iteration, of which the means are logged
    batch_size: Count
    gamma: Unit
    n_step: Annotated[int, Field(ge=1, le=1000)]
    lr: Positive
    anneal_lr: bool  # linearly to 0 over the run
    tau: Annotated[float, Field(gt=0, le=1)]  # of target networks; 1: hard
    max_grad_norm: NonNegative  # 0: no clipping
    adam_eps: Positive
    engine: Engine
    optimizer: Optimizer = field(default="adam", kw_only=True)

    def __post_init__(self) -> None:
        if self.gradient_steps == 0:
            raise ValueError("gradient_steps=0: must be at least 1, or -1 for one a transition")
        if self.batch_size > self.buffer_size:
            raise ValueError(f"batch_size={self.batch_size}: must be at most buffer_size={self.buffer_size}")

    @property
    def burst(self) -> int:
        """Gradient steps between two times of acting."""
        return self.gradient_steps if self.gradient_steps > 0 else self.num_envs * self.train_freq


def buffer_bytes(cfg: ControlConfig[OffPolicy], envs: Envs) -> int:
    """How large the replay buffer is when it is full; of stacked frames it keeps one a step."""
    shape, dtype = envs.observation_space.shape, envs.obs.dtype
    if states := num_states(envs):
        shape, dtype = (), np.min_scalar_type(states - 1)
    frames = num_frames(shape, dtype, cfg.env.wrapper_names)
    action = ActionDecoder(envs.action_space, "the buffer")
    row = math.prod(shape) * dtype.itemsize // max(1, frames) + math.prod(action.shape) * action.log_dtype.itemsize + 6
    return cfg.algo.buffer_size * row


def check_buffer(cfg: ControlConfig[OffPolicy], envs: Envs) -> None:
    """A run must go on behind `learning_starts`, and a buffer that goes to the disk must fit there. Raises
    ConfigError."""
    if cfg.algo.learning_starts >= cfg.total_steps:
        raise ConfigError(
            f"algo.learning_starts={cfg.algo.learning_starts}: must be below total_steps={cfg.total_steps}, "
            "or nothing is learned"
        )
    algo, place = cfg.algo, Path(cfg.runs_dir).absolute()
    if buffer_bytes(cfg, envs) <= algo.buffer_ram_mb * 2**20:
        return
    while not place.exists():
        place = place.parent
    frames = num_frames(envs.observation_space.shape, envs.obs.dtype, cfg.env.wrapper_names)
    rows = cfg.total_steps // envs.num_envs + 1
    size = file_bytes(rows, *layout_of(envs, algo.buffer_size, envs.num_envs, frames))
    begun = sum(file.stat().st_size for file in (place / "buffer").glob("*.bin"))  # where a run goes on
    free = shutil.disk_usage(place).free + begun
    if size > free:
        raise ConfigError(
            f"algo.buffer_size={cfg.algo.buffer_size}: {size / 1e9:.1f} GB on disk, and in {place} "
            f"{free / 1e9:.1f} GB are free"
        )


def make_replay(
    cfg: ControlConfig[OffPolicy], envs: Envs, directory: Path, priorities: Callable[[int], Priorities] | None = None
) -> Replay:
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
        priorities=priorities,
    )


class Collector:
    """Steps the environments and stores every step; who acts is for its subclasses.

    With the normalisation the environment's configuration asks for, the buffer holds raw values: they are normalised
    when they are sampled, by the statistics of all that was seen until then. `horizon` is how many finished episodes
    the running averages cover.
    """

    def __init__(
        self, cfg: EnvConfig, envs: Envs, replay: Replay, gamma: float, acting: Forward, horizon: int = 100
    ) -> None:
        self.envs, self.replay = envs, replay
        self.normalizer = Normalizer(cfg, envs, gamma)
        self.episodes: deque[tuple[float, int, float | None]] = deque(maxlen=horizon)
        self._acting = acting
        self._started = False

    def begin(self) -> None:
        """The first episodes, if there are none yet."""
        if not self._started:
            self.replay.begin(self.envs.reset())
            self._started = True

    def seen(self) -> np.ndarray:
        """What a network is shown of the environments now."""
        return self.normalizer.obs.normalize(self.envs.obs) if self.normalizer.obs else self.envs.obs

    def finish(self, T: int) -> None:
        """The last T rows enter the statistics, and the episodes that have ended the averages."""
        if self.envs.episodes:
            self.episodes.extend(self.envs.pop_episodes())
        if not (self.normalizer.obs or self.normalizer.reward):
            return
        recent = self.replay.recent(T)
        valid = recent["valid"] if self.envs.waits else None
        if self.normalizer.obs:
            self.normalizer.obs.update(recent["obs"] if valid is None else recent["obs"][valid])
        if self.normalizer.reward:
            self.normalizer.reward.update(recent["reward"], recent["done"], valid)

    def sample(self, rng: np.random.Generator, size: int, beta: float = 1.0) -> dict[str, np.ndarray]:
        """`Replay.sample`, normalised."""
        scale = self.normalizer.reward.normalize if self.normalizer.reward else None
        batch = self.replay.sample(rng, size, beta, scale)
        if self.normalizer.obs:
            batch |= {name: self.normalizer.obs.normalize(batch[name]) for name in ("obs", "next_obs")}
        return batch

    @property
    def engine(self) -> str:
        return self._acting.engine

    @property
    def notice(self) -> str:
        """Why ordinary torch acts, where it has to."""
        return self._acting.notice

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
            "greedy": self._acting.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._started = state["started"]
        self.envs.load_state_dict(state["envs"])
        self.replay.load_state_dict(state["replay"])
        if not self.envs.replayable and self._started:
            self.replay.reopen(self.envs.obs)
        self.episodes.clear()
        self.episodes.extend((r, n, success) for r, n, success in state["episodes"])
        self._acting.load_state_dict(state.get("greedy", {}))  # checkpoints before 0.2.0 have none


def tensors(batch: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """The arrays of a minibatch on a device."""
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/critic_loss": (
        "Sum over the critics of the mean .5 (Q(s, a) - y)^2, in squared units of return. Healthy: small beside the "
        "square of `train/q_value`; it rises when the policy reaches new states. If not: growing without end, the "
        "critics diverge: a lower algo.lr, a smaller algo.tau, env.normalize_reward=true."
    ),
    "train/q_value": (
        "Mean Q(s, a) of the minibatches over the critics, in units of discounted return. Healthy: grows to what is "
        "really earned from such states, and stays there. If not: above any possible return (max reward / "
        "(1 - gamma)), it over-estimates: more algo.num_critics, a smaller algo.tau."
    ),
    "train/target_value": (
        "Mean of the targets y, in units of discounted return. Healthy: close to `train/q_value`. If not: running "
        "ahead of it without end, targets chase themselves: a smaller algo.tau, a lower algo.lr."
    ),
}
