"""Advantage actor-critic, synchronous: A2C.

Mnih et al. 2016, arXiv:1602.01783, algorithm S3, with the workers in step (as in Wu et al. 2017, arXiv:1708.05144):

    for each iteration:
        run pi in N environments for T steps
        R_t = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n})      as many rewards as there are until T or the end
        A_t = R_t - V(s_t)                                         (lambda < 1: GAE instead)
        one gradient step on  L = -log pi(a|s) A + c_v .5 (V - R)^2 - c_e entropy

A3C is the same with workers that compute and apply their gradients whenever they are ready, each with parameters that
others have changed meanwhile. It is not offered: the result would depend on the timing of processes, so that no run
could be repeated or resumed exactly, and at equal cost the synchronous form learns as well (Wu et al. 2017).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from rlx.config.ranges import Count, NonNegative, Positive, Unit
from rlx.control.config import ControlConfig
from rlx.control.distributions import Head
from rlx.control.networks import ActorCritic
from rlx.control.on_policy import Agent
from rlx.engine.learner import Learner
from rlx.engine.trust import Engine
from rlx.functional import policy as pg, returns, schedules, value as vf
from rlx.run import Metrics, Run, Values

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")


@dataclass
class Config:
    name: str
    implementation: str
    num_envs: Count  # N
    num_steps: Count  # T
    gamma: Unit
    gae_lambda: Unit  # lambda; 1: n-step returns
    lr: Positive
    anneal_lr: bool  # linearly to 0 over the run
    optimizer: Literal["rmsprop", "rmsprop_tf", "adam", "sgd"]
    optimizer_eps: Positive
    normalize_advantage: bool
    vf_coef: NonNegative  # c_v, of .5 (V - R)^2
    ent_coef: NonNegative  # c_e
    max_grad_norm: NonNegative  # 0: no clipping
    engine: Engine

    def __post_init__(self) -> None:
        if self.normalize_advantage and self.num_envs * self.num_steps == 1:
            raise ValueError("num_steps=1: a single row has the normalised advantage 0 (normalize_advantage=false)")


def targets(cfg: Config, value: Tensor, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Advantage and return of every step; value [T + 1, N] -> [T, N] each."""
    cut = batch["done"] & ~batch["terminated"]  # bootstrapped from the episode's own last observation
    next_value = torch.where(cut, batch["final_value"], value[1:])
    advantage = returns.gae(
        batch["reward"], value[:-1], next_value, batch["terminated"], batch["done"], cfg.gamma, cfg.gae_lambda
    )
    return advantage, advantage + value[:-1]


def loss(cfg: Config, model: ActorCritic, head: Head, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of one iteration, and its parts. The policy is still the one that acted: one forward pass gives
    values, returns and log-probabilities."""
    params, value = model(batch["obs"])
    advantage, return_ = targets(cfg, value.detach(), batch)
    if cfg.normalize_advantage:
        advantage = returns.whiten(advantage, batch["valid"])
    logprob, entropy = head.logprob_entropy(params[:-1], batch["action"])

    share = batch["valid"] / batch["valid"].sum().clamp(min=1)  # of each step in the means: 0 for no transition
    policy_loss = (share * pg.policy_gradient(logprob, advantage)).sum()
    value_loss = (share * vf.value_loss(value[:-1], return_)).sum()
    entropy = (share * entropy).sum()
    total = policy_loss + cfg.vf_coef * value_loss - cfg.ent_coef * entropy
    return total, {"loss": total, "policy_loss": policy_loss, "value_loss": value_loss, "entropy_loss": -entropy}


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs, head, model, rollout = agent = Agent.new(cfg, run)
    learner = Learner(
        model,
        partial(loss, algo, model, head),
        optimizer=algo.optimizer,
        eps=algo.optimizer_eps,
        max_grad_norm=algo.max_grad_norm,
        engine=algo.engine,
    )
    agent.track(run, optimizer=learner)

    size = algo.num_envs * algo.num_steps
    num_updates = -(-cfg.total_steps // size)
    while run.step < cfg.total_steps:
        progress = run.step // size / num_updates
        lr = algo.lr * schedules.linear(progress) if algo.anneal_lr else algo.lr

        # Collect
        batch = rollout.experience()

        # Learn
        info = learner.step(batch, None, lr)
        run.notice(learner.notice or rollout.notice)

        run.step += size
        yield run.step, partial(metrics, algo, agent, batch, {**info, "learning_rate": lr}, learner.num_steps)
    envs.close()


@torch.no_grad()
def metrics(
    cfg: Config, agent: Agent, batch: Mapping[str, Tensor], info: Mapping[str, float], n_updates: int
) -> Values:
    value = agent.model(batch["obs"])[1]  # of the critic that this iteration has just taught
    explained = vf.explained_variance(*(agent.rollout.rows(x) for x in (value[:-1], targets(cfg, value, batch)[1])))
    return agent.metrics(info, explained_variance=float(explained), n_updates=n_updates)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "A2C is an actor-critic method that makes one gradient step on each short rollout and throws it away. "
        "The critic's estimate says how much better an action was than expected; that advantage weighs the "
        "policy gradient. It is the synchronous form of A3C, simple and fast, and less economical with "
        "experience than PPO."
    ),
    "kind": "on-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "train/entropy_loss", "train/explained_variance", "train/grad_norm"),
    "wrong": (
        (
            "the return is noisy and falls back: five steps give noisy gradients: a larger algo.num_envs or "
            "algo.num_steps, a lower algo.lr"
        ),
        "the entropy is gone early: algo.ent_coef=0.01, the paper's value for Atari",
        "train/grad_norm is far above algo.max_grad_norm: clipping sets the step size: lower algo.lr",
    ),
    "try": (
        "rlx train algo=a2c env=cartpole",
        "rlx train -m algo=a2c env=cartpole algo.num_steps=1,5,32 seed=1,2,3",
        "rlx train -m algo=a2c,ppo env=acrobot seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/loss": (
        "Policy loss + c_v value loss - c_e entropy of the iteration's one step. Healthy: no value in particular, "
        "it is dominated by `train/value_loss`. If not: growing without end, lower algo.lr and normalise rewards; "
        "otherwise read its parts."
    )
}
