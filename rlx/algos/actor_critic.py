"""Actor-critic, online: the critic's error of a step (or of n steps) says at once how good the action was.

Sutton & Barto 2018, section 13.5; Barto, Sutton & Anderson 1983; Konda & Tsitsiklis 2000 (the Q critic):

    repeat, in N environments:
        take T steps of pi
        critic q:   a' ~ pi(.|s'),   delta = r + gamma q(s', a') - q(s, a)          (SARSA's target)
                    weight w = q(s, a);  or q(s, a) - E_pi q(s, .), the same with less variance;  or delta
                    or all actions, without a sample: the actor's step is on  -sum_a pi(a|s) q(s, a)
        critic v:   delta = r_t + gamma r_{t+1} + ... + gamma^n V(s_{t+n}) - V(s_t)  (n = 1: the TD error)
                    weight w = delta
        actor:   one gradient step on  -log pi(a|s) w
        critic:  one gradient step on  .5 delta^2, the target held fixed: it moves along +delta

(With a Q critic that is right, delta has mean 0 whatever the action: that weight teaches only while q is wrong.)

Actor and critic are two networks with a learning rate each. Left out: eligibility traces, and the factor gamma^t of
the gradient. A2C is the form with one joint loss.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, NonNegative, Positive, Unit
from rlx.control.config import ControlConfig
from rlx.control.distributions import Head
from rlx.control.networks import ActorCritic
from rlx.control.on_policy import Agent
from rlx.engine.learner import Learner
from rlx.engine.optim import Optimizer
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.spaces import kind_of
from rlx.functional import policy as pg, returns, schedules, value as vf
from rlx.run import Metrics, Run, Values

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "critic", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")


@dataclass
class Config:
    name: str
    implementation: str
    critic: Literal["q", "v"]
    weight: Literal["value", "advantage", "error", "all_actions"]  # of the actor: see above; critic v: error
    num_envs: Count  # N
    num_steps: Count  # T, between two gradient steps
    n_step: Count  # n (critic v)
    gamma: Unit
    lr: Positive  # of the actor
    critic_lr: Positive
    anneal_lr: bool  # both, linearly to 0 over the run
    ent_coef: NonNegative
    max_grad_norm: NonNegative  # 0: no clipping
    adam_eps: Positive
    engine: Engine
    optimizer: Optimizer = "adam"

    def __post_init__(self) -> None:
        if self.critic == "v" and self.weight != "error":
            raise ValueError(f"weight={self.weight}: V(s) says nothing of the action; critic=v needs weight=error")
        if self.critic == "q" and self.n_step > 1:
            raise ValueError(f"n_step={self.n_step}: critic=q has SARSA's one-step target; n_step needs critic=v")
        if self.n_step > self.num_steps:
            raise ValueError(f"n_step={self.n_step}: must be at most num_steps={self.num_steps}")


def check(cfg: ControlConfig[Config], envs: Envs) -> None:
    """What the algorithm asks of the environment. Raises ConfigError."""
    kind = kind_of(envs.action_space)
    if cfg.algo.critic == "q" and kind != "Discrete":
        raise ConfigError(
            f"env.id={cfg.env.id} has {kind} actions; algo.critic=q needs Discrete ones "
            "(algo.critic=v algo.weight=error serves all)"
        )


def actor_loss(
    cfg: Config, model: ActorCritic, head: Head, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    params = model.policy(batch["obs"])
    logprob, entropy = head.logprob_entropy(params, batch["action"])
    if cfg.weight == "all_actions":
        loss = pg.all_actions(params.log_softmax(-1), batch["weight"]).mean()
    else:
        loss = pg.policy_gradient(logprob, batch["weight"]).mean()
    entropy = entropy.mean()
    return loss - cfg.ent_coef * entropy, {"policy_loss": loss, "entropy_loss": -entropy}


def critic_loss(model: ActorCritic, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    value = model.value(batch["obs"])
    value = value if model.num_values is None else of_action(value, batch["action"])
    loss = vf.value_loss(value, batch["target"]).mean()
    return loss, {"value_loss": loss}


def sarsa(cfg: Config, model: ActorCritic, head: Head, x: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The target of each step, and the weight of its action (or of each action), with a Q critic."""
    params, next_q = model(x["next_obs"])
    next_action = head.sample(params, x["noise"])
    target = vf.td_target(x["reward"], of_action(next_q, next_action), x["terminated"], cfg.gamma)
    params, values = model(x["obs"])
    if cfg.weight == "all_actions":
        return target, values
    q = of_action(values, x["action"])
    if cfg.weight == "advantage":
        return target, q - (params.softmax(-1) * values).sum(-1)
    return target, q if cfg.weight == "value" else target - q


