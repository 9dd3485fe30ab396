"""What holds a run back: rules over its metrics. Each says what it saw and what to try, and has a source."""

from collections.abc import Callable
from typing import NamedTuple

from rlx.explain.runs.record import Record

Words = tuple[str, ...]  # key=value to try


class Advice(NamedTuple):
    text: str
    words: Words = ()


def _scaled(record: Record, key: str, factor: float) -> Words:
    """A key times a factor."""
    value = record.number(key)
    return (f"{key}={value * factor:.2g}",) if value else ()


def _raised(record: Record, key: str, least: float) -> Words:
    """Three times a coefficient, or at least so much."""
    return (f"{key}={max(least, 3 * (record.number(key) or 0)):.2g}",)


def _at(step: float, record: Record) -> str:
    return f"step {int(step):,} of {record.steps:,}"


# -- the size of the updates -------------------------------------------------------------------------------------------


def kl_too_large(record: Record) -> Advice | None:
    """KL above its target in 30 % of the updates. Schulman et al. 2017 (arXiv:1707.06347) aim at .01; Spinning Up stops
    an iteration at .015."""
    kl = record.series("train/approx_kl", "policy/approxkl_avg")
    limit = 1.5 * (record.number("algo.target_kl") or 0.02)
    if not kl or (share := kl.share(limit)) < 0.3:
        return None
    text = (
        f"KL above {limit:.2g} in {share:.0%} of the updates (median {kl.median():.2g}): they move the policy too far"
    )
    return Advice(f"{text}; a lower algo.lr or fewer algo.num_epochs shrink them", _scaled(record, "algo.lr", 0.3))


def no_clip(record: Record) -> Advice | None:
    """A clip that clips nothing. Schulman et al. 2017, table 1: without clipping PPO scores below a random policy."""
    clip = record.number("algo.clip_coef")
    if clip is None or clip < 1 or record.value("algo.objective") == "penalty":
        return None
    return Advice(f"algo.clip_coef={clip:g} clips nothing: no ratio is so far from 1", ("algo.clip_coef=0.2",))


def nothing_moves(record: Record) -> Advice | None:
    """KL of an update below 1e-5 throughout: the policy stays what it was. The converse of `kl_too_large`."""
    kl = record.series("train/approx_kl", "policy/approxkl_avg")
    if record.solved or not kl or kl.median() > 1e-5:
        return None
    text = f"the updates hardly move the policy (median KL {kl.median():.1g})"
    return Advice(f"{text}: algo.lr={record.value('algo.lr')} is too small", _scaled(record, "algo.lr", 30))


def search_refused(record: Record) -> Advice | None:
    """The line search refuses most steps. Schulman et al. 2015 (arXiv:1502.05477), appendix C."""
    success = record.series("train/is_line_search_success")
    if not success or success.mean() >= 0.5:
        return None
    text = f"the line search refused {1 - success.mean():.0%} of the steps: the policy stayed as it was"
    words = ("algo.line_search_steps=10", "algo.cg_damping=0.1")
    return Advice(f"{text}; more tries and more damping find a step that it accepts", words)


def q_diverges(record: Record) -> Advice | None:
    """Q-values far beyond what was ever earned. van Hasselt et al. 2016 (arXiv:1509.06461), section 3."""
    q, earned = record.series("train/q_value"), record.series("rollout/ep_rew_mean")
    if not q or not earned or abs(q.last) <= 3 * max(map(abs, earned.values)) + 10:
        return None
    text = f"Q-values of {q.last:.3g} at the end, where episodes earned {max(earned.values):.3g} at best: they diverge"
    words = ("algo.double=true", *_scaled(record, "algo.lr", 0.1))
    return Advice(f"{text}; double Q-learning and a smaller step size prevent it", words)


# -- exploration -----------------------------------------------------------------------------------------------------


def entropy_gone(record: Record) -> Advice | None:
    """Entropy below a twentieth of what it was, before the task is solved. Mnih et al. 2016 (arXiv:1602.01783), section
    4, on the entropy bonus; the threshold is that of rlx.language.diagnose."""
    entropy = record.entropy
    if record.solved or len(entropy) < 4:
        return None
    began = max(entropy.values[:3])
    gone = next((i for i in range(len(entropy)) if max(entropy.values[i:]) < 0.05 * began), None)
    if gone is None or gone > 0.9 * len(entropy):
        return None
    text = f"entropy gone at {_at(entropy.steps[gone], record)} ({entropy.last:.2g} nats, it began at {began:.2g})"
    has_bonus = record.number("algo.ent_coef") is not None
    words = _raised(record, "algo.ent_coef", 0.01) if has_bonus else _scaled(record, "algo.lr", 0.3)
    return Advice(f"{text}: the policy always does the same and no longer explores", words)


def epsilon_high(record: Record) -> Advice | None:
    """A fifth of the actions are still random at the end. Sutton & Barto 2018, section 2.7; Mnih et al. 2015: .1."""
    epsilon = record.series("rollout/exploration_rate")
    if not epsilon or epsilon.last <= 0.2:
        return None
    better = {"algo.final_epsilon": 0.05, "algo.exploration_fraction": 0.5}
    words = tuple(f"{key}={value}" for key, value in better.items() if (record.number(key) or 0) > value)
    return Advice(f"epsilon still {epsilon.last:.2g} at the end: that share of the actions was random", words)


