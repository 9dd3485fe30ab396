"""Bandits: epsilon-greedy, upper confidence bounds and gradients of preferences.

Robbins 1952; Auer et al. 2002 (UCB); Williams 1992 (gradient); Sutton & Barto 2018, chapter 2:

    for each pull, of problem s (one bandit: always the same):
        a = any arm with probability epsilon, else argmax_a Q(s, a)           (epsilon_greedy)
          = argmax_a Q(s, a) + c sqrt(ln t / N(s, a)),  t pulls of s          (ucb; an arm never pulled comes first)
          ~ softmax of H(s, .)                                                (gradient)
        pull it, see r
        Q(s, a) += alpha_n (r - Q(s, a)),  alpha_n = 1 / n, or alpha where it is above 0
        H(s, a') += alpha (r - b) ([a' = a] - pi(a'|s)) for all a',  b = the mean reward of s so far    (gradient)

No state follows from an action: what comes after a pull counts nothing (gamma = 0), in any environment.
The table of gradient holds the preferences H. Left out: Thompson sampling, and bandits whose values drift (there
algo.lr=0.1 is the better step size).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch

from rlx.config.ranges import Count, NonNegative, Unit
from rlx.control.config import ControlConfig
from rlx.functional import bandits
from rlx.run import Metrics, Run
from rlx.tabular.agent import TabularAgent, check as check, drawing as drawing
from rlx.tabular.parts import Greedy, Table, epsilon_greedy

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "strategy")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.2f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")


@dataclass
class Config:
    name: str
    implementation: str
    strategy: Literal["epsilon_greedy", "ucb", "gradient"]
    num_envs: Count
    num_steps: Count  # between two reports, of each environment
    epsilon: Unit
    ucb_coef: NonNegative  # c
    lr: NonNegative  # alpha; 0: the sample mean
    baseline: bool  # b
    initial_value: float

    def __post_init__(self) -> None:
        if self.strategy == "gradient" and not self.lr:
            raise ValueError("lr=0: strategy=gradient needs a step size above 0 (0.1)")


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, 0.0, run)
    means = Table(len(agent.table.q), 1, 0.0)  # the mean reward of each problem
    run.track(means=means)
    best = agent.mdp.mean_reward.argmax(-1).tolist() if agent.mdp else None
    size = algo.num_envs * algo.num_steps

    def choose(s: int) -> int:
        arms = agent.allowed(s)
        if algo.strategy == "epsilon_greedy":
            return agent.table.choose(s, algo.epsilon, agent.draw())
        row = torch.tensor([agent.values[s][arm] for arm in arms])
        if algo.strategy == "ucb":
            count = torch.tensor([float(agent.counts[s][arm]) for arm in arms])
            bound = bandits.upper_confidence(row, count, algo.ucb_coef).tolist()
            return arms[epsilon_greedy(bound, 0.0, agent.draw())]
        mark = agent.draw()
        drawn: int = sum(p <= mark for p in accumulate(row.softmax(-1).tolist()))
        return arms[min(drawn, len(arms) - 1)]

    while run.step < cfg.total_steps:
        means.open()
        errors, right = 0.0, 0
        for _, s, a, reward, *_ in agent.steps(algo.num_steps, choose):
            q, mean = agent.values[s], means.rows[s]
            lr = algo.lr or 1 / (agent.counts[s][a] + 1)
            agent.counts[s][a] += 1
            if algo.strategy == "gradient":
                arms = agent.allowed(s)
                row, arm = torch.tensor([q[each] for each in arms]), torch.tensor(arms.index(a))
                b = torch.tensor(mean[0] if algo.baseline else 0.0)
                step = bandits.preference_gradient(row, arm, torch.tensor(reward), b).tolist()
                for each, change in zip(arms, step, strict=True):
                    q[each] += lr * change
            else:
                q[a] += lr * (reward - q[a])
            means.counts[s][0] += 1
            errors += abs(reward - mean[0])
            mean[0] += (reward - mean[0]) / means.counts[s][0]
            right += best is not None and a == best[s]
        means.close()

        run.step += size
        metrics = {**agent.metrics(), "train/surprise": errors / size}
        if best is not None:
            metrics["rollout/best_arm_rate"] = right / size
        yield run.step, metrics
    agent.envs.close()


def load_policy(cfg: ControlConfig[Config], run: Run) -> Greedy:
    """The arm of the largest value or preference."""
    return Greedy(run.state("table")["q"].numpy(), cfg.algo.epsilon)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "A bandit has one state and some arms that pay at random: all there is to learn is which arm pays best. To "
        "know that, bad arms must be tried, and each try costs: exploration against exploitation, nothing else. "
        "Epsilon-greedy tries at random, upper confidence bounds what they are unsure of, a gradient what it prefers."
    ),
    "kind": "on-policy, model-free",
    "watch": ("rollout/best_arm_rate", "rollout/ep_rew_mean", "exact/regret"),
    "wrong": (
        "it settles on a worse arm: too little was tried: a higher algo.epsilon or algo.ucb_coef",
        "the best arm is known and pulled too rarely: a lower algo.epsilon",
        "curves are noise: one problem is luck: env.kwargs.problems=200 is the mean of 200 (rlx explain bandit)",
    ),
    "try": (
        "rlx train algo=bandit env=bandit",
        "rlx train -m algo=bandit,bandit_ucb,bandit_gradient env=bandit env.kwargs.problems=200 total_steps=200_000",
        "rlx train -m algo=bandit env=bandit algo.epsilon=0,0.01,0.1 env.kwargs.problems=200 total_steps=200_000",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rollout/best_arm_rate": (
        "Share of the iteration's pulls at the arm that pays best, from 0 to 1. Healthy: towards 1 - epsilon, 1 for "
        "the others. If not: it stands still below, a worse arm is taken for the best: explore more."
    ),
    "train/surprise": (
        "Mean distance of a reward from the mean of its problem so far, in units of reward. Healthy: the noise of the "
        "best arm in the end, .8 where that is 1. If not: it says how noisy the arms are, nothing else."
    ),
}
