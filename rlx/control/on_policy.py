"""What algorithms that learn from their own policy's rollouts have in common, before their loop and behind it."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from rlx.config.schema import Algo
from rlx.control.config import ControlConfig
from rlx.control.distributions import Head, make_head
from rlx.control.networks import ActorCritic
from rlx.control.policy import engine_of
from rlx.control.rollout import Rollout
from rlx.envs.batch import Envs
from rlx.envs.make import make_envs
from rlx.run import Run, Stateful, Values


class OnPolicy(Algo, Protocol):
    """The section of such an algorithm."""

    num_envs: int  # N
    num_steps: int  # T
    gamma: float


class Agent(NamedTuple):
    """Environments, and the policy that acts in them."""

    envs: Envs
    head: Head
    model: ActorCritic
    rollout: Rollout

    @classmethod
    def new(
        cls, cfg: ControlConfig[OnPolicy], run: Run, action_values: bool = False, whole_episodes: bool = False
    ) -> "Agent":
        """As the configuration describes it. `action_values`: the critic is q(s, .), not V(s)."""
        algo = cfg.algo
        envs = make_envs(cfg.env, algo.num_envs, run.seed)
        run.notice(envs.notice or "")
        head = make_head(envs.action_space)
        values = head.size if action_values else None
        model = ActorCritic(envs.observation_space.shape, head, cfg.model, run.generator("model"), values)
        model = model.to(run.device)
        rollout = Rollout(
            cfg.env, envs, model, head, algo.num_steps, algo.gamma, run.rng("actions"), run.device,
            whole_episodes=whole_episodes, engine=engine_of(cfg),
        )  # fmt: skip
        return cls(envs, head, model, rollout)

    def track(self, run: Run, **learners: Stateful) -> None:
        """Save all of it with the run, and what learns."""
        run.track(policy=self.model, **learners, normalizer=self.rollout.normalizer, rollout=self.rollout)

    def metrics(self, info: Mapping[str, float], **more: float) -> Values:
        """What an iteration logs: its episodes, and `info` and `more` of training."""
        std = {} if self.model.log_std is None else {"std": float(self.model.log_std.detach().exp().mean())}
        learning = {**info, **more, **std}
        return {**self.rollout.metrics(), **{f"train/{name}": value for name, value in learning.items()}}


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "train/std": (
        "Standard deviation of the Gaussian policy, mean over action dimensions, in units of the action. Healthy: "
        "begins at exp(model.log_std_init) and shrinks slowly. If not: below .1 early, exploration is over: raise "
        "algo.ent_coef; growing without end, lower algo.ent_coef or algo.lr."
    ),
    "train/entropy_loss": (
        "Minus the policy's mean entropy, in nats: -ln(number of actions) for a uniform policy, 0 for one without "
        "chance; positive is possible for a Gaussian. Healthy: rises slowly towards 0 while the return rises. If "
        "not: near 0 before the return is good, exploration is over (entropy collapse): raise algo.ent_coef or "
        "lower algo.lr; unchanged at the end, nothing was learned."
    ),
    "train/explained_variance": (
        "Share of the variance of returns that the critic predicts: 1 - Var(R - V) / Var(R). Healthy: from 0 "
        "towards 1, above .5 by mid-run. If not: around 0, the critic knows no more than a constant and "
        "advantages are noise: raise the critic's learning rate or epochs (algo.vf_coef, algo.critic_lr); below "
        "0, it is worse than a constant: lower algo.lr, or normalise (env.normalize_obs, env.normalize_reward)."
    ),
    "train/value_loss": (
        "Mean of .5 (V - R)^2, the critic's squared error, in squared units of return. Healthy: falls relative to "
        "the returns' square; it may rise while returns grow. If not: read `train/explained_variance`, which has "
        "no unit; rewards in the thousands want env.normalize_reward=true."
    ),
    "train/policy_loss": (
        "Mean of -log pi(a|s) times the weight of the action: its gradient is the policy gradient, its value "
        "means little. Healthy: around 0 with normalised advantages, of either sign. If not: growing by orders of "
        "magnitude, log-probabilities run away: lower algo.lr; do not read it as an error that should fall."
    ),
}
