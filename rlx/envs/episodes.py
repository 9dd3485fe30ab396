"""What one episode is: its seed, its record, the actions that bring it back."""

from collections.abc import Collection
from typing import Any

import numpy as np

TRAIN, EVALUATION, PLAY = 0, 1, 2  # domains of episode seeds
Episode = tuple[float, int, float | None]  # raw return, length, success where the environment reports it
LONGEST = 50_000  # steps of an episode that nothing else would end, where whole episodes are asked for


def episode_seed(seed: int, domain: int, lane: int, episode: int) -> int:
    """The 31-bit seed of one episode.

    Always four words below 2^32: SeedSequence pads with zeros, so that [1] and [1, 0] would collide.
    """
    return int(np.random.SeedSequence([seed, domain, lane, episode]).generate_state(1)[0]) >> 1


def episode_metrics(episodes: Collection[Episode]) -> dict[str, float]:
    """Means over finished episodes, of raw rewards; nothing before the first one."""
    if not episodes:
        return {}
    returns, lengths, successes = zip(*episodes, strict=True)
    n = len(episodes)
    metrics = {"rollout/ep_rew_mean": sum(returns) / n, "rollout/ep_len_mean": sum(lengths) / n}
    known = [success for success in successes if success is not None]
    return {**metrics, "rollout/success_rate": sum(known) / len(known)} if known else metrics


class ActionLog:
    """The actions of the open episodes of all lanes: row t - first is what was done at time t."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, first: int = 0, rows: int = 256):
        self.rows = np.zeros((rows, *shape), dtype)
        self.first = first

    def put(self, t: int, action: np.ndarray, starts: list[int]) -> None:
        """Keep `action` [N, ...]; `starts` are the times at which the open episodes began."""
        k = t - self.first
        if k == len(self.rows):
            k = self._make_room(t, min(starts))
        self.rows[k] = action

    def extend(self, t: int, actions: np.ndarray, starts: list[int]) -> None:
        """Keep `actions` [k, N, ...] of the times from t on."""
        while (end := t - self.first + len(actions)) > len(self.rows):
            self._make_room(t, min(starts))
        self.rows[end - len(actions) : end] = actions

    def get(self, start: int, t: int, lane: int) -> np.ndarray:
        """The actions of a lane from time start to before t, a copy."""
        return self.rows[start - self.first : t - self.first, lane].copy()

    def set(self, start: int, t: int, lane: int, actions: np.ndarray) -> None:
        self.rows[start - self.first : t - self.first, lane] = actions

    def _make_room(self, t: int, oldest: int) -> int:
        """Drop what is older than every open episode; double where that frees less than half."""
        kept = self.rows[oldest - self.first :]
        rows = self.rows
        if 2 * len(kept) > len(rows):
            rows = np.zeros((2 * len(rows), *rows.shape[1:]), rows.dtype)
        rows[: len(kept)] = kept
        self.rows, self.first = rows, oldest
        return t - oldest


def first_difference(a: np.ndarray, b: np.ndarray) -> str | None:
    """Where two arrays differ, in words; None where every value is equal."""
    a, b = np.ravel(a), np.ravel(b)
    if a.shape != b.shape:
        return f"{a.size} values instead of {b.size}"
    different = np.flatnonzero(a != b)
    if not len(different):
        return None
    k = int(different[0])
    return f"{a[k]} instead of {b[k]} at index {k}"
