"""REINFORCE and the vanilla policy gradient: one gradient step on whole episodes, with a choice of weights.

Williams 1992; Sutton & Barto 2018, sections 13.3 and 13.4; Schulman et al. 2015, arXiv:1506.02438:

    for each iteration:
        run pi for whole episodes, at least T steps in each of N environments
        weight of each step t
            whole_return   w = G                  the return of its whole episode
            reward_to_go   w = u_t                what is earned from t on
            baseline       w = u_t - V(s_t)
            gae            w = A_t                generalised advantages; an episode cut by a time limit is bootstrapped
        one gradient step on  L = -log pi(a|s) w
        (baseline, gae) a number of gradient steps on  .5 (V - R)^2,  R = u_t or A_t + V(s_t)

All four have the same mean (gae with lambda 1, or a perfect V), each has less variance than the one before. The first
three take an episode cut by a time limit for one that has ended: what would have come is not in their returns.
Left out: the discounting of the gradient itself by gamma^t, which nearly all code leaves out (Sutton & Barto,
section 13.3, has it).
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
from rlx.control.rollout import passes
from rlx.engine.learner import Learner
from rlx.engine.optim import Optimizer
from rlx.engine.trust import Engine
from rlx.functional import policy as pg, returns, schedules, value as vf
from rlx.run import Metrics, Run

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")


@dataclass
class Config:
    name: str
    implementation: str
    weight: Literal["whole_return", "reward_to_go", "baseline", "gae"]  # w
    num_envs: Count  # N
    num_steps: Count  # T, at least; the episodes in progress are finished
    gamma: Unit
    gae_lambda: Unit  # lambda (gae)
    lr: Positive  # of the policy
    anneal_lr: bool  # linearly to 0 over the run
    normalize_advantage: bool  # the weights of an iteration to mean 0 and standard deviation 1
    ent_coef: NonNegative
    critic_lr: Positive  # (baseline, gae)
    critic_epochs: Count  # passes over the iteration's steps (baseline, gae)
    critic_minibatches: Count  # (baseline, gae)
    max_grad_norm: NonNegative  # 0: no clipping
    adam_eps: Positive
    engine: Engine
    optimizer: Optimizer = "adam"


def weights(algo: Config, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The weight of each step, and the critic's target."""
    reward, value, done = batch["reward"], batch["value"], batch["done"]
    if algo.weight == "gae":
        terminated, next_value = batch["terminated"], batch["next_value"]
        advantage = returns.gae(reward, value, next_value, terminated, done, algo.gamma, algo.gae_lambda)
        return advantage, advantage + value
    to_go = returns.reward_to_go(reward, done, algo.gamma)
    if algo.weight == "baseline":
        return to_go - value, to_go
    if algo.weight == "reward_to_go":
        return to_go, to_go
    return returns.whole_return(reward, done, algo.gamma), to_go


def policy_loss(
    cfg: Config, model: ActorCritic, head: Head, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    logprob, entropy = head.logprob_entropy(model.policy(batch["obs"]), batch["action"])
    weight = returns.normalize(batch["weight"]) if cfg.normalize_advantage else batch["weight"]
    loss, entropy = pg.policy_gradient(logprob, weight).mean(), entropy.mean()
    return loss - cfg.ent_coef * entropy, {"policy_loss": loss, "entropy_loss": -entropy}


def critic_loss(model: ActorCritic, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = vf.value_loss(model.critic(batch["features"]).squeeze(-1), batch["return_"]).mean()
    return loss, {"value_loss": loss}


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs, head, model, rollout = agent = Agent.new(cfg, run, whole_episodes=True)
    learn = partial(
        Learner,
        optimizer=algo.optimizer,
        eps=algo.adam_eps,
        max_grad_norm=algo.max_grad_norm,
        engine=algo.engine,
        varying=True,
    )
    actor = learn(model.policy_parameters(), partial(policy_loss, algo, model, head))
    critic = learn(model.critic, partial(critic_loss, model))
    agent.track(run, actor=actor, critic=critic)
    shuffle = run.rng("minibatches")

    while run.step < cfg.total_steps:
        progress = run.step / cfg.total_steps
        lr = algo.lr * schedules.linear(progress) if algo.anneal_lr else algo.lr

        # Collect
        batch = rollout.collect()

        # Weights
        weight, return_ = weights(algo, batch)
        batch |= {"weight": weight, "return_": return_}
        data = {name: rollout.rows(batch[name]) for name in ("obs", "action", "weight", "return_")}

        # Learn
        info = actor.step({name: data[name] for name in ("obs", "action", "weight")}, None, lr)
        if algo.weight in ("baseline", "gae"):
            with torch.no_grad():  # what the critic shares with the policy it does not train
                fit = {"features": model.encode(data["obs"]), "return_": data["return_"]}
            rows, minibatches = len(data["obs"]), algo.critic_minibatches
            for index in passes(algo.critic_epochs, shuffle, rows, minibatches, run.device):
                info = {**critic.step(fit, index, algo.critic_lr), **info}  # grad_norm is the actor's
            info["explained_variance"] = float(vf.explained_variance(rollout.rows(batch["value"]), data["return_"]))
        run.notice(actor.notice or critic.notice or rollout.notice)

        run.step += batch["reward"].numel()
        yield run.step, agent.metrics(info, batch_size=len(data["obs"]), learning_rate=lr, n_updates=actor.num_steps)
    envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "The vanilla policy gradient plays whole episodes and makes one gradient step: actions that came "
        "before a high return become more probable. What weighs an action is a choice (whole return, "
        "reward-to-go, a baseline, generalised advantages), each with the same mean and less variance than the one "
        "before. It is the method to understand first, and the least economical one."
    ),
    "kind": "on-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "train/batch_size", "train/entropy_loss", "train/explained_variance"),
    "wrong": (
        (
            "the return hardly moves: one step an iteration is little: raise algo.lr, or smaller batches "
            "(algo.num_steps)"
        ),
        "the gradient is noise: algo.weight=gae, larger batches, algo.normalize_advantage=true",
        "the policy collapses onto one action: lower algo.lr, algo.ent_coef=0.01",
    ),
    "try": (
        "rlx train algo=vpg env=cartpole",
        "rlx train -m algo=vpg env=cartpole algo.weight=whole_return,reward_to_go,baseline,gae seed=1,2,3",
        "rlx train experiment=simplest_pg",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/batch_size": (
        "Steps of whole episodes in this iteration. Healthy: algo.num_steps times algo.num_envs and a little "
        "more. If not: far more, single episodes are longer than the batch: the update is then rare; lower "
        "env.max_episode_steps."
    )
}
