"""Soft actor-critic: the policy is paid for its entropy, at a price that keeps the entropy near a target.

Haarnoja et al. 2018, arXiv:1812.05905, algorithm 1:

    for each step:
        a ~ pi(.|s); store (s, a, r, s') in the replay buffer
        for each gradient step:
            a' ~ pi(.|s');  y = r + gamma (1 - terminated) (min_i Q_target_i(s', a') - alpha log pi(a'|s'))
            minimise  sum_i .5 (Q_i(s, a) - y)^2
            minimise  alpha log pi(a~|s) - min_i Q_i(s, a~),   a~ = tanh(mean(s) + std(s) noise)
            minimise  -log alpha (log pi(a~|s) + target entropy)
            Q_target <- (1 - tau) Q_target + tau Q

Actions are uniform until `learning_starts`; -1 and 1 are the bounds of the space, and entropies are those of such
actions. `noise=sde` explores by generalised state-dependent noise (Raffin et al. 2022, arXiv:2005.05719). Left out: the
value network of the first version (arXiv:1801.01290), Discrete actions, recurrent networks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rlx.config.ranges import NonNegative, Positive, Whole
from rlx.control.acting.box import BoxExplorer, BoxPolicy, make_critics, num_dimensions
from rlx.control.acting.noise import GaussianNoise, Held
from rlx.control.actors import Bounds, Critics, SquashedGaussian, StateDependent, Target
from rlx.control.config import ControlConfig
from rlx.control.off_policy import OffPolicy, check_buffer, make_replay, tensors
from rlx.engine.learner import Learner
from rlx.envs.batch import Envs
from rlx.envs.make import make_envs
from rlx.functional import continuous, schedules, value as vf
from rlx.run import Metrics, Run, means

WORLD = "control"
FROZEN = ("num_envs", "num_critics", "noise", "buffer_ram_mb", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Box",)


@dataclass
class Config(OffPolicy):
    num_critics: Annotated[int, Field(ge=1, le=100)]
    alpha: Positive  # the price of entropy, at the start
    tune_alpha: bool
    alpha_min: NonNegative
    alpha_max: Positive
    target_entropy: float | None  # of actions in [-1, 1]; None: less one a dimension
    noise: Literal["gaussian", "sde"]  # of exploration
    noise_every: Whole  # steps for which sde holds its noise; 0: between two bursts of gradient steps

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha_min <= self.alpha <= self.alpha_max:
            raise ValueError(f"alpha={self.alpha}: must lie between alpha_min={self.alpha_min} and {self.alpha_max}")


class Temperature(nn.Module):
    """alpha, by its logarithm."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.log_alpha = nn.Parameter(torch.tensor(math.log(alpha)))

    def alpha(self) -> Tensor:
        return self.log_alpha.detach().exp()

    @torch.no_grad()
    def limit(self, low: float, high: float) -> None:
        self.log_alpha.clamp_(math.log(low) if low else -math.inf, math.log(high))


def check(cfg: ControlConfig[Config], envs: Envs) -> None:
    """What the algorithm asks of the rest of the configuration. Raises ConfigError."""
    Bounds(envs)
    check_buffer(cfg, envs)


