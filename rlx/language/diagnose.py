"""What is wrong with a run, in one sentence that names the metric, its value and a remedy: functions of its metrics.

Each is silent unless all of the last PATIENCE iterations show the same, and is heard once. Nothing of this is saved: a
run that is resumed begins to count anew, takes its next iteration for its first, and may be told a thing twice.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from rlx.language.config import LanguageConfig, Sampling
from rlx.language.rollout import Groups
from rlx.run import Run

PATIENCE = 20  # iterations in a row
SHARE = "most_common"  # share of a batch's most frequent completion, where its prompts differ
GAP = "sampling/sampling_logp_difference/max"
CLIPPED, LENGTH, EQUAL = "completions/clipped_ratio", "completions/mean_length", "frac_reward_zero_std"
STRONG = 0.15  # a kl_coef that holds (Ziegler et al. 2019)
GAPS = {"float64": 1e-6, "float32": 1e-3, "rounded": 0.1}  # float32 has 2e-5; .1 is half of the usual clip range


class Diagnosed(Sampling, Protocol):
    """The section of an algorithm whose runs are diagnosed."""

    lr: float
    kl_coef: float


class Seen(NamedTuple):
    """The first iteration's metrics, those of the last PATIENCE ones, and what the run is."""

    first: Mapping[str, float]
    rows: Sequence[Mapping[str, float]]
    cfg: LanguageConfig[Diagnosed]
    max_new: int
    begins: str = "sft"  # the algorithm that gives the task its first policy

    def now(self, name: str) -> float:
        return self.rows[-1][name]

    def least(self, name: str) -> float:
        """The least of the last iterations; NaN, which compares as False, where one of them lacks it."""
        return min(self._all(name))

    def most(self, name: str) -> float:
        return max(self._all(name))

    def _all(self, name: str) -> list[float]:
        values = [row.get(name, float("nan")) for row in self.rows]
        return values if all(x == x for x in values) else [float("nan")]

    def says(self, name: str) -> str:
        return f"{name}={self.now(name):.3g} for {len(self.rows)} iterations"


# -- rewards -----------------------------------------------------------------------------------------------------


def equal_rewards(seen: Seen) -> str | None:
    """No group has anything to compare. (That a run ends with all of them right is what it was for.)"""
    algo: Any = seen.cfg.algo  # the keys below are those of algorithms with groups
    compares = getattr(algo, "baseline", "none") == "group" and algo.supervision == "outcome" and algo.group_size > 1
    if not compares or not seen.least(EQUAL) >= 0.98:
        return None
    accuracy = f"{seen.says(EQUAL)}, accuracy={seen.now('accuracy'):.3g}"
    if seen.least("accuracy") >= 0.98:
        if seen.first["accuracy"] < 0.9:
            return None
        return (
            f"{accuracy}: all completions are right, the task is too easy for this policy and nothing is learned; "
            "start from an earlier one (a lower task.sft_stop in its sft run)"
        )
    if seen.most("accuracy") <= 0.02 and seen.first["accuracy"] >= 0.05:
        return (
            f"{accuracy} (it began at {seen.first['accuracy']:.3g}): all completions are wrong, the policy has lost "
            f"what it could do; {_careful(algo)}"
        )
    if seen.most("accuracy") <= 0.02:
        more = "a higher task.sft_stop" if seen.begins == "sft" else "more total_steps"
        start = f"init=latest:{seen.begins}" if seen.cfg.init is None else f"{more} in the run that init names"
        return (
            f"{accuracy}: all completions are wrong, the task is too hard for this policy and nothing is learned; "
            f"start from one that is sometimes right ({start})"
        )
    remedy = (
        f"algo.temperature={1.5 * algo.temperature:.3g} samples more differently"
        if algo.dynamic_sampling
        else "algo.dynamic_sampling=5 draws such prompts anew"
    )
    return f"{accuracy}: a prompt's completions are all worth the same, so nothing is learned; {remedy}"


# -- length ------------------------------------------------------------------------------------------------------


def length_trap(seen: Seen) -> str | None:
    """Partial credit is collected by never ending, and nothing is ever right."""
    start, mean = seen.first["reward"], sum(row["reward"] for row in seen.rows) / len(seen.rows)
    pinned = seen.least(LENGTH) >= 0.95 * seen.max_new and seen.least(CLIPPED) >= 0.95
    if seen.cfg.task.reward == "exact" or not (pinned and seen.most("accuracy") <= 0.01 and mean > start + 0.05):
        return None
    return (
        f"reward={mean:.3g} (it began at {start:.3g}) with {seen.says(LENGTH)} and accuracy="
        f"{seen.now('accuracy'):.3g}: partial credit is collected by filling task.max_new={seen.max_new}; "
        "task.reward=exact pays nothing for that"
    )


def never_ends(seen: Seen) -> str | None:
    if not seen.least(CLIPPED) >= 1:
        return None
    remedy = (
        f"init=latest:{seen.begins} starts from a policy that has learned to end"
        if seen.cfg.init is None
        else f"task.max_new={2 * seen.max_new} leaves more room for one"
    )
    return f"{seen.says(CLIPPED)}: the end token is never sampled; {remedy}"


