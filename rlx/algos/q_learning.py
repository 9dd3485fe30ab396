"""Tabular Q-learning, SARSA, expected SARSA and Dyna-Q.

Watkins 1989; Rummery and Niranjan 1994; van Seijen et al. 2009; Sutton 1990. In Sutton & Barto 2018: sections 6.4 to
6.6 and 8.2.

    Q(s, a) = initial value
    for each step, in state s:
        a  = a random action with probability epsilon, else argmax_a Q(s, a), ties broken at random
        take a, see r and s'
        y  = r                                                          if s' is terminal, else
             r + gamma max_a' Q(s', a')                                  (q_learning)
             r + gamma Q(s', a'), a' the action that will be taken       (sarsa)
             r + gamma E_pi Q(s', a'), pi the epsilon-greedy policy      (expected_sarsa)
        Q(s, a) += alpha_n (y - Q(s, a)),   alpha_n = alpha / n^omega, n the visits of (s, a)
        planning_steps times (Dyna-Q): the same update for a pair (s, a) seen before, r and s' drawn from the model

omega 0 is a constant step size, 1 the sample mean. 1/2 < omega <= 1 converges with probability 1, but omega 1 may take
exponentially many steps in 1 / (1 - gamma), where a smaller one takes polynomially many (Even-Dar and Mansour 2003).
An episode cut by the time limit is bootstrapped from its true last state.
Left out: eligibility traces, double Q-learning, n-step targets, Dyna-Q+ and prioritised sweeping.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from rlx.control.config import ControlConfig
from rlx.run import Metrics, Run
from rlx.tabular.agent import Tabular, TabularAgent, check as check, drawing as drawing, load_policy as load_policy
from rlx.tabular.parts import Model, Table, Transition

WORLD = "control"
FROZEN = ("num_envs", "num_steps")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")


@dataclass
class Config(Tabular):
    target: Literal["q_learning", "sarsa", "expected_sarsa"]
    planning_steps: Annotated[int, Field(ge=0, le=10_000)]  # updates from the model for each step; 0: no model


# What the next state is worth, given the values of what is allowed there, that of the action to be taken, and epsilon.
BOOTSTRAP: dict[str, Callable[[list[float], float, float], float]] = {
    "q_learning": lambda values, taken, epsilon: max(values),
    "sarsa": lambda values, taken, epsilon: taken,
    "expected_sarsa": lambda values, taken, epsilon: (1 - epsilon) * max(values) + epsilon * sum(values) / len(values),
}


def update(algo: Config, table: Table, step: Transition, following: int, epsilon: float) -> tuple[float, float]:
    """Moves Q(s, a) towards the target, where `following` is the action to be taken in s' (sarsa).
    Returns the temporal-difference error y - Q(s, a) and the step size."""
    s, a, reward, s2, terminated = step
    row, q, lr = table.rows[s], table.rows, algo.lr
    worth = 0.0 if terminated else BOOTSTRAP[algo.target](table.choices(s2), q[s2][following], epsilon)
    target = reward if terminated else reward + algo.gamma * worth
    if algo.lr_power:
        lr /= table.counts[s][a] ** algo.lr_power
    error = target - row[a]
    row[a] += lr * error
    return error, lr


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, algo.gamma, run)
    table, model = agent.table, Model()
    run.track(model=model)
    sarsa, size = algo.target == "sarsa", algo.num_envs * algo.num_steps

    while run.step < cfg.total_steps:
        epsilon = algo.epsilon_at(run.step, cfg.total_steps)
        losses = lrs = 0.0
        for _, s, a, reward, s2, a2, terminated, _ in agent.steps(algo.num_steps, agent.greedy(epsilon), sarsa):
            # Learn
            table.counts[s][a] += 1
            transition = s, a, reward, s2, terminated
            error, lr = update(algo, table, transition, a2, epsilon)
            losses, lrs = losses + 0.5 * error * error, lrs + lr

            # Plan
            if algo.planning_steps:
                model.see(transition)
                for _ in range(algo.planning_steps):
                    imagined = model.sample(agent.draw)
                    a2 = table.choose(imagined[3], epsilon, agent.draw()) if sarsa else 0
                    update(algo, table, imagined, a2, epsilon)

        run.step += size
        metrics = {
            **agent.metrics(epsilon),
            "train/loss": losses / size,  # mean of .5 (y - Q)^2
            "train/learning_rate": lrs / size,
            "train/n_updates": run.step * (1 + algo.planning_steps),
        }
        yield run.step, metrics
    agent.envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Tabular Q-learning keeps one number for every state and action, and after each step moves it towards "
        "the reward plus the discounted value of the best next action. It learns the optimal values whatever "
        "policy acts, as long as that one tries everything. With states that can be counted the table is "
        "exact: nothing is approximated."
    ),
    "kind": "off-policy, model-free",
    "watch": ("exact/regret", "rollout/ep_rew_mean", "rollout/exploration_rate", "train/loss"),
    "wrong": (
        (
            "the goal is never found: explore longer (algo.exploration_fraction), or start optimistic "
            "(algo.initial_value=1)"
        ),
        "values jump about in a random environment: a step size that falls, algo.lr_power=0.77",
        "learning takes too many steps: algo=dyna_q plans with a model between them",
    ),
    "try": (
        "rlx train algo=q_learning env=grid",
        "rlx train -m algo=q_learning,sarsa,expected_sarsa env=cliffwalking seed=1,2,3",
        "rlx show latest",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rollout/exploration_rate": (
        "epsilon: the probability that an action is random. Healthy: 1 at the start, algo.final_epsilon after "
        "algo.exploration_fraction of the run. If not: still high at the end, the agent never acts on what it has "
        "learned: a smaller algo.exploration_fraction or algo.final_epsilon."
    ),
    "train/loss": (
        "Mean of .5 (y - Q(s, a))^2, half the squared temporal-difference error. Healthy: falls to 0 where the "
        "environment is deterministic, to the noise of the targets where it is not. If not: flat and high, "
        "algo.lr is too large for the noise: algo.lr_power=0.77 lets it fall with the visits."
    ),
    "train/learning_rate": (
        "Mean step size alpha of the iteration's updates. Healthy: algo.lr, or falling with the visits where "
        "algo.lr_power is above 0. If not: nearly 0 long before the end, algo.lr_power is too large: 1 may take "
        "exponentially long."
    ),
    "train/n_updates": (
        "Updates of the table so far, those from the model included. Healthy: one a step, and algo.planning_steps "
        "more. If not: see algo.planning_steps."
    ),
}
