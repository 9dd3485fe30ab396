"""Running statistics of observations and returns, and what is normalised with them.

The caller updates them once per rollout, never in evaluation. Statistics are float64; they see raw values,
clipping comes after. Engstrom et al. 2020, arXiv:2005.12729, shows how much of PPO's success these two are.
"""

from typing import Any

import numpy as np

EPS = 1e-8


class RunningMeanStd:
    """Mean and population variance of everything seen, merged batch by batch (Chan, Golub and LeVeque 1979).

        delta = mean_b - mean;   n = n_a + n_b
        mean += delta n_b / n;   M2 = M2_a + M2_b + delta^2 n_a n_b / n;   var = M2 / n

    Before the first update mean is 0 and var is 1.
    """

    def __init__(self, shape: tuple[int, ...] = ()):
        self.mean = np.zeros(shape)
        self.var = np.ones(shape)
        self.count = 0

    def update(self, batch: np.ndarray) -> None:
        """batch [..., *shape]: every leading index is one sample."""
        batch = np.asarray(batch, np.float64).reshape(-1, *self.mean.shape)
        n = len(batch)
        if n == 0:
            return
        batch_mean, batch_var = batch.mean(0), batch.var(0)
        total = self.count + n
        delta = batch_mean - self.mean
        seen = self.var * self.count + batch_var * n + delta**2 * (self.count * n / total)
        self.mean = self.mean + delta * (n / total)
        self.var = seen / total
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean.copy(), "var": self.var.copy(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean = np.array(state["mean"], np.float64).reshape(self.mean.shape)
        self.var = np.array(state["var"], np.float64).reshape(self.var.shape)
        self.count = int(state["count"])


class ObsNormalizer:
    """(obs - mean) / sqrt(var + eps), clipped to [-clip, clip]. The last `masked` numbers, a mask, stay as they are."""

    def __init__(self, shape: tuple[int, ...], clip: float = 10.0, masked: int = 0):
        self.stats = RunningMeanStd(shape)
        self.clip, self.masked = clip, masked
        self._rescale()

    def _rescale(self) -> None:
        self.scale = 1.0 / np.sqrt(self.stats.var + EPS)

    def update(self, batch: np.ndarray) -> None:
        """Raw observations [..., *shape] of one rollout."""
        self.stats.update(batch)
        self._rescale()

    def normalize(self, obs: np.ndarray) -> np.ndarray:
        """obs [..., *shape] -> float32 of the same shape, a new array."""
        x = (obs - self.stats.mean) * self.scale
        np.maximum(x, -self.clip, out=x)
        np.minimum(x, self.clip, out=x)
        if self.masked:
            x[..., -self.masked :] = obs[..., -self.masked :]
        return x.astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return self.stats.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stats.load_state_dict(state)
        self._rescale()


class RewardNormalizer:
    """reward / sqrt(var(return) + eps), clipped; the mean stays, so that signs do.

        R_t = gamma R_{t-1} (1 - done_{t-1}) + r_t      the discounted return so far, per lane

    `var` is over all R_t seen.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float = 10.0):
        self.stats = RunningMeanStd()
        self.gamma, self.clip = gamma, clip
        self.returns = np.zeros(num_envs)

    def update(self, reward: np.ndarray, done: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Raw reward [T, N] and terminated | truncated [T, N] of one rollout; rows that are not `valid` (see
        rlx.envs.batch) do not count."""
        assert reward.shape == done.shape == (len(reward), len(self.returns)), (reward.shape, done.shape)
        running = self.returns.tolist()
        gamma, seen = self.gamma, []
        for rewards, dones in zip(reward.tolist(), done.tolist()):  # floats: faster than arrays up to 30 lanes
            running = [gamma * total + r for total, r in zip(running, rewards)]
            seen.append(running)
            if True in dones:
                running = [0.0 if over else total for total, over in zip(running, dones)]
        self.returns = np.array(running)
        self.stats.update(np.array(seen) if valid is None else np.array(seen)[valid])

    def normalize(self, reward: np.ndarray) -> np.ndarray:
        """reward, any shape -> float32 of the same shape, a new array."""
        scaled = reward * (1.0 / np.sqrt(self.stats.var + EPS))
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {**self.stats.state_dict(), "returns": self.returns.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stats.load_state_dict(state)
        self.returns = np.array(state["returns"], np.float64).reshape(self.returns.shape)
