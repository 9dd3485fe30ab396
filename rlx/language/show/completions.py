"""Completions to look at: some of the batch that was learnt from last, as a table and, token by token, as a heat map.

It is made only when somebody asks, by one forward pass over the completions that are shown, without a gradient or a
random number. How it looks is in `page`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlx.functional import kl
from rlx.language.config import LanguageConfig, Sampling
from rlx.language.policy import TokenPolicy
from rlx.language.rollout import Groups, logprobs
from rlx.language.show.html import CompletionRow, Part, html, markdown
from rlx.run import Exhibit, Run


class Preferring(Sampling, Protocol):
    """The section of an algorithm that learns from pairs."""

    beta: float


def of_groups(
    cfg: LanguageConfig[Sampling], run: Run, policy: TokenPolicy, groups: Groups, advantage: Tensor,
    ref_logprob: Tensor | None, metrics: Mapping[str, Any],
) -> Exhibit | None:  # fmt: skip
    """`cfg.samples` completions of groups with the advantage [P, G, L] of each token; None where none are wanted."""
    parts = []
    for group, members in choose(groups.reward, cfg.samples):
        here = (group, torch.tensor(members, device=groups.tokens.device))
        logprob = fresh(policy.model, groups, *here, cfg.algo.temperature)
        numbers = {"advantage": advantage[here], "ratio": (logprob - groups.logprob[here]).exp()}
        if ref_logprob is not None:
            numbers["KL"] = kl.k3(logprob, ref_logprob[here])
        mean = (advantage[here] * groups.mask[here]).sum(-1) / groups.lengths[here]
        columns = {
            "reward": [f"{x:.3f}" for x in groups.reward[here].tolist()],
            "advantage": [f"{x:+.3f}" for x in mean.tolist()],
        }
        parts.append(Part(groups.prompts[group], rows(policy, groups, *here, columns, numbers)))
    return page(cfg, run, metrics, parts)


def of_pairs(
    cfg: LanguageConfig[Preferring],
    run: Run,
    policy: TokenPolicy,
    reference: Any,
    groups: Groups,
    metrics: Mapping[str, Any],
) -> Exhibit | None:
    """The first pairs of a batch (chosen, rejected), `cfg.samples` completions; None where none are wanted."""
    parts = []
    for pair in range(min(len(groups.tokens), -(-cfg.samples // 2))):
        here = (pair, torch.arange(2, device=groups.tokens.device))
        logprob, ref_logprob = (fresh(net, groups, *here, cfg.algo.temperature) for net in (policy.model, reference))
        token = cfg.algo.beta * (logprob - ref_logprob).masked_fill(~groups.mask[here], 0.0)
        columns = {
            "preferred": ["chosen", "rejected"],
            "implicit reward": [f"{x:+.3f}" for x in token.sum(-1).tolist()],
            "reward": [f"{x:.3f}" for x in groups.reward[here].tolist()],
        }
        ids = groups.prompt[pair][groups.prompt[pair] != policy.tokenizer.begin].cpu()  # that also pads it
        (prompt,) = policy.tokenizer.decode(ids[None], [len(ids)])
        parts.append(Part(prompt, rows(policy, groups, *here, columns, {"implicit reward": token})))
    return page(cfg, run, metrics, parts)


def choose(reward: Tensor, num: int) -> list[tuple[int, list[int]]]:
    """Which `num` completions of rewards [P, G] are shown: groups and some of their members, the best first. Of a
    group that does not fit whole, members from the best to the worst."""
    chosen = []
    spread = reward.amax(-1) - reward.amin(-1)
    for group in torch.argsort(spread, descending=True, stable=True).tolist():
        order = torch.argsort(reward[group], descending=True, stable=True).tolist()
        size = min(num, len(order))
        if not size:
            break
        chosen.append((group, [order[i * (len(order) - 1) // max(1, size - 1)] for i in range(size)]))
        num -= size
    return chosen


@torch.no_grad()
def fresh(model: Any, groups: Groups, group: int, members: Tensor, temperature: float) -> Tensor:
    """Log-probs under a model as it is now: [members, L]."""
    prompt, mask, tokens = groups.rows(slice(group, group + 1))
    tokens = tokens[:, members]
    return logprobs(model(prompt, mask, tokens), tokens, temperature)[0]


def rows(
    policy: TokenPolicy, groups: Groups, group: int, members: Tensor, columns: Mapping[str, list[str]],
    numbers: Mapping[str, Tensor],
) -> list[CompletionRow]:  # fmt: skip
    """Some completions of a group with what is known of each of them, and of each token [members, L]."""
    built = []
    for i, member in enumerate(members.tolist()):
        length = int(groups.mask[group, member].sum())
        ids = groups.tokens[group, member, :length].cpu()
        ended = bool(length) and int(ids[-1]) in policy.tokenizer.ends
        tokens = policy.tokenizer.decode(ids[:, None], [1] * length)
        (text,) = policy.tokenizer.decode(ids[None], [length - ended])
        facts = {name: values[i] for name, values in columns.items()}
        facts |= {"ended": "yes" if ended else "no", "length": str(length)}
        heat = {name: x[i, :length].tolist() for name, x in numbers.items()}
        built.append(CompletionRow(text, tokens, ended, facts, heat))
    return built


def page(cfg: LanguageConfig[Sampling], run: Run, metrics: Mapping[str, Any], parts: Sequence[Part]) -> Exhibit | None:
    if not parts:
        return None
    facts = {
        "run": "/".join(run.dir.absolute().parts[1:][-3:]),
        "step": f"{run.step:,}",
        "seed": str(run.seed),
        "temperature": f"{cfg.algo.temperature:g}",
    }
    return Exhibit(markdown(facts, parts), html(facts, metrics, parts))
