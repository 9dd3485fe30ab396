"""What a tabular algorithm is made of: the table, the model, the open episodes, the policies.

While it learns, a table is a list of lists and a random number a float: a scalar update through torch would take 50
times as long.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import nn

from rlx.envs.batch import Envs
from rlx.envs.episodes import episode_metrics

Transition = tuple[int, int, float, int, bool]  # s, a, r, s', terminated


def uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Uniform numbers from [0, 1), drawn a thousand at a time."""
    while True:
        yield from rng.random(1000).tolist()


def epsilon_greedy(row: list[float], epsilon: float, u: float, allowed: Sequence[int] | None = None) -> int:
    """The action that a uniform number u in [0, 1) chooses: below epsilon any, above it one of the best; of those that
    are allowed, if not all are."""
    if allowed is not None:
        return allowed[epsilon_greedy([row[action] for action in allowed], epsilon, u)]
    if u < epsilon:
        return int(u / epsilon * len(row))
    best = max(row)
    if row.count(best) == 1:
        return row.index(best)
    ties = [action for action, value in enumerate(row) if value == best]
    return ties[min(int((u - epsilon) / (1 - epsilon) * len(ties)), len(ties) - 1)]


class Table(nn.Module):
    """Q [S, A] and how often each pair was visited. Between `open` and `close` it lives in lists, `rows`, `counts`.
    `allowed`: the actions of each state, as its mask said when it was last seen; None without masks."""

    visits: torch.Tensor
    masks: torch.Tensor

    def __init__(self, num_states: int, num_actions: int, initial_value: float, masked: bool = False) -> None:
        super().__init__()
        if masked:
            self.register_buffer("masks", torch.ones(num_states, num_actions, dtype=torch.bool))
        self.allowed: list[list[int]] | None = None
        q = torch.full((num_states, num_actions), initial_value, dtype=torch.float64)
        self.q = nn.Parameter(q, requires_grad=False)
        self.register_buffer("visits", torch.zeros(num_states, num_actions, dtype=torch.int64))
        self.rows: list[list[float]] = []
        self.counts: list[list[int]] = []

    def open(self) -> tuple[list[list[float]], list[list[int]]]:
        self.rows, self.counts = self.q.tolist(), self.visits.tolist()
        if hasattr(self, "masks"):
            self.allowed = [mask.nonzero().flatten().tolist() for mask in self.masks]
        return self.rows, self.counts

    def states(self, obs: np.ndarray) -> list[int]:
        """The state of each observation [N, S], or [N, S + A] with masks, which are noted down."""
        states = obs.argmax(-1).tolist()  # a mask comes behind the state's own 1
        if self.allowed is not None:
            for state, mask in zip(states, obs[:, len(self.rows) :]):
                self.allowed[state] = mask.nonzero()[0].tolist()
        return states

    def choose(self, state: int, epsilon: float, u: float) -> int:
        """See `epsilon_greedy`."""
        return epsilon_greedy(self.rows[state], epsilon, u, self.allowed[state] if self.allowed is not None else None)

    def choices(self, state: int) -> list[float]:
        """The values of the actions that are allowed in a state."""
        row = self.rows[state]
        return row if self.allowed is None else [row[action] for action in self.allowed[state]]

    def close(self) -> None:
        self.q.copy_(torch.tensor(self.rows, dtype=torch.float64))
        self.visits.copy_(torch.tensor(self.counts))
        if self.allowed is not None:
            self.masks[:] = False
            for mask, actions in zip(self.masks, self.allowed):
                mask[actions] = True

    def policy(self) -> np.ndarray:
        """The greedy action of each state; the first of several equal ones."""
        return self.q.numpy().argmax(-1)


