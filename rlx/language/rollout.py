"""What a language algorithm learns from: P prompts, G completions of each, and what they were worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rlx.base import stopwatch
from rlx.functional.reduce import masked_mean
from rlx.language.learner import parts
from rlx.language.model.sample import Completions, generate, noise
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks
from rlx.language.tasks.base import Judge, score


@dataclass
class Groups:
    """P prompts with G completions each. Masks go by position; the end token is inside."""

    prompts: list[str]  # P
    texts: list[str]  # P G, without end tokens
    prompt: Tensor  # [P, S] ids, padded on the left
    prompt_mask: Tensor | None  # [P, S] bool; None: no padding
    tokens: Tensor  # [P, G, L] ids
    mask: Tensor  # [P, G, L] bool
    logprob: Tensor  # [P, G, L] under the policy that drew them, at its temperature
    ended: Tensor  # [P, G] bool
    reward: Tensor  # [P, G] float32
    correct: Tensor  # [P, G] float32, 0 or 1

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion, its end token counted: [P, G]."""
        return self.mask.sum(-1)

    def rows(self, index: Tensor | slice) -> tuple[Tensor, Tensor | None, Tensor]:
        """What the model reads of some groups: prompt, its mask, completions."""
        return self.prompt[index], None if self.prompt_mask is None else self.prompt_mask[index], self.tokens[index]

    def select(self, index: Tensor) -> "Groups":
        """Only the groups `index`."""
        kept, size = index.tolist(), self.tokens.shape[1]
        texts = [text for i in kept for text in self.texts[i * size : (i + 1) * size]]
        prompt, prompt_mask, tokens = self.rows(index)
        rest = (getattr(self, name)[index] for name in ("mask", "logprob", "ended", "reward", "correct"))
        return Groups([self.prompts[i] for i in kept], texts, prompt, prompt_mask, tokens, *rest)


def join(policy: TokenPolicy, several: Sequence[Groups]) -> Groups:
    """The groups of several collections as one."""
    if len(several) == 1:
        return several[0]
    prompts = [prompt for part in several for prompt in part.prompts]
    texts = [text for part in several for text in part.texts]
    longest = max(part.tokens.shape[-1] for part in several)
    wide = ("tokens", "mask", "logprob")
    columns = {name: [getattr(part, name) for part in several] for name in (*wide, "ended", "reward", "correct")}
    for name in wide:
        columns[name] = [pad(x, (0, longest - x.shape[-1])) for x in columns[name]]
    return Groups(prompts, texts, *policy.prompts(prompts), **{name: torch.cat(x) for name, x in columns.items()})


@stopwatch.part("act")
def collect(
    policy: TokenPolicy, prompts: Sequence[str], size: int, rng: np.random.Generator, temperature: float, ranks: Ranks
) -> Groups:
    """Sample `size` completions of each prompt, with the task's reward of each. Each rank samples its groups, and has
    all of them afterwards."""
    task, prompts = policy.task, list(prompts)
    ids, mask = policy.prompts(prompts)
    share = ranks.part(len(prompts))
    uniform = noise(rng, len(prompts) * size, task.max_new)
    completions = generate(
        policy.model, ids[share], None if mask is None else mask[share], size=size, max_new=task.max_new,
        end=policy.tokenizer.ends, uniform=uniform[:, share.start * size : share.stop * size], temperature=temperature,
    )  # fmt: skip
    if ranks.count > 1:
        missing = task.max_new - completions.tokens.shape[1]
        drawn = (completions.tokens, completions.mask, completions.logprob)
        tokens, inside, logprob = (ranks.gather(pad(x, (0, missing))) for x in drawn)
        L = int(inside.sum(-1).max())
        completions = Completions(tokens[:, :L], inside[:, :L], logprob[:, :L], ranks.gather(completions.ended))
    texts = policy.decode(completions)
    scores = score(task, [prompt for prompt in prompts for _ in range(size)], texts, completions.ended.tolist())

    def groups(x: Tensor) -> Tensor:
        return x.unflatten(0, (len(prompts), size))

    reward, correct = (torch.from_numpy(scores[name]).float().to(policy.device) for name in ("reward", "correct"))
    columns = (completions.tokens, completions.mask, completions.logprob, completions.ended, reward, correct)
    return Groups(prompts, texts, ids, mask, *map(groups, columns))


