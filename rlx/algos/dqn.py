"""Deep Q-learning: with a target network, and double, dueling, n-step and prioritised by configuration.

Mnih et al. 2015, Nature 518, algorithm 1:

    for each round:
        take k steps epsilon-greedily in Q; store them in the replay buffer
        every C steps: Q_target <- Q                          (hard; or Q_target <- (1 - tau) Q_target + tau Q: soft)
        for each gradient step:
            sample a minibatch; y = R + gamma^n (1 - terminated) V(s')
            minimise  huber(Q(s, a) - y)  or  .5 (Q(s, a) - y)^2
    V(s') = max_a Q_target(s', a)                                                  (DQN)
          = Q_target(s', argmax_a Q(s', a))         double: van Hasselt et al. 2016, arXiv:1509.06461
    Q = V + A - mean A                              dueling: Wang et al. 2016, arXiv:1511.06581
    R = sum_{k<n} gamma^k r_{t+k}                   n-step: Sutton & Barto 2018, section 7.1; no off-policy correction
    P(i) ~ |td error|^alpha, weighted               prioritised: Schaul et al. 2016, arXiv:1511.05952

Actions are random until `learning_starts`. A target network can change only while the environments are stepped, so
the successors of all minibatches of a round are valued in one forward pass. Left out: distributional values and noisy
layers (the rest of Rainbow), recurrent networks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rlx.config.ranges import Count, Unit
from rlx.control.acting.q_values import Explorer, QPolicy, in_pieces, num_discrete
from rlx.control.config import ControlConfig
from rlx.control.networks import QNetwork
from rlx.control.off_policy import OffPolicy, check_buffer, make_replay, tensors
from rlx.engine.learner import Learner
from rlx.engine.optim import Flat
from rlx.engine.tape import Forward
from rlx.envs.batch import Envs
from rlx.envs.make import make_envs
from rlx.envs.spaces import mask_size
from rlx.functional import schedules, value as vf
from rlx.replay.prioritized import Priorities
from rlx.run import Metrics, Run, means

WORLD = "control"
FROZEN = ("num_envs", "dueling", "prioritized", "buffer_ram_mb", "optimizer")  # keys that a resume cannot change
SHOWN = {"rollout/ep_rew_mean": "return {:.1f}"}
METRICS = ("eval/mean_reward", "rollout/ep_rew_mean")
ACTIONS = ("Discrete",)


@dataclass
class Config(OffPolicy):
    loss: Literal["huber", "mse"]
    double: bool
    dueling: bool
    prioritized: bool
    per_alpha: Unit
    per_beta: Unit  # at the start; 1 at the end
    target_update_every: Count  # C, environment steps
    epsilon: Unit  # at the start
    final_epsilon: Unit
    exploration_fraction: Annotated[float, Field(gt=0, le=1)]  # of the run, in which epsilon falls linearly


def check(cfg: ControlConfig[Config], envs: Envs) -> None:
    """What the algorithm asks of the rest of the configuration. Raises ConfigError."""
    check_buffer(cfg, envs)


def loss(cfg: Config, q_network: QNetwork, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of one minibatch, and its diagnostics; `target_q` is Q_target(s', .)."""
    q = q_network(batch["obs"]).gather(-1, batch["action"][:, None]).squeeze(-1)
    if cfg.double:
        with torch.no_grad():
            next_value = vf.double_value(q_network(batch["next_obs"]), batch["target_q"])
    else:
        next_value = vf.max_value(batch["target_q"])
    target = vf.td_target(batch["reward"], next_value, batch["terminated"], batch["discount"])
    error = vf.huber(q, target) if cfg.loss == "huber" else vf.value_loss(q, target)
    total = (batch["weight"] * error).mean() if cfg.prioritized else error.mean()
    info = {"loss": total, "q_value": q.mean(), "target_value": target.mean()}
    return total, info | ({"td_error": q - target} if cfg.prioritized else {})