def critic_loss(
    actor: SquashedGaussian, critics: Critics, target: Critics, temperature: Temperature, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The critics' objective, and its diagnostics."""
    with torch.no_grad():
        action, logprob = actor(batch["next_obs"], batch["next_noise"])
        next_q = continuous.least_value(target(batch["next_obs"], action))
        target_value = continuous.soft_target(
            batch["reward"], next_q, logprob, batch["terminated"], batch["discount"], temperature.alpha()
        )
    q = critics(batch["obs"], batch["action"])
    loss = vf.value_loss(q, target_value.expand_as(q)).mean(-1).sum()
    return loss, {"critic_loss": loss, "q_value": q.mean(), "target_value": target_value.mean()}


def actor_loss(
    actor: SquashedGaussian, critics: Critics, temperature: Temperature, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's objective, and its diagnostics."""
    action, logprob = actor(batch["obs"], batch["noise"])
    q = continuous.least_value(critics(batch["obs"], action))
    loss = continuous.sac_policy(logprob, q, temperature.alpha()).mean()
    return loss, {"actor_loss": loss, "entropy": -logprob.mean(), "logprob": logprob}


def temperature_loss(
    temperature: Temperature, target_entropy: float, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    loss = continuous.temperature(temperature.log_alpha, batch["logprob"], target_entropy).mean()
    return loss, {"ent_coef_loss": loss, "ent_coef": temperature.alpha()}


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs = make_envs(cfg.env, algo.num_envs, run.seed)
    run.notice(envs.notice or "")
    dim = num_dimensions(envs)
    actor, critics, temperature = make_actor(cfg, envs, run), make_critics(cfg, envs, run), Temperature(algo.alpha)
    target, temperature = Target(critics), temperature.to(run.device)
    entropy = -float(dim) if algo.target_entropy is None else algo.target_entropy
    learn = partial(
        Learner, optimizer=algo.optimizer, eps=algo.adam_eps, max_grad_norm=algo.max_grad_norm, engine=algo.engine
    )
    critic_learner = learn(critics, partial(critic_loss, actor, critics, target.network, temperature))
    actor_learner = learn(actor, partial(actor_loss, actor, critics, temperature))
    temperature_learner = learn(temperature, partial(temperature_loss, temperature, entropy))
    explorer = BoxExplorer(
        cfg.env, envs, actor, make_noise(algo, actor), make_replay(cfg, envs, run.dir / "buffer"),
        algo.gamma, algo.learning_starts, run.rng("actions"), run.device, engine=algo.engine,
    )  # fmt: skip
    run.track(
        policy=actor, critics=critics, target_critics=target.network, temperature=temperature,
        optimizer=actor_learner, critic_optimizer=critic_learner, temperature_optimizer=temperature_learner,
        normalizer=explorer.normalizer, explorer=explorer,
    )  # fmt: skip
    minibatches, sampling, N, lr = run.rng("minibatches"), run.rng("sampling"), algo.num_envs, algo.lr

    while run.step < cfg.total_steps:
        steps: list[dict[str, float]] = []
        for _ in range(algo.rounds):
            # Collect
            first, run.step = run.step, run.step + N * algo.train_freq
            explorer.collect(range(first, run.step, N))
            if run.step <= algo.learning_starts:
                continue

            # Learn
            lr = algo.lr * schedules.linear(run.step / cfg.total_steps) if algo.anneal_lr else algo.lr
            for _ in range(algo.burst):
                batch = explorer.sample(minibatches, algo.batch_size)
                batch["noise"], batch["next_noise"] = sampling.standard_normal((2, algo.batch_size, dim), "float32")
                data = tensors(batch, run.device)
                critic_info = critic_learner.step(data, None, lr)
                info = actor_learner.step({name: data[name] for name in ("obs", "noise")}, None, lr)
                if algo.tune_alpha:
                    info |= temperature_learner.step(tensors(actor_learner.rows, run.device), None, lr)
                    temperature.limit(algo.alpha_min, algo.alpha_max)
                target.follow(critic_learner, algo.tau)
                steps.append(info | critic_info)  # grad_norm is the critics'
        run.notice(critic_learner.notice or actor_learner.notice or explorer.notice)

        metrics = {
            **explorer.metrics(),
            **{f"train/{name}": value for name, value in means(steps).items()},
            "train/learning_rate": lr,
            "train/n_updates": critic_learner.num_steps,
        }
        yield run.step, metrics
    envs.close()


def make_actor(cfg: ControlConfig[Config], envs: Envs, run: Run) -> SquashedGaussian:
    kind = StateDependent if cfg.algo.noise == "sde" else SquashedGaussian
    shape, generator = envs.observation_space.shape, run.generator("model")
    return kind(shape, num_dimensions(envs), cfg.model, generator).to(run.device)


def make_noise(algo: Config, actor: SquashedGaussian) -> GaussianNoise | Held:
    if isinstance(actor, StateDependent):
        return Held(algo.num_envs, actor.num_features, actor.dim, algo.noise_every)
    return GaussianNoise(algo.num_envs, actor.dim)


def load_policy(cfg: ControlConfig[Config], run: Run) -> BoxPolicy:
    """The policy that a checkpoint holds, with its frozen observation statistics."""
    return BoxPolicy.restore(cfg, run, make_actor, make_critics)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "SAC learns a random policy for continuous actions that is paid for its entropy as well as for reward, so "
        "that it goes on exploring. Two critics value its actions and the smaller value counts, which keeps "
        "over-estimation down. It learns from a replay buffer, and finds the price of entropy itself."
    ),
    "kind": "off-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "train/entropy", "train/ent_coef", "train/q_value"),
    "wrong": (
        (
            "the return stays where it was and alpha grows: the target entropy cannot be reached: a lower "
            "algo.target_entropy, or a limit, algo.alpha_max"
        ),
        (
            "entropy is gone early and the return stands still: a higher algo.target_entropy, or a larger "
            "algo.alpha with algo.tune_alpha=false"
        ),
        ("Q-values grow beyond any possible return: a lower algo.lr, a smaller algo.tau, env.normalize_reward=true"),
    ),
    "try": (
        "rlx train algo=sac env=pendulum",
        "rlx train -m algo=sac,td3,ddpg env=pendulum seed=1,2,3",
        "rlx train algo=sac env=mountaincar_continuous algo.noise=sde",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/ent_coef": (
        "alpha: the price of entropy, in units of reward. Healthy: falls from algo.alpha to where `train/entropy` "
        "meets its target. If not: growing without end, the target cannot be reached: a lower algo.target_entropy; 0 "
        "early, the policy is paid for reward alone: a higher one."
    ),
    "train/ent_coef_loss": (
        "-log alpha (log pi + target entropy), mean. Healthy: near 0 when entropy meets its target. If not: far from 0 "
        "for long, look at `train/entropy` and `train/ent_coef`."
    ),
    "train/entropy": (
        "Minus the mean log-density of actions, of actions in [-1, 1], in nats. Healthy: falls towards "
        "algo.target_entropy (null: minus the number of action dimensions). If not: far below it, the policy has lost "
        "its randomness: a higher algo.target_entropy."
    ),
    "train/actor_loss": (
        "Mean alpha log pi(a|s) - min Q(s, a) of the policy's own actions, in units of return. Healthy: about minus "
        "`train/q_value`. If not: rising while the return falls, the critics mislead it: a lower algo.lr, more "
        "algo.num_critics."
    ),
}
