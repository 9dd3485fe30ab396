"""Trust region policy optimisation.

Schulman et al. 2015, arXiv:1502.05477, algorithm 1 made practical (section 6, appendix C), with the advantages of
Schulman et al. 2016, arXiv:1506.02438:

    for each iteration:
        run pi_old in N environments for T steps
        compute advantages A (GAE) and returns R = A + V
        maximise  E[r A]  s.t.  mean KL(pi_old || pi) <= delta,  r = pi / pi_old:
            g = grad E[r A];  F = Hessian of the mean KL, used only as v -> F v
            x = (F + lambda I)^-1 g                                    by conjugate gradient
            s = sqrt(2 delta / x'(F + lambda I) x) x                   the quadratic model's KL is delta
            try theta + s, theta + c s, theta + c^2 s, ... until E[r A] is better and the KL is at most delta;
            if none is, theta stays what it was, bit for bit
        for K epochs, in minibatches: minimise .5 (V - R)^2 over the critic

The direction of the KL is from the old policy to the new one: KL(pi_old || pi) = E_{a ~ pi_old} log pi_old(a|s) /
pi(a|s), the mean over the states that pi_old visited. It is large where pi drops an action that pi_old took. The other
direction, KL(pi || pi_old), has the same Hessian at pi_old: the step would point the same way, the line search differ.

Policy and value share no trunk, because the critic's steps would move the policy outside its trust region:
model.shared=true is refused. A CNN belongs to the policy; the critic reads its features and does not train them.
Left out: the vine sampling of the paper's section 5.2 (it needs a simulator that can be put back into a state), an
entropy bonus and recurrent policies.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, NonNegative, Positive, Unit
from rlx.control.config import ControlConfig
from rlx.control.distributions import Head
from rlx.control.networks import ActorCritic
from rlx.control.on_policy import Agent
from rlx.control.rollout import passes
from rlx.engine.learner import Learner
from rlx.engine.optim import Flat, Optimizer
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.functional import returns, trust_region as tr, value as vf
from rlx.run import Metrics, Run

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
    gae_lambda: Unit  # lambda of GAE
    target_kl: Positive  # delta
    cg_steps: Count
    cg_damping: NonNegative  # lambda of F + lambda I
    fvp_fraction: Annotated[float, Field(gt=0, le=1)]  # of the rows, for F
    line_search_steps: Count
    line_search_shrink: Annotated[float, Field(gt=0, lt=1)]  # c
    normalize_advantage: bool
    lr: Positive  # of the critic
    num_epochs: Count  # K
    num_minibatches: Count  # of the critic
    adam_eps: Positive
    engine: Engine
    optimizer: Optimizer = "adam"

    def __post_init__(self) -> None:
        size = self.num_envs * self.num_steps
        if self.num_minibatches > size:
            raise ValueError(f"num_minibatches={self.num_minibatches}: must be at most num_envs * num_steps = {size}")
        if self.normalize_advantage and size == 1:
            raise ValueError("num_steps=1: a single row has the normalised advantage 0 (normalize_advantage=false)")


def check(cfg: ControlConfig[Config], _envs: Envs) -> None:
    """What the algorithm asks of the rest of the configuration. Raises ConfigError."""
    if cfg.model.shared:
        raise ConfigError(
            f"model.shared=true: {cfg.algo.name} needs false (the critic's steps would move a shared trunk, and with "
            "it the policy, outside the trust region)"
        )


class TrustRegion:
    """The policy's step. `flat` are its parameters: all but the critic's, log standard deviations and a CNN too."""

    def __init__(self, cfg: Config, model: ActorCritic, head: Head) -> None:
        self.cfg, self.model, self.head = cfg, model, head
        self.flat = Flat(model.policy_parameters())

    def loss_and_kl(self, data: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """-E[r A] and the mean KL(pi_old || pi) of the policy as it is."""
        params = self.model.policy(data["obs"])
        logprob, _ = self.head.logprob_entropy(params, data["action"])
        kl = self.head.kl(data["params"], params)
        return tr.surrogate(logprob, data["logprob"], data["advantage"]).mean(), kl.mean()

    def step(self, data: Mapping[str, Tensor], subset: Tensor | None = None) -> dict[str, float]:
        """Improve the policy on this iteration's data, or leave it as it is. `subset`: the rows for F (None: all).

        Raises FloatingPointError where the gradient is not finite; the parameters are then untouched.
        """
        cfg, theta = self.cfg, self.flat.data
        loss, kl = self.loss_and_kl(data)
        gradient = tr.flat_gradient(loss, self.flat.params)
        loss = loss.detach()
        if not torch.isfinite(gradient).all():
            raise FloatingPointError(f"the policy gradient is not finite (objective {-float(loss)})")

        # Direction and length
        if subset is not None:
            _, kl = self.loss_and_kl({name: rows[subset] for name, rows in data.items()})
        fisher = tr.fisher_vector_product(kl, self.flat.params, cfg.cg_damping)
        direction = tr.conjugate_gradient(fisher, -gradient, cfg.cg_steps)
        step = tr.step_length(direction, fisher(direction), cfg.target_kl) * direction

        # Line search
        before, accepted, tries = theta.clone(), False, 0
        new_loss, new_kl = loss, torch.zeros(())
        with torch.no_grad():
            while not accepted and tries < cfg.line_search_steps:
                torch.add(before, step, alpha=cfg.line_search_shrink**tries, out=theta)
                new_loss, new_kl = self.loss_and_kl(data)
                accepted = bool((new_loss < loss) & (new_kl <= cfg.target_kl))  # False for NaN
                tries += 1
            if not accepted:
                theta.copy_(before)
                new_loss, new_kl = loss, torch.zeros(())
        return {
            "policy_objective": -float(new_loss),
            "kl_divergence_loss": float(new_kl),
            "is_line_search_success": float(accepted),
            "line_search": tries,
        }


def value_loss(critic: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The critic's objective on one minibatch of features and returns."""
    loss = vf.value_loss(critic(batch["features"]).squeeze(-1), batch["return_"]).mean()
    return loss, {"loss": loss}


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs, head, model, rollout = agent = Agent.new(cfg, run)
    check(cfg, envs)
    policy = TrustRegion(algo, model, head)
    critic = Learner(
        model.critic, partial(value_loss, model.critic), optimizer=algo.optimizer, eps=algo.adam_eps, engine=algo.engine
    )
    agent.track(run, optimizer=critic)
    shuffle, choose = run.rng("minibatches"), run.rng("fisher")

    size = algo.num_envs * algo.num_steps
    while run.step < cfg.total_steps:
        # Collect
        batch = rollout.collect()

        # Advantages
        advantage = returns.gae(
            batch["reward"], batch["value"], batch["next_value"], batch["terminated"], batch["done"],
            algo.gamma, algo.gae_lambda,
        )  # fmt: skip
        return_ = advantage + batch["value"]
        explained = vf.explained_variance(batch["value"], return_)

        # Learn: the policy
        data = {name: rollout.rows(batch[name]) for name in ("obs", "action", "logprob", "params")}
        advantage = rollout.rows(advantage)
        data["advantage"] = returns.normalize(advantage) if algo.normalize_advantage else advantage
        rows, subset = len(advantage), None
        if algo.fvp_fraction < 1:
            subset = torch.from_numpy(choose.permutation(rows)[: max(1, round(algo.fvp_fraction * rows))]).to(
                run.device
            )
        info = policy.step(data, subset)

        # Learn: the critic
        with torch.no_grad():
            targets = {"features": model.encode(data["obs"]), "return_": rollout.rows(return_)}
        losses = [
            critic.step(targets, index, algo.lr)["loss"]
            for index in passes(algo.num_epochs, shuffle, rows, algo.num_minibatches, run.device)
        ]
        run.notice(critic.notice or rollout.notice)

        run.step += size
        yield run.step, agent.metrics(
            info, value_loss=sum(losses) / len(losses), explained_variance=float(explained), learning_rate=algo.lr,
            n_updates=run.step // size,
        )  # fmt: skip
    envs.close()


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "TRPO takes the largest step in the direction of the natural gradient that keeps the mean KL between "
        "the old and the new policy below a bound. Conjugate gradient finds the direction without the Fisher "
        "matrix, a line search makes sure that the objective improves and the bound holds. Its updates are "
        "safe and few; PPO is the cheaper idea that followed."
    ),
    "kind": "on-policy, model-free",
    "watch": (
        "rollout/ep_rew_mean",
        "train/kl_divergence_loss",
        "train/is_line_search_success",
        "train/explained_variance",
    ),
    "wrong": (
        (
            "the line search refuses (train/is_line_search_success 0): raise algo.cg_damping, more steps an "
            "iteration (algo.num_steps)"
        ),
        "learning is slow: a larger algo.target_kl, or smaller batches for more updates",
        "the critic explains nothing: more algo.num_epochs, a higher algo.lr (of the critic)",
    ),
    "try": (
        "rlx train algo=trpo env=cartpole",
        "rlx train -m algo=trpo env=cartpole algo.target_kl=0.001,0.01,0.1 seed=1,2,3",
        "rlx train -m algo=trpo,ppo env=pendulum seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/policy_objective": (
        "E[r A] after the step, the surrogate that was maximised, over the iteration's data. Healthy: above 0: "
        "the step improved it. If not: 0 in most iterations, the line search refuses every step (see "
        "`train/is_line_search_success`)."
    ),
    "train/kl_divergence_loss": (
        "Mean KL(pi_old || pi) of the step taken, in nats; 0 where none was. Healthy: just below algo.target_kl. "
        "If not: far below it throughout, the line search shrinks each step: a larger algo.cg_damping or batch "
        "gives better directions."
    ),
    "train/is_line_search_success": (
        "1 where the line search accepted a step, 0 where the policy stayed as it was. Healthy: 1 in nearly all "
        "iterations. If not: raise algo.line_search_steps, algo.cg_damping or the batch (algo.num_steps); "
        "advantages that are all 0 leave nothing to search for."
    ),
    "train/line_search": (
        "Steps that the line search tried. Healthy: 1 to 3. If not: near algo.line_search_steps, the quadratic "
        "model overestimates what a step may be: raise algo.cg_damping."
    ),
}
