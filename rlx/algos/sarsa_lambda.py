"""SARSA(lambda) and TD(lambda): an error reaches all that led to it, by eligibility traces.

Sutton 1988; Rummery and Niranjan 1994; Sutton & Barto 2018, sections 12.2 and 12.7:

    Q(s, a) = initial value;   e = 0 at the start of each episode
    for each step s, a, r, s' and the action a' that will be taken there:
        delta = r + gamma Q(s', a') - Q(s, a)       (nothing follows a terminal s')
        e(s, a) = e(s, a) + 1  or  1                                                  (accumulating, replacing)
        for all pairs of the episode:  Q(s, a) += alpha delta e(s, a),   e(s, a) *= gamma lambda

With V(s) in the place of Q(s, a) this is TD(lambda), which predicts: V of the policy that acts, here random moves.
lambda 0 is SARSA (or TD(0)), bit for bit; lambda 1 is Monte Carlo, learned from as the episode goes. Replacing traces
are Singh and Sutton's, 1996. An episode cut by the time limit is bootstrapped from its true last state.
Left out: the true online form (van Seijen et al. 2016), which corrects for Q changing within an episode.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlx.config.ranges import Unit
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
FROZEN = ("num_envs", "num_steps", "values")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)
OBSERVATIONS = ("Discrete", "OneHot")


@dataclass
class Config(TabularOnPolicy):
    trace_lambda: Unit  # lambda
    traces: Literal["accumulating", "replacing"]


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, algo.gamma, run, algo.values)
    size, decay = algo.num_envs * algo.num_steps, algo.gamma * algo.trace_lambda

    while run.step < cfg.total_steps:
        epsilon = algo.epsilon_at(run.step, cfg.total_steps)
        traces = [{(s, a): e for s, a, e in lane} for lane in agent.memory]
        errors = 0.0
        for lane, s, a, reward, s2, a2, terminated, done in agent.steps(algo.num_steps, agent.greedy(epsilon), True):
            q, trace = agent.values, traces[lane]
            target = reward if terminated else reward + algo.gamma * q[s2][a2]
            delta, lr = target - q[s][a], agent.count(s, a, algo.lr, algo.lr_power)
            trace[s, a] = trace.get((s, a), 0.0) + 1.0 if algo.traces == "accumulating" else 1.0
            for (state, action), e in trace.items():
                q[state][action] += lr * delta * e
                trace[state, action] = e * decay
            if done or not decay:
                trace.clear()
            errors += abs(delta)
        agent.memory[:] = [[(s, a, e) for (s, a), e in trace.items()] for trace in traces]

        run.step += size
        yield run.step, agent.metrics(epsilon, errors / size)
    agent.envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "SARSA(lambda) carries each temporal-difference error back to all states and actions that led to it, the more "
        "weakly the longer ago they were: traces remember them. One reward at the end of an episode teaches the whole "
        "way at once, where SARSA teaches its last step. lambda goes from SARSA (0) to Monte Carlo (1)."
    ),
    "kind": "on-policy, model-free",
    "watch": ("exact/regret", "rollout/ep_rew_mean", "train/error"),
    "wrong": (
        "values blow up: a long trace sums many errors: a lower algo.lr, or algo.traces=replacing",
        "a reward is met and forgotten: explore longer (algo.exploration_fraction)",
        "random environments keep the values jumping: a lower algo.trace_lambda, or algo.lr_power=0.6",
    ),
    "try": (
        "rlx train algo=sarsa_lambda env=frozenlake",
        "rlx train -m algo=sarsa_lambda env=cliffwalking algo.trace_lambda=0,0.5,0.9 seed=1,2,3",
        "rlx train algo=td_lambda env=random_walk",
    ),
}