class Model:
    """What followed each pair (s, a), with counts. A sample from it is one from the empirical distribution: where the
    environment is deterministic that is the last outcome, all the book's algorithm keeps; where it is not, planning on
    the last outcome would believe in each slip until the next."""

    COLUMNS = {"state": "q", "action": "q", "reward": "d", "next_state": "q", "terminated": "?", "count": "q"}

    def __init__(self) -> None:
        self.pairs: list[tuple[int, int]] = []  # in the order in which they were first seen
        self.outcomes: dict[tuple[int, int], dict[tuple[float, int, bool], int]] = {}

    def see(self, step: Transition, count: int = 1) -> None:
        s, a, outcome = step[0], step[1], step[2:]
        if (s, a) not in self.outcomes:
            self.pairs.append((s, a))
            self.outcomes[s, a] = {}
        seen = self.outcomes[s, a]
        seen[outcome] = seen.get(outcome, 0) + count

    def sample(self, draw: Callable[[], float]) -> Transition:
        """A pair at random, each as likely as any other, and one of its outcomes, as likely as it was often seen."""
        s, a = self.pairs[int(draw() * len(self.pairs))]
        seen = self.outcomes[s, a]
        if len(seen) == 1:
            return s, a, *next(iter(seen))
        mark = draw() * sum(seen.values())
        place = bisect_right(list(accumulate(seen.values())), mark)
        return s, a, *list(seen)[min(place, len(seen) - 1)]

    def state_dict(self) -> dict[str, np.ndarray]:
        rows = [(*pair, *outcome, count) for pair in self.pairs for outcome, count in self.outcomes[pair].items()]
        columns = list(zip(*rows, strict=True)) or [()] * 6
        return {name: np.array(c, kind) for (name, kind), c in zip(self.COLUMNS.items(), columns, strict=True)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        self.pairs, self.outcomes = [], {}
        columns = [np.asarray(state[name]).tolist() for name in self.COLUMNS]
        for s, a, reward, s2, terminated, count in zip(*columns, strict=True):
            self.see((s, a, reward, s2, terminated), count)


class Walk:
    """The open episodes: where each environment is, the action SARSA has already chosen there, and what an algorithm
    remembers of the episode (`memory`, lists of numbers)."""

    def __init__(self, envs: Envs, horizon: int = 100) -> None:
        self.envs, self.started = envs, False
        self.action: list[int | None] = [None] * envs.num_envs
        self.memory: list[list[Any]] = [[] for _ in range(envs.num_envs)]
        self.episodes: deque[tuple[float, int, float | None]] = deque(maxlen=horizon)

    def begin(self) -> tuple[np.ndarray, list[int | None]]:
        """What is seen in each environment, and the action chosen there, if any is."""
        if not self.started:
            self.envs.reset()
            self.started = True
        return self.envs.obs, self.action

    def end(self, action: list[int | None]) -> None:
        self.action = action
        self.episodes.extend(self.envs.pop_episodes())

    def metrics(self) -> dict[str, float]:
        """Means over the last finished episodes (nothing before the first one)."""
        return episode_metrics(self.episodes)

    def state_dict(self) -> dict[str, Any]:
        envs = self.envs.state_dict()
        if not self.envs.replayable:  # it has just started new episodes
            self.action = [None] * self.envs.num_envs
            self.memory = [[] for _ in self.memory]
        episodes = [list(episode) for episode in self.episodes]
        state = {"envs": envs, "started": self.started, "action": list(self.action), "episodes": episodes}
        return state | ({"memory": self.memory} if any(self.memory) else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.envs.load_state_dict(state["envs"])
        self.started, self.action = state["started"], list(state["action"])
        self.memory = [list(memory) for memory in state.get("memory", self.memory)]
        self.episodes.clear()
        self.episodes.extend((r, n, success) for r, n, success in state["episodes"])


class Greedy:
    """The greedy policy of a table; epsilon-greedy with a random generator."""

    def __init__(self, q: np.ndarray, epsilon: float, visits: np.ndarray | None = None) -> None:
        self.q, self.epsilon, self.visits = q, epsilon, visits

    def judge(self, obs: np.ndarray) -> dict[str, np.ndarray]:
        """See rlx.control.policy."""
        state, masks = obs[:, : len(self.q)].argmax(-1), obs[:, len(self.q) :]
        q = self.q[state]
        known = {"q": np.where(masks > 0, q, -np.inf) if masks.size else q}
        known["value"] = known["q"].max(-1)
        return known if self.visits is None else {**known, "visits": self.visits[state]}

    def __call__(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        masks = obs[:, len(self.q) :]  # [N, 0] without
        values = self.q[obs.argmax(-1)]
        action = (np.where(masks > 0, values, -np.inf) if masks.size else values).argmax(-1)
        if rng is None:
            return action
        if masks.size:
            any_ = ((1 + rng.random(masks.shape)) * masks).argmax(-1)
        else:
            any_ = rng.integers(self.q.shape[1], size=len(obs))
        return np.where(rng.random(len(obs)) < self.epsilon, any_, action)
