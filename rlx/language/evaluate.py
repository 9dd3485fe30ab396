"""How good a policy is at its task: greedy and sampled accuracy, pass@k, maj@k, on held-out prompts."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np

from rlx.config.schema import Algo
from rlx.language.config import LanguageConfig
from rlx.language.policy import TokenPolicy
from rlx.language.tasks.base import score

ROWS = 4096  # completions that are sampled at a time


def report(policy: TokenPolicy, cfg: LanguageConfig[Algo], prompts: int, seed: int, k: int = 8) -> dict[str, Any]:
    """Judge `prompts` held-out prompts: one greedy completion of each, and k sampled ones at the run's temperature.

    {greedy_accuracy, sampled_accuracy, reward (of the samples), format (share of samples that have the form of an
    answer), pass_at {"1": .., ..}, maj_at {..}, mean_length (tokens of the samples, end inside), ended, prompts, seed}.
    The same numbers in every process: the prompts and the samples depend on the seed alone.
    """
    rng = np.random.default_rng([seed, 1])
    task = policy.task
    held_out = task.prompts(rng, prompts, held_out=True)
    temperature = getattr(cfg.algo, "temperature", 1.0)
    greedy, right, rewards, formed, lengths, ended, texts = [], [], [], [], [], [], []
    step = max(1, ROWS // k)
    for start in range(0, prompts, step):
        some = held_out[start : start + step]
        completions, answers = policy.generate(some, 1, None)
        greedy += score(task, some, answers, completions.ended.tolist())["correct"].tolist()
        completions, answers = policy.generate(some, k, rng, temperature)
        scores = score(task, [prompt for prompt in some for _ in range(k)], answers, completions.ended.tolist())
        right += scores["correct"].tolist()
        rewards += scores["reward"].tolist()
        formed += scores["format"].tolist()
        lengths += completions.lengths.tolist()
        ended += completions.ended.tolist()
        texts += answers
    correct = np.array(right).reshape(prompts, k)
    written = [texts[i : i + k] for i in range(0, len(texts), k)]
    ks = [n for n in (2**i for i in range(20)) if n < k] + [k]
    return {
        "greedy_accuracy": float(np.mean(greedy)),
        "sampled_accuracy": float(correct.mean()),
        "reward": float(np.mean(rewards)),
        "format": float(np.mean(formed)),
        "pass_at": {str(n): pass_at(correct.sum(1), k, n) for n in ks},
        "maj_at": {str(n): majority(written, correct, n) for n in ks},
        "mean_length": float(np.mean(lengths)),
        "ended": float(np.mean(ended)),
        "prompts": prompts,
        "seed": seed,
    }


def pass_at(right: Sequence[int] | np.ndarray, n: int, k: int) -> float:
    """Chance that at least one of k samples is right, unbiased from n samples of each prompt of which c are:

        mean over prompts of 1 - C(n - c, k) / C(n, k)

    Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    return float(np.mean([1 - comb(n - int(c), k) / comb(n, k) for c in right]))


def majority(texts: Sequence[Sequence[str]], correct: np.ndarray, k: int) -> float:
    """Share of prompts whose most frequent completion among the first k is right (of equally frequent ones the
    first). Wang et al. 2022, arXiv:2203.11171."""
    won = 0.0
    for answers, right in zip(texts, correct):
        best = Counter(answers[:k]).most_common(1)[0][0]
        won += right[list(answers).index(best)]
    return float(won / len(texts))
