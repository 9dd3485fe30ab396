"""Collecting experience: `num_steps` steps of every environment, as tensors with time first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlx.control.envs import EnvConfig, Envs
from rlx.control.heads import Head
from rlx.control.nets import ActorCritic
from rlx.control.normalize import ObsNormalizer, RewardNormalizer
from rlx.control.tape import Forward


class Normalizer:
    """Running statistics of observations and of returns, where the environment's configuration asks for them.
    Observations that are images are never normalised."""

    def __init__(self, cfg: EnvConfig, envs: Envs, gamma: float) -> None:
        shape = envs.observation_space.shape
        self.obs = ObsNormalizer(shape, cfg.clip_obs) if cfg.normalize_obs and len(shape) == 1 else None
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
    the learner recomputes is then exactly the behaviour policy's. `horizon` is how many finished episodes the
    running averages cover.
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
    ) -> None:
        self.envs, self.head, self.num_steps, self.rng, self.device = envs, head, num_steps, rng, device
        self.normalizer = Normalizer(cfg, envs, gamma)
        shape = envs.observation_space.shape
        self.episodes: deque[tuple[float, int, float | None]] = deque(maxlen=horizon)
        self._started = False
        T, N = num_steps, envs.num_envs
        self.obs = torch.zeros((T + 1, N, *shape), dtype=torch.from_numpy(envs.obs).dtype)
        self.action = torch.zeros((T, N, *head.action_shape), dtype=head.action_dtype)
        self.reward = torch.zeros((T, N))
        self.terminated = torch.zeros((T, N), dtype=torch.bool)
        self.done = torch.zeros((T, N), dtype=torch.bool)
        self.valid = torch.ones((T, N), dtype=torch.bool)
        self._act = Forward(
            lambda x: (head.sample(params := policy.policy(x["obs"]), x["noise"]), params),
            torch.device(device),
        )
        self._acting: Callable[..., np.ndarray] | None = None
        self._evaluate = Forward(lambda x: self._values_and_logprobs(policy, x), torch.device(device))
        self._value = lambda obs: policy(obs.to(device))[1]

    def _values_and_logprobs(self, policy: ActorCritic, x: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        params, value = policy(x["obs"])
        behaviour = params[: len(x["action"])]
        return value, self.head.logprob_entropy(behaviour, x["action"])[0], behaviour

    @torch.no_grad()
    def collect(self) -> dict[str, Tensor]:
        """One rollout: obs, action, logprob, params, value, next_value, reward, terminated, done, each [T, N, ...].

        `next_value` is the value of the true successor (the final observation where an episode was truncated).
        Rewards are normalised if the configuration says so. The tensors are valid until the next call.
        """
        envs, T = self.envs, self.num_steps
        if not self._started:
            envs.reset()
            self._started = True
        noise = self.head.noise(self.rng, (T, envs.num_envs))
        act = self._act_on(noise[0])
        raw = np.empty((T + 1, *envs.obs.shape), dtype=envs.obs.dtype) if self.normalizer.obs else None
        obs, action, reward = self.obs.numpy(), self.action.numpy(), self.reward.numpy()
        terminated, done, valid = self.terminated.numpy(), self.done.numpy(), self.valid.numpy()
        truncated_at: list[tuple[int, int, np.ndarray]] = []
        for t in range(T):
            self._observe(obs, raw, t)
            action[t] = act(obs[t], noise[t])
            reward[t], terminated[t], truncated, final = envs.step(action[t])
            np.logical_or(terminated[t], truncated, out=done[t])
            valid[t] = envs.valid
            truncated_at += [(t, i, last.copy()) for i, last in final if not terminated[t, i]]
        self._observe(obs, raw, T)
        self.episodes.extend(envs.pop_episodes())

        shape = self.obs.shape[2:]
        value, logprob, params = self._evaluate(obs=self.obs.reshape(-1, *shape), action=self.action.flatten(0, 1))
        value = value.view(T + 1, -1)
        next_value = value[1:].clone()
        if truncated_at:
            last = np.stack([x for _, _, x in truncated_at])
            last = self.normalizer.obs.normalize(last) if self.normalizer.obs else last
            rows, columns, _ = zip(*truncated_at, strict=True)
            next_value[list(rows), list(columns)] = self._value(torch.from_numpy(last))
        if self.normalizer.obs and raw is not None:
            self.normalizer.obs.update(raw[:T].reshape(-1, *shape))
        if self.normalizer.reward:
            self.normalizer.reward.update(reward, done)
            reward[:] = self.normalizer.reward.normalize(reward)
        device = self.device
        return {
            "obs": self.obs[:T].to(device), "action": self.action.to(device),
            "logprob": logprob.view(T, -1), "params": params.view(T, envs.num_envs, -1),
            "value": value[:T], "next_value": next_value,
            "reward": self.reward.to(device), "terminated": self.terminated.to(device), "done": self.done.to(device),
        }  # fmt: skip

    def rows(self, tensor: Tensor) -> Tensor:
        """[T, N, ...] -> [B, ...], without the rows that were no transition (see `Envs.valid`)."""
        flat = tensor.flatten(0, 1)
        return flat if bool(self.valid.all()) else flat[self.valid.flatten().to(flat.device)]

    def _act_on(self, noise: np.ndarray) -> Callable[..., np.ndarray]:
        if self._acting is None:
            self._acting = self._act.on_arrays(obs=self.obs[0].numpy(), noise=noise)
        return self._acting

    def _observe(self, obs: np.ndarray, raw: np.ndarray | None, t: int) -> None:
        if self.normalizer.obs and raw is not None:
            raw[t] = self.envs.obs
            obs[t] = self.normalizer.obs.normalize(raw[t])
        else:
            obs[t] = self.envs.obs

    def metrics(self) -> dict[str, float]:
        """Means over the last finished episodes, of raw rewards (nothing before the first one)."""
        if not self.episodes:
            return {}
        returns, lengths, successes = zip(*self.episodes, strict=True)
        n = len(self.episodes)
        found = {"rollout/ep_rew_mean": sum(returns) / n, "rollout/ep_len_mean": sum(lengths) / n}
        known = [success for success in successes if success is not None]
        return {**found, "rollout/success_rate": sum(known) / len(known)} if known else found

    def state_dict(self) -> dict[str, Any]:
        return {
            "envs": self.envs.state_dict(),
            "started": self._started,
            "episodes": [list(episode) for episode in self.episodes],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._started = state["started"]
        self.envs.load_state_dict(state["envs"])
        self.episodes.clear()
        self.episodes.extend((r, n, success) for r, n, success in state["episodes"])


def minibatches(rng: np.random.Generator, size: int, count: int, device: torch.device) -> tuple[Tensor | None, ...]:
    """`size` rows in random order, as `count` indices of equal length (the last one may be shorter).

    One minibatch is None, all rows as they are: their order would change nothing but rounding.
    """
    if count == 1:
        return (None,)
    return torch.from_numpy(rng.permutation(size)).to(device).split(-(-size // count))
