"""Acting with a Q network: epsilon-greedily into a replay buffer while it learns, greedily when it is evaluated."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from rlx.base import stopwatch
from rlx.config.schema import Algo
from rlx.control.acting.kernel_loop import KernelLoop
from rlx.control.acting.mode import acting
from rlx.control.config import ControlConfig
from rlx.control.normalize import ObsNormalizer
from rlx.control.off_policy import Collector
from rlx.control.policy import Judgement, engine_of, make_one, saved_statistics
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import mask_size, split_mask
from rlx.replay.buffer import Replay
from rlx.run import Run


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


class Explorer(Collector):
    """Steps the environments epsilon-greedily and stores every step. `engine` is that of the learner."""

    _act: Callable[..., np.ndarray]  # made at the first step, when the network has its parameters in place

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
        act = acting(q_network, lambda x: ((q_network(x["obs"]) + x["noise"]).argmax(-1),))
        super().__init__(cfg, envs, replay, gamma, Forward(act, device, engine=engine), horizon)
        self.rng, self.num_actions, self.masked = rng, num_discrete(envs), mask_size(envs.action_space)
        self._loop: KernelLoop | None = None
        self._noise = np.zeros((0, envs.num_envs, self.num_actions), np.float32)

    def _kernel_loop(self, T: int) -> KernelLoop:
        """And memory for T steps. The noise is added to the values: where it is infinite, that action is taken."""
        if self._loop is None or len(self._noise) != T:
            self._noise = np.zeros((T, *self._noise.shape[1:]), np.float32)
            self._action = np.zeros((T, self.envs.num_envs), np.int64)
            if self._loop is None:
                norm = self.normalizer.obs
                self._loop = KernelLoop(self._acting, self.envs, norm, self._noise[0], self._action[0])
                self._act = self._acting.on_arrays(obs=self.seen(), noise=self._noise[0])
            if self._loop:
                obs = np.zeros((T, *self.envs.obs.shape), np.float32)
                self._raw, self._reward = np.zeros_like(obs) if self.normalizer.obs else obs, np.zeros_like(obs[..., 0])
                self._loop.into(obs, self._action, self._noise, self._reward, self._raw)
        return self._loop

    @stopwatch.part("act")
    def collect(self, epsilons: Sequence[float]) -> None:
        """One step of every lane for each of `epsilons`: with that probability a random action, else the greedy one."""
        self.begin()
        envs, T, N = self.envs, len(epsilons), self.envs.num_envs
        loop, explore = self._kernel_loop(T), np.less(self.rng.random((T, N)), np.array(epsilons)[:, None])
        random = self.rng.random((T, N, self.masked)) if self.masked else self.rng.integers(0, self.num_actions, (T, N))
        noise = self._noise
        noise[:] = 0.0
        if not self.masked and explore.any():
            noise[explore, random[explore]] = np.inf
        t = 0
        while t < T:
            if steps := loop.run(t, T):
                first, t = t, t + steps - 1
                self.replay.extend(self._action[first:t], self._reward[first:t], self._raw[first + 1 : t + 1])
                action, outcome = self._action[t], envs.stepped(self._action[first : t + 1])
            else:
                any_ = random[t]
                if self.masked and explore[t].any():
                    any_ = any_allowed(random[t], envs.obs, self.masked)
                    noise[t, explore[t], any_[explore[t]]] = np.inf
                action = any_ if explore[t].all() and not loop else self._act(self.seen(), noise[t])
                outcome = envs.step(action)
            self.replay.add(action, *outcome, envs)
            t += 1
        self.finish(T)


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
        self.q_network, self.device = q_network, device
        self._greedy = Forward(lambda x: (q_network(x["obs"]).argmax(-1),), device, engine=engine)

    @torch.no_grad()
    def judge(self, obs: np.ndarray) -> Judgement:
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs).to(self.device)
        q = self.q_network(seen).cpu().numpy()
        return {"q": q, "value": q.max(-1)}

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
