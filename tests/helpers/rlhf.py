"""What the tests of rlhf_ppo share: a tiny policy, the completions its run begins with, a reward model."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import tiny_lm
import torch
from tiny_lm import algo, gpt, policy, run, varied

from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks
from rlx.language.reward_head import Scorer
from rlx.language.rollout import Groups, collect

P, G = 4, 2
TASK = {"max_new": 14, "reward": "dense"}  # of count
TINY = {"num_prompts": P, "group_size": G, "anneal_lr": False}
CFG = SimpleNamespace(model=gpt())


def cfg(**changes: Any) -> Any:
    return algo("algo=rlhf_ppo", **{**TINY, **changes})


def train(said: Any, steps: int = 1, **more: Any) -> Any:
    return tiny_lm.train(said, "count", steps, seed(), **TASK, **more)


def sampled(temperature: float = 1.0) -> tuple[TokenPolicy, Groups]:
    """The policy that `train` starts with, and the completions it samples first."""
    mine, groups = _sampled(seed(), temperature)
    assert varied(groups)
    return mine, groups


@lru_cache
def seed() -> int:
    """One whose completions are fit to test with, at both temperatures of the tests."""
    return next(seed for seed in range(200) if all(varied(_sampled(seed, heat)[1]) for heat in (1.0, 0.7)))


def _sampled(seed: int, temperature: float) -> tuple[TokenPolicy, Groups]:
    mine, it = policy("count", seed, **TASK), run(seed)
    prompts = mine.task.prompts(it.rng("prompts"), P)
    return mine, collect(mine, prompts, G, it.rng("sampling"), temperature, Ranks())


def scored(mine: TokenPolicy) -> Scorer:
    """A reward model with an output far from 0, gain and bias."""
    scorer = Scorer.new(CFG, mine, torch.Generator().manual_seed(4))
    scorer.gain.fill_(0.7)
    scorer.bias.fill_(-0.4)
    return scorer.requires_grad_(False)