def train(cfg: ControlConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    envs = make_envs(cfg.env, algo.num_envs, run.seed)
    run.notice(envs.notice or "")
    q_network, target = (make_network(cfg, envs, run) for _ in range(2))
    learner = Learner(
        q_network, partial(loss, algo, q_network),
        optimizer=algo.optimizer, eps=algo.adam_eps, max_grad_norm=algo.max_grad_norm, engine=algo.engine,
    )  # fmt: skip
    target_params = Flat(target).data
    target_params.copy_(learner.flat.data)
    priorities = partial(Priorities, alpha=algo.per_alpha) if algo.prioritized else None
    replay = make_replay(cfg, envs, run.dir / "buffer", priorities)
    explorer = Explorer(
        cfg.env, envs, q_network, replay, algo.gamma, run.rng("actions"), run.device, engine=algo.engine
    )
    evaluate = Forward(lambda x: (target(x["obs"]),), run.device, engine=algo.engine)
    run.track(
        policy=q_network, target=target, optimizer=learner, normalizer=explorer.normalizer, explorer=explorer,
        evaluate=evaluate,
    )  # fmt: skip
    minibatches, N, lr = run.rng("minibatches"), algo.num_envs, algo.lr

    while run.step < cfg.total_steps:
        steps: list[dict[str, float]] = []
        for _ in range(algo.rounds):
            # Collect
            first, run.step = run.step, run.step + N * algo.train_freq
            explorer.collect([epsilon(cfg, step) for step in range(first, run.step, N)])
            # Q does not change meanwhile: u soft updates are one of 1 - (1 - tau)^u.
            if updates := run.step // algo.target_update_every - first // algo.target_update_every:
                target_params.lerp_(learner.flat.data, 1 - (1 - algo.tau) ** updates)
            if run.step <= algo.learning_starts:
                continue

            # Learn
            progress = run.step / cfg.total_steps
            lr = algo.lr * schedules.linear(progress) if algo.anneal_lr else algo.lr
            beta = schedules.linear(progress, algo.per_beta, 1.0)
            # Priorities change with each step; otherwise as many minibatches at a time as are cheap to hold.
            at_once = 1 if algo.prioritized else max(1, 8192 // algo.batch_size)
            for done in range(0, algo.burst, at_once):
                rows = min(at_once, algo.burst - done) * algo.batch_size
                batch = explorer.sample(minibatches, rows, beta)
                data = tensors(batch, run.device)
                data["target_q"] = in_pieces(evaluate, data["next_obs"])
                if not algo.double:
                    del data["next_obs"]
                for start in range(0, rows, algo.batch_size):
                    steps.append(learner.step(data, slice(start, start + algo.batch_size), lr))
                if algo.prioritized:
                    replay.rerank(learner.rows["td_error"])
        run.notice(learner.notice or evaluate.notice or explorer.notice)

        metrics = {
            **explorer.metrics(),
            **{f"train/{name}": value for name, value in means(steps).items()},
            "train/learning_rate": lr,
            "train/n_updates": learner.num_steps,
            "rollout/exploration_rate": epsilon(cfg, run.step),
        }
        yield run.step, metrics
    envs.close()


def epsilon(cfg: ControlConfig[Config], step: int) -> float:
    """How probable a random action is at an environment step."""
    algo = cfg.algo
    if step < algo.learning_starts:
        return 1.0
    progress = step / (algo.exploration_fraction * cfg.total_steps)
    return schedules.linear(progress, algo.epsilon, algo.final_epsilon)


def make_network(cfg: ControlConfig[Config], envs: Envs, run: Run) -> QNetwork:
    shape, num_actions, masked = envs.observation_space.shape, num_discrete(envs), mask_size(envs.action_space)
    return QNetwork(shape, num_actions, cfg.model, run.generator("model"), cfg.algo.dueling, masked).to(run.device)


def load_policy(cfg: ControlConfig[Config], run: Run) -> QPolicy:
    """The greedy policy a checkpoint holds, with its frozen observation statistics."""
    return QPolicy.restore(cfg, run, make_network)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "DQN learns the value of every action with a network, from transitions that a replay buffer keeps and "
        "mixes. A second network, updated rarely, gives the targets, so that they do not run away from the "
        "network that chases them. It serves discrete actions, and reuses old experience, which methods that "
        "learn on-policy cannot."
    ),
    "kind": "off-policy, model-free",
    "watch": ("rollout/ep_rew_mean", "rollout/exploration_rate", "train/q_value", "train/loss"),
    "wrong": (
        (
            "Q-values grow beyond any possible return: the max over-estimates and targets chase themselves: "
            "algo.double=true, a lower algo.lr, a rarer algo.target_update_every"
        ),
        (
            "nothing is learned: learning_starts is not over, or epsilon is still high: look at "
            "train/n_updates and rollout/exploration_rate"
        ),
        (
            "the return falls back after a good time: the buffer forgot early experience: a larger "
            "algo.buffer_size, a lower algo.lr"
        ),
    ),
    "try": (
        "rlx train algo=dqn env=cartpole",
        "rlx train -m algo=dqn,double_dqn,dueling_dqn,prioritized_dqn env=cartpole seed=1,2,3",
        "rlx train -m algo=dqn env=cartpole algo.target_update_every=1,100,1000 seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rollout/exploration_rate": (
        "epsilon: the probability that an action is random. Healthy: 1 at the start, algo.final_epsilon after "
        "algo.exploration_fraction of the run. If not: still high at the end, the agent never acts on what it has "
        "learned: a smaller algo.exploration_fraction or algo.final_epsilon."
    ),
    "train/q_value": (
        "Mean Q(s, a) of the minibatches, in units of discounted return. Healthy: grows to what is really earned "
        "from such states, and stays there. If not: above any possible return (max reward / (1 - gamma)), the max "
        "over-estimates: algo.double=true, a slower target (algo.target_update_every), a lower algo.lr."
    ),
    "train/target_value": (
        "Mean of the targets y = R + gamma^n V(s'), in units of discounted return. Healthy: close to "
        "`train/q_value`. If not: running ahead of it without end, targets chase themselves: update the target "
        "network more rarely, lower algo.lr."
    ),
    "train/loss": (
        "Mean Huber (or .5 squared) error of Q(s, a) against its target. Healthy: small beside the Q-values; it "
        "may rise when new parts of the environment are reached. If not: growing with `train/q_value`, learning "
        "diverges: lower algo.lr, algo.double=true, a larger algo.buffer_size."
    ),
}
