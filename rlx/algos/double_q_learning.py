"""Double Q-learning: one table chooses the best action, another one says what it is worth.

van Hasselt 2010; Sutton & Barto 2018, section 6.7:

    Q_1(s, a) = Q_2(s, a) = initial value;   Q = (Q_1 + Q_2) / 2
    for each step, epsilon-greedily in Q: s, a, r, s'
        with probability 1/2 exchange the names of the two tables
        y = r + gamma Q_2(s', argmax_a' Q_1(s', a'))       (r where s' is terminal)
        Q_1(s, a) += alpha (y - Q_1(s, a))

The maximum over noisy estimates is above the largest true value: Q-learning, one table in both roles
(algo.double=false), over-estimates. Two tables with noise of their own do not agree on who is lucky. In example 6.7
(env=maximisation_bias) `exact/overestimation` shows both.
An episode cut by the time limit is bootstrapped from its true last state. Left out: double SARSA.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rlx.control.config import ControlConfig
from rlx.run import Metrics, Run
from rlx.tabular.agent import (
    Tabular,
    TabularAgent,
    check as check,
    drawing as drawing,
    load_policy as load_policy,
    overestimation,
)
from rlx.tabular.parts import Table

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "double")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")


@dataclass
class Config(Tabular):
    double: bool


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, algo.gamma, run)
    states, actions = agent.table.q.shape
    tables = [Table(states, actions, algo.initial_value) for _ in range(2 if algo.double else 0)]
    run.track(**{f"table_{i}": table for i, table in enumerate(tables, 1)})
    size = algo.num_envs * algo.num_steps

    while run.step < cfg.total_steps:
        epsilon = algo.epsilon_at(run.step, cfg.total_steps)
        for table in tables:
            table.open()
        errors = 0.0
        for _, s, a, reward, s2, _, terminated, _ in agent.steps(algo.num_steps, agent.greedy(epsilon)):
            one = two = agent.table
            if algo.double:
                one, two = tables if agent.draw() < 0.5 else reversed(tables)
            allowed = agent.allowed(s2)
            best = max(allowed, key=one.rows[s2].__getitem__)
            target = reward if terminated else reward + algo.gamma * two.rows[s2][best]
            error = target - one.rows[s][a]
            one.rows[s][a] += agent.count(s, a, algo.lr, algo.lr_power) * error
            if algo.double:
                agent.values[s][a] = (one.rows[s][a] + two.rows[s][a]) / 2
            errors += abs(error)
        for table in tables:
            table.close()

        run.step += size
        metrics = agent.metrics(epsilon, errors / size) | overestimation(agent.mdp, agent.table, algo.gamma)
        yield run.step, metrics
    agent.envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Double Q-learning keeps two tables and moves one of them at a time: one says which action is best, the other "
        "one what it is worth. A single table takes its own luckiest estimate for the truth and over-estimates; two "
        "that were noisy in different ways do not. Double DQN is the same idea with networks."
    ),
    "kind": "off-policy, model-free",
    "watch": ("exact/overestimation", "exact/regret", "rollout/ep_rew_mean"),
    "wrong": (
        "learning is slower than with one table: each learns from half of the steps: a higher algo.lr",
        "values are below the truth: the other table has not seen the action yet: explore longer (algo.epsilon)",
    ),
    "try": (
        "rlx train algo=double_q_learning env=maximisation_bias",
        "rlx train -m algo=double_q_learning env=maximisation_bias algo.double=true,false seed=1,2,3",
        "rlx train algo=double_q_learning env=frozenlake",
    ),
}
