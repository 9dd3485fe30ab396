"""What rlx took for granted of every algorithm before each said so itself (0.2.0; see `facts`). It serves run
directories from before, and algorithms that leave a fact out; nothing is added here."""

from typing import Any

FROZEN = (
    "num_envs", "num_steps", "critic", "optimizer", "dueling", "prioritized", "buffer_ram_mb", "reward_model",
    "value_init", "kl_coef", "data", "num_pairs", "candidates", "num_rankings",
)  # fmt: skip
SHOWN = {
    "control": {"rollout/ep_rew_mean": "return {:.1f}"},
    "language": {"loss": "loss {:.3f}", "reward": "reward {:.3f}", "eval/greedy_accuracy": "greedy accuracy {:.3f}"},
}
METRICS = {
    "control": ("eval/mean_reward", "rollout/ep_rew_mean"),
    "language": ("eval/greedy_accuracy", "eval/reward", "eval/loss", "reward", "loss"),
}


def facts(world: str) -> dict[str, Any]:
    """By the names of the fields of `facts.Facts`."""
    return {"frozen": FROZEN, "shown": SHOWN[world], "metrics": METRICS[world]}
