"""Acting at random: the smallest algorithm that rlx can run.

    every step:  a ~ uniform,  and count how often each observation was seen

What it counts is its "network": with the open episodes and the generator it is the state that a resume needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from rlx.control.distributions import make_head
from rlx.envs.make import make_envs
from rlx.run import Metrics, Run

FROZEN = ("num_envs", "weight")  # keys that a resume cannot change
SHOWN = {"train/seen": "seen {:.1f}"}
METRICS = ("eval/mean_reward", "train/seen")


@dataclass
class Config:
    name: str
    implementation: str
    num_envs: Annotated[int, Field(ge=1)]  # N
    weight: float = 1.0  # of an observation in the sum


class Uniform(torch.nn.Module):
    """policy(obs [N, ...]) -> action [N, ...]; `seen` is the sum of all observations."""

    def __init__(self, cfg: Any, envs: Any) -> None:
        super().__init__()
        self.head = make_head(envs.action_space)
        self.register_buffer("seen", torch.zeros(envs.observation_space.shape, dtype=torch.float64))

    def __call__(self, obs: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        noise = self.head.noise(rng or np.random.default_rng(0), (len(obs),))
        return self.head.sample(torch.zeros(len(obs), self.head.size), torch.from_numpy(noise)).numpy()


def train(cfg: Any, run: Run) -> Iterator[tuple[int, Metrics]]:
    envs = make_envs(cfg.env, cfg.algo.num_envs, run.seed)
    policy, rng = Uniform(cfg, envs), run.rng("actions")
    if run.step == 0:
        envs.reset()
    run.track(policy=policy, envs=envs)
    while run.step < cfg.total_steps:
        for _ in range(100):
            policy.seen += cfg.algo.weight * torch.from_numpy(envs.obs.astype(np.float64)).sum(0)
            envs.step(policy(envs.obs, rng))
        run.step += 100 * envs.num_envs
        returns = [episode[0] for episode in envs.pop_episodes()]
        seen = {"train/seen": float(policy.seen.sum())}
        yield run.step, {**({"rollout/ep_rew_mean": float(np.mean(returns))} if returns else {}), **seen}
    envs.close()


def load_policy(cfg: Any, run: Run) -> Uniform:
    envs = make_envs(cfg.env, 1, 0, domain=1)
    policy = Uniform(cfg, envs)
    envs.close()
    policy.load_state_dict(run.state("policy"))
    return policy