def same_return(record: Record) -> Advice | None:
    """Every episode earned the same: there is nothing to prefer. An advantage is a difference of returns (Sutton &
    Barto 2018, section 13.4)."""
    returns = record.series("rollout/ep_rew_mean")
    if record.solved or len(returns) < 3 or returns.range > 1e-6 * max(1.0, abs(returns.last)):
        return None
    text = f"all episodes returned {returns.last:g}: no action looks better than another, and no goal was reached"
    if record.number("algo.exploration_fraction") is not None:
        return Advice(f"{text}; explore longer", ("algo.exploration_fraction=0.8",))
    has_bonus = record.number("algo.ent_coef") is not None
    return Advice(f"{text}; explore more", _raised(record, "algo.ent_coef", 0.01) if has_bonus else ())


# -- values ----------------------------------------------------------------------------------------------------------


def critic_explains_little(record: Record) -> Advice | None:
    """Explained variance below .2 in the second half; a constant has 0 (rlx.functional.value)."""
    explained = record.series("train/explained_variance", "val/explained_variance")
    if record.solved or len(explained) < 4 or (value := explained.median(0.5)) >= 0.2:
        return None
    text = f"the critic explains {value:.2g} of the returns' variance in the second half: advantages are mostly noise"
    weight = record.number("algo.vf_coef")
    if weight is not None and weight < 0.1:
        return Advice(text, ("algo.vf_coef=0.5",))
    if words := _scaled(record, "algo.critic_lr", 3):
        return Advice(text, words)
    scales = not record.is_language and not record.value("env.normalize_reward")
    return Advice(text, ("env.normalize_reward=true",) if scales else _scaled(record, "algo.vf_coef", 3))


def shortsighted(record: Record) -> Advice | None:
    """A horizon of 1 / (1 - gamma) below a tenth of an episode. Sutton & Barto 2018, section 3.3."""
    gamma, length = record.number("algo.gamma"), record.series("rollout/ep_len_mean", "eval/mean_ep_length")
    if record.is_language or record.solved or gamma is None or gamma >= 1 or not length:
        return None
    horizon, longest = 1 / (1 - gamma), max(length.values)
    if horizon * 10 > longest:
        return None
    text = f"algo.gamma={gamma:g} looks {horizon:.3g} step{'s' * (horizon > 1)} ahead, and episodes had {longest:.3g}"
    return Advice(f"{text}: what comes later does not count", ("algo.gamma=0.99",))


def replay_too_small(record: Record) -> Advice | None:
    """A buffer of fewer than 32 batches, or of a hundredth of the run. Fedus et al. 2020 (arXiv:2007.06700); Mnih et
    al. 2015 keep a million transitions."""
    size, batch = record.number("algo.buffer_size"), record.number("algo.batch_size") or 32
    if record.solved or size is None or size >= max(32 * batch, 0.01 * record.steps):
        return None
    text = (
        f"algo.buffer_size={size:.0f} holds {size / batch:.3g} batches: steps are learned from in a row and forgotten"
    )
    return Advice(text, (f"algo.buffer_size={max(10_000, record.steps // 2)}",))


# -- language --------------------------------------------------------------------------------------------------------


def lost_what_it_could(record: Record) -> Advice | None:
    """Right answers at first and none at the end: the policy has gone to pieces, as rlx.language.diagnose sees it while
    the run trains."""
    accuracy = record.series("accuracy")
    if record.value("algo.temperature") is None or len(accuracy) < 4:
        return None
    began, ends = max(accuracy.values[:3]), accuracy.mean(0.75)
    if began < 0.05 or ends > 0.1 * began:
        return None
    lost = next(step for step, value in zip(accuracy.steps, accuracy.values) if value <= 0.1 * began)
    text = (
        f"the policy lost what it could do: {began:.2g} of its completions were right at first, {ends:.2g} in the end"
    )
    return Advice(f"{text} (from {_at(lost, record)} on)", _scaled(record, "algo.lr", 0.1))


def equal_groups(record: Record) -> Advice | None:
    """Two fifths of the groups have one reward. Yu et al. 2025 (arXiv:2503.14476, DAPO), section 3.2."""
    equal, accuracy = record.series("frac_reward_zero_std"), record.series("accuracy")
    if record.solved or record.value("algo.baseline") is None or not equal or (share := equal.mean()) < 0.4:
        return None
    text = f"{share:.0%} of the groups have equal rewards and teach nothing"
    if accuracy and accuracy.mean() < 0.02:
        words = ("init=latest:sft",) if record.value("init") is None else ()
        return Advice(f"{text}: hardly any completion is right; start from a policy that is sometimes right", words)
    return Advice(f"{text}; dynamic sampling draws other prompts", ("algo.dynamic_sampling=3",))


