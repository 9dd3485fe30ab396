"""Pretraining: predict the next token of a corpus.

    for each step:
        draw B texts y (each begins with nothing and ends with the end token)
        minimise  -sum log pi(y_t | y_<t) / number of tokens

Radford et al. 2018, section 3.1; the loss is that of Bengio et al. 2003. The task makes the corpus, fresh text at each
step, so the loss is that of text never seen before.
Left out: texts cut to equal lengths and packed into rows, which a corpus of short texts does not need.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from rlx.config.ranges import Count, Positive, Whole
from rlx.functional.reduce import reduce_tokens
from rlx.language.config import LanguageConfig
from rlx.language.learner import AdamW, TokenLearner, parts
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks, check_batches
from rlx.language.rollout import logprobs
from rlx.language.tasks.base import Task
from rlx.run import Metrics, Run

WORLD = "language"
FROZEN = ("optimizer",)
SHOWN = {"loss": "loss {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "loss")
NEEDS = ("text",)  # of the task


@dataclass
class Config(AdamW):
    batch_size: Count  # B
    micro_batch: Whole  # rows of one backward pass; 0: all
    temperature: Positive  # of the samples that evaluation draws


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    """Raises ConfigError where a batch has too little for the processes of torchrun."""
    check_batches({f"algo.batch_size={cfg.algo.batch_size}": cfg.algo.batch_size})


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks = TokenPolicy.new(cfg, run), Ranks()
    learner = TokenLearner.of(algo, policy.model)
    run.track(policy=policy.model, optimizer=learner)
    rng = run.rng("text")

    while run.step < cfg.total_steps:
        lr = algo.rate(run.step / cfg.total_steps)

        # Text
        texts = policy.task.text(rng, algo.batch_size)
        start, _ = policy.prompts([""] * algo.batch_size)
        tokens, mask = policy.completions(texts)

        # Learn
        num_tokens = int(mask.sum())
        for rows in parts(ranks.part(algo.batch_size), algo.micro_batch):
            logits = policy.model(start[rows], None, tokens[rows, None])[:, 0]
            logprob = logprobs(logits, tokens[rows])
            right = (logits.argmax(-1) == tokens[rows]).float().masked_fill(~mask[rows], 0.0)
            loss = reduce_tokens(-logprob, mask[rows], "dapo", num_tokens=num_tokens)
            learner.add(loss, {"mean_token_accuracy": right.sum() / num_tokens})
        info = learner.step(lr)

        run.step += 1
        yield run.step, {**info, "learning_rate": lr, "num_tokens": num_tokens}


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Pretraining teaches a language model to predict the next token of a corpus. What it has learned is a "
        "distribution over texts, from which others can start: sampling from it writes new texts. Everything "
        "later (reward model, RLHF, DPO) begins with such a model."
    ),
    "kind": "supervised: it learns from text and no reward",
    "watch": ("loss", "mean_token_accuracy", "eval/reward"),
    "wrong": (
        (
            "the loss stands still far above the corpus's entropy: a higher algo.lr, a larger model "
            "(model.d_model, model.num_layers)"
        ),
        "the loss jumps: a lower algo.lr",
    ),
    "try": ("rlx train algo=pretrain task=names", "rlx sample latest", "rlx train experiment=rlhf_names"),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "mean_token_accuracy": (
        "Share of the corpus's tokens that are the most probable one, given those before. Healthy: rises to what "
        "the corpus allows (its entropy is the limit). If not: flat, raise algo.lr or the model's size."
    ),
    "num_tokens": (
        "Tokens of this step's texts. Healthy: about the same in every step. If not: it is the corpus that varies."
    ),
}
