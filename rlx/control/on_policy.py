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