def truncated(seen: Seen) -> str | None:
    if not seen.least(CLIPPED) >= 0.95:
        return None
    return f"{seen.says(CLIPPED)}: nearly all completions are cut; task.max_new={2 * seen.max_new} leaves more room"


# -- collapse ----------------------------------------------------------------------------------------------------


def constant_answer(seen: Seen) -> str | None:
    if not (seen.least(SHARE) >= 0.8 and seen.most("accuracy") < 0.5):
        return None
    return (
        f"one text is {seen.now(SHARE):.0%} of the completions for {len(seen.rows)} iterations, whatever the prompt, "
        f"with accuracy={seen.now('accuracy'):.3g}; {_looser(seen)}"
    )


def entropy_collapsed(seen: Seen) -> str | None:
    """Hardly anything is left to chance, and it is not because all is right."""
    start = seen.first["entropy"]
    if not (seen.most("entropy") < 0.05 * start and seen.most("accuracy") < 0.9):
        return None
    return (
        f"{seen.says('entropy')} (it began at {start:.3g}), accuracy={seen.now('accuracy'):.3g}: the policy always "
        f"writes the same and no longer explores; {_looser(seen)}"
    )


def _looser(seen: Seen) -> str:
    """What keeps a policy from collapsing."""
    algo = seen.cfg.algo
    if not hasattr(algo, "ent_coef"):
        return f"algo.kl_coef={max(STRONG, 2 * algo.kl_coef):.3g} holds it nearer to the reference"
    if algo.ent_coef:
        return _careful(algo)
    return "algo.ent_coef=0.01 pays for variety"


def _careful(algo: Diagnosed) -> str:
    return f"algo.lr={algo.lr / 3:.1g} is more careful"


# -- numbers -----------------------------------------------------------------------------------------------------


def sampler_disagrees(seen: Seen) -> str | None:
    """The log-probs of sampling and of learning are those of two policies, before anything was learned."""
    model = seen.cfg.model
    rounded = model.dtype == "bfloat16" or model.matmul != "highest"
    limit = GAPS["rounded" if rounded else model.dtype]
    if not seen.least(GAP) > limit:
        return None
    remedy = "model.dtype=float32" if model.dtype == "bfloat16" else "model.matmul=highest" if rounded else "device=cpu"
    return (
        f"{seen.says(GAP)}, more than the {limit:g} that {'rounding' if rounded else model.dtype} explains: "
        f"sampling and learning do not use the same policy; {remedy} shows whether precision is the cause"
    )


def kl_explodes(seen: Seen) -> str | None:
    """The KL of rlhf_ppo, unless kl_coef=0 keeps none."""
    algo = seen.cfg.algo
    if not (hasattr(algo, "kl_target") and algo.kl_coef):
        return None
    limit = 5 * algo.kl_target or 50.0
    if not seen.least("objective/kl") > limit:
        return None
    aim = f"5 times algo.kl_target={algo.kl_target:g}" if algo.kl_target else f"{limit:g}"
    return (
        f"{seen.says('objective/kl')}, above {aim}: the policy has left its reference; "
        f"algo.kl_coef={max(STRONG, 2 * algo.kl_coef, seen.now('kl_coef')):.3g} holds it from the start"
    )


# Of a row the first that speaks is heard, and those behind it, which say less about the same, no more.
CHECKS: tuple[tuple[Callable[[Seen], str | None], ...], ...] = (
    (sampler_disagrees,),
    (kl_explodes,),
    (length_trap, never_ends, truncated),
    (constant_answer, entropy_collapsed),
    (equal_rewards,),
)


class Diagnosis:
    """Hears the metrics of every iteration, and gives the run notice."""

    def __init__(self, cfg: LanguageConfig[Diagnosed], run: Run, task: Any) -> None:
        self.cfg, self.run, self.max_new = cfg, run, task.max_new
        self.begins = "sft" if hasattr(task, "answer") else "pretrain"
        self.first: Mapping[str, float] | None = None
        self.rows: deque[Mapping[str, float]] = deque(maxlen=PATIENCE)
        self.said: set[Callable[[Seen], str | None]] = set()

    def hear(self, metrics: Mapping[str, float], groups: Groups) -> None:
        self.rows.append({**metrics, SHARE: most_common(groups.prompts, groups.texts)})
        self.first = self.first or self.rows[0]
        if len(self.rows) < PATIENCE:
            return
        seen = Seen(self.first, self.rows, self.cfg, self.max_new, self.begins)
        for row in CHECKS:
            for check in row:
                if check in self.said:
                    break
                if text := check(seen):
                    self.said.add(check)
                    self.run.notice(text)
                    break


def most_common(prompts: Sequence[str], texts: Sequence[str]) -> float:
    """The share of the most frequent text; 0 where all prompts are the same, and the answers may well be."""
    return Counter(texts).most_common(1)[0][1] / len(texts) if len(set(prompts)) > 1 else 0.0
