"""Value iteration, policy iteration and policy evaluation: dynamic programming, sweeps over all states of a model.

Bellman 1957; Howard 1960; Sutton & Barto 2018, chapter 4:

    Q(s, a) = initial value
    for each sweep (a step of the run's clock; no step is taken in the environment):
        V(s) = max_a Q(s, a)                            (value_iteration)
             = sum_a pi(a|s) Q(s, a)                    (policy_evaluation: pi takes each action alike;
                                                         policy_iteration: pi is the policy below)
        for all s, a:  Q(s, a) = sum over s', r of p(s', r|s, a) (r + gamma V(s'))
        delta = the largest change of Q
        policy_iteration, where delta < tolerance:  pi(s) = argmax_a Q(s, a); it ends where pi stays the same
    until delta < tolerance

Each is a contraction by gamma: a sweep brings Q nearer to its end by that factor at least. The model is the
environment's own transition table (FrozenLake, CliffWalking, Taxi, rlx's grids). Values are without the time limit;
evaluations and exact/value are within it. Left out: sweeps in place, and prioritised sweeping.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from rlx.base.errors import ConfigError
from rlx.config.ranges import NonNegative, Unit
from rlx.control.config import ControlConfig
from rlx.envs.batch import Envs
from rlx.functional import value as vf
from rlx.run import Metrics, Run
from rlx.tabular.agent import ErrorOfV, check as needs_raw, drawing as drawing
from rlx.tabular.mdp import Oracle, transition_table
from rlx.tabular.parts import Greedy, Table

WORLD = "control"
FROZEN = ("method",)  # keys that a resume cannot change
SHOWN = {"train/delta": "largest change {:.2g}"}
METRICS = ("eval/mean_reward", "train/delta")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")
NEEDS = ("a transition table",)  # it plans with it, and takes no step


@dataclass
class Config:
    name: str
    implementation: str
    method: Literal["value_iteration", "policy_iteration", "policy_evaluation"]
    gamma: Unit
    tolerance: NonNegative  # 0: all sweeps of the run
    initial_value: float


def check(cfg: ControlConfig[Config], envs: Envs) -> None:
    """What the algorithm asks of the rest of the configuration. Raises ConfigError."""
    needs_raw(cfg, envs)
    if transition_table(cfg.env) is None:
        raise ConfigError(
            f"env.id={cfg.env.id} has no transition table; {cfg.algo.name} plans with one (frozenlake, cliffwalking, "
            "taxi and grid have one, without wrappers and masks)"
        )


class Plan(Table):
    """The table, and the policy that policy iteration evaluates."""

    pi: torch.Tensor
    done: torch.Tensor  # it has come to its end: a run that is resumed there does not go on

    def __init__(self, num_states: int, num_actions: int, initial_value: float) -> None:
        super().__init__(num_states, num_actions, initial_value)
        self.register_buffer("pi", torch.zeros(num_states, dtype=torch.int64))
        self.register_buffer("done", torch.tensor(False))
        self.visits += 1


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    mdp = transition_table(cfg.env)
    assert mdp is not None
    oracle, judge = Oracle(mdp), ErrorOfV(mdp if algo.method == "policy_evaluation" else None, algo.gamma)
    run.notice(oracle.notice)
    states, actions = mdp.mean_reward.shape
    table = Plan(states, actions, algo.initial_value)
    run.track(table=table)
    uniform = torch.full((states, actions), 1 / actions, dtype=torch.float64)

    while run.step < cfg.total_steps and not table.done:
        # Evaluate
        if algo.method == "value_iteration":
            value = vf.max_value(table.q)
        elif algo.method == "policy_iteration":
            value = vf.expected_value(table.q, torch.nn.functional.one_hot(table.pi, actions).to(table.q.dtype))
        else:
            value = vf.expected_value(table.q, uniform)
        q = torch.from_numpy(mdp.backup(value.numpy(), algo.gamma))
        delta = float((q - table.q).abs().max())
        table.q.copy_(q)

        # Improve
        greedy, improved = table.q.argmax(-1), 0
        finished = delta < algo.tolerance
        if algo.method == "policy_iteration" and (finished or not algo.tolerance):
            better = table.q.gather(1, greedy[:, None]) > table.q.gather(1, table.pi[:, None]) + algo.tolerance
            improved = int(better.sum())
            finished = finished and not improved
            table.pi.copy_(torch.where(better[:, 0], greedy, table.pi))

        table.done.fill_(finished)

        run.step += 1
        metrics = {
            **oracle.metrics(table.policy()),
            **judge(value.numpy()),
            "train/delta": delta,
            "train/n_updates": run.step * states * actions,
            **({"train/improved_states": improved} if algo.method == "policy_iteration" else {}),
        }
        yield run.step, metrics


def load_policy(cfg: ControlConfig[Config], run: Run) -> Greedy:
    """The greedy policy of the values in a checkpoint."""
    return Greedy(run.state("table")["q"].numpy(), 0.0)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Value iteration plans: it knows what every action leads to, and applies the Bellman optimality equation to "
        "all states again and again. Each sweep brings the values nearer to the optimum, by the factor gamma at "
        "least, so it needs no exploration and no luck. Q-learning is the same equation with one sampled outcome."
    ),
    "kind": "neither on- nor off-policy, model-based",
    "watch": ("train/delta", "exact/regret", "exact/value"),
    "wrong": (
        "it does not end: gamma 1 is no contraction: a smaller algo.gamma, or a larger algo.tolerance",
        "the environment has no transition table: learn from steps instead: algo=q_learning",
    ),
    "try": (
        "rlx train algo=value_iteration env=grid",
        "rlx train -m algo=value_iteration,policy_iteration env=frozenlake",
        "rlx show latest",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/delta": (
        "Largest change of any Q(s, a) in the sweep, in units of discounted return. Healthy: falls by the factor "
        "algo.gamma a sweep, or faster. If not: it stands still only where algo.gamma is 1 and nothing ends."
    ),
    "train/improved_states": (
        "States whose action policy iteration changed after this sweep; 0 while it evaluates. Healthy: many at first, "
        "0 at the end. If not: it never comes to 0, values are too rough to choose by: a smaller algo.tolerance."
    ),
}
