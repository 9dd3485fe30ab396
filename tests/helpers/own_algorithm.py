"""An algorithm as its author writes it: parts that the losses of two learners read, and a coefficient in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlx.control.distributions import make_head
from rlx.control.networks import ActorCritic
from rlx.control.policy import Policy
from rlx.control.rollout import Rollout
from rlx.engine.learner import Learner
from rlx.engine.tape import Forward
from rlx.envs.make import make_envs
from rlx.run import Metrics, Run

CHANGES = 160  # the step at which the coefficient does: after 50 of the policy's gradient steps


@dataclass
class Config:
    name: str
    implementation: str
    lr: float
    engine: Literal["auto", "tape", "torch"]


class Clamped(ActorCritic):
    def _params(self, features: Tensor) -> Tensor:
        mean = self.actor(features)
        return torch.cat([mean, self.log_std.clamp(-5, 2).expand_as(mean)], -1)


def train(cfg: Any, run: Run) -> Iterator[tuple[int, Metrics]]:
    algo: Config = cfg.algo
    envs = make_envs(cfg.env, 2, run.seed)
    head = make_head(envs.action_space)
    model = Clamped(envs.observation_space.shape, head, cfg.model, run.generator("model"))
    temperature = nn.ParameterDict({"log_alpha": nn.Parameter(torch.zeros(()))})
    coef = 1.0

    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        params, value = model(batch["obs"])
        logprob, entropy = head.logprob_entropy(params, batch["action"])
        alpha = temperature["log_alpha"].exp().detach()
        gain = ((logprob - batch["logprob"]).exp() * batch["advantage"]).mean()
        total = coef * (value - batch["advantage"]).square().mean() - gain - 0.01 * alpha * entropy.mean()
        return total, {"loss": total, "alpha": alpha, "first": (logprob - batch["logprob"]).abs().max()}

    def alpha_loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total = temperature["log_alpha"] * (batch["entropy"].mean() - 1.0)
        return total, {"loss": total}

    learner = Learner(model, loss, engine=algo.engine)
    alpha_learner = Learner(temperature, alpha_loss, engine=algo.engine)
    rollout = Rollout(cfg.env, envs, model, head, 16, 0.99, run.rng("actions"), run.device, engine=algo.engine)
    judge = Forward(lambda x: (coef * model(x["obs"])[1],), run.device, engine=algo.engine)
    run.track(
        policy=model, temperature=temperature, learner=learner, alpha_learner=alpha_learner, rollout=rollout,
        normalizer=rollout.normalizer, judge=judge,
    )  # fmt: skip
    while run.step < cfg.total_steps:
        coef = 1.0 if run.step < CHANGES else 0.5
        batch = rollout.collect()
        batch |= {"advantage": batch["reward"] - batch["reward"].mean()}
        data = {name: rollout.rows(batch[name]) for name in ("obs", "action", "logprob", "advantage")}
        steps = [learner.step(data, None, algo.lr) for _ in range(10)]
        judged = [float(judge(obs=data["obs"])[0].mean()) for _ in range(10)][-1]
        entropy = head.logprob_entropy(model.policy(data["obs"]), data["action"])[1].detach()
        alpha_learner.step({"entropy": entropy}, None, 0.1)
        run.notice(learner.notice)
        run.notice(judge.notice)
        run.step += 32
        yield (
            run.step,
            {
                **rollout.metrics(), "train/loss": steps[-1]["loss"], "train/alpha": steps[0]["alpha"],
                "train/first": steps[0]["first"], "train/judged": judged,
            },
        )  # fmt: skip
    envs.close()


def load_policy(cfg: Any, run: Run) -> Policy:
    return Policy.restore(cfg, run)
