"""n-step SARSA: n rewards, then what the table says of the rest.

Sutton & Barto 2018, section 7.2:

    Q(s, a) = initial value
    for each step t:
        G = r_t + gamma r_{t+1} + ... + gamma^{n-1} r_{t+n-1} + gamma^n Q(s_{t+n}, a_{t+n})
        Q(s_t, a_t) += alpha (G - Q(s_t, a_t))
    at the end of an episode G has the rewards that are left, and gamma^k Q of the true last state if it was only cut

n = 1 is SARSA, bit for bit; an n that no episode is long enough for is Monte Carlo with a constant step size.
With V(s) in the place of Q(s, a) (algo.values=state) it is n-step TD, the prediction of section 7.1.
Left out: off-policy corrections (section 7.3) and tree backup (7.5).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rlx.config.ranges import Count
from rlx.control.config import ControlConfig
from rlx.run import Metrics, Run
from rlx.tabular.agent import (
    TabularAgent,
    TabularOnPolicy,
    check as check,
    drawing as drawing,
    load_policy as load_policy,
)

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "values", "n_step")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")


@dataclass
class Config(TabularOnPolicy):
    n_step: Count  # n


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, algo.gamma, run, algo.values)
    size = algo.num_envs * algo.num_steps

    while run.step < cfg.total_steps:
        epsilon = algo.epsilon_at(run.step, cfg.total_steps)
        errors = 0.0
        for lane, s, a, reward, s2, a2, terminated, done in agent.steps(algo.num_steps, agent.greedy(epsilon), True):
            q, waiting = agent.values, agent.memory[lane]  # the last n steps, which wait for their rewards
            waiting.append((s, a, reward))
            while waiting and (done or len(waiting) == algo.n_step):
                g = 0.0 if terminated else q[s2][a2]
                for *_, r in reversed(waiting):
                    g = r + algo.gamma * g
                first, action, _ = waiting.pop(0)
                error = g - q[first][action]
                q[first][action] += agent.count(first, action, algo.lr, algo.lr_power) * error
                errors += abs(error)

        run.step += size
        yield run.step, agent.metrics(epsilon, errors / size)
    agent.envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "n-step SARSA waits for n rewards before it asks its table what the rest is worth. A reward then reaches n "
        "states back in one episode, and less is believed of a table that is still wrong; the sum of n rewards is "
        "noisier than one. Between SARSA (1) and Monte Carlo (all) there is a best n for each environment."
    ),
    "kind": "on-policy, model-free",
    "watch": ("exact/regret", "rollout/ep_rew_mean", "train/error"),
    "wrong": (
        "learning is slower than with n 1: n exploring actions spoil the target: a smaller algo.n_step or algo.epsilon",
        "values jump: n rewards are noisier than one: a lower algo.lr, or algo.lr_power=0.6",
    ),
    "try": (
        "rlx train algo=n_step_sarsa env=frozenlake",
        "rlx train -m algo=n_step_sarsa env=cliffwalking algo.n_step=1,4,16 seed=1,2,3",
    ),
}
