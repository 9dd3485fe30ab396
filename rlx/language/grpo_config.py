"""The switches of GRPO and its relatives (rlx/algos/grpo.py), and which of them do not go together."""

from dataclasses import dataclass
from typing import Literal

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, NonNegative, Positive, Whole
from rlx.language.config import LanguageConfig
from rlx.language.learner import AdamW
from rlx.language.ranks import check_batches
from rlx.language.tasks.base import Task


@dataclass
class Config(AdamW):
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
            "group_size=1: there is no other completion to compare with (baseline=none scale=none needs none)": (
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
            "supervision=process: a KL in the reward does not fit step rewards (kl_in=loss)": process and charged,
            "overlong=soft: penalises whole completions; supervision=process rewards steps": (
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
        for fault, present in faults.items():
            if present:
                raise ValueError(fault)


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    algo, name = cfg.algo, cfg.task.name
    P, M = algo.num_prompts, algo.num_minibatches
    check_batches({f"algo.num_prompts={P} algo.num_minibatches={M}": P // M})
    if algo.supervision == "process" and not hasattr(task, "step_rewards"):
        raise ConfigError(
            f"task={name} has no step rewards; algo.supervision=process needs them (parity, copy, reverse, sort)"
        )
    if algo.overlong == "soft":
        free = task.max_new - algo.overlong_cache
        answers = task.answers() if hasattr(task, "answer") else []
        longest = max((size + 1 for size in task.tokens(answers)), default=0)
        if free < longest:
            raise ConfigError(
                f"algo.overlong=soft: overlong_cache={algo.overlong_cache} is too large at task.max_new={task.max_new}:"
                f" correct answers of task={name} need up to {longest} tokens, but the penalty starts at {max(0, free)}"
            )
