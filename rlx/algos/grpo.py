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
`as=trl|verl|paper` sets what those two libraries and the paper do where they differ. The switches, and which of them
do not go together, are in language/grpo_config.py.
Left out: rollouts that are older than one iteration, and several rewards with weights.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from numpy.random import Generator
from torch import Tensor

from rlx.functional import kl, policy as pg, returns
from rlx.functional.reduce import masked_mean, reduce_tokens
from rlx.language.config import LanguageConfig
from rlx.language.diagnose import Diagnosis
from rlx.language.grpo_config import Config, check
from rlx.language.learner import TokenLearner, minibatches, parts
from rlx.language.policy import TokenPolicy
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
from rlx.language.show import completions
from rlx.run import Metrics, Run, means

__all__ = ["Config", "check", "train"]

WORLD = "language"
FROZEN = ("kl_coef", "optimizer")  # keys that a resume cannot change
SHOWN = {"reward": "reward {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "reward", "loss")
LIBRARIES = True  # as=trl|verl|paper

GAP = "sampling/sampling_logp_difference/max"  # between the log-probs of sampling and of learning


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks = TokenPolicy.new(cfg, run), Ranks()
    learner = TokenLearner.of(algo, policy.model)
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
        advantage, mask = advantages(algo, policy.task, groups, ref_logprob, policy.tokenizer)

        # Learn
        batch = {"logprob": groups.logprob, "ref_logprob": ref_logprob, "advantage": advantage, "mask": mask}
        steps: list[dict[str, float]] = []
        for index in minibatches(algo.num_epochs, shuffle, algo.num_prompts, algo.num_minibatches, run.device):
            counts = {"num_sequences": len(index) * algo.group_size, "num_tokens": max(1, int(mask[index].sum()))}
            for rows in parts(ranks.part(len(index)), algo.micro_batch):
                some = index[rows]
                temperature, learn = algo.temperature, algo.ent_coef > 0
                logits = policy.model(*groups.rows(some))
                logprob, entropy = logprobs_entropy(logits, groups.tokens[some], temperature, learn)
                seen = {name: x[some].flatten(0, 1) for name, x in batch.items()}
                logprob, entropy = logprob.flatten(0, 1), entropy.flatten(0, 1)
                learner.add(*loss(algo, policy.task.max_new, logprob, entropy, seen, counts))
            steps.append(learner.step(lr))
        before, run.step = run.step, run.step + len(steps)
        if reference and (every := algo.ref_sync_every) and run.step // every > before // every:
            reference.load_state_dict(policy.model.state_dict())

        at_first = steps[0][GAP]  # before anything was learnt from these completions
        more = {"learning_rate": lr, "num_completions": drawn}
        metrics = {**completion_metrics(groups), **means(steps), GAP: at_first, **more}
        diagnosis.hear(metrics, groups)
        shown = (policy, groups, advantage, ref_logprob if reference else None, metrics)
        run.exhibit = partial(completions.of_groups, cfg, run, *shown)
        yield run.step, metrics


def sample(algo: Config, policy: TokenPolicy, ask: Generator, draw: Generator, ranks: Ranks) -> tuple[Groups, int]:
    """P groups, and how many completions were drawn for them. With dynamic sampling those of equal rewards, which
    teach nothing, are drawn anew with other prompts; after that many rounds they fill the batch."""
    useful: list[Groups] = []
    left, spare, rounds = algo.num_prompts, [], 0
    while left and rounds <= algo.dynamic_sampling:
        prompts = policy.task.prompts(ask, algo.num_prompts)
        groups = collect(policy, prompts, algo.group_size, draw, algo.temperature, ranks)
        rounds += 1
        if not algo.dynamic_sampling:
            return groups, algo.num_prompts * algo.group_size
        differ = groups.reward.amax(-1) > groups.reward.amin(-1)
        useful.append(groups.select(differ.nonzero().squeeze(-1)[:left]))
        spare.append(groups.select((~differ).nonzero().squeeze(-1)))
        left -= len(useful[-1].prompts)
    whole = join(policy, [*useful, *spare]) if left else join(policy, useful)
    kept = torch.arange(algo.num_prompts, device=whole.tokens.device)
    return whole.select(kept), rounds * algo.num_prompts * algo.group_size


def advantages(
    algo: Config, task: Any, groups: Groups, ref_logprob: Tensor, tokenizer: Any = None
) -> tuple[Tensor, Tensor]:
    """The advantage of each token [P, G, L], and the mask of the tokens that are learnt from."""
    mask, reward = groups.mask, groups.reward
    if algo.overlong == "soft":
        reward = reward + returns.soft_overlong(groups.lengths, task.max_new, algo.overlong_cache)
    penalty = torch.zeros_like(groups.logprob)
    if algo.kl_coef and algo.kl_in == "reward":
        penalty = algo.kl_coef * kl.k1(groups.logprob, ref_logprob).masked_fill(~mask, 0.0)

    if algo.supervision == "process":
        reward, ends = step_rewards(task, groups, tokenizer)
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
        diagnostics = {name: x.masked_fill(~mask, 0.0).sum() / counts["num_tokens"] for name, x in means.items()}
    return total, {**diagnostics, GAP: gap.max()}


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "GRPO trains a language model by reward without a critic: several completions of one prompt are "
        "sampled, and each is judged against the mean of its group. The ratio to the policy that sampled is "
        "clipped as in PPO, and a KL term may hold the policy near its start. Its relatives (Dr. GRPO, RLOO, "
        "DAPO, GSPO, CISPO, REINFORCE++) each change one key."
    ),
    "kind": "on-policy, model-free",
    "watch": ("reward", "frac_reward_zero_std", "entropy", "completions/clipped_ratio", "kl"),
    "wrong": (
        (
            "all completions of a prompt earn the same (frac_reward_zero_std near 1): too hard or too easy: "
            "start from a better sft run, or algo.dynamic_sampling=3"
        ),
        ("the entropy collapses and the reward stands still: algo.ent_coef=0.01, algo.clip_high=0.28, a lower algo.lr"),
        "completions grow and are cut: algo.reduction=dr_grpo, algo.overlong=soft, a larger task.max_new",
    ),
    "try": (
        "rlx train algo=sft task=add2",
        "rlx train algo=grpo task=add2 init=latest:sft",
        "rlx train -m algo=grpo,dr_grpo,rloo task=add2 init=latest:sft seed=1,2,3",
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "clip_ratio/low_mean": (
        "Share of tokens of negative advantage whose ratio fell below 1 - clip_low, where the clip stops the "
        "gradient. Healthy: 0 with one step an iteration, below .1 with more. If not: above .2, lower algo.lr or "
        "algo.num_epochs."
    ),
    "clip_ratio/high_mean": (
        "Share of tokens of positive advantage whose ratio rose above 1 + clip_high, where the clip stops the "
        "gradient. Healthy: 0 with one step an iteration, below .1 with more. If not: above .2, rare good tokens "
        "are held back: algo.clip_high=0.28 (DAPO), or lower algo.lr."
    ),
    "kl": (
        "Mean KL of the policy from its reference, in nats a token, by algo.kl_estimator. Healthy: grows from 0 "
        "and settles. If not: growing without end while the reward stands still, raise algo.kl_coef or lower "
        "algo.lr."
    ),
    "num_completions": (
        "Completions drawn for this iteration, those that dynamic sampling threw away included. Healthy: "
        "algo.num_prompts times algo.group_size. If not: several times that, most prompts teach nothing: an "
        "easier task or a better start."
    ),
}
