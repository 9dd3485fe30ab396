"""A tabular agent: what it learns, its open episodes, and the steps it takes in the environments.

    for step in agent.steps(num_steps, agent.greedy(epsilon)):     # s, a, r, s', on-policy the a' to be taken there
        ...                                                        # learn: agent.values, agent.counts

It learns Q(s, a), or V(s) of the policy that acts: then `values` has one column, both actions of a step are 0, and Q is
one step of look-ahead from V in the environment's transition table, if that has one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, Positive, Unit
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import mask_size
from rlx.functional import schedules
from rlx.run import Run
from rlx.tabular import mdp as exact
from rlx.tabular.parts import Greedy, Table, Walk, uniforms

Learned = Literal["action", "state"]  # Q(s, a) or V(s)


@dataclass
class Tabular:
    """The section of an algorithm that explores epsilon-greedily and learns a table: what its own keys are added to."""

    name: str
    implementation: str
    num_envs: Count
    num_steps: Count  # between two reports, of each environment
    gamma: Unit
    lr: Positive  # alpha
    lr_power: Unit  # omega
    epsilon: Unit  # at the start
    final_epsilon: Unit
    exploration_fraction: Annotated[float, Field(gt=0, le=1)]  # of the run, in which epsilon falls linearly
    initial_value: float  # at the start

    def epsilon_at(self, step: int, total_steps: int) -> float:
        progress = step / (total_steps * self.exploration_fraction)
        return schedules.linear(progress, self.epsilon, self.final_epsilon)


@dataclass
class TabularOnPolicy(Tabular):
    """The same, of an algorithm that may learn V(s) instead of Q(s, a): that of random moves, since V chooses none."""

    values: Learned

    def __post_init__(self) -> None:
        if self.values == "state" and (self.epsilon, self.final_epsilon) != (1, 1):
            raise ValueError(
                "values=state: V(s) chooses no action, so it is that of random moves: epsilon=final_epsilon=1"
            )


class Step(NamedTuple):
    lane: int  # which environment
    state: int
    action: int
    reward: float
    next_state: int
    next_action: int  # on-policy: the one that will be taken; 0 where nothing follows
    terminated: bool  # nothing follows
    done: bool  # the episode is over: terminated, or cut by the time limit


class TabularAgent:
    """`memory` is what it remembers of the open episode of each environment, lists of numbers; saved with the run."""

    def __init__(
        self, env: EnvConfig, num_envs: int, initial_value: float, gamma: float, run: Run, learned: Learned = "action"
    ) -> None:
        self.envs, self.gamma = make_envs(env, num_envs, run.seed), gamma
        self.mdp = exact.transition_table(env)
        self.oracle = exact.Oracle(self.mdp)
        masked = mask_size(self.envs.action_space)
        states, actions = self.envs.observation_space.shape[0] - masked, int(self.envs.action_space.n)  # type: ignore[attr-defined]
        self.table, self.walk = Table(states, actions, initial_value, masked > 0), Walk(self.envs)
        self.v = Table(states, 1, initial_value) if learned == "state" else None
        run.track(**({"values": self.v} if self.v else {}), table=self.table, walk=self.walk)
        run.notice(self.envs.notice or "")
        run.notice(self.oracle.notice)
        if self.v and not self.mdp:
            run.notice("V(s) alone chooses no action, and there is no transition table: evaluations show the first one")
        self._rng, self._judge = run.rng("actions"), ErrorOfV(self.mdp, gamma) if self.v and not masked else None
        self.draw: Callable[[], float] = uniforms(self._rng).__next__
        self.values: list[list[float]] = []
        self.counts: list[list[int]] = []

    @property
    def learned(self) -> Table:
        return self.v or self.table

    def allowed(self, state: int) -> Sequence[int]:
        """The actions of a state."""
        return self.table.allowed[state] if self.table.allowed else range(self.table.q.shape[1])

    @property
    def memory(self) -> list[list[Any]]:
        return self.walk.memory

    def greedy(self, epsilon: float) -> Callable[[int], int]:
        """Chooses epsilon-greedily; of V(s) only the random policy can be had, epsilon 1."""
        return lambda state: self.table.choose(state, epsilon, self.draw())

    def steps(self, num_steps: int, choose: Callable[[int], int], on_policy: bool = False) -> Iterator[Step]:
        """The transitions of `num_steps` steps of each environment, one after another."""
        self.draw = uniforms(self._rng).__next__
        rows, counts = self.table.open()
        self.values, self.counts = self.v.open() if self.v else (rows, counts)
        obs, action = self.walk.begin()
        state = self.table.states(obs)
        for _ in range(num_steps):
            chosen = [choose(s) if a is None else a for s, a in zip(state, action, strict=True)]
            rewards, terminated, _, final = self.envs.step(np.array(chosen))
            last = {i: self.table.states(obs[None])[0] for i, obs in final}  # the true successor of an ended episode
            following = self.table.states(self.envs.obs)
            for i, (s, a, reward, over) in enumerate(zip(state, chosen, rewards.tolist(), terminated, strict=True)):
                action[i] = None
                if not self.envs.valid[i]:  # no transition: the environment only began its next episode
                    continue
                s2, done = last.get(i, following[i]), i in last
                a2 = choose(s2) if on_policy and not over else 0
                column, column2 = (0, 0) if self.v else (a, a2)
                yield Step(i, s, column, reward, s2, column2, bool(over), done)
                action[i] = a2 if on_policy and not done else None
            state = following
        self._close(action)

    def _close(self, action: list[int | None]) -> None:
        if self.v:
            self.v.close()
            if self.mdp:
                self.table.rows = self.mdp.backup(self.v.q[:, 0].numpy(), self.gamma).tolist()
            self.table.counts = self.v.visits.expand(-1, self.table.q.shape[1]).tolist()
        self.table.close()
        self.walk.end(action)

    def count(self, state: int, action: int, lr: float, lr_power: float) -> float:
        """One more visit of a pair; the step size alpha / n^omega after n visits."""
        self.counts[state][action] += 1
        return lr / self.counts[state][action] ** lr_power if lr_power else lr

    def metrics(self, epsilon: float | None = None, error: float | None = None) -> dict[str, float]:
        """Of the episodes and updates, and the exact ones where there is a transition table."""
        return {
            **self.walk.metrics(),
            **self.oracle.metrics(self.table.policy()),
            **(self._judge(self.v.q[:, 0].numpy()) if self._judge and self.v else {}),
            **({"rollout/exploration_rate": epsilon} if epsilon is not None else {}),
            **({"train/error": error} if error is not None else {}),
            "train/n_updates": int(self.learned.visits.sum()),
        }


class ErrorOfV:
    """exact/rmse of V: its distance from the exact values of the policy that takes each action alike, the root of the
    mean square over the states that this policy reaches. Nothing where these values are not finite."""

    def __init__(self, mdp: exact.MDP | None, gamma: float) -> None:
        self.mdp = mdp
        self.value = exact.values_of(mdp, exact.uniform(mdp), gamma) if mdp else None
        self.reached = exact.reachable(mdp) if mdp else np.array(False)

    def __call__(self, value: np.ndarray) -> dict[str, float]:
        if self.value is None:
            return {}
        return {"exact/rmse": float(np.sqrt(np.square(value - self.value)[self.reached].mean()))}


def drawing(cfg: Any, run: Run) -> str | None:
    """The greedy policy of a grid world as arrows, with dots where the agent has never been."""
    mdp = exact.transition_table(cfg.env)
    if mdp is None:
        return None
    table = run.state("table")
    return exact.arrows(mdp, table["q"].numpy().argmax(-1), table["visits"].numpy().any(-1))


def load_policy(cfg: Any, run: Run) -> Greedy:
    """The policy that the table of a checkpoint is."""
    table = run.state("table")
    return Greedy(table["q"].numpy(), cfg.algo.final_epsilon, table["visits"].numpy())


def overestimation(mdp: exact.MDP | None, table: Table, gamma: float) -> dict[str, float]:
    """exact/overestimation: how far max_a Q(s, a), over the actions tried, is above the optimal value at the start."""
    if mdp is None or (best := exact.start_value(mdp, gamma)) is None:
        return {}
    q = torch.where(table.visits > 0, table.q, -torch.inf).amax(-1)
    q = torch.where(q.isinf(), table.q.amax(-1), q)
    return {"exact/overestimation": float(mdp.start @ q.numpy()) - best}


def check(cfg: Any, _envs: Any) -> None:
    """What a table asks of the rest of the configuration. Raises ConfigError."""
    for key in ("normalize_obs", "normalize_reward"):
        if getattr(cfg.env, key):
            raise ConfigError(f"env.{key}=true: {cfg.algo.name} needs false (a table holds states and raw rewards)")


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rollout/exploration_rate": (
        "epsilon: the probability that an action is random. Healthy: 1 at the start, algo.final_epsilon after "
        "algo.exploration_fraction of the run. If not: still high at the end, the agent never acts on what it has "
        "learned: a smaller algo.exploration_fraction or algo.final_epsilon."
    ),
    "train/n_updates": (
        "Updates so far: visits that were learned from. Healthy: one a step; one a first visit for monte_carlo. If "
        "not: far fewer, the first episodes are not over yet."
    ),
    "train/error": (
        "Mean absolute error of the iteration's updates, target less value, in units of return. Healthy: falls to 0 "
        "where nothing is random, to the noise of the targets elsewhere. If not: flat and high, algo.lr is too large "
        "for the noise: algo.lr_power lets it fall with the visits."
    ),
    "exact/rmse": (
        "Distance of V from the exact values of random moves: root of the mean square over the states that they "
        "reach, in units of return. Healthy: falls, and stays where the step size's noise holds it. If not: it rises "
        "again, algo.lr is too large; it stands still early, algo.lr is too small or too few states are visited."
    ),
    "exact/overestimation": (
        "max_a Q(s, a) at the start less the exact optimal value there, in units of discounted return. Healthy: 0; "
        "below 0 while values still grow. If not: above 0, the maximum picks the luckiest estimate: "
        "algo=double_q_learning, or more averaging (algo.lr_power)."
    ),
}
