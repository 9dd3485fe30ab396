"""Direct preference optimisation: the preferences train the policy itself, without a reward model or sampling.

    draw N pairs (x, y chosen, y rejected), once; pi_ref = pi at the start
    for each step:
        minimise  -log sigmoid( beta [ (l(y_c) - l_ref(y_c)) - (l(y_r) - l_ref(y_r)) ] )
        l(y) = sum over the tokens of y, the end token included, the prompt not

Rafailov et al. 2023, arXiv:2305.18290, eq. 7. A pair is the best and the worst of `candidates` samples of the policy
by the task's hidden reward, or the task's own.
Left out: the variants that change the loss's shape (IPO, cDPO, KTO).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, Positive, Whole
from rlx.functional import preference
from rlx.language import preferences
from rlx.language.config import LanguageConfig
from rlx.language.learner import AdamW, TokenLearner, parts
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks, check_batches
from rlx.language.rollout import Groups, logprobs
from rlx.language.show import completions
from rlx.language.tasks.base import Task
from rlx.run import Metrics, Run

WORLD = "language"
FROZEN = ("data", "num_pairs", "candidates", "optimizer")  # keys that a resume cannot change
SHOWN = {"loss": "loss {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "loss")


@dataclass
class Config(AdamW):
    data: Literal["policy", "task"]  # samples of the policy compared by the task's reward; or the task's own pairs
    num_pairs: Count  # N
    candidates: Count  # samples of a prompt of which the best and the worst are a pair
    temperature: Positive  # of the policy: in sampling, learning and the reference alike
    beta: Positive
    batch_size: Count  # pairs a step
    micro_batch: Whole  # pairs of one backward pass; 0: all

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ValueError(f"candidates={self.candidates}: a pair needs at least 2")
        if self.batch_size > self.num_pairs:
            raise ValueError(f"batch_size={self.batch_size}: must be at most num_pairs={self.num_pairs}")


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    """Raises ConfigError where there is nothing to compare, or too little for the processes of torchrun."""
    check_batches({f"algo.batch_size={cfg.algo.batch_size}": cfg.algo.batch_size})
    if cfg.init is None and cfg.algo.data == "policy":
        raise ConfigError(
            f"init=null: {cfg.algo.name} compares samples of a policy (init=latest:sft, or algo.data=task)"
        )
    preferences.check(cfg.algo, task)


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks = TokenPolicy.new(cfg, run), Ranks()
    learner = TokenLearner.of(algo, policy.model)
    reference = policy.frozen()
    pairs = preferences.draw(policy, algo, run.rng("data"), algo.num_pairs, algo.candidates, run.resumed)
    pairs = pairs if run.resumed else preferences.best_and_worst(pairs)
    run.track(policy=policy.model, reference=reference, optimizer=learner, data=pairs)
    shuffle = run.rng("minibatches")

    while run.step < cfg.total_steps:
        lr = algo.rate(run.step / cfg.total_steps)
        index = torch.from_numpy(shuffle.choice(len(pairs), algo.batch_size, replace=False)).to(run.device)
        for rows in parts(ranks.part(algo.batch_size), algo.micro_batch):
            groups = pairs.batch(index[rows])
            chosen, rejected = summed(policy.model, groups, algo.temperature).unbind(-1)
            with torch.no_grad():
                ref_chosen, ref_rejected = summed(reference, groups, algo.temperature).unbind(-1)
            total = preference.dpo(chosen, rejected, ref_chosen, ref_rejected, algo.beta).sum() / algo.batch_size
            with torch.no_grad():  # the rewards that the policy stands for (section 4)
                won, lost = algo.beta * (chosen - ref_chosen), algo.beta * (rejected - ref_rejected)
            diagnostics = {
                "rewards/chosen": won,
                "rewards/rejected": lost,
                "rewards/margins": won - lost,
                "rewards/accuracies": (won > lost).float(),
                "logps/chosen": chosen,
                "logps/rejected": rejected,
            }
            learner.add(total, {name: x.sum() / algo.batch_size for name, x in diagnostics.items()})
        info = learner.step(lr)

        run.step += 1
        metrics = {**info, "learning_rate": lr, "epoch": run.step * algo.batch_size / len(pairs)}
        run.exhibit = partial(completions.of_pairs, cfg, run, policy, reference, groups, metrics)
        yield run.step, metrics


def summed(model: Any, groups: Groups, temperature: float) -> Tensor:
    """Log-prob of each completion, its end token included: [P, 2]."""
    logprob = logprobs(model(*groups.rows(slice(None))), groups.tokens, temperature)
    return logprob.masked_fill(~groups.mask, 0.0).sum(-1)


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "DPO trains the policy on pairs of a better and a worse completion, without a reward model and "
        "without sampling while it learns. The log-ratio to the reference is the reward that the policy "
        "itself stands for, and the loss is that of a classifier of pairs. It is the closed form of what RLHF "
        "by PPO maximises, as far as the pairs tell."
    ),
    "kind": "off-policy (fixed pairs), model-free",
    "watch": ("rewards/accuracies", "rewards/margins", "logps/chosen", "eval/reward"),
    "wrong": (
        "both sides become improbable (logps/chosen falls): a larger algo.beta, a lower algo.lr",
        "pairs are learned by heart (rewards/accuracies 1, eval falls): more algo.num_pairs, fewer steps",
        "nothing moves (rewards/accuracies .5): raise algo.lr, clearer pairs (algo.candidates=8)",
    ),
    "try": (
        "rlx train algo=pretrain task=names",
        "rlx train algo=dpo task=names init=latest:pretrain",
        "rlx train -m algo=dpo task=names init=latest:pretrain algo.beta=0.03,0.1,0.3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "rewards/chosen": (
        "Mean implicit reward of the chosen completions: beta (log pi - log pi_ref). Healthy: rises, or falls "
        "less than `rewards/rejected`. If not: falling steeply, both sides are made improbable: a larger "
        "algo.beta, a lower algo.lr."
    ),
    "rewards/rejected": (
        "Mean implicit reward of the rejected completions: beta (log pi - log pi_ref). Healthy: falls. If not: "
        "rising with the chosen one's, the pairs do not differ in what is learned."
    ),
    "rewards/margins": (
        "`rewards/chosen` - `rewards/rejected`, mean. Healthy: grows from 0. If not: 0, raise algo.lr; growing "
        "without end, pairs are learned by heart: fewer steps, more algo.num_pairs."
    ),
    "rewards/accuracies": (
        "Share of pairs whose chosen completion has the larger implicit reward. Healthy: from .5 towards 1. If "
        "not: at .5, nothing is learned: raise algo.lr or draw more different pairs (algo.candidates); 1 within an "
        "epoch, pairs are learned by heart."
    ),
    "logps/chosen": (
        "Mean log-probability of a chosen completion, summed over its tokens, in nats. Healthy: steady. If not: "
        "falling with `logps/rejected`, probability goes to texts of neither side: a larger algo.beta."
    ),
    "logps/rejected": (
        "Mean log-probability of a rejected completion, summed over its tokens, in nats. Healthy: falls. If not: "
        "see `rewards/margins`."
    ),
    "epoch": (
        "Times that each pair has been learned from, on average. Healthy: 1 to 3. If not: many, pairs are learned "
        "by heart: more algo.num_pairs."
    ),
}
