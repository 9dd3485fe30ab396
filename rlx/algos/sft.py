"""Supervised fine-tuning: imitate demonstrations, the loss on the answer only.

    for each step:
        draw B prompts x with their answers y (the end token is part of y)
        minimise  -sum log pi(y_t | x, y_<t) / number of tokens of all y

Ouyang et al. 2022, arXiv:2203.02155, section 3.1. Every `check_every` steps one completion each of `check_prompts`
held-out prompts is sampled; the run is done where at least task.sft_stop of them are right. A small model learns such
a task within a few dozen steps, at a moment that the seed decides: stopped by a step count, it can do nothing yet, or
leaves reinforcement learning nothing to do.
Left out: several answers packed into one row, and anything but fresh demonstrations.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlx.config.ranges import Count, Positive, Whole
from rlx.functional.reduce import reduce_tokens
from rlx.language.config import LanguageConfig
from rlx.language.learner import AdamW, TokenLearner, parts
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks, check_batches
from rlx.language.rollout import logprobs
from rlx.language.tasks.base import Task, score
from rlx.run import Metrics, Run

WORLD = "language"
FROZEN = ("optimizer",)
SHOWN = {"loss": "loss {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "loss")
NEEDS = ("answer",)  # of the task


@dataclass
class Config(AdamW):
    batch_size: Count  # B
    micro_batch: Whole  # rows of one backward pass; 0: all
    check_every: Count  # steps
    check_prompts: Count
    temperature: Positive  # of those samples


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    """Raises ConfigError where a batch has too little for the processes of torchrun."""
    check_batches({f"algo.batch_size={cfg.algo.batch_size}": cfg.algo.batch_size})


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy = TokenPolicy.new(cfg, run)
    learner = TokenLearner.of(algo, policy.model)
    goal, ranks = Goal(cfg.task.sft_stop), Ranks()
    run.track(policy=policy.model, optimizer=learner, goal=goal)
    rng = run.rng("prompts")

    while run.step < cfg.total_steps and not goal.reached:
        lr = algo.rate(run.step / cfg.total_steps)

        # Demonstrations
        prompts, answers = zip(*policy.task.demonstrations(rng, algo.batch_size))
        prompt, prompt_mask = policy.prompts(prompts)
        answer, mask = policy.completions(answers)

        # Learn
        num_tokens, share = int(mask.sum()), ranks.part(algo.batch_size)
        for rows in parts(share, algo.micro_batch):
            logits = policy.model(prompt[rows], None if prompt_mask is None else prompt_mask[rows], answer[rows, None])
            logits, tokens, inside = logits[:, 0], answer[rows], mask[rows]
            logprob = logprobs(logits, tokens)
            right = (logits.argmax(-1) == tokens).float().masked_fill(~inside, 0.0)
            loss = reduce_tokens(-logprob, inside, "dapo", num_tokens=num_tokens)
            learner.add(loss, {"mean_token_accuracy": right.sum() / num_tokens})
        info = {**learner.step(lr), "learning_rate": lr}

        run.step += 1
        if run.step % algo.check_every == 0:
            goal.check(sampled_accuracy(policy, run.rng("check"), algo.check_prompts, algo.temperature))
            info["sampled_accuracy"] = goal.accuracy
        yield run.step, info
    if run.step >= algo.check_every and (text := goal.why(run.step, cfg.total_steps)):
        run.notice(text)


class Goal:
    """The sampled accuracy at which a run is done (0: it goes on to total_steps)."""

    def __init__(self, wanted: float) -> None:
        self.wanted, self.accuracy, self.reached = wanted, 0.0, False

    def check(self, accuracy: float) -> None:
        self.accuracy, self.reached = accuracy, bool(self.wanted) and accuracy >= self.wanted

    def why(self, step: int, total_steps: int) -> str:
        """What ended the run, and the key that would have it go on; nothing where no accuracy was wanted."""
        found, wanted = f"sampled_accuracy={self.accuracy:.3g}", f"task.sft_stop={self.wanted:g}"
        if self.reached:
            return f"stopped at step {step:,}: {found} has reached {wanted} (a new run with task.sft_stop=0 goes on)"
        return f"stopped by total_steps={total_steps:,}: {found} is below {wanted} (more go on)" if self.wanted else ""

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "reached": self.reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.accuracy, self.reached = state["accuracy"], state["reached"]


def sampled_accuracy(policy: TokenPolicy, rng: np.random.Generator, num: int, temperature: float) -> float:
    prompts = policy.task.prompts(rng, num, held_out=True)
    completions, texts = policy.generate(prompts, 1, rng, temperature)
    return float(score(policy.task, prompts, texts, completions.ended.tolist())["correct"].mean())


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "Supervised fine-tuning imitates demonstrations: the model is trained to predict the right answer's "
        "tokens after the prompt. The loss counts the answer only. It stops at a chosen sampled accuracy, so "
        "that something is left for reinforcement learning."
    ),
    "kind": "supervised: it learns from demonstrations and no reward",
    "watch": ("loss", "mean_token_accuracy", "sampled_accuracy", "eval/greedy_accuracy"),
    "wrong": (
        "sampled_accuracy stays 0: more total_steps, a higher algo.lr",
        "it is right at once and grpo has nothing to learn: a lower task.sft_stop",
        "the loss jumps: a lower algo.lr",
    ),
    "try": (
        "rlx train algo=sft task=add2",
        'rlx sample latest "37+58="',
        "rlx train algo=grpo task=add2 init=latest:sft",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "mean_token_accuracy": (
        "Share of the answers' tokens that are the most probable one, given those before. Healthy: rises towards "
        "1. If not: flat, raise algo.lr or the model's size."
    ),
    "sampled_accuracy": (
        "Share of held-out prompts whose sampled completion is right, looked at every algo.check_every steps; the "
        "run is done at task.sft_stop. Healthy: rises to it. If not: 0 to the end, more total_steps."
    ),
}
