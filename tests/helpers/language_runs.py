"""Runs of language models of a fraction of a second, in this process: see tiny_runs.py, which does the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from composed import composed

from rlx.training import runner

TINY = {
    "total_steps": 12, "eval_every": 5, "eval_prompts": 4, "samples": 2, "checkpoint_every": 3, "tensorboard": False,
    "model.num_layers": 1, "model.d_model": 16, "model.num_heads": 2,
}  # fmt: skip
PARITY = {"task.length": 6, "task.reward": "dense", "task.sft_stop": 0.0}
TINY_ALGO: dict[str, dict[str, Any]] = {  # by implementation
    "pretrain": {"batch_size": 8},
    "sft": {"batch_size": 8, "check_every": 4, "check_prompts": 8},
    "reward_model": {"num_rankings": 8, "group_size": 3, "batch_size": 4, "normalise_on": 12},
    "rlhf_ppo": {"num_prompts": 4, "group_size": 2, "num_epochs": 2},
    "dpo": {"num_pairs": 8, "candidates": 3, "batch_size": 4},
    "grpo": {"num_prompts": 4, "group_size": 4},
}


def train(
    root: Path, algo: str, task: str = "parity", progress: Any = None, name: str | None = None, **changes: Any
) -> Path:
    """A tiny run. parity of 6 bits serves every algorithm: it has answers, a corpus, pairs and step rewards, and enough
    prompts to hold some out."""
    files = [f"task.file={changes['task.file']}"] if "task.file" in changes else []  # without it nothing is composed
    raw = composed(f"algo={algo}", f"task={task}", *files, "preset=none")
    tiny = {f"algo.{key}": value for key, value in TINY_ALGO.get(raw["algo"]["implementation"], {}).items()}
    own = PARITY if task == "parity" else {}
    for key, value in {**TINY, **tiny, **own, "runs_dir": str(root / "runs"), **changes}.items():
        *section, last = key.split(".")
        part = raw[section[0]] if section else raw
        assert last in part, key
        part[last] = value
    where = {"parent": root, "name": name} if name else {}
    return runner.start(raw, ["rlx", "train"], progress or (lambda *_: None), **where)[0]
