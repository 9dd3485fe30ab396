"""A trained policy as evaluation and play use it: observations in, actions out, nothing learnt, nothing updated."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from rlx.config.schema import Algo
from rlx.control.config import ControlConfig
from rlx.control.distributions import Categorical, Head, make_head
from rlx.control.networks import ActorCritic
from rlx.control.normalize import ObsNormalizer
from rlx.engine.tape import Forward
from rlx.engine.trust import Engine
from rlx.envs.batch import Envs
from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig
from rlx.envs.spaces import mask_size
from rlx.run import Run

# What a policy knows of states, where it knows it: "value" [N], "q", "probability" and "visits" [N, A]. A policy may
# have a method `judge(obs [N, ...]) -> Judgement`; maps and films show what it says.
Judgement = dict[str, np.ndarray]


def judge(policy: object, obs: np.ndarray) -> Judgement:
    own = getattr(policy, "judge", None)
    return own(obs) if own else {}


def make_one(cfg: EnvConfig) -> Envs:
    """One environment, to ask for its spaces; without worker processes."""
    return make_envs(replace(cfg, backend="sync") if cfg.backend == "async" else cfg, 1, 0, domain=1)


def engine_of(cfg: ControlConfig[Algo]) -> Engine:
    """The engine that the algorithm is configured with; not every one has that key."""
    return getattr(cfg.algo, "engine", "auto")


def saved_statistics(cfg: ControlConfig[Algo], run: Run, envs: Envs) -> ObsNormalizer | None:
    """The run's statistics of observations, a copy that stays as it is; None where it normalises none."""
    statistics = run.state("normalizer").get("obs")
    if statistics is None:
        return None
    obs_norm = ObsNormalizer(envs.observation_space.shape, cfg.env.clip_obs, mask_size(envs.action_space))
    obs_norm.load_state_dict(statistics)
    return obs_norm


class Policy:
    """`policy(obs [N, ...]) -> action [N, ...]`: the mode of pi(a|s), or samples drawn from `rng`."""

    def __init__(
        self,
        model: ActorCritic,
        head: Head,
        obs_norm: ObsNormalizer | None,
        device: torch.device,
        engine: Engine = "auto",
    ) -> None:
        self.model, self.head, self.obs_norm, self.device = model, head, obs_norm, device
        self.valued = False  # whether the critic has learned
        forward = partial(Forward, device=device, engine=engine)
        self._mode = forward(lambda x: (head.mode(params := model.policy(x["obs"])), params))
        self._sample = forward(lambda x: (head.sample(params := model.policy(x["obs"]), x["noise"]), params))

    def __call__(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs)
        if rng is None:
            return self._mode(obs=seen)[0].cpu().numpy()
        noise = torch.from_numpy(self.head.noise(rng, (len(obs),)))
        return self._sample(obs=seen, noise=noise)[0].cpu().numpy()

    @torch.no_grad()
    def judge(self, obs: np.ndarray) -> Judgement:
        seen = torch.from_numpy(self.obs_norm.normalize(obs) if self.obs_norm else obs).to(self.device)
        params, value = self.model(seen)
        known = {}
        if isinstance(self.head, Categorical):
            known["probability"] = params.softmax(-1)
        if self.valued and value.dim() == params.dim() and "probability" in known:  # a critic q(s, .)
            known |= {"q": value, "value": (known["probability"] * value).sum(-1)}
        elif self.valued and value.dim() == 1:
            known["value"] = value
        return {name: tensor.cpu().numpy() for name, tensor in known.items()}

    @classmethod
    def restore(cls, cfg: ControlConfig[Algo], run: Run) -> "Policy":
        """The actor-critic policy of a run in progress or of a checkpoint, with its normalisation statistics."""
        envs = make_one(cfg.env)
        shape, head = envs.observation_space.shape, make_head(envs.action_space)
        envs.close()
        saved = run.state("policy")
        critic = [tensor for name, tensor in saved.items() if name.startswith("critic.")]
        outputs = len(critic[-1]) if critic else 1
        values = outputs if outputs > 1 else None
        model = ActorCritic(shape, head, cfg.model, run.generator("model"), values).to(run.device)
        fresh = model.state_dict()
        learned = any(not torch.equal(fresh[name], saved[name]) for name in fresh if name.startswith("critic."))
        model.load_state_dict({**fresh, **saved})
        policy = cls(model.eval(), head, saved_statistics(cfg, run, envs), run.device, engine_of(cfg))
        policy.valued = bool(critic) and learned
        return policy
