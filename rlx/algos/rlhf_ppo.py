"""RLHF: PPO on a reward model's score, less a penalty for leaving the reference.

    for each iteration:
        sample completions of P prompts, G each, from pi_old; score them: s = r(x, y) of the reward model
        a completion without an end token: s is replaced by a fixed value, or that is added to it
        token rewards  r_t = -beta (log pi_old - log pi_ref)_t + [t is the last token] s
        advantages by GAE (gamma 1), returns = advantages + values
        for K epochs, in minibatches: minimise the means over tokens (algo.reduction) of
            -min(rho A, clip(rho, 1 - eps, 1 + eps) A),  A whitened over the minibatch's tokens (algo.whiten_advantage)
            c_v .5 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2)
        beta *= 1 + clip(KL / target - 1, -.2, .2) n / horizon          (KL: summed over tokens)

Ziegler et al. 2019, arXiv:1909.08593, section 2.2, with the details of their code: ddof 0, c_v .1, one pass of GAE,
values that start at 0, a missing end token replaces the score by -1. The value network of Stiennon et al. 2020,
arXiv:2009.01325, and Ouyang et al. 2022, arXiv:2203.02155, starts from the reward model: `value_init`. Policy and
critic are two networks, or one with a value head, whose loss is the actor's + c_v the critic's (algo.network=one).
`reward_model: null` scores by the task itself. `reward` in the metrics is always the task's, which the policy never
sees where a reward model stands between: where it falls while `objective/scores` rises, the model is being gamed (Gao
et al. 2022, arXiv:2210.10760).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlx.base.errors import ConfigError
from rlx.config.ranges import Count, NonNegative, Positive, Unit, Whole
from rlx.functional import kl, policy as pg, returns, value as vf
from rlx.functional.reduce import reduce_tokens
from rlx.language.config import LanguageConfig
from rlx.language.diagnose import Diagnosis
from rlx.language.learner import AdamW, TokenLearner, minibatches, parts
from rlx.language.model.gpt import GPTConfig
from rlx.language.policy import TokenPolicy
from rlx.language.ranks import Ranks, check_batches
from rlx.language.reward_head import Scorer, ValueHead, make_critic
from rlx.language.rollout import Groups, collect, completion_metrics, forward_logprobs, logprobs_entropy
from rlx.language.show import completions as exhibit
from rlx.language.tasks.base import Task
from rlx.run import Metrics, Run, means

WORLD = "language"
FROZEN = ("reward_model", "value_init", "kl_coef", "optimizer")  # keys that a resume cannot change
SHOWN = {"reward": "reward {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"}
METRICS = ("eval/greedy_accuracy", "eval/reward", "reward", "loss")


@dataclass
class Config(AdamW):
    reward_model: str | None  # the run whose scores are the reward; None: the task's own
    num_prompts: Count  # P
    group_size: Count  # G
    temperature: Positive  # of the policy, in sampling, learning and the reference alike
    missing_end: Literal["none", "replace", "add"]
    missing_end_value: float
    kl_coef: NonNegative  # beta, at the start
    kl_target: NonNegative  # nats a completion; 0: beta stays
    kl_horizon: Positive  # completions
    whiten_rewards: bool  # without the shift
    gamma: Unit
    gae_lambda: Unit
    num_epochs: Count  # K
    num_minibatches: Count
    micro_batch: Whole  # completions of one backward pass; 0: the minibatch
    clip_coef: NonNegative  # eps
    clip_vloss: NonNegative  # c; 0: no value clipping
    vf_coef: NonNegative  # c_v
    value_init: Literal["zero", "reward_model"]
    whiten_advantage: bool = field(default=True, kw_only=True)  # over the minibatch's tokens
    reduction: Literal["grpo", "dapo", "dr_grpo", "sequence"] = field(default="dapo", kw_only=True)
    network: Literal["two", "one"] = field(default="two", kw_only=True)  # one: the policy with a value head

    def __post_init__(self) -> None:
        if self.num_minibatches > self.num_prompts * self.group_size:
            most = self.num_prompts * self.group_size
            raise ValueError(
                f"num_minibatches={self.num_minibatches}: must be at most num_prompts * group_size = {most}"
            )
        if self.value_init == "reward_model" and self.reward_model is None:
            raise ValueError("value_init=reward_model: there is none (reward_model=RUN, or value_init=zero)")
        if self.value_init == "reward_model" and self.network == "one":
            raise ValueError("network=one: the value head starts at 0 (value_init=zero, or network=two)")


def check(cfg: LanguageConfig[Config], task: Task) -> None:
    """Raises ConfigError where there is no policy to hold on to, or too little for the processes of torchrun."""
    P, G, M = cfg.algo.num_prompts, cfg.algo.group_size, cfg.algo.num_minibatches
    check_batches(
        {f"algo.num_prompts={P}": P, f"algo.num_prompts={P} algo.group_size={G} algo.num_minibatches={M}": P * G // M}
    )
    if cfg.algo.network == "one" and not isinstance(cfg.model, GPTConfig):
        raise ConfigError("algo.network=one: needs model=gpt, whose features a value head can read (algo.network=two)")
    if cfg.init is None and cfg.algo.kl_coef:
        raise ConfigError(
            f"init=null: {cfg.algo.name} stays near a reference (init=latest:pretrain, or algo.kl_coef=0)"
        )


def train(cfg: LanguageConfig[Config], run: Run) -> Iterator[tuple[int, Metrics]]:
    algo = cfg.algo
    policy, ranks, beta = TokenPolicy.new(cfg, run), Ranks(), AdaptiveKLController(algo)
    scorer, critic = judges(cfg, run, policy)
    learner = TokenLearner.of(algo, nn.ModuleList([policy.model, critic]))
    reference = policy.frozen()
    run.track(policy=policy.model, critic=critic, reference=reference, optimizer=learner, kl_coef=beta)
    if scorer:
        run.track(scorer=scorer)
    ask, draw, shuffle = run.rng("prompts"), run.rng("sampling"), run.rng("minibatches")
    diagnosis = Diagnosis(cfg, run, policy.task)

    while run.step < cfg.total_steps:
        lr = algo.rate(run.step / cfg.total_steps)

        # Sample
        prompts = policy.task.prompts(ask, algo.num_prompts)
        groups = collect(policy, prompts, algo.group_size, draw, algo.temperature, ranks)
        most = math.ceil(algo.micro_batch / algo.group_size)
        ref_logprob = forward_logprobs(reference, groups, algo.temperature, most)
        with torch.no_grad():
            score = scorer(groups) if scorer else groups.reward
            value = critic(*groups.rows(slice(None)))[..., 0]

        # Reward and advantage
        score = missing_end(algo, score, groups.ended)
        divergence = kl.k1(groups.logprob, ref_logprob).masked_fill(~groups.mask, 0.0)
        reward = token_rewards(score, divergence, groups.mask, beta.coef)
        if algo.whiten_rewards:
            mean = reward[groups.mask].mean()
            reward = (returns.whiten(reward, groups.mask, ddof=0) + mean).masked_fill(~groups.mask, 0.0)
        advantage = token_gae(reward, value, groups.mask, algo.gamma, algo.gae_lambda)

        # Learn
        batch = {"logprob": groups.logprob, "value": value, "advantage": advantage, "return_": advantage + value}
        steps: list[dict[str, float]] = []
        num = algo.num_prompts * algo.group_size
        for index in minibatches(algo.num_epochs, shuffle, num, algo.num_minibatches, run.device):
            some = rows_of(groups, batch, index, algo)
            for rows in parts(ranks.part(len(index)), algo.micro_batch):
                part = {name: x[rows] for name, x in some.items()}
                counts = {"num_tokens": int(some["mask"].sum()), "num_sequences": len(index)}
                learner.add(*loss(algo, policy.model, critic, part, max_length=policy.task.max_new, **counts))
            steps.append(learner.step(lr))
        run.step += len(steps)
        coef, spent = beta.coef, float(divergence.sum(-1).mean())
        beta.adapt(spent, num)

        metrics = {
            **completion_metrics(groups),
            **means(steps),
            "kl": spent,
            "objective/kl": spent,
            "objective/scores": float(score.mean()),
            "objective/non_score_reward": -coef * spent,
            "objective/rlhf_reward": float(score.mean()) - coef * spent,
            "kl_coef": coef,
            "val/explained_variance": float(vf.explained_variance(value[groups.mask], batch["return_"][groups.mask])),
            "learning_rate": lr,
        }
        diagnosis.hear(metrics, groups)
        run.exhibit = partial(exhibit.of_groups, cfg, run, policy, groups, advantage, ref_logprob, metrics)
        yield run.step, metrics


def judges(cfg: LanguageConfig[Config], run: Run, policy: TokenPolicy) -> tuple[Scorer | None, nn.Module]:
    """The reward model, if there is one, and the critic as it begins. (Tracked, they are what was saved.)"""
    scorer = None
    if cfg.algo.reward_model:
        scorer = Scorer.new(cfg, policy, torch.Generator()).requires_grad_(False)
        if not run.resumed:
            scorer.load_state_dict(run.saved(cfg.algo.reward_model).tracked["scorer"])
    if cfg.algo.network == "one":
        return scorer, ValueHead(policy.model)
    body = scorer.model.state_dict() if scorer and cfg.algo.value_init == "reward_model" else None
    return scorer, make_critic(cfg, policy, body)


def missing_end(algo: Config, score: Tensor, ended: Tensor) -> Tensor:
    """The score of completions that were cut."""
    if algo.missing_end == "replace":
        return torch.where(ended, score, algo.missing_end_value)
    if algo.missing_end == "add":
        return torch.where(ended, score, score + algo.missing_end_value)
    return score


def token_rewards(score: Tensor, divergence: Tensor, mask: Tensor, beta: float) -> Tensor:
    """r_t = -beta KL_t + [t is the last token] s: [P, G], [P, G, L] -> [P, G, L]. They sum to s - beta sum KL_t."""
    last = mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)
    return -beta * divergence + last * score.unsqueeze(-1)


def token_gae(reward: Tensor, value: Tensor, mask: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """GAE along the tokens of [P, G, L]; a completion is over after its last one, cut or ended."""
    over = ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], -1)
    next_value = torch.cat([value[..., 1:], value[..., :1]], -1)
    reward, value, next_value, over = (x.movedim(-1, 0) for x in (reward, value, next_value, over))  # time first
    return returns.gae(reward, value, next_value, over, over, gamma, gae_lambda).movedim(0, -1).masked_fill(~mask, 0.0)


def rows_of(groups: Groups, batch: Mapping[str, Tensor], index: Tensor, algo: Config) -> dict[str, Tensor]:
    """The completions `index` (of all P G) with what the loss needs of them; advantages may be whitened over
    them."""
    own = torch.div(index, algo.group_size, rounding_mode="floor")
    mask = groups.mask.flatten(0, 1)[index]
    some = {name: x.flatten(0, 1)[index] for name, x in batch.items()}
    if algo.whiten_advantage:
        some["advantage"] = returns.whiten(some["advantage"], mask, ddof=0)
    seen = groups.prompt_mask if groups.prompt_mask is not None else torch.ones_like(groups.prompt, dtype=torch.bool)
    tokens = groups.tokens.flatten(0, 1)[index]
    return {**some, "mask": mask, "tokens": tokens, "prompt": groups.prompt[own], "prompt_mask": seen[own]}


def loss(
    algo: Config,
    model: Any,
    critic: nn.Module,
    batch: Mapping[str, Tensor],
    num_tokens: int,
    num_sequences: int | None = None,
    max_length: int | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """What some completions [B, L] add to the loss of their minibatch, which has these counts, and to its diagnostics
    (means over its tokens)."""
    mask, tokens, old = batch["mask"], batch["tokens"], batch["logprob"]
    padding = None if bool(batch["prompt_mask"].all()) else batch["prompt_mask"]
    inputs = (batch["prompt"], padding, tokens.unsqueeze(1))
    if isinstance(critic, ValueHead):
        features = model.features(*inputs)
        logits, value = model.logits(features), critic.of(features)[:, 0, :, 0]
    else:
        logits, value = model(*inputs), critic(*inputs)[:, 0, :, 0]
    logprob, entropy = logprobs_entropy(logits[:, 0], tokens, algo.temperature)

    def mean(x: Tensor) -> Tensor:
        return reduce_tokens(x, mask, "dapo", num_tokens=num_tokens)

    def reduced(x: Tensor) -> Tensor:
        counts = {"num_tokens": num_tokens, "num_sequences": num_sequences}
        return reduce_tokens(x, mask, algo.reduction, max_length, **counts)

    policy_loss = reduced(pg.ppo_clip(logprob, old, batch["advantage"], algo.clip_coef, algo.clip_coef))
    if algo.clip_vloss:
        value_loss = reduced(vf.value_loss_clipped(value, batch["value"], batch["return_"], algo.clip_vloss))
    else:
        value_loss = reduced(vf.value_loss(value, batch["return_"]))
    return policy_loss + algo.vf_coef * value_loss, {
        "loss/policy_avg": policy_loss,
        "loss/value_avg": value_loss,
        "entropy": mean(entropy),
        "policy/approxkl_avg": mean(pg.approx_kl(logprob, old)),
        "policy/clipfrac_avg": mean(pg.clip_fraction(logprob, old, algo.clip_coef, algo.clip_coef)),
    }


class AdaptiveKLController:
    """beta, moved so that the KL of a completion keeps to its target (0: beta stays)."""

    def __init__(self, algo: Config) -> None:
        self.algo, self.coef = algo, algo.kl_coef

    def adapt(self, divergence: float, completions: int) -> None:
        if self.algo.kl_target:
            rule = kl.adaptive_kl_controller
            self.coef = float(rule(self.coef, divergence, self.algo.kl_target, completions, self.algo.kl_horizon))

    def state_dict(self) -> dict[str, float]:
        return {"coef": self.coef}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.coef = state["coef"]


# What rlx explain says of the algorithm.
LESSON = {
    "what": (
        "This is PPO as it was first used to learn from human feedback: a reward model scores each "
        "completion, and every token pays a KL penalty for leaving the reference policy. A critic gives per- "
        "token advantages; the penalty's weight adapts to a target KL. What the policy gains beyond what the "
        "reward model knows is over-optimisation, which the task's own reward shows."
    ),
    "kind": "on-policy, model-free",
    "watch": ("objective/scores", "reward", "objective/kl", "kl_coef", "val/explained_variance"),
    "wrong": (
        (
            "objective/scores rises and reward falls: the reward model is gamed: raise algo.kl_coef, stop "
            "earlier, train it on newer samples"
        ),
        "objective/kl runs away: raise algo.kl_coef, lower algo.lr",
        ("nothing is gained: the KL costs more than the score pays: lower algo.kl_coef or raise algo.kl_target"),
    ),
    "try": (
        "rlx train experiment=rlhf_names",
        "rlx train algo=rlhf_ppo task=names init=latest:pretrain algo.reward_model=latest:reward_model",
        (
            "rlx train -m algo=rlhf_ppo task=names init=latest:pretrain algo.reward_model=latest:reward_model "
            "algo.kl_coef=0.01,0.15"
        ),
    ),
}

# What rlx explain says of the metrics: definition and unit, healthy values, what to do if they are not.
MEANINGS = {
    "objective/scores": (
        "Mean score of the reward model (or of the task, without one), a missing end replaced. Healthy: rises. If "
        "not: rising while `reward`, the task's own, falls, the model is gamed: raise algo.kl_coef, stop earlier, "
        "or train the reward model on newer samples."
    ),
    "objective/kl": (
        "KL of the policy from its reference, summed over the tokens of a completion, in nats. Healthy: near "
        "algo.kl_target. If not: far above, the policy has left what the reward model knows: raise algo.kl_coef; "
        "near 0, nothing moves: lower it."
    ),
    "kl": (
        "The same as `objective/kl`, under the name that grpo's runs have it. Healthy: near algo.kl_target. If "
        "not: see `objective/kl`."
    ),
    "objective/non_score_reward": (
        "-beta KL: what a completion pays for leaving the reference, mean. Healthy: smaller than what the score "
        "gains. If not: larger, beta is too high: lower algo.kl_coef or raise algo.kl_target."
    ),
    "objective/rlhf_reward": (
        "Score - beta KL: the quantity that is maximised, mean. Healthy: rises. If not: flat while the score "
        "rises, the gain is paid away in KL."
    ),
    "kl_coef": (
        "beta, moved so that the KL keeps to algo.kl_target. Healthy: settles. If not: growing without end, "
        "updates are too large: lower algo.lr."
    ),
    "loss/policy_avg": (
        "Mean of the clipped surrogate with its sign reversed. Healthy: slightly below 0. If not: its size says "
        "nothing; read `objective/rlhf_reward`."
    ),
    "loss/value_avg": (
        "Mean of .5 (V - R)^2 over tokens, clipped. Healthy: falls. If not: read `val/explained_variance`."
    ),
    "val/explained_variance": (
        "Share of the variance of the tokens' returns that the critic predicts. Healthy: from 0 towards 1. If "
        "not: near 0, raise algo.vf_coef, or algo.value_init=reward_model."
    ),
    "policy/approxkl_avg": (
        "Mean KL(pi_old || pi) of the iteration's updates, estimated by (r - 1) - log r, in nats a token. "
        "Healthy: .001 to .02. If not: above .03, lower algo.lr or algo.num_epochs."
    ),
    "policy/clipfrac_avg": (
        "Share of tokens whose ratio the clip stopped, from 0 to 1. Healthy: .01 to .2. If not: above .3, lower "
        "algo.lr or algo.num_epochs."
    ),
}
