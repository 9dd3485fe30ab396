"""How metrics are called in pictures."""

READABLE = {
    "rollout/ep_rew_mean": "mean return (training)", "rollout/batch_rew_mean": "mean return (iteration)",
    "rollout/ep_len_mean": "mean episode length (training)", "rollout/success_rate": "success rate (training)",
    "eval/mean_reward": "mean return (evaluation)", "eval/mean_ep_length": "mean episode length (evaluation)",
    "eval/success_rate": "success rate (evaluation)", "eval/reward": "mean reward (evaluation)",
    "eval/accuracy": "accuracy (evaluation)", "eval/greedy_accuracy": "accuracy, greedy (evaluation)",
    "exact/regret": "exact regret", "exact/value": "exact expected return", "eval": "score of the last evaluation",
    "reward": "mean reward (training)", "kl": "KL to the reference",
    "completions/mean_length": "completion length, tokens",
    "train/approx_kl": "approximate KL", "train/entropy_loss": "entropy loss", "time/fps": "steps a second",
}  # fmt: skip


def readable(metric: str) -> str:
    """rollout/ep_rew_mean -> mean return (training); one that nobody has named without its place and underscores."""
    return READABLE.get(metric) or metric.partition("/")[2].replace("_", " ") or metric.replace("_", " ")
