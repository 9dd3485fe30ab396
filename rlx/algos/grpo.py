"""Group relative policy optimisation, and its relatives by configuration: PPO's clipped loss without a critic.

Shao et al. 2024, arXiv:2402.03300, algorithm 1:

    for each iteration:
        draw P prompts; sample G completions of each from pi_old
        rewards R; advantages A = (R - mean of the group) / (std of the group + eps)
        for mu epochs, in minibatches of whole groups:
            minimise  mean over completions of the mean over their tokens of
                      -min(r A, clip(r, 1 - eps_low, 1 + eps_high) A) + beta k3(pi, pi_ref),   r = pi / pi_old
        every `ref_sync_every` steps: pi_ref <- pi

What a relative changes is one key: Dr. GRPO (Liu et al. 2025, arXiv:2503.20783) scale and reduction; RLOO (Ahmadian et
al. 2024, arXiv:2402.14740) scale; DAPO (Yu et al. 2025, arXiv:2503.14476) clip_high, reduction, dynamic_sampling,
overlong; GSPO (Zheng et al. 2025, arXiv:2507.18071) ratio; CISPO (MiniMax 2025, arXiv:2506.13585) objective; process
supervision (section 4.1.3) supervision; REINFORCE++ (Hu 2025, arXiv:2501.03262) baseline, whiten and kl_in. A preset
`as=trl|verl|paper` sets what those two libraries and the paper do where they differ.
Left out: rollouts that are older than one iteration, and several rewards with weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from rlx.base.errors import ConfigError
from rlx.base.ranges import Count, NonNegative, Positive, Whole
from rlx.functional import kl, returns
from rlx.functional import policy as pg
from rlx.functional.reduce import masked_mean, reduce_tokens
from rlx.language.config import LanguageConfig
from rlx.language.diagnose import Diagnosis
from rlx.language.learner import AdamW, Learner, parts
from rlx.language.policy import Policy
from rlx.language.ranks import Ranks
from rlx.language.rollout import (
    Groups,
    collect,
    completion_metrics,
    forward_logprobs,
    join,
    logprobs_entropy,
    step_rewards,
)
from rlx.language.show import completions as exhibit
from rlx.language.tasks.base import Task
from rlx.run import Metrics, Run

WORLD = "language"
FROZEN = ("kl_coef",)  # keys that a resume cannot change
SHOWN = {"reward": "reward {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "reward", "loss")
LIBRARIES = True  # as=trl|verl|paper

GAP = "sampling/sampling_logp_difference/max"  # between the log-probs of sampling and of learning


@dataclass
class Config(AdamW):
    name: str
    implementation: str
    num_prompts: Count  # P
    group_size: Count  # G
    temperature: Positive  # of the policy, in sampling, learning and the reference alike
    supervision: Literal["outcome", "process"]
    baseline: Literal["group", "none"]  # the mean of the group, or nothing
    scale: Literal["none", "group", "batch", "loo"]  # what R - mean is divided by
    std_ddof: Literal[0, 1]
    std_eps: Positive
    whiten: bool  # advantages over all tokens of the batch
    objective: Literal["clip", "cispo"]
    ratio: Literal["token", "sequence"]
    clip_low: NonNegative  # eps_low
    clip_high: NonNegative  # eps_high
    dual_clip: NonNegative  # c; 0: none
    reduction: Literal["grpo", "dapo", "dr_grpo", "sequence"]
    kl_coef: NonNegative  # beta; 0: no reference at all
    kl_estimator: Literal["k1", "k2", "k3", "ratio_k3"]
    kl_in: Literal["loss", "reward"]
    ref_sync_every: Whole  # steps; 0: the reference stays what it was
    ent_coef: NonNegative
    dynamic_sampling: Whole  # most rounds in which groups of equal rewards are drawn anew; 0: they stay
    overlong: Literal["none", "filter", "soft"]  # completions without an end: as they are, no loss, less reward
    overlong_cache: Count  # tokens before max_new over which `soft` grows to -1
    num_epochs: Count  # mu
    num_minibatches: Count  # of whole groups
    micro_batch: Whole  # groups of one backward pass; 0: the minibatch

    def __post_init__(self) -> None:
        process, charged = self.supervision == "process", bool(self.kl_coef) and self.kl_in == "reward"
        faults = {
            f"num_minibatches={self.num_minibatches}: must be at most num_prompts={self.num_prompts}": (
                self.num_minibatches > self.num_prompts
            ),
            "group_size=1: there is no other completion to compare one with (baseline=none scale=none does not)": (
                self.group_size == 1 and self.baseline == "group" and not process
            ),
            f"dynamic_sampling={self.dynamic_sampling}: the rewards of a group_size=1 never differ": (
                self.dynamic_sampling and self.group_size == 1
            ),
            f"scale={self.scale}: baseline=none takes the reward as it is (scale=none)": (
                self.baseline == "none" and self.scale != "none"
            ),
            "supervision=process: the rewards of a group's steps are standardised (baseline=group scale=group)": (
                process and (self.baseline, self.scale) != ("group", "group")
            ),
            "supervision=process: a KL in the reward has no place among the steps' (kl_in=loss)": process and charged,
            "overlong=soft: is paid by a completion; supervision=process has rewards of steps": (
                process and self.overlong == "soft"
            ),
            "ratio=sequence: needs one advantage a completion; supervision=process, or a KL in the reward with "
            "baseline=none, gives one a token": (
                self.ratio == "sequence" and (process or charged and self.baseline == "none")
            ),
            "ratio=sequence: objective=cispo weighs single tokens (ratio=token)": (
                self.ratio == "sequence" and self.objective == "cispo"
            ),
            f"dual_clip={self.dual_clip}: bounds objective=clip; cispo's weight has clip_high": (
                self.dual_clip and self.objective == "cispo"
            ),
            f"dual_clip={self.dual_clip}: must be above 1 (0: none)": 0 < self.dual_clip <= 1,
            f"ref_sync_every={self.ref_sync_every}: there is no reference with kl_coef=0": (
                self.ref_sync_every and not self.kl_coef
            ),
            "kl_estimator=k1: its gradient is 0 in the loss (kl_in=reward, or k2, k3, ratio_k3)": (
                self.kl_coef and self.kl_in == "loss" and self.kl_estimator == "k1"
            ),
            f"kl_estimator={self.kl_estimator}: in the reward it can point away from the gradient of the KL "
            "(k1 there, or kl_in=loss)": charged and self.kl_estimator != "k1",
        }
        for fault, found in faults.items():
            if found:
                raise ValueError(fault)


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    algo, name = cfg.algo, cfg.task.name
    if algo.supervision == "process" and not hasattr(task, "step_rewards"):
        raise ConfigError(
            f"task={name} has no step rewards; algo.supervision=process needs them (parity, copy, reverse, sort)"
        )
    if algo.overlong == "soft":
        free = task.max_new - algo.overlong_cache
        answer: Callable[[str], str] | None = getattr(task, "answer", None)
        prompts = task.prompts(np.random.default_rng(0), 64) if answer else []
        longest = max((len(answer(prompt)) + 1 for prompt in prompts if answer), default=0)
        if free < longest:
            raise ConfigError(
                f"algo.overlong=soft: with overlong_cache={algo.overlong_cache} and task.max_new={task.max_new} right "
                f"answers of task={name} would pay too: they take up to {longest} tokens, {max(0, free)} are free"
            )


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks = Policy.new(cfg, run), Ranks()
    learner = Learner.of(algo, policy.model)
    reference = policy.frozen() if algo.kl_coef else None
    run.track(policy=policy.model, optimizer=learner, **({"reference": reference} if reference else {}))
    ask, draw, shuffle = run.rng("prompts"), run.rng("sampling"), run.rng("minibatches")
    diagnosis = Diagnosis(cfg, run, policy.task)

    while run.step < cfg.total_steps:
        lr = algo.rate(run.step / cfg.total_steps)

        # Sample
        groups, drawn = sample(algo, policy, ask, draw, ranks)

        # Advantage
        ref_logprob = groups.logprob
        if reference:
            ref_logprob = forward_logprobs(reference, groups, algo.temperature, algo.micro_batch)
        advantage, mask = advantages(algo, policy.task, groups, ref_logprob)

        # Learn
        batch = {"logprob": groups.logprob, "ref_logprob": ref_logprob, "advantage": advantage, "mask": mask}
        steps: list[dict[str, float]] = []
        for _ in range(algo.num_epochs):
            order = torch.from_numpy(shuffle.permutation(algo.num_prompts)).to(run.device)
            for index in order.tensor_split(algo.num_minibatches):
                counts = {"num_sequences": len(index) * algo.group_size, "num_tokens": max(1, int(mask[index].sum()))}
                for rows in parts(ranks.part(len(index)), algo.micro_batch):
                    some = index[rows]
                    logits = policy.model(*groups.rows(some))
                    temperature, learn = algo.temperature, algo.ent_coef > 0
                    logprob, entropy = logprobs_entropy(logits, groups.tokens[some], temperature, learn)
                    seen = {name: x[some].flatten(0, 1) for name, x in batch.items()}
                    told = loss(algo, policy.task.max_new, logprob.flatten(0, 1), entropy.flatten(0, 1), seen, counts)
                    learner.add(*told)
                steps.append(learner.step(lr))
        run.step += len(steps)
        if (
            reference
            and algo.ref_sync_every
            and run.step // algo.ref_sync_every > (run.step - len(steps)) // algo.ref_sync_every
        ):
            reference.load_state_dict(policy.model.state_dict())

        info = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
        metrics = {
            **completion_metrics(groups),
            **info,
            GAP: steps[0][GAP],  # before anything was learnt from these completions
            "learning_rate": lr,
            "num_completions": drawn,
        }
        diagnosis.hear(metrics, groups)
        shown = (policy, groups, advantage, ref_logprob if reference else None, metrics)
        run.exhibit = partial(exhibit.of_groups, cfg, run, *shown)
        yield run.step, metrics


def sample(algo: Config, policy: Policy, ask: Generator, draw: Generator, ranks: Ranks) -> tuple[Groups, int]:
    """P groups, and how many completions were drawn for them. With dynamic sampling those of equal rewards, which
    teach nothing, are drawn anew with other prompts; after that many rounds they fill the batch."""
    found: list[Groups] = []
    left, spare, rounds = algo.num_prompts, [], 0
    while left and rounds <= algo.dynamic_sampling:
        prompts = policy.task.prompts(ask, algo.num_prompts)
        groups = collect(policy, prompts, algo.group_size, draw, algo.temperature, ranks)
        rounds += 1
        if not algo.dynamic_sampling:
            return groups, algo.num_prompts * algo.group_size
        differ = groups.reward.amax(-1) > groups.reward.amin(-1)
        found.append(groups.select(differ.nonzero().squeeze(-1)[:left]))
        spare.append(groups.select((~differ).nonzero().squeeze(-1)))
        left -= len(found[-1].prompts)
    whole = join(policy, [*found, *spare]) if left else join(policy, found)
    kept = torch.arange(algo.num_prompts, device=whole.tokens.device)
    return whole.select(kept), rounds * algo.num_prompts * algo.group_size


def advantages(algo: Config, task: Any, groups: Groups, ref_logprob: Tensor) -> tuple[Tensor, Tensor]:
    """The advantage of each token [P, G, L], and the mask of the tokens that are learnt from."""
    mask, reward = groups.mask, groups.reward
    if algo.overlong == "soft":
        reward = reward + returns.soft_overlong(groups.lengths, task.max_new, algo.overlong_cache)
    penalty = torch.zeros_like(groups.logprob)
    if algo.kl_coef and algo.kl_in == "reward":
        penalty = algo.kl_coef * kl.k1(groups.logprob, ref_logprob).masked_fill(~mask, 0.0)

    if algo.supervision == "process":
        reward, ends = step_rewards(task, groups)
        advantage = returns.process_advantage(reward, ends, algo.std_ddof, algo.std_eps)
    elif algo.baseline == "group":
        advantage = returns.group_advantage(reward - penalty.sum(-1), algo.scale, algo.std_ddof, algo.std_eps)
        advantage = advantage.unsqueeze(-1).expand_as(penalty)
    else:  # the reward, less what is still to be paid from each token on
        advantage = reward.unsqueeze(-1) - penalty.flip(-1).cumsum(-1).flip(-1)

    if algo.overlong == "filter":
        mask = mask & groups.ended.unsqueeze(-1)
    if algo.whiten:
        advantage = returns.whiten(advantage, mask, ddof=algo.std_ddof, eps=algo.std_eps)
    return advantage.masked_fill(~mask, 0.0), mask


def loss(
    algo: Config, max_new: int, logprob: Tensor, entropy: Tensor, batch: Mapping[str, Tensor], counts: Mapping[str, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """What some completions [B, L] add to the loss of their minibatch, which has `counts`; and to its diagnostics."""
    advantage, mask = batch["advantage"], batch["mask"]
    # What stands behind an end was drawn by nobody: log-probs far apart there would overflow, and 0 * inf is NaN.
    logprob, drawn, ref = (x.masked_fill(~mask, 0.0) for x in (logprob, batch["logprob"], batch["ref_logprob"]))
    new, old = logprob, drawn
    if algo.ratio == "sequence":  # the ratio of a completion is the geometric mean of its tokens'
        new, old = (masked_mean(x, mask, -1).unsqueeze(-1).expand_as(x) for x in (new, old))
    surrogate = pg.ppo_clip if algo.objective == "clip" else pg.cispo
    token = surrogate(new, old, advantage, algo.clip_low, algo.clip_high)
    if algo.dual_clip:
        token = pg.dual_clip(token, advantage, algo.dual_clip)
    divergence = kl.k3(logprob, ref)
    if algo.kl_coef and algo.kl_in == "loss":
        if algo.kl_estimator == "k2":
            divergence = kl.k2(logprob, ref)
        elif algo.kl_estimator == "ratio_k3":
            divergence = (logprob - drawn).exp() * divergence
        token = token + algo.kl_coef * divergence
    if algo.ent_coef:
        token = token - algo.ent_coef * entropy
    total = reduce_tokens(token, mask, algo.reduction, max_new, **counts)

    with torch.no_grad():
        gap = (logprob - drawn).abs()
        low = pg.clipped_low(new, old, advantage, algo.clip_low)
        high = pg.clipped_high(new, old, advantage, algo.clip_high)
        means = {"entropy": entropy, "clip_ratio/low_mean": low, "clip_ratio/high_mean": high}
        if algo.kl_coef:
            means["kl"] = divergence
        told = {name: x.masked_fill(~mask, 0.0).sum() / counts["num_tokens"] for name, x in means.items()}
    return total, {**told, GAP: gap.max()}