def cut_completions(record: Record) -> Advice | None:
    """Half of the completions are cut. Yu et al. 2025 (arXiv:2503.14476), section 3.4."""
    cut, longest = record.series("completions/clipped_ratio"), record.series("completions/max_length")
    if not cut or cut.mean(0.5) < 0.5:
        return None
    words = (f"task.max_new={2 * int(longest.last)}",) if longest else ()
    return Advice(f"{cut.mean(0.5):.0%} of the completions are cut before they end", words)


def reward_model_gamed(record: Record) -> Advice | None:
    """The score rises and the task's own reward falls. Gao et al. 2022 (arXiv:2210.10760)."""
    score, reward = record.series("objective/scores"), record.series("reward")
    if record.value("algo.reward_model") is None or len(score) < 8 or len(reward) != len(score):
        return None
    best = max(range(len(reward)), key=lambda i: reward.values[i])
    most, end = reward.values[best], reward.mean(0.75)
    if score.mean(0.75) <= score.values[best] or end >= most - 0.1 * abs(most):
        return None
    text = f"the score rose to {score.mean(0.75):.3g} while the task's own reward fell from {most:.3g} to {end:.3g}"
    words = _raised(record, "algo.kl_coef", 0.15)
    return Advice(f"{text}: the policy games the reward model from {_at(reward.steps[best], record)} on", words)


def left_reference(record: Record) -> Advice | None:
    """KL from the reference beyond 5 times its target. Ziegler et al. 2019 (arXiv:1909.08593), section 2.2."""
    kl, target = record.series("objective/kl"), record.number("algo.kl_target") or 10.0
    if not kl or kl.mean(0.5) <= 5 * target:
        return None
    text = f"KL from the reference of {kl.mean(0.5):.3g} nats per completion in the second half"
    return Advice(f"{text}: the score is unreliable for such texts", _raised(record, "algo.kl_coef", 0.15))


def both_improbable(record: Record) -> Advice | None:
    """The chosen completions become improbable, too. Pal et al. 2024 (arXiv:2402.13228)."""
    chosen = record.series("logps/chosen")
    if len(chosen) < 4 or chosen.last > chosen.values[0] - max(2.0, 0.3 * abs(chosen.values[0])):
        return None
    text = f"the chosen completions became less probable, too ({chosen.values[0]:.3g} to {chosen.last:.3g} nats)"
    words = (*_scaled(record, "algo.beta", 5), *_scaled(record, "algo.lr", 0.3))
    return Advice(f"{text}; a larger algo.beta keeps the policy nearer to its reference", words)


# -- the course of the run ---------------------------------------------------------------------------------------------


def fell_back(record: Record) -> Advice | None:
    """The last scores are a quarter of the way back from the best one. Henderson et al. 2018 (arXiv:1709.06560)."""
    scores = record.scores
    if record.solved or len(scores) < 3:
        return None
    best = max(range(len(scores)), key=lambda i: scores.values[i])
    most, end = scores.values[best], scores.mean(0.9)
    if best > 0.85 * len(scores) or most - end < max(0.25 * scores.range, 0.2 * abs(most), 1e-9):
        return None
    text = f"the score fell back from {most:.4g} at {_at(scores.steps[best], record)} to {end:.4g}"
    words = ("algo.anneal_lr=true",) if record.value("algo.anneal_lr") is False else _scaled(record, "algo.lr", 0.3)
    return Advice(f"{text}; the best checkpoint is kept (rlx play RUN --checkpoint best)", words)


def still_rising(record: Record) -> Advice | None:
    """The last quarter is better than the one before by a tenth of the range: it was stopped too early (Henderson et
    al. 2018, section 4)."""
    learning = record.series(*(name for name in record.facts.learning if not name.endswith("loss")))
    if record.solved or len(learning) < 8 or not learning.range:
        return None
    gain = learning.mean(0.75) - learning.mean(0.5, 0.75)
    if gain < 0.1 * learning.range or learning.last < learning.mean(0.75) - 0.1 * learning.range:
        return None
    total = record.number("total_steps") or record.steps
    return Advice("the score was still rising at the end", (f"total_steps={int(3 * total)}",))


Rule = Callable[[Record], Advice | None]
# Of a row the first that speaks is heard: those behind it say less about the same.
RULES: tuple[tuple[Rule, ...], ...] = (
    (same_return,),
    (shortsighted,),
    (no_clip,),
    (kl_too_large, nothing_moves),
    (search_refused,),
    (q_diverges,),
    (entropy_gone,),
    (epsilon_high,),
    (reward_model_gamed, left_reference),
    (both_improbable,),
    (lost_what_it_could, equal_groups),
    (cut_completions,),
    (critic_explains_little,),
    (replay_too_small,),
    (fell_back, still_rising),
)


def findings(record: Record) -> list[tuple[Rule, Advice]]:
    """What the rules say of a run, what explains most first."""
    heard: list[tuple[Rule, Advice]] = []
    for row in RULES:
        if first := next(((rule, finding) for rule in row if (finding := rule(record))), None):
            heard.append(first)
            if first[0] in (same_return, nothing_moves):
                break  # the others would speak of what follows from it
    return heard
