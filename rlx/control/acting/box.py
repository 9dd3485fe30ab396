"""Acting with a policy of Box actions: with noise into a replay buffer while it learns, by its mode when evaluated."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from rlx.base import stopwatch
from rlx.config.schema import Algo
from rlx.control.acting.mode import acting
from rlx.control.acting.noise import Noise
from rlx.control.actors import Bounds, Critics, DeterministicActor, SquashedGaussian
from rlx.control.config import ControlConfig
from rlx.control.normalize import ObsNormalizer
from rlx.control.off_policy import Collector
from rlx.control.policy import Judgement, engine_of, make_one, saved_statistics
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.single import EnvConfig
from rlx.replay.buffer import Replay
from rlx.run import Run

BoxActor = DeterministicActor | SquashedGaussian


def num_dimensions(envs: Envs) -> int:
    """How many numbers an action is."""
    return math.prod(envs.action_space.shape or ())


def make_critics(cfg: ControlConfig[Any], envs: Envs, run: Run) -> Critics:
    """Q(s, a) of these environments, `num_critics` times."""
    shape, generator = envs.observation_space.shape, run.generator("critics")
    return Critics(shape, num_dimensions(envs), cfg.model, generator, cfg.algo.num_critics).to(run.device)


class BoxExplorer(Collector):
    """Steps the environments with a policy and noise, and stores every step with its action in [-1, 1].

    Actions are uniform before environment step `random_until`. `engine` is that of the learner.
    """

    def __init__(
        self,
        cfg: EnvConfig,
        envs: Envs,
        actor: BoxActor,
        noise: Noise,
        replay: Replay,
        gamma: float,
        random_until: int,
        rng: np.random.Generator,
        device: torch.device,
        horizon: int = 100,
        engine: Engine = "auto",
    ) -> None:
        act = Forward(acting(actor, lambda x: (actor.explore(x["obs"], x["noise"]),)), device, engine=engine)
        super().__init__(cfg, envs, replay, gamma, act, horizon)
        self.noise, self.rng, self.random_until, self.bounds = noise, rng, random_until, Bounds(envs)
        self._act: Callable[..., np.ndarray] | None = None

    @stopwatch.part("act")
    def collect(self, steps: range) -> None:
        """One step of every lane at each of these steps of the environments."""
        self.begin()
        envs, rng, shape = self.envs, self.rng, (self.envs.num_envs, num_dimensions(self.envs))
        act = self._act = self._act or self._acting.on_arrays(
            obs=self.seen(), noise=np.zeros(self.noise.shape, np.float32)
        )
        for step in steps:
            if step < self.random_until:
                action = rng.uniform(-1, 1, shape).astype(np.float32)
            else:
                action = act(self.seen(), self.noise.draw(rng, fresh=step == steps.start))
            reward, terminated, truncated, final = envs.step(self.bounds.scaled(action))
            self.replay.add(action, reward, terminated, truncated, final, envs)
            if final:
                self.noise.ended(i for i, _ in final)
        self.finish(len(steps))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "noise": self.noise.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.noise.load_state_dict(state["noise"])


class BoxPolicy:
    """`policy(obs [N, ...]) -> action [N, A]`, scaled to the space: the mode, or samples with noise from `rng`."""

    def __init__(
        self,
        actor: BoxActor,
        bounds: Bounds,
        obs_norm: ObsNormalizer | None,
        device: torch.device,
        engine: Engine = "auto",
        critics: Critics | None = None,
    ) -> None:
        self.actor, self.bounds, self.obs_norm, self.device = actor, bounds, obs_norm, device
        self.critics = critics
        self._mode = Forward(lambda x: (actor.mode(x["obs"]),), device, engine=engine)
        self._sample = Forward(lambda x: (actor.sample(x["obs"], x["noise"]),), device, engine=engine)

    @torch.no_grad()
    def judge(self, obs: np.ndarray) -> Judgement:
        """The least of the critics' values of the mode."""
        if self.critics is None:
            return {}
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs).to(self.device)
        return {"value": self.critics(seen, self.actor.mode(seen)).amin(0).cpu().numpy()}

    def __call__(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs)
        if rng is None:
            return self.bounds.scaled(self._mode(obs=seen)[0].cpu().numpy())
        noise = rng.standard_normal((len(obs), len(self.bounds.low)), np.float32)
        return self.bounds.scaled(self._sample(obs=seen, noise=torch.from_numpy(noise))[0].cpu().numpy())

    @classmethod
    def restore(
        cls,
        cfg: ControlConfig[Algo],
        run: Run,
        make_actor: Callable[[ControlConfig[Any], Envs, Run], BoxActor],
        make_critics: Callable[[ControlConfig[Any], Envs, Run], Critics] | None = None,
    ) -> "BoxPolicy":
        """The policy of a run in progress or of a checkpoint, with its normalisation statistics and its critics."""
        envs = make_one(cfg.env)
        actor, bounds = make_actor(cfg, envs, run), Bounds(envs)
        critics = make_critics(cfg, envs, run) if make_critics else None
        envs.close()
        actor.load_state_dict(run.state("policy"))
        if critics:
            critics.load_state_dict(run.state("critics"))
            critics.eval()
        return cls(actor.eval(), bounds, saved_statistics(cfg, run, envs), run.device, engine_of(cfg), critics)