def step_rewards(task: Any, groups: Groups, tokenizer: Any = None) -> tuple[Tensor, Tensor]:
    """The task's reward of each step at the step's last token, and 1 there: [P, G, L] each. Steps are of characters:
    those that one token of the `tokenizer` writes are one step, worth their mean."""
    P, G, L = groups.tokens.shape
    reward, end = torch.zeros(P * G, L), torch.zeros(P * G, L)
    ended, lengths, tokens = (x.flatten(0, 1).tolist() for x in (groups.ended, groups.lengths, groups.tokens))
    writes = getattr(tokenizer, "writes", None)
    with Judge(task) as judge:
        steps = [
            judge(task.step_rewards, groups.prompts[i // G], *row) for i, row in enumerate(zip(groups.texts, ended))
        ]
    for row, text in enumerate(groups.texts):
        at = [*writes(tokens[row][: lengths[row] - ended[row]], text), lengths[row] - 1] if writes else range(L)
        for index, value in steps[row]:
            reward[row, at[index]] += value
            end[row, at[index]] += 1.0
    reward, end = reward / end.clamp(min=1.0), end.clamp(max=1.0)
    return (x.view(P, G, L).to(groups.tokens.device) for x in (reward, end))  # type: ignore[return-value]


def logprobs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-prob of each token; logits [..., V] -> [...]."""
    return _of(_every(logits, temperature), tokens)


def logprobs_entropy(
    logits: Tensor, tokens: Tensor, temperature: float = 1.0, learn_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """The same, and the entropy of the distribution each token was drawn from, which carries a gradient only where it
    is learnt from."""
    every = _every(logits, temperature)
    with torch.set_grad_enabled(learn_entropy):
        entropy = -(every.exp() * every).sum(-1)
    return _of(every, tokens), entropy


def _every(logits: Tensor, temperature: float) -> Tensor:
    return (logits / temperature if temperature != 1 else logits).log_softmax(-1)


def _of(every: Tensor, tokens: Tensor) -> Tensor:
    return every.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def forward_logprobs(model: Any, groups: Groups, temperature: float, most: int = 0) -> Tensor:
    """Log-probs of all tokens under another model, or this one as it is now: [P, G, L], without a gradient, `most`
    groups at a time (0: all)."""
    with torch.no_grad():
        chunks = [
            logprobs(model(*groups.rows(some)), groups.tokens[some], temperature)
            for some in parts(slice(0, len(groups.tokens)), most)
        ]
    return torch.cat(chunks) if len(chunks) > 1 else chunks[0]


def completion_metrics(groups: Groups) -> dict[str, float]:
    """What TRL logs of the completions and their rewards, under its names; `accuracy` is the share that is correct."""
    lengths = groups.lengths.float()
    std = groups.reward.std(-1) if groups.reward.shape[-1] > 1 else torch.zeros(len(groups.reward))
    ended = groups.ended.float()
    return {
        "reward": float(groups.reward.mean()),
        "reward_std": float(std.mean()),
        "frac_reward_zero_std": float((std < 1e-8).float().mean()),
        "accuracy": float(groups.correct.mean()),
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(1 - ended.mean()),
        "completions/mean_terminated_length": float(masked_mean(lengths, groups.ended)),
    }


# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "reward": (
        "Mean reward of the iteration's completions, by the task, before any KL penalty. Healthy: rises. If not: "
        "flat, see `frac_reward_zero_std`; falling while `objective/scores` rises, the reward model is being "
        "gamed."
    ),
    "reward_std": (
        "Standard deviation of rewards within a group, mean over groups, in units of reward. Healthy: well above "
        "0 while learning. If not: 0, a prompt's completions all earn the same and the advantage is 0: "
        "algo.dynamic_sampling, a larger algo.group_size or temperature."
    ),
    "frac_reward_zero_std": (
        "Share of groups whose rewards are all equal, which teach nothing, from 0 to 1. Healthy: below .5; rises "
        "towards 1 as the task is solved. If not: high from the start, the task is too hard (start from a better "
        "policy) or too easy: algo.dynamic_sampling=3 draws other prompts."
    ),
    "accuracy": (
        "Share of the iteration's completions that are right, from 0 to 1. Healthy: rises with `reward`. If not: "
        "flat while the reward rises, partial credit is collected: task.reward=exact."
    ),
    "completions/mean_length": (
        "Mean tokens of a completion, the end token included. Healthy: settles at the answers' length. If not: "
        "growing to task.max_new, length pays: algo.reduction=dr_grpo removes the length bias, algo.overlong=soft "
        "makes length cost."
    ),
    "completions/min_length": (
        "Tokens of the shortest completion of the iteration. Healthy: at least the shortest answer. If not: 1, "
        "the policy ends at once: the reward pays for nothing."
    ),
    "completions/max_length": (
        "Tokens of the longest completion of the iteration. Healthy: below task.max_new. If not: at task.max_new, "
        "see `completions/clipped_ratio`."
    ),
    "completions/clipped_ratio": (
        "Share of completions cut at task.max_new before their end token, from 0 to 1. Healthy: near 0. If not: "
        "above .5, answers do not fit or never end: a larger task.max_new, a start from sft, "
        "algo.overlong=filter."
    ),
    "completions/mean_terminated_length": (
        "Mean tokens of the completions that ended. Healthy: close to `completions/mean_length`. If not: far "
        "below it, most completions are cut."
    ),
    "entropy": (
        "Mean entropy of the policy's next-token distribution, in nats a token: 0 without chance, ln(vocabulary) "
        "if uniform. Healthy: falls slowly while the reward rises. If not: near 0 with a low accuracy (entropy "
        "collapse), nothing is explored any more: algo.ent_coef=0.01, a lower algo.lr, a larger algo.clip_high."
    ),
    "sampling/sampling_logp_difference/max": (
        "Largest gap between a token's log-probability when it was sampled and when it is first learned from, in "
        "nats. Healthy: below .001 in float32, .1 in bfloat16. If not: sampling and learning are two policies: "
        "model.dtype=float32 tells whether rounding is the cause."
    ),
}
