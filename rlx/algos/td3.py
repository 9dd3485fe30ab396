"""Twin delayed deep deterministic policy gradient; with one critic and no delay and smoothing, DDPG.

Fujimoto et al. 2018, arXiv:1802.09477, algorithm 1:

    for each step:
        a = pi(s) + noise; store (s, a, r, s') in the replay buffer
        for each gradient step:
            a~ = pi_target(s') + clip(noise, -c, c)                                  (target policy smoothing)
            y = r + gamma (1 - terminated) min_i Q_target_i(s', a~)                  (clipped double Q-learning)
            minimise  sum_i .5 (Q_i(s, a) - y)^2
            every d-th time:                                                         (delayed policy updates)
                minimise  -Q_1(s, pi(s))
                targets <- (1 - tau) targets + tau networks

DDPG (Lillicrap et al. 2016, arXiv:1509.02971) is num_critics=1, policy_delay=1, target_noise=0. Actions are uniform
until `learning_starts`; -1 and 1 are the bounds of the space. Left out: prioritised replay, recurrent networks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlx.config.ranges import Count, NonNegative
from rlx.control.acting import noise
from rlx.control.acting.box import BoxExplorer, BoxPolicy, make_critics, num_dimensions
from rlx.control.actors import Bounds, Critics, DeterministicActor, Target
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
    policy_delay: Count  # d: gradient steps of the critics for one of the policy and the targets
    target_noise: NonNegative  # standard deviation, of actions in [-1, 1]
    target_noise_clip: NonNegative  # c
    noise: Literal["gaussian", "ou"]  # of exploration: gaussian, or ou, which remembers itself
    noise_std: NonNegative


def check(cfg: ControlConfig[Config], envs: Envs) -> None:
    """What the algorithm asks of the rest of the configuration. Raises ConfigError."""
    Bounds(envs)
    check_buffer(cfg, envs)


def critic_loss(
    clip: float,
    critics: Critics,
    target_actor: DeterministicActor,
    target_critics: Critics,
    batch: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The critics' objective, and its diagnostics; `noise` is that of the smoothing."""
    with torch.no_grad():
        action = continuous.smoothed_action(target_actor(batch["next_obs"]), batch["noise"], clip)
        next_value = continuous.least_value(target_critics(batch["next_obs"], action))
        target = vf.td_target(batch["reward"], next_value, batch["terminated"], batch["discount"])
    q = critics(batch["obs"], batch["action"])
    loss = vf.value_loss(q, target.expand_as(q)).mean(-1).sum()
    return loss, {"critic_loss": loss, "q_value": q.mean(), "target_value": target.mean()}


def actor_loss(
    actor: DeterministicActor, critics: Critics, batch: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy's objective: the deterministic policy gradient, through the first critic."""
    loss = -critics.first(batch["obs"], actor(batch["obs"])).mean()
    return loss, {"actor_loss": loss}


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs = make_envs(cfg.env, algo.num_envs, run.seed)
    run.notice(envs.notice or "")
    actor, critics = make_actor(cfg, envs, run), make_critics(cfg, envs, run)
    learn = partial(
        Learner, optimizer=algo.optimizer, eps=algo.adam_eps, max_grad_norm=algo.max_grad_norm, engine=algo.engine
    )
    target_actor, target_critics = Target(actor), Target(critics)
    actor_learner = learn(actor, partial(actor_loss, actor, critics))
    targets = target_actor.network, target_critics.network
    critic_learner = learn(critics, partial(critic_loss, algo.target_noise_clip, critics, *targets))
    dim = num_dimensions(envs)
    explorer = BoxExplorer(
        cfg.env, envs, actor, noise.KINDS[algo.noise](algo.num_envs, dim), make_replay(cfg, envs, run.dir / "buffer"),
        algo.gamma, algo.learning_starts, run.rng("actions"), run.device, engine=algo.engine,
    )  # fmt: skip
    run.track(
        policy=actor, critics=critics, target_policy=target_actor.network, target_critics=target_critics.network,
        optimizer=actor_learner, critic_optimizer=critic_learner, normalizer=explorer.normalizer, explorer=explorer,
    )  # fmt: skip
    minibatches, smoothing, N, lr = run.rng("minibatches"), run.rng("smoothing"), algo.num_envs, algo.lr

    while run.step < cfg.total_steps:
        critic_steps: list[dict[str, float]] = []
        actor_steps: list[dict[str, float]] = []
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
                batch["noise"] = algo.target_noise * smoothing.standard_normal((algo.batch_size, dim), "float32")
                data = tensors(batch, run.device)
                critic_steps.append(critic_learner.step(data, None, lr))
                if critic_learner.num_steps % algo.policy_delay == 0:
                    actor_steps.append(actor_learner.step({"obs": data["obs"]}, None, lr))
                    target_actor.follow(actor_learner, algo.tau)
                    target_critics.follow(critic_learner, algo.tau)
        run.notice(critic_learner.notice or actor_learner.notice or explorer.notice)

        metrics = {
            **explorer.metrics(),
            **{f"train/{name}": value for name, value in (means(actor_steps) | means(critic_steps)).items()},
            "train/learning_rate": lr,
            "train/n_updates": critic_learner.num_steps,
        }
        yield run.step, metrics
    envs.close()


def make_actor(cfg: ControlConfig[Config], envs: Envs, run: Run) -> DeterministicActor:
    shape, generator = envs.observation_space.shape, run.generator("model")
    return DeterministicActor(shape, num_dimensions(envs), cfg.model, generator, cfg.algo.noise_std).to(run.device)


def load_policy(cfg: ControlConfig[Config], run: Run) -> BoxPolicy:
    """The policy that a checkpoint holds, with its frozen observation statistics."""
    return BoxPolicy.restore(cfg, run, make_actor, make_critics)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "TD3 learns a deterministic policy for continuous actions by the gradient of a critic through its action. "
        "Of two critics the smaller value counts, target actions are smoothed by noise, and the policy is updated "
        "half as often: three cures of DDPG's over-estimation. It learns from a replay buffer, and explores by "
        "noise on its actions."
    ),
    "kind": "off-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "train/q_value", "train/actor_loss", "train/critic_loss"),
    "wrong": (
        (
            "the actions stand at the bounds of the space from the start: the critic was wrong early: a larger "
            "algo.learning_starts, a lower algo.lr"
        ),
        ("Q-values grow beyond any possible return: algo.num_critics=2, algo.target_noise=0.2, a smaller algo.tau"),
        ("a sparse reward is never found: noise of single steps goes nowhere: algo.noise=ou, a larger algo.noise_std"),
    ),
    "try": (
        "rlx train algo=td3 env=pendulum",
        "rlx train algo=ddpg env=pendulum",
        "rlx train -m algo=sac,td3,ddpg env=pendulum seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/actor_loss": (
        "Minus the mean Q_1(s, pi(s)), in units of return. Healthy: falls as the policy improves, to about minus "
        "`train/q_value`. If not: falling while the return does not rise, the policy exploits errors of the critic: "
        "a larger algo.policy_delay, a lower algo.lr."
    )
}
