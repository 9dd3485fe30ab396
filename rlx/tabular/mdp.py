"""The exact oracle: environments that expose their transition table, as arrays, and what dynamic programming says.

Gymnasium's toy-text environments hold `P[s][a] = [(probability, next state, reward, terminated), ...]` and
`initial_state_distrib[s]`. From these, without a single sample:

    optimum     max over all policies, time-dependent ones included, of E[r_1 + ... + r_T]      (backward induction)
    value       E[r_1 + ... + r_T] of one stationary policy                                     (the same, no maximum)

T is the environment's time limit: both are what an evaluation without discount estimates. Bellman 1957; Puterman 1994,
sections 4.3 and 4.5; Sutton & Barto 2018, chapter 4.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rlx.envs.single import EnvConfig, make_env, time_limit


@dataclass(frozen=True)
class MDP:
    """K is the largest number of outcomes of a state and action; those there are not have probability 0."""

    prob: np.ndarray  # [S, A, K]
    next_state: np.ndarray  # [S, A, K]
    reward: np.ndarray  # [S, A, K]
    terminated: np.ndarray  # [S, A, K]: nothing is earned after this
    start: np.ndarray  # [S], the distribution of the first state
    limit: int | None = None  # T; None: an episode may last for ever
    layout: tuple[str, ...] | None = None  # one letter a cell, where states are the cells of a grid, row by row

    def __post_init__(self) -> None:
        if not np.allclose(self.prob.sum(-1), 1) or not np.isclose(self.start.sum(), 1):
            raise ValueError("probabilities do not sum to 1")

    @cached_property
    def mean_reward(self) -> np.ndarray:  # [S, A]
        return (self.prob * self.reward).sum(-1)

    @cached_property
    def onward(self) -> np.ndarray:  # [S, A, K], the weight of what follows
        return self.prob * ~self.terminated

    def backup(self, value: np.ndarray, gamma: float = 1.0) -> np.ndarray:
        """Q(s, a) = sum over outcomes of p (r + gamma (1 - terminated) V(s')):  [S] -> [S, A]."""
        return self.mean_reward + gamma * (self.onward * value[self.next_state]).sum(-1)

    def under(self, policy: np.ndarray) -> "MDP":
        """The Markov chain of a deterministic policy [S]: the MDP in which it is the only action."""
        rows = np.arange(len(policy)), policy
        parts = {name: getattr(self, name)[rows][:, None] for name in ("prob", "next_state", "reward", "terminated")}
        return replace(self, **parts)


def optimum(mdp: MDP) -> float:
    """The greatest expected undiscounted return within the time limit, over all policies.

    V_T = 0,   V_t(s) = max_a sum over outcomes of p (r + (1 - terminated) V_t+1(s'))
    """
    value = np.zeros(len(mdp.start))
    for _ in range(_horizon(mdp)):
        value = mdp.backup(value).max(-1)
    return float(mdp.start @ value)


def policy_value(mdp: MDP, policy: np.ndarray) -> float:
    """The expected undiscounted return within the time limit of a deterministic stationary policy [S]."""
    return optimum(mdp.under(policy))


def value_iteration(mdp: MDP, gamma: float, tolerance: float = 1e-12) -> np.ndarray:
    """The discounted optimal action values [S, A], without a time limit; no entry is off by more than `tolerance`.

    The stopping rule is the contraction's: an iteration that changes V by d leaves it within gamma d / (1 - gamma).
    """
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma={gamma}: must be at least 0 and below 1")
    value = np.zeros(len(mdp.start))
    while True:
        q = mdp.backup(value, gamma)
        change, value = np.abs(q.max(-1) - value).max(), q.max(-1)
        if gamma * change <= tolerance * (1 - gamma):
            return q


def uniform(mdp: MDP) -> np.ndarray:
    """The policy that takes each action alike [S, A]."""
    return np.full(mdp.mean_reward.shape, 1 / mdp.mean_reward.shape[1])


def values_of(mdp: MDP, policy: np.ndarray, gamma: float) -> np.ndarray | None:
    """V of a policy [S, A], without a time limit: (I - gamma P_pi) V = r_pi. None where it may not be finite.

    States from which nothing is ever earned or left (the ends of an episode) have V = 0.
    """
    moves = np.zeros((len(mdp.start), len(mdp.start)))
    s = np.arange(len(moves))[:, None, None]
    np.add.at(moves, (np.broadcast_to(s, mdp.onward.shape), mdp.next_state), policy[..., None] * mdp.onward)
    reward = (policy * mdp.mean_reward).sum(-1)
    try:
        value: np.ndarray = np.linalg.solve(np.eye(len(moves)) - gamma * moves, reward)
    except np.linalg.LinAlgError:
        return None
    return value if np.abs(value).max() < 1e12 else None


def reachable(mdp: MDP) -> np.ndarray:
    """The states [S] in which an action is ever chosen, if all are tried."""
    seen = mdp.start > 0
    while True:
        after = seen.copy()
        after[mdp.next_state[seen][mdp.onward[seen] > 0]] = True
        if (after == seen).all():
            return seen
        seen = after


def start_value(mdp: MDP, gamma: float) -> float | None:
    """The optimal value at the start: discounted without a time limit, or undiscounted within it (None: there is
    none)."""
    if gamma < 1:
        return float(mdp.start @ value_iteration(mdp, gamma).max(-1))
    return optimum(mdp) if mdp.limit is not None else None


def _horizon(mdp: MDP) -> int:
    if mdp.limit is None:
        raise ValueError("without a time limit the undiscounted return may be infinite")
    return mdp.limit


class Oracle:
    """The metrics exact/value, exact/optimum and exact/regret of a greedy policy. Nothing without a table or without a
    time limit (then `notice` says so); computed again only when the policy has changed."""

    def __init__(self, mdp: MDP | None) -> None:
        self.mdp = mdp if mdp is not None and mdp.limit is not None else None
        self.notice = (
            "no exact/ metrics: they need a time limit (env.max_episode_steps)" if mdp and not self.mdp else ""
        )
        self._optimum = optimum(self.mdp) if self.mdp else 0.0
        self._policy: np.ndarray | None = None
        self._value = 0.0

    def metrics(self, policy: np.ndarray) -> dict[str, float]:
        """The exact value, optimum and regret of a deterministic policy [S]."""
        if self.mdp is None:
            return {}
        if self._policy is None or not np.array_equal(policy, self._policy):
            self._policy, self._value = policy.copy(), policy_value(self.mdp, policy)
        regret = self._optimum - self._value
        return {"exact/value": self._value, "exact/optimum": self._optimum, "exact/regret": regret}


def transition_table(cfg: EnvConfig) -> MDP | None:
    """The environment's own table; None where it has none, or where it does not tell the whole story: with wrappers,
    and in a Taxi whose passenger may change the destination (that is not part of its state)."""
    if cfg.wrappers:
        return None
    env = make_env(cfg)
    try:
        inner: Any = env.unwrapped
        if env is not inner or getattr(inner, "fickle_passenger", False):
            return None
        table, start = getattr(inner, "P", None), getattr(inner, "initial_state_distrib", None)
        if not isinstance(table, dict) or start is None:
            return None
        return from_table(table, np.asarray(start, np.float64), time_limit(cfg, env), _layout(inner))
    finally:
        env.close()


def from_table(
    table: dict[int, dict[int, list[tuple]]],
    start: np.ndarray,
    limit: int | None = None,
    layout: tuple[str, ...] | None = None,
) -> MDP:
    """The arrays of P[s][a] = [(probability, next state, reward, terminated), ...]."""
    S, A = len(table), len(table[0])
    K = max(len(outcomes) for row in table.values() for outcomes in row.values())
    prob, reward = np.zeros((S, A, K)), np.zeros((S, A, K))
    next_state, terminated = np.zeros((S, A, K), np.int64), np.zeros((S, A, K), bool)
    for s, row in table.items():
        for a, outcomes in row.items():
            for k, outcome in enumerate(outcomes):
                prob[s, a, k], next_state[s, a, k], reward[s, a, k], terminated[s, a, k] = outcome
    return MDP(prob, next_state, reward, terminated, start, limit, layout)


# -- pictures --------------------------------------------------------------------------------------------------------

ARROWS = {(-1, 0): "↑", (0, 1): "→", (1, 0): "↓", (0, -1): "←"}
UNKNOWN = "·"


def _layout(env: Any) -> tuple[str, ...] | None:
    """The letters of a grid: S start, G goal, H hole, C cliff, X forbidden; '.', F or a blank for plain ground."""
    if (desc := getattr(env, "desc", None)) is not None:
        rows = tuple(row if isinstance(row, str) else "".join(row.astype("U1")) for row in desc)
    elif (cliff := getattr(env, "_cliff", None)) is not None:  # CliffWalking has no desc
        cells = np.where(cliff, "C", " ")
        cells.flat[env.start_state_index], cells.flat[-1] = "S", "G"
        rows = tuple("".join(row) for row in cells)
    else:
        return None
    return rows if len("".join(rows)) == getattr(env.observation_space, "n", None) else None  # Taxi's is another map


def directions(mdp: MDP) -> list[str]:
    """What each action of a grid world looks like, found from where it leads: the mean of its moves to a neighbouring
    cell points along the intended one, for those of a slip to either side cancel."""
    assert mdp.layout is not None
    columns = len(mdp.layout[0])
    here = np.arange(len(mdp.start))[:, None, None]
    move = np.stack([mdp.next_state // columns - here // columns, mdp.next_state % columns - here % columns], -1)
    near = np.abs(move).sum(-1, keepdims=True) == 1
    mean = (move * near * mdp.prob[..., None]).sum((0, 2))  # [A, 2]
    return [_arrow(float(down), float(right)) for down, right in mean]


def _arrow(down: float, right: float) -> str:
    if abs(down) == abs(right):
        return UNKNOWN
    return ARROWS[(int(np.sign(down)), 0) if abs(down) > abs(right) else (0, int(np.sign(right)))]


def arrows(mdp: MDP, policy: np.ndarray, known: np.ndarray) -> str | None:
    """A grid world's policy [S] as text: a letter for each special cell, an arrow where there is a choice to be made, a
    dot where the policy is not `known` [S]. None where states are not the cells of a grid."""
    if mdp.layout is None:
        return None
    looks, columns = directions(mdp), len(mdp.layout[0])
    cells = []
    for s, letter in enumerate("".join(mdp.layout)):
        letter = " " if letter in ".F" else letter
        open_ = letter in " S"
        cells.append(letter + ((looks[policy[s]] if known[s] else UNKNOWN) if open_ else " "))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return "\n".join(" ".join(row).rstrip() for row in rows)


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "exact/value": (
        "Exact expected return of the greedy policy within the time limit, computed from the environment's own "
        "transition table. Healthy: rises to `exact/optimum`. If not: it is the truth that sampled returns only "
        "estimate; explore longer, or set algo.initial_value higher (optimism)."
    ),
    "exact/optimum": (
        "Exact return of the best possible policy within the time limit. Healthy: constant through the run. If "
        "not: it cannot change."
    ),
    "exact/regret": (
        "`exact/optimum` - `exact/value`: what the greedy policy still gives away, in units of return. Healthy: "
        "falls to 0. If not: stuck above 0, part of the table was never visited: explore longer "
        "(algo.exploration_fraction) or start optimistic (algo.initial_value)."
    ),
}
