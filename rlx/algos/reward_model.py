"""A reward model from comparisons: pairs, or K completions ranked.

    draw N prompts with K samples of pi (cfg.init) each, ranked by the task's hidden reward, once
    for each step:
        minimise  mean over prompts of the mean over its pairs i better than j of -log sigmoid(r_i - r_j)
    shift and scale r so that samples of pi have mean 0 and standard deviation 1

Christiano et al. 2017, arXiv:1706.03741 (pairs, K = 2); Ouyang et al. 2022, arXiv:2203.02155, eq. 1 (all pairs of one
ranking in one batch element); Ziegler et al. 2019, arXiv:1909.08593, section 2.1 (best of K, and the normalisation).
r is the policy's body with one output, read after the last token. Pairs of equal reward were not compared and count
nothing (loss=plackett_luce and best_of take equal ones in the order they were drawn). Judged by its pairwise accuracy
on rankings it never saw.
Left out: several people who disagree, and a margin that grows with how clear a comparison was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rlx.base.errors import ConfigError, UserError
from rlx.config.ranges import Count, Positive, Whole
from rlx.functional import preference
from rlx.language import preferences
from rlx.language.config import LanguageConfig
from rlx.language.learner import AdamW, TokenLearner, parts
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks, check_batches
from rlx.language.reward_head import Scorer
from rlx.language.rollout import Groups, collect
from rlx.language.tasks.base import Task
from rlx.run import Metrics, Run

WORLD = "language"
FROZEN = ("data", "num_rankings", "optimizer")  # keys that a resume cannot change
SHOWN = {"loss": "loss {:.3f}"}
METRICS = ("eval/accuracy", "loss")
SCORES = True  # completions; it writes none


@dataclass
class Config(AdamW):
    data: Literal["policy", "task"]  # samples of the policy ranked by the task's reward; or the task's own pairs
    loss: Literal["pairs", "plackett_luce", "best_of"]
    num_rankings: Count  # N
    group_size: Count  # K
    temperature: Positive  # of the samples
    normalise_on: Count  # samples of the policy that score 0 on average in the end
    batch_size: Count  # prompts a step
    micro_batch: Whole  # prompts of one backward pass; 0: all

    def __post_init__(self) -> None:
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size}: a comparison needs at least 2 completions")
        if self.data == "task" and self.group_size != 2:
            raise ValueError(f"group_size={self.group_size}: the pairs of data=task have 2")
        if self.batch_size > self.num_rankings:
            raise ValueError(f"batch_size={self.batch_size}: must be at most num_rankings={self.num_rankings}")


def loss(algo: Config, score: Tensor, reward: Tensor) -> Tensor:
    """The loss of each ranking: scores and rewards [P, K], the best first -> [P]."""
    if algo.loss == "plackett_luce":
        return preference.plackett_luce(score)
    if algo.loss == "best_of":
        return preference.best_of(score)
    return preference.ranked(score, compared=reward.unsqueeze(-1) > reward.unsqueeze(-2))


def pairs(score: Tensor, reward: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Which of the K (K - 1) / 2 pairs of [P, K] (the best first) differ in reward, and the scores of both sides."""
    i, j = torch.triu_indices(score.shape[-1], score.shape[-1], offset=1, device=score.device)
    return (reward[..., i] > reward[..., j]).to(score.dtype), (score[..., i], score[..., j])


