"""Completions that were compared: N prompts with K completions each, the best first.

They are drawn once, at the start of a run, and saved with it: a comparison costs a person's time.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from rlx.base.errors import ConfigError, UserError
from rlx.language.config import Sampling
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks
from rlx.language.rollout import Groups, collect, join

TRIES = 100  # collections, each as large as what is wanted
FIELDS = ("prompt", "prompt_mask", "tokens", "mask", "reward")


class Preferences:
    """`prompt` [N, S] and its mask, `tokens` and `mask` [N, K, L], `reward` [N, K] by which they were compared,
    falling along K."""

    def __init__(self, prompt: Tensor, prompt_mask: Tensor, tokens: Tensor, mask: Tensor, reward: Tensor) -> None:
        self.prompt, self.prompt_mask, self.tokens, self.mask, self.reward = prompt, prompt_mask, tokens, mask, reward

    def __len__(self) -> int:
        return len(self.prompt)

    def batch(self, index: Tensor) -> Groups:
        """Some of the prompts with their completions. (Nothing is known of how they were drawn.)"""
        tokens, mask = self.tokens[index], self.mask[index]
        longest = int(mask.sum(-1).max())
        tokens, mask, seen = tokens[..., :longest], mask[..., :longest], self.prompt_mask[index]
        nothing, ended = torch.zeros(mask.shape, device=mask.device), mask.any(-1)
        padding = None if bool(seen.all()) else seen
        reward = self.reward[index]
        return Groups(
            [], [], self.prompt[index], padding, tokens, mask, nothing, ended, reward, torch.zeros_like(reward)
        )

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in FIELDS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in FIELDS:
            setattr(self, name, state[name].to(self.prompt.device))


def ranked(policy: TokenPolicy, rng: np.random.Generator, num: int, size: int, temperature: float) -> Preferences:
    """`num` prompts with `size` samples of the policy each, ranked by the task's reward. Where all are worth the same
    nothing was compared: another prompt takes its place. UserError where that never ends."""
    useful: list[Groups] = []
    missing = num
    for _ in range(TRIES):
        groups = collect(policy, policy.task.prompts(rng, num), size, rng, temperature, Ranks())
        differ = groups.reward.amax(-1) > groups.reward.amin(-1)
        useful.append(groups.select(differ.nonzero().squeeze(-1)[:missing]))
        missing -= len(useful[-1].prompts)
        if not missing:
            break
    else:
        raise UserError(
            f"task={policy.task.name}: of {TRIES * num} prompts only {num - missing} had samples of different reward; "
            "there is nothing to compare (a policy that is sometimes right is needed: init=latest:sft)"
        )
    groups = join(policy, useful)
    order = torch.argsort(groups.reward, dim=-1, descending=True, stable=True)
    columns = order.unsqueeze(-1).expand_as(groups.tokens)
    whole = torch.ones_like(groups.prompt, dtype=torch.bool) if groups.prompt_mask is None else groups.prompt_mask
    tokens, mask = groups.tokens.gather(1, columns), groups.mask.gather(1, columns)
    return Preferences(groups.prompt, whole, tokens, mask, groups.reward.gather(1, order))


def best_and_worst(preferences: Preferences) -> Preferences:
    """Pairs: of each prompt the best and the worst."""
    ends = torch.tensor([0, preferences.tokens.shape[1] - 1], device=preferences.tokens.device)
    chosen = (getattr(preferences, name)[:, ends] for name in ("tokens", "mask", "reward"))
    return Preferences(preferences.prompt, preferences.prompt_mask, *chosen)


def of_task(policy: TokenPolicy, rng: np.random.Generator, num: int) -> Preferences:
    """`num` pairs that the task makes itself."""
    prompts, chosen, rejected = zip(*policy.task.pairs(rng, num))
    prompt, prompt_mask = policy.prompts(prompts)
    tokens, mask = policy.completions([text for pair in zip(chosen, rejected) for text in pair])
    whole = torch.ones_like(prompt, dtype=torch.bool) if prompt_mask is None else prompt_mask
    reward = torch.tensor([1.0, 0.0], device=prompt.device).expand(num, 2).clone()
    return Preferences(prompt, whole, tokens.view(num, 2, -1), mask.view(num, 2, -1), reward)


class Compared(Sampling, Protocol):
    """The section of an algorithm that learns from comparisons."""

    data: Literal["policy", "task"]


def check(algo: Compared, task: Any) -> None:
    """Raises UserError for data=task with a task that has no pairs."""
    if algo.data == "task" and not hasattr(task, "pairs"):
        raise ConfigError(f"algo.data=task: task={task.name} has no pairs of its own (algo.data=policy ranks samples)")
    if algo.data == "task":
        task.pairs(np.random.default_rng(0), 1)


def draw(
    policy: TokenPolicy, algo: Compared, rng: np.random.Generator, num: int, size: int, resumed: bool
) -> Preferences:
    """Ranked samples of the policy, or the task's pairs, as `algo.data` says; nothing yet for a run that is resumed,
    which has them in its checkpoint."""
    if resumed:
        empty = torch.zeros(0, 0, device=policy.device)
        return Preferences(empty, empty, empty, empty, empty)
    if algo.data == "task":
        return of_task(policy, rng, num)
    return ranked(policy, rng, num, size, algo.temperature)
