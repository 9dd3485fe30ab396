"""Proximal policy optimisation, clipped or with an adaptive KL penalty.

Schulman et al. 2017, arXiv:1707.06347, algorithm 1:

    for each iteration:
        run pi_old in N environments for T steps
        compute advantages A (GAE) and returns R = A + V
        for K epochs, in minibatches of the N T steps:
            minimise  L_policy + c_v L_value - c_e entropy
            L_policy = -min(r A, clip(r, 1 - eps, 1 + eps) A),  r = pi / pi_old          (clip, eq. 7)
                     = -(r A - beta KL(pi_old || pi)), beta adapted to a target KL       (penalty, eq. 8)
                     = -r A: nothing keeps pi near pi_old                             (surrogate, eq. 6)

The details that make it work (per-minibatch advantage normalisation, orthogonal initialisation, Adam's epsilon,
value clipping, linear schedules, global-norm clipping) are those of Engstrom et al. 2020, arXiv:2005.12729.
Left out: recurrent policies and a separate optimiser for the critic.
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
from rlx.functional import kl, policy as pg, returns, schedules, trust_region as tr, value as vf
from rlx.run import Metrics, Run, means

WORLD = "control"
FROZEN = ("num_envs", "num_steps", "kl_coef", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")


@dataclass
class Config:
    name: str
    implementation: str
    objective: Literal["clip", "penalty", "surrogate"]
    num_envs: Count  # N
    num_steps: Count  # T
    num_epochs: Count  # K
    num_minibatches: Count
    gamma: Unit
    gae_lambda: Unit  # lambda
    lr: Positive
    anneal_lr: bool  # linearly to 0 over the run
    clip_coef: Positive  # eps
    anneal_clip: bool
    clip_vloss: NonNegative  # 0: no value clipping
    normalize_advantage: bool
    vf_coef: NonNegative  # c_v, of .5 (V - R)^2
    ent_coef: NonNegative  # c_e
    max_grad_norm: NonNegative  # 0: no clipping
    adam_eps: Positive
    target_kl: NonNegative  # stop an iteration at 1.5 times this approx_kl; 0: never
    kl_coef: NonNegative  # beta, at the start (penalty)
    kl_target: Positive  # d_targ (penalty)
    engine: Engine
    optimizer: Optimizer = "adam"

    def __post_init__(self) -> None:
        size = self.num_envs * self.num_steps
        if self.num_minibatches > size:
            raise ValueError(f"num_minibatches={self.num_minibatches}: must be at most num_envs * num_steps = {size}")
        if self.normalize_advantage and size // self.num_minibatches < 2:
            few = f"num_minibatches={self.num_minibatches}: of {size} rows leaves one row in a minibatch"
            raise ValueError(f"{few}, and its normalised advantage is 0 (normalize_advantage=false, or fewer)")


def loss(cfg: Config, model: ActorCritic, head: Head, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of one minibatch, and its diagnostics."""
    params, value = model(batch["obs"])
    logprob, entropy = head.logprob_entropy(params, batch["action"])
    advantage = returns.normalize(batch["advantage"]) if cfg.normalize_advantage else batch["advantage"]
    old_logprob, clip = batch["logprob"], batch["clip_coef"]

    if cfg.objective == "clip":
        policy_loss = pg.ppo_clip(logprob, old_logprob, advantage, clip, clip).mean()
    elif cfg.objective == "surrogate":
        policy_loss = tr.surrogate(logprob, old_logprob, advantage).mean()
    else:
        divergence = head.kl(batch["params"], params)  # KL(pi_old || pi)
        policy_loss = pg.ppo_penalty(logprob, old_logprob, advantage, divergence, batch["kl_coef"]).mean()
    if cfg.clip_vloss:
        value_loss = vf.value_loss_clipped(value, batch["value"], batch["return_"], cfg.clip_vloss).mean()
    else:
        value_loss = vf.value_loss(value, batch["return_"]).mean()
    entropy = entropy.mean()
    total = policy_loss + cfg.vf_coef * value_loss - cfg.ent_coef * entropy

    return total, {
        "loss": total,
        "policy_gradient_loss": policy_loss,
        "value_loss": value_loss,
        "entropy_loss": -entropy,
        "approx_kl": pg.approx_kl(logprob, old_logprob).mean(),
        "clip_fraction": pg.clip_fraction(logprob, old_logprob, clip, clip).mean(),
    }


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs, head, model, rollout = agent = Agent.new(cfg, run)
    learner = Learner(
        model, partial(loss, algo, model, head),
        optimizer=algo.optimizer, eps=algo.adam_eps, max_grad_norm=algo.max_grad_norm, engine=algo.engine,
    )  # fmt: skip
    beta = AdaptiveKL(algo.kl_coef)
    agent.track(run, optimizer=learner, kl_coef=beta)
    shuffle = run.rng("minibatches")

    size = algo.num_envs * algo.num_steps
    num_updates = -(-cfg.total_steps // size)
    while run.step < cfg.total_steps:
        left = schedules.linear(run.step // size / num_updates)
        lr = algo.lr * left if algo.anneal_lr else algo.lr
        clip = algo.clip_coef * left if algo.anneal_clip else algo.clip_coef

        # Collect
        batch = rollout.collect()

        # Advantages
        advantage = returns.gae(
            batch["reward"], batch["value"], batch["next_value"], batch["terminated"], batch["done"],
            algo.gamma, algo.gae_lambda,
        )  # fmt: skip
        batch |= {"advantage": advantage, "return_": advantage + batch["value"]}
        explained = vf.explained_variance(batch["value"], batch["return_"])
        data = {name: rollout.rows(batch[name]) for name in used_by(algo)}

        # Learn
        steps: list[dict[str, float]] = []
        for index in passes(algo.num_epochs, shuffle, len(data["obs"]), algo.num_minibatches, run.device):
            steps.append(learner.step(data, index, lr, clip_coef=clip, kl_coef=beta.coef))
            if algo.target_kl and steps[-1]["approx_kl"] > 1.5 * algo.target_kl:
                break  # ends the iteration, not only the epoch
        run.notice(learner.notice or rollout.notice)
        if algo.objective == "penalty":
            beta.adapt(divergence(model, head, data), algo.kl_target)

        run.step += size
        yield run.step, agent.metrics(
            means(steps), explained_variance=float(explained), learning_rate=lr, clip_range=clip,
            n_updates=learner.num_steps, **({"kl_coef": beta.coef} if algo.objective == "penalty" else {}),
        )  # fmt: skip
    envs.close()


def used_by(algo: Config) -> list[str]:
    """What the loss reads of a rollout."""
    names = ["obs", "action", "logprob", "advantage", "return_"]
    return names + ["value"] * bool(algo.clip_vloss) + ["params"] * (algo.objective == "penalty")


class AdaptiveKL:
    """beta of the penalty: doubled where the iteration's KL was above 1.5 target, halved below target / 1.5
    (Schulman et al. 2017, section 4)."""

    def __init__(self, coef: float) -> None:
        self.coef = coef

    def adapt(self, divergence: float, target: float) -> None:
        self.coef = float(kl.adaptive_kl_coef(self.coef, divergence, target))

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.coef = state["coef"]


@torch.no_grad()
def divergence(model: ActorCritic, head: Head, data: Mapping[str, Tensor]) -> float:
    """Mean KL(pi_old || pi) over an iteration's data."""
    return float(head.kl(data["params"], model.policy(data["obs"])).mean())


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "PPO is an actor-critic method that learns several times from each batch of fresh experience. The "
        "ratio of the new to the old probability of an action is clipped, so that an update has no reason to "
        "move the policy far from the one that acted. It is the usual first choice where simulation is cheap, "
        "for continuous and for discrete actions."
    ),
    "kind": "on-policy, model-free",
    "watch": (
        "rollout/ep_rew_mean",
        "train/approx_kl",
        "train/clip_fraction",
        "train/entropy_loss",
        "train/explained_variance",
    ),
    "wrong": (
        (
            "the return rises and falls back: updates are too large (train/approx_kl above .03): lower "
            "algo.lr, fewer algo.num_epochs, or algo.anneal_lr=true"
        ),
        "the return stands still and the entropy is near 0: exploration is over: algo.ent_coef=0.01",
        (
            "the critic explains nothing (train/explained_variance around 0): normalise observations and "
            "rewards (env.normalize_obs=true env.normalize_reward=true), or raise algo.vf_coef"
        ),
        "nothing moves (train/clip_fraction 0): raise algo.lr or algo.num_epochs",
    ),
    "try": (
        "rlx train algo=ppo env=cartpole",
        "rlx train -m algo=ppo env=cartpole algo.clip_coef=0.05,0.2,0.8 seed=1,2,3",
        "rlx train -m algo=ppo,ppo_penalty,a2c env=cartpole seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/approx_kl": (
        "Mean KL(pi_old || pi) over the iteration's minibatches, estimated by (r - 1) - log r, in nats. Healthy: "
        ".001 to .02. If not: above .03, updates leave the region where the old data holds: lower algo.lr or "
        "algo.num_epochs, or algo.target_kl=0.02 stops such iterations early; below .0001, nothing moves: raise "
        "algo.lr."
    ),
    "train/clip_fraction": (
        "Share of samples whose ratio left [1 - eps, 1 + eps] and whose gradient the clip stopped, from 0 to 1. "
        "Healthy: .05 to .2. If not: above .3, updates are too large: lower algo.lr or algo.num_epochs; 0 "
        "throughout, the clip does nothing: learn more from each batch (algo.num_epochs) or raise algo.lr."
    ),
    "train/clip_range": (
        "eps of the clip at this iteration. Healthy: algo.clip_coef, or falling to 0 with algo.anneal_clip=true. "
        "If not: a huge one (1e9) is no clip: the loss is then the plain surrogate, which leaves the trust region "
        "at will."
    ),
    "train/kl_coef": (
        "beta of the penalty objective: doubled when an iteration's KL is above 1.5 times algo.kl_target, halved "
        "when below two thirds of it. Healthy: moves by factors of 2 around one value. If not: growing without "
        "end, the updates are too large for any penalty: lower algo.lr."
    ),
    "train/policy_gradient_loss": (
        "Mean of the clipped (or penalised) surrogate with its sign reversed, over the iteration. Healthy: "
        "slightly below 0: the objective improves within an iteration. If not: positive in most iterations, later "
        "epochs undo what the first ones gain: fewer algo.num_epochs; its size says nothing of how good the "
        "policy is."
    ),
    "train/loss": (
        "Policy loss + c_v value loss - c_e entropy, mean over the iteration. Healthy: no value in particular, it "
        "is dominated by `train/value_loss`. If not: NaN or growing without end, lower algo.lr and normalise "
        "rewards; otherwise read its parts."
    ),
}