@torch.no_grad()
def accuracy(score: Tensor, reward: Tensor, num_pairs: Tensor | None = None) -> Tensor:
    """The share of the pairs of different reward that the scores put in order; equal scores are half right. Of a part
    of a batch: give the whole batch's number of such pairs, then the parts add up."""
    compared, (better, worse) = pairs(score, reward)
    right = (better > worse).to(score.dtype) + 0.5 * (better == worse)
    return (right * compared).sum() / (compared.sum() if num_pairs is None else num_pairs).clamp(min=1)


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    """Raises ConfigError where there is nothing to compare, or too little for the processes of torchrun."""
    algo = cfg.algo
    prompts = -(-algo.normalise_on // algo.group_size)
    check_batches(
        {
            f"algo.batch_size={algo.batch_size}": algo.batch_size,
            f"algo.normalise_on={algo.normalise_on} algo.group_size={algo.group_size}": prompts,
        }
    )
    if cfg.init is None:
        raise ConfigError(
            f"init=null: {cfg.algo.name} ranks samples of a policy (init=latest:pretrain, or another run)"
        )
    preferences.check(cfg.algo, task)


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks = TokenPolicy.new(cfg, run), Ranks()  # whose samples are compared; it learns nothing here
    policy.model.requires_grad_(False)
    run.track(sampler=policy.model)
    scorer = Scorer.new(cfg, policy, run.generator("scorer"))
    learner = TokenLearner.of(algo, scorer)
    data = preferences.draw(policy, algo, run.rng("data"), algo.num_rankings, algo.group_size, run.resumed)
    run.track(scorer=scorer, optimizer=learner, data=data)
    shuffle = run.rng("minibatches")

    while run.step < cfg.total_steps:
        lr = algo.rate(run.step / cfg.total_steps)
        index = torch.from_numpy(shuffle.choice(len(data), algo.batch_size, replace=False)).to(run.device)
        num_pairs = pairs(data.reward[index], data.reward[index])[0].sum()
        for rows in parts(ranks.part(algo.batch_size), algo.micro_batch):
            groups = data.batch(index[rows])
            score = scorer.raw(groups)  # gain and bias are of no concern here; a run made longer has some already
            diagnostics = {
                "accuracy": accuracy(score, groups.reward, num_pairs),
                "margin": (score[:, 0] - score[:, -1]).sum() / algo.batch_size,
            }
            learner.add(loss(algo, score, groups.reward).sum() / algo.batch_size, diagnostics)
        info = learner.step(lr)

        run.step += 1
        if run.step >= cfg.total_steps:
            rng = np.random.default_rng([cfg.seed, 6])  # the same samples again where the run is made longer
            scorer.normalise(samples(policy, algo, rng, algo.normalise_on))
        yield run.step, {**info, "learning_rate": lr, "epoch": run.step * algo.batch_size / len(data)}


def samples(policy: TokenPolicy, algo: Config, rng: np.random.Generator, num: int) -> Groups:
    """At least `num` completions of held-out prompts, in groups of K."""
    prompts = policy.task.prompts(rng, -(-num // algo.group_size), held_out=True)
    return collect(policy, prompts, algo.group_size, rng, algo.temperature, Ranks())


def evaluate(cfg: LanguageConfig[Config], run: Run, prompts: int, seed: int) -> dict[str, float]:
    """{accuracy over the pairs of fresh rankings, score_mean, score_std of their completions, correlation of score and
    hidden reward, rankings}."""
    policy = TokenPolicy.restore(cfg, run, "sampler")
    scorer = Scorer.new(cfg, policy, torch.Generator())
    scorer.load_state_dict(run.state("scorer"))
    groups = samples(policy, cfg.algo, np.random.default_rng([seed, 1]), prompts * cfg.algo.group_size)
    with torch.no_grad():
        score = scorer(groups)
    order = torch.argsort(groups.reward, dim=-1, descending=True, stable=True)
    both = torch.stack([score.flatten(), groups.reward.flatten()])
    return {
        "accuracy": float(accuracy(score.gather(-1, order), groups.reward.gather(-1, order))),
        "score_mean": float(score.mean()),
        "score_std": float(score.std()),
        "correlation": float(torch.corrcoef(both)[0, 1].nan_to_num()),
        "rankings": prompts,
        "seed": seed,
    }


def load_policy(cfg: LanguageConfig[Config], run: Run) -> TokenPolicy:
    """There is none in it."""
    raise UserError(f"{run.dir}: a reward model writes no completions (rlx eval shows how it ranks them)")


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "A reward model learns to score completions from comparisons: of each pair or ranking the better one "
        "shall have the higher score. It is the policy's body with one output, trained as a classifier of "
        "pairs (Bradley-Terry). Its scores then stand for the people who compared, in rlhf_ppo."
    ),
    "kind": "supervised: it learns from rankings and no policy",
    "watch": ("eval/accuracy", "accuracy", "eval/correlation"),
    "wrong": (
        "eval/accuracy stays near .5: more algo.num_rankings, a higher algo.lr",
        ("accuracy is far above eval/accuracy: rankings are learned by heart: more algo.num_rankings, fewer steps"),
        "the policy trained on it is worse: it was gamed: compare objective/scores and reward there",
    ),
    "try": (
        "rlx train algo=pretrain task=names",
        "rlx train algo=reward_model task=names init=latest:pretrain",
        "rlx eval latest",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "accuracy": (
        "Share of the batch's pairs of different reward that the scores put in order. Healthy: from .5 towards 1. "
        "If not: at .5, raise algo.lr or algo.num_rankings; far above `eval/accuracy`, rankings are learned by "
        "heart."
    ),
    "margin": (
        "Score of the best completion of a ranking less that of its worst, mean, in units of score. Healthy: "
        "grows and settles. If not: growing without end, rankings are learned by heart: fewer steps."
    ),
    "eval/accuracy": (
        "Share of the pairs of fresh rankings that the scores put in order. Healthy: above .7; .5 is chance. If "
        "not: more algo.num_rankings, or a larger model."
    ),
    "eval/score_mean": (
        "Mean score of fresh completions of the policy. Healthy: 0 in the end, by the final normalisation. If "
        "not: before the end it has no meaning."
    ),
    "eval/score_std": (
        "Standard deviation of the score of fresh completions. Healthy: 1 in the end, by the final normalisation. "
        "If not: before the end it has no meaning."
    ),
    "eval/correlation": (
        "Correlation of the score with the task's hidden reward, from -1 to 1. Healthy: above .7. If not: the "
        "order within a prompt may still be right (`eval/accuracy`); more rankings."
    ),
    "epoch": (
        "Times that each ranking has been learned from, on average. Healthy: a few. If not: many, with `accuracy` "
        "far above `eval/accuracy`: more algo.num_rankings."
    ),
}
