"""First-visit Monte Carlo: the mean of what whole episodes earned, and no other estimate in the target.

Sutton & Barto 2018, sections 5.1 and 5.4:

    Q(s, a) = initial value
    for each episode, played epsilon-greedily in Q to its end:
        G_t = r_t + gamma r_{t+1} + gamma^2 r_{t+2} + ...       what followed each step
        for each pair (s, a) of the episode, at its first visit t:
            Q(s, a) += alpha_n (G_t - Q(s, a)),   alpha_n = alpha / n^omega, n such returns of the pair

alpha 1, omega 1 is the sample mean of the returns. With V(s) in the place of Q(s, a) (algo.values=state) it is the
prediction of section 5.1, of random moves. An episode cut by the time limit is taken for one that has ended.
Left out: exploring starts, importance sampling from another policy (sections 5.3 and 5.5).
"""

from collections.abc import Iterator

import torch

from rlx.control.config import ControlConfig
from rlx.functional import returns
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


Config = TabularOnPolicy


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    agent = TabularAgent(cfg.env, algo.num_envs, algo.initial_value, algo.gamma, run, algo.values)
    size = algo.num_envs * algo.num_steps

    while run.step < cfg.total_steps:
        epsilon = algo.epsilon_at(run.step, cfg.total_steps)
        errors, updates = 0.0, 0
        for lane, s, a, reward, *_, done in agent.steps(algo.num_steps, agent.greedy(epsilon)):
            # Collect
            episode = agent.memory[lane]
            episode.append((s, a, reward))
            if not done:
                continue

            # Learn
            rewards = torch.tensor([[r] for *_, r in episode], dtype=torch.float64)
            to_go = returns.reward_to_go(rewards, torch.zeros_like(rewards), algo.gamma)[:, 0].tolist()
            seen = set()
            for (state, action, _), g in zip(episode, to_go):
                if (state, action) in seen:
                    continue
                seen.add((state, action))
                error = g - agent.values[state][action]
                agent.values[state][action] += agent.count(state, action, algo.lr, algo.lr_power) * error
                errors, updates = errors + abs(error), updates + 1
            episode.clear()

        run.step += size
        yield run.step, agent.metrics(epsilon, errors / max(1, updates))
    agent.envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Monte Carlo learns from finished episodes alone: the value of a state and action is the mean of what followed "
        "its first visit. No other estimate is in the target, so nothing is biased, and nothing is learned before an "
        "episode ends. It acts epsilon-greedily in its means, so they are those of that policy."
    ),
    "kind": "on-policy, model-free",
    "watch": ("exact/regret", "rollout/ep_rew_mean", "rollout/ep_len_mean"),
    "wrong": (
        "means of an early, bad policy weigh for ever: a constant step size (algo.lr=0.05 algo.lr_power=0)",
        "episodes are long and few: bootstrap instead: algo=sarsa_lambda, algo=n_step_sarsa",
        "returns are cut by the time limit: they are taken as they are: raise env.max_episode_steps",
    ),
    "try": (
        "rlx train algo=monte_carlo env=frozenlake",
        "rlx train algo=monte_carlo env=random_walk algo.values=state algo.epsilon=1 algo.final_epsilon=1",
    ),
}