def of_action(values: Tensor, action: Tensor) -> Tensor:
    """q(s, .) [..., A], a [...] -> q(s, a) [...]."""
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1)


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs, head, model, rollout = agent = Agent.new(cfg, run, action_values=algo.critic == "q")
    learn = partial(
        Learner, optimizer=algo.optimizer, eps=algo.adam_eps, max_grad_norm=algo.max_grad_norm, engine=algo.engine
    )
    actor = learn(model.policy_parameters(), partial(actor_loss, algo, model, head))
    critic = learn(model.critic, partial(critic_loss, model))
    criticise = Forward(partial(sarsa, algo, model, head), run.device, engine=algo.engine)
    agent.track(run, actor=actor, critic=critic, criticise=criticise)
    next_actions = run.rng("next_actions")

    size = algo.num_envs * algo.num_steps
    num_updates = -(-cfg.total_steps // size)
    while run.step < cfg.total_steps:
        progress = run.step // size / num_updates
        scale = schedules.linear(progress) if algo.anneal_lr else 1.0

        # Collect, criticise
        if algo.critic == "q":
            batch = rollout.experience()
            next_obs, noise = rollout.successors(batch["obs"]), head.noise(next_actions, tuple(batch["reward"].shape))
            batch = batch | {"obs": batch["obs"][:-1]}
            seen = {name: batch[name] for name in ("obs", "action", "reward", "terminated")}
            target, weight = criticise(**seen, next_obs=next_obs, noise=torch.from_numpy(noise))
        else:
            batch = rollout.collect()
            target = returns.n_step_return(
                batch["reward"], batch["next_value"], batch["terminated"], batch["done"], algo.gamma, algo.n_step
            )
            weight = target - batch["value"]
        batch |= {"target": target, "weight": weight}
        data = {name: rollout.rows(batch[name]) for name in ("obs", "action", "target", "weight")}

        # Learn
        names = ("obs", "action", "target") if algo.critic == "q" else ("obs", "target")
        info: dict[str, float] = {}
        if len(data["obs"]):  # grad_norm is the actor's
            info |= critic.step({name: data[name] for name in names}, None, scale * algo.critic_lr)
            info |= actor.step({name: data[name] for name in ("obs", "action", "weight")}, None, scale * algo.lr)
        run.notice(actor.notice or critic.notice or criticise.notice or rollout.notice)

        run.step += size
        yield run.step, partial(metrics, agent, info, weight, scale * algo.lr, actor.num_steps)
    envs.close()


def metrics(agent: Agent, info: Mapping[str, float], weight: Tensor, lr: float, n_updates: int) -> Values:
    return agent.metrics(info, weight_mean=float(weight.mean()), learning_rate=lr, n_updates=n_updates)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "This is the textbook's online actor-critic: the critic's error after a step, or after n steps, says "
        "at once how good the action was. Actor and critic are two networks with a learning rate each, and "
        "each takes one gradient step on what just happened. It shows the idea that A2C and PPO build on, and "
        "is noisier than both."
    ),
    "kind": "on-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "train/value_loss", "train/weight_mean", "train/entropy_loss"),
    "wrong": (
        "the actor follows an untrained critic: raise algo.critic_lr above algo.lr",
        "one-step targets are biased while V is wrong: algo=actor_critic_nstep",
        "single steps are noisy: more algo.num_envs",
    ),
    "try": (
        "rlx train algo=actor_critic env=cartpole",
        "rlx train -m algo=actor_critic,actor_critic_nstep,actor_critic_q env=cartpole seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/weight_mean": (
        "Mean of the weight w of -log pi(a|s): the TD error, or q(s, a), or q(s, a) - E_pi q, in units of return (of q "
        "over all actions, with weight=all_actions). "
        "Healthy: near 0 for errors and advantages, the return's size for weight=value. If not: far from 0 for "
        "the error, the critic lags behind: raise algo.critic_lr."
    )
}
