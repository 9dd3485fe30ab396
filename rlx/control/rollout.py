"""Collecting experience: `num_steps` steps of every environment, as tensors with time first."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.base import stopwatch
from rlx.control.acting.kernel_loop import KernelLoop
from rlx.control.acting.mode import acting
from rlx.control.distributions import Head
from rlx.control.networks import ActorCritic
from rlx.control.normalize import ObsNormalizer, RewardNormalizer
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.episodes import LONGEST, Episode, episode_metrics
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import EnvFault, mask_size

ROWS = 1024  # of a rollout that are evaluated at a time


class Normalizer:
    """Running statistics of observations and of returns, where the environment's configuration asks for them.
    Observations that are images are never normalised."""

    def __init__(self, cfg: EnvConfig, envs: Envs, gamma: float) -> None:
        shape = envs.observation_space.shape
        masked = mask_size(envs.action_space)
        self.obs = ObsNormalizer(shape, cfg.clip_obs, masked) if cfg.normalize_obs and len(shape) == 1 else None
        self.reward = RewardNormalizer(envs.num_envs, gamma, cfg.clip_reward) if cfg.normalize_reward else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "obs": self.obs.state_dict() if self.obs else None,
            "reward": self.reward.state_dict() if self.reward else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.obs:
            self.obs.load_state_dict(state["obs"])
        if self.reward:
            self.reward.load_state_dict(state["reward"])


class Rollout:
    """Acts with the policy alone, then evaluates values and log-probabilities of the whole rollout at once.

    Normalisation statistics are frozen while a rollout is collected and updated after it: the log-probability that
    the learner recomputes is then exactly the behaviour policy's. `engine` is that of the learner. `horizon` is how
    many finished episodes the running averages cover. With `whole_episodes` a rollout goes on until in every
    environment an episode has ended at or after `num_steps`; what an environment did behind its last whole episode is
    no row of the batch.
    """

    def __init__(
        self,
        cfg: EnvConfig,
        envs: Envs,
        policy: ActorCritic,
        head: Head,
        num_steps: int,
        gamma: float,
        rng: np.random.Generator,
        device: torch.device,
        horizon: int = 100,
        whole_episodes: bool = False,
        engine: Engine = "auto",
    ) -> None:
        self.envs, self.head, self.num_steps, self.rng, self.device = envs, head, num_steps, rng, device
        self.normalizer = Normalizer(cfg, envs, gamma)
        self.whole_episodes = whole_episodes
        self.episodes: deque[Episode] = deque(maxlen=horizon)
        self._started = False
        self._finished: list[Episode] = []  # in the last rollout
        self._truncated: list[tuple[int, int, np.ndarray]] = []  # step, environment, final observation
        self._allocate(num_steps)
        act = acting(policy, lambda x: (head.sample(params := policy.policy(x["obs"]), x["noise"]), params))
        self._act = Forward(act, torch.device(device), engine=engine)
        self._acting: Callable[..., np.ndarray] | None = None
        self._loop: KernelLoop | None = None
        self._policy = policy
        evaluate = acting(policy, self._values_and_logprobs)
        self._evaluate = Forward(evaluate, torch.device(device), whole_episodes, engine)
        self._value = acting(policy, lambda obs: policy(obs.to(device))[1])

    def _allocate(self, T: int) -> None:
        N, shape = self.envs.num_envs, self.envs.observation_space.shape
        self.obs = torch.zeros((T + 1, N, *shape), dtype=torch.from_numpy(self.envs.obs).dtype)
        self.action = torch.zeros((T, N, *self.head.action_shape), dtype=self.head.action_dtype)
        self.reward = torch.zeros((T, N))
        self.terminated = torch.zeros((T, N), dtype=torch.bool)
        self.done = torch.zeros((T, N), dtype=torch.bool)
        self.valid = torch.ones((T, N), dtype=torch.bool)
        self.final_value = torch.zeros((T, N))
        self._bootstrapped = False  # whether final_value holds anything
        self._whole = {
            "obs": self.obs, "action": self.action, "reward": self.reward, "terminated": self.terminated,
            "done": self.done, "final_value": self.final_value, "valid": self.valid,
        }  # fmt: skip
        self._raw = np.empty(self.obs.shape, self.envs.obs.dtype) if self.normalizer.obs else None

    def _grow(self) -> None:
        """Twice the room, with what is there kept."""
        names = ("obs", "action", "reward", "terminated", "done", "valid")
        before, raw = {name: getattr(self, name) for name in names}, self._raw
        self._allocate(2 * len(self.action))
        for name, tensor in before.items():
            getattr(self, name)[: len(tensor)] = tensor
        if raw is not None and self._raw is not None:
            self._raw[: len(raw)] = raw

    def _values_and_logprobs(self, x: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        params, value = self._policy(x["obs"])
        behaviour = params[: len(x["action"])]
        return value, self.head.logprob_entropy(behaviour, x["action"])[0], behaviour

    def _act_on(self, noise: np.ndarray) -> Callable[..., np.ndarray]:
        """obs, noise -> action. Made at the first rollout, when the policy has its parameters in place."""
        if self._acting is None:
            self._acting = self._act.on_arrays(obs=self.obs[0].numpy(), noise=noise)
        return self._acting

    def _kernel_loop(self, noise: np.ndarray) -> KernelLoop | None:
        if self._loop is None and not self.whole_episodes:
            self._loop = KernelLoop(self._act, self.envs, self.normalizer.obs, noise, self.action[0].numpy())
        return self._loop

    @torch.no_grad()
    @stopwatch.part("act")
    def experience(self) -> dict[str, Tensor]:
        """One rollout: obs [T + 1, N, ...] and action, reward, terminated, done, final_value, valid [T, N, ...].

        `obs` holds the first observation of the next episode behind one that ended; `final_value` is V of the last
        observation of an episode where one was truncated, 0 elsewhere (see `successors`). Rewards and observations
        are normalised if the configuration says so. The tensors are valid until the next call.
        """
        envs = self.envs
        if not self._started or (self.whole_episodes and envs.num_envs > 1):
            envs.reset()
            self._started = True
            if self.normalizer.reward:
                self.normalizer.reward.returns[:] = 0.0
        self._truncated = []
        ended = np.zeros(envs.num_envs, bool)  # the last whole episode, where whole ones are asked for
        t, T, block = 0, self.num_steps, self.num_steps
        while t < T or (self.whole_episodes and not ended.all()):
            if t % block == 0:
                if t == len(self.action):
                    self._grow()
                noise = self.head.noise(self.rng, (block, envs.num_envs))
                act, loop = self._act_on(noise[0]), self._kernel_loop(noise[0])
                obs, action, reward = self.obs.numpy(), self.action.numpy(), self.reward.numpy()
                terminated, done, valid = self.terminated.numpy(), self.done.numpy(), self.valid.numpy()
                if loop:
                    loop.into(obs, action, noise, reward, self._raw)
            if loop and (steps := loop.run(t, T)):  # nothing but the last of them needs a look
                first, t = t, t + steps - 1
                reward[t], terminated[t], truncated, final = envs.stepped(action[first : t + 1])
                terminated[first:t], done[first:t], valid[first:t] = False, False, True
            else:
                self._observe(obs, t)
                action[t] = act(obs[t], noise[t % block])
                reward[t], terminated[t], truncated, final = envs.step(action[t])
            np.logical_or(terminated[t], truncated, out=done[t])
            valid[t] = envs.valid
            if final:
                self._truncated += [(t, i, last.copy()) for i, last in final if not terminated[t, i]]
            if self.whole_episodes:
                valid[t] &= ~ended
                if t >= T - 1:
                    ended |= done[t]
                if t >= T + LONGEST:
                    raise EnvFault(
                        f"an episode of {envs.id} has not ended after {LONGEST:,} steps (whole ones are needed): "
                        "set env.max_episode_steps"
                    )
            t += 1
        self._observe(obs, t)
        self._finished = envs.pop_episodes()
        self.episodes.extend(self._finished)
        self._update_normalizer(t)
        if (self._truncated or self._bootstrapped) and self._policy.num_values is None:
            self._bootstrapped = bool(self._truncated)
            self.at_truncations(self.final_value.zero_(), self._value)
        return self._handed_over(t)

    def _handed_over(self, T: int) -> dict[str, Tensor]:
        if len(self.action) == T and self.device.type == "cpu":
            return self._whole  # the same tensors each time: nothing to look up anew
        return {name: tensor[: T + (name == "obs")].to(self.device) for name, tensor in self._whole.items()}

    def _observe(self, obs: np.ndarray, t: int) -> None:
        if self.normalizer.obs and self._raw is not None:
            self._raw[t] = self.envs.obs
            obs[t] = self.normalizer.obs.normalize(self._raw[t])
        else:
            obs[t] = self.envs.obs

    def _update_normalizer(self, T: int) -> None:
        """With the new statistics the next rollout begins; final observations keep to those of this one."""
        norm = self.normalizer
        valid = self.valid.numpy()[:T] if self.envs.waits else None
        if norm.obs and self._raw is not None:
            self._truncated = [(t, i, norm.obs.normalize(last[None])[0]) for t, i, last in self._truncated]
            norm.obs.update(self._raw[:T].reshape(-1, *self._raw.shape[2:]) if valid is None else self._raw[:T][valid])
        if norm.reward:
            reward = self.reward.numpy()[:T]
            norm.reward.update(reward, self.done.numpy()[:T], valid)
            reward[:] = norm.reward.normalize(reward)

    def at_truncations(self, into: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """`into` [T, N, ...] with function(final observations) written where an episode was truncated."""
        if self._truncated:
            rows, columns, last = zip(*self._truncated, strict=True)
            values = function(torch.from_numpy(np.stack(last)).to(self.device))
            into[list(rows), list(columns)] = values.to(into.device)
        return into

    def successors(self, obs: Tensor) -> Tensor:
        """The TRUE successor of each step, [T, N, ...]: at a truncation the episode's final observation. (Behind a
        termination nothing follows; what stands there is the next episode's and must not be used.)"""
        return self.at_truncations(obs[1:].clone(), lambda last: last)

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """One rollout: obs, action, logprob, params, value, next_value, reward, terminated, done, each [T, N, ...].

        `next_value` is the value of the true successor (the final observation where an episode was truncated).
        Rewards are normalised if the configuration says so. The tensors are valid until the next call.
        """
        batch = self.experience()
        obs, (T, N) = batch["obs"], batch["reward"].shape
        value, logprob, params = self._evaluated(obs.flatten(0, 1), batch["action"].flatten(0, 1))
        value = value.view(T + 1, N)
        next_value = torch.where(batch["done"] & ~batch["terminated"], batch["final_value"], value[1:])
        return batch | {
            "obs": obs[:T], "logprob": logprob.view(T, N), "params": params.view(T, N, -1),
            "value": value[:T], "next_value": next_value,
        }  # fmt: skip

    def _evaluated(self, obs: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        """Of a long rollout on the CPU a number of rows at a time: a tape keeps what every layer of them gives."""
        if len(action) <= ROWS or self.device.type != "cpu" or self.whole_episodes:
            return self._evaluate(obs=obs, action=action)
        last = (len(action) - 1) // ROWS
        pieces = zip([*obs.split(ROWS)][:last] + [obs[last * ROWS :]], action.split(ROWS), strict=True)
        parts = [[part.clone() for part in self._evaluate(obs=o, action=a)] for o, a in pieces]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def rows(self, tensor: Tensor) -> Tensor:
        """[T, N, ...] -> [B, ...], without the rows that are no transition of the batch (see `Envs.valid`)."""
        valid = self.valid[: len(tensor)]
        flat = tensor.flatten(0, 1)
        return flat if valid.numpy().all() else flat[valid.flatten().to(flat.device)]

    @property
    def engine(self) -> str:
        return self._act.engine

    @property
    def notice(self) -> str:
        """Why ordinary torch acts or evaluates, where it has to."""
        return self._act.notice or self._evaluate.notice

    def metrics(self) -> dict[str, float]:
        """Means over the last finished episodes, of raw rewards (nothing before the first one); over those of the last
        rollout alone (batch_), where it holds the whole episodes of one environment."""
        metrics = episode_metrics(self.episodes)
        if self.whole_episodes and self.envs.num_envs == 1:  # with more, some behind the batch have ended, too
            metrics["rollout/batch_rew_mean"] = sum(total for total, _, _ in self._finished) / len(self._finished)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {
            "envs": self.envs.state_dict(),
            "started": self._started,
            "episodes": [list(episode) for episode in self.episodes],
            "act": self._act.state_dict(),
            "evaluate": self._evaluate.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._started = state["started"]
        self.envs.load_state_dict(state["envs"])
        self.episodes.clear()
        self.episodes.extend((r, n, success) for r, n, success in state["episodes"])
        self._act.load_state_dict(state.get("act", {}))  # checkpoints before 0.2.0 have none
        self._evaluate.load_state_dict(state.get("evaluate", {}))


def passes(
    num_epochs: int, rng: np.random.Generator, size: int, count: int, device: torch.device
) -> Iterator[Tensor | None]:
    """The minibatches of so many epochs, each drawn when it begins."""
    for _ in range(num_epochs):
        yield from minibatches(rng, size, count, device)


def minibatches(rng: np.random.Generator, size: int, count: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """`size` rows in random order, as `count` indices of equal length, or of two lengths that differ by one row.

    One minibatch is None, all rows as they are: their order would change nothing but rounding.
    """
    if count == 1:
        return (None,)
    return torch.from_numpy(rng.permutation(size)).to(device).tensor_split(min(count, size))


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rollout/ep_rew_mean": (
        "Mean return of the last 100 finished training episodes: the sum of raw rewards, undiscounted. Healthy: "
        "rises, and ends near what the preset promises (`expect.score`). If not: watch `rollout/ep_len_mean` and "
        "the entropy; another seed, a lower algo.lr or more total_steps are the first things to try."
    ),
    "rollout/ep_len_mean": (
        "Mean length of the last 100 finished training episodes, in steps. Healthy: grows where surviving pays "
        "(CartPole), falls where every step costs (MountainCar, mazes). If not: at the time limit throughout, the "
        "goal is never reached: explore more (algo.ent_coef, algo.exploration_fraction)."
    ),
    "rollout/success_rate": (
        "Share of the last 100 finished training episodes that the environment calls a success, from 0 to 1. "
        "Healthy: rises towards 1. If not: at 0 from the start there is no reward to learn from; explore more, or "
        "begin with an easier variant of the environment."
    ),
    "rollout/batch_rew_mean": (
        "Mean return of the episodes of this iteration alone, the number that a textbook's log shows; only with "
        "whole episodes of one environment. Healthy: rises, with more noise than `rollout/ep_rew_mean`. If not: "
        "more steps an iteration (algo.num_steps) make it, and the gradient, less noisy."
    ),
}
