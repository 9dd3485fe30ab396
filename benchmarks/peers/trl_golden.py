"""What TRL's own code makes of given numbers: losses, gradients and advantages, for tests/language/test_grpo.py.

    python benchmarks/peers/trl_golden.py tests/language/golden/trl.json        with trl installed, and no need of rlx

No model and no data set: TRL's methods run on an object that has just the attributes they read, whose forward pass
returns the given log-probs. Everything is float64. What is called:

    GRPOTrainer._compute_loss, GRPOTrainer._generate_and_score_completions (advantages), RLOOTrainer: the same two
    DPOTrainer._compute_loss, RewardTrainer.compute_loss, trl.rewards.get_soft_overlong_punishment
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace as Object
from typing import Any

import torch
import transformers
import trl
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.reward_trainer import RewardTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

B, G, L, MAX_LENGTH = 6, 3, 5, 7  # completions, completions of a prompt, their longest, the limit
LENGTHS = (1, 5, 3, 2, 4, 5)
DEFAULTS = (  # of GRPOConfig, which conf/as/trl.yaml repeats
    "beta", "epsilon", "epsilon_high", "delta", "loss_type", "scale_rewards", "importance_sampling_level",
    "use_bias_correction_kl", "num_iterations", "mask_truncated_completions", "temperature", "entropy_coef",
    "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay", "max_grad_norm",
)  # fmt: skip
BASE = {
    "loss_type": "dapo", "importance_sampling_level": "token", "epsilon_low": 0.2, "epsilon_high": 0.2, "beta": 0.0,
    "use_bias_correction_kl": True, "entropy_coef": 0.0,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "luspo": {"loss_type": "luspo"},  # at the token level: sums over tokens
    "clip_higher": {"epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "cispo_low_cap": {"loss_type": "cispo", "epsilon_high": 1.1},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.03, "epsilon_high": 0.04},
    "kl": {"beta": 0.3},
    "kl_k3": {"beta": 0.3, "use_bias_correction_kl": False},
    "kl_grpo": {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": False},
    "entropy": {"entropy_coef": 0.1},
}
REWARDS = {"binary": [1, 0, 0, 0, 0, 0], "dense": [0.3, -1.2, 2.0, 0.1, 0.1, 0.7]}


def accelerator() -> Any:
    return Object(
        device=torch.device("cpu"), num_processes=1, process_index=0, sync_gradients=False, gather=lambda x: x,
        gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
    )  # fmt: skip


def trainer(**attributes: Any) -> Any:
    """One process, no accumulation, no vLLM, no tools, no images."""
    return Object(
        accelerator=accelerator(), model=Object(training=True, is_gradient_checkpointing=False), aux_loss_enabled=False,
        use_vllm=False, vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
        _metrics=defaultdict(lambda: defaultdict(list)), **attributes,
    )  # fmt: skip


def inputs() -> dict[str, torch.Tensor]:
    old = -2 * torch.rand(B, L)
    return {
        "old_logprob": old,
        "logprob": old + 0.3 * torch.randn(B, L),
        "ref_logprob": old + 0.5 * torch.randn(B, L),
        "entropy": torch.rand(B, L),
        "advantage": torch.randn(B),
        "mask": (torch.arange(L) < torch.tensor(LENGTHS)[:, None]).double(),
    }


def grpo_loss(case: dict[str, Any], given: dict[str, torch.Tensor]) -> dict[str, Any]:
    case = {**BASE, **case}
    logprob, entropy = (given[name].clone().requires_grad_() for name in ("logprob", "entropy"))
    mask = given["mask"]
    args = Object(use_bias_correction_kl=case.pop("use_bias_correction_kl"), delta=None, steps_per_generation=1)
    own = trainer(
        **case, args=args, top_entropy_quantile=1.0, off_policy_mask_threshold=None, max_completion_length=MAX_LENGTH,
        _entropy_bonus_enabled=case["entropy_coef"] > 0, use_adaptive_entropy=False,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprob, entropy, None),
    )  # fmt: skip
    ids = torch.zeros(B, L, dtype=torch.long)
    loss = GRPOTrainer._compute_loss(
        own,
        None,
        {
            "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask,
            "advantages": given["advantage"], "old_per_token_logps": given["old_logprob"],
            "ref_per_token_logps": given["ref_logprob"], "num_items_in_batch": mask.sum(),
        },
    )  # fmt: skip
    return {
        "loss": loss.item(),
        "gradient": gradient(loss, logprob),
        "entropy_gradient": gradient(loss, entropy),
        "metrics": {name: values[0] for name, values in own._metrics["train"].items() if name.endswith("_mean")},
    }


def rloo_loss(given: dict[str, torch.Tensor]) -> dict[str, Any]:
    """On policy: further away TRL's ratio is that of the whole completion."""
    logprob, mask = given["logprob"].clone().requires_grad_(), given["mask"]
    own = trainer(
        epsilon_low=0.2, epsilon_high=0.2,
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprob, given["entropy"], None),
    )  # fmt: skip
    ids = torch.zeros(B, L, dtype=torch.long)
    loss = RLOOTrainer._compute_loss(
        own,
        None,
        {
            "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask,
            "advantages": given["advantage"], "old_logps": (given["logprob"] * mask).sum(1),
        },
    )  # fmt: skip
    return {"loss": loss.item(), "gradient": gradient(loss, logprob)}


def advantages(kind: Any, reward: list[float], given: dict[str, torch.Tensor], **settings: Any) -> list[float]:
    """Those of B completions whose rewards are given, as the trainer `kind` computes them."""
    lists = [[1] * (length - 1) + [0] for length in LENGTHS]
    own = trainer(
        environment_factories=None, environments=None, tools=None, pad_to_multiple_of=None, num_generations=G,
        mask_truncated_completions=False, multi_objective_aggregation="sum_then_normalize", num_iterations=1,
        reward_weights=torch.ones(1), reward_func_names=["reward"], reward_funcs=[None], reward_clip_range=None,
        _tokenizer=Object(pad_token_id=2), eos_token_ids=[0], log_multimodal=False, normalize_advantages=False,
        _logs={"prompt": [], "completion": [], "advantages": [], "rewards": defaultdict(list), "extra": {}},
        _pending_extra_logs={}, _pending_metrics={}, ref_model="reference",
        args=Object(
            per_device_train_batch_size=B, steps_per_generation=1, gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        _generate=lambda prompts: ([[1]] * B, lists, ["x"] * B)
        if kind is RLOOTrainer
        else ([[1]] * B, lists, None, ["x"] * B, None, {}, None, None),
        _calculate_rewards=lambda *_: torch.tensor(reward, dtype=torch.float64)[:, None],
        _get_per_token_logps_and_entropies=lambda model, *_, **__: (
            given["ref_logprob"] if model == "reference" else given["logprob"], None, None
        ),
        **{"beta": 0.0, "scale_rewards": "group", **settings},
    )  # fmt: skip
    return kind._generate_and_score_completions(own, [{"prompt": "x"}] * B)["advantages"].tolist()


def dpo(given: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The first half of the rows are chosen; sums over the tokens of a completion."""
    logprob, mask = given["logprob"].clone().requires_grad_(), given["mask"]
    shifted = torch.cat([torch.zeros(B, 1), mask], 1).long()  # the prompt is one token
    ref = (given["ref_logprob"] * mask).sum(1)
    output = Object(
        log_probs=logprob * mask, entropy=given["entropy"], mean_logits=given["entropy"], is_top1=mask > 0
    )  # fmt: skip
    own = trainer(
        ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=["sigmoid"],
        loss_weights=[1.0], beta=0.1, use_weighting=False, _total_train_tokens=0, _tp_size=1,
    )  # fmt: skip
    loss = DPOTrainer._compute_loss(
        own,
        lambda **_: output,
        {
            "input_ids": shifted, "attention_mask": torch.ones_like(shifted), "completion_mask": shifted,
            "ref_chosen_logps": ref[: B // 2], "ref_rejected_logps": ref[B // 2 :],
        },
        False,
    )  # fmt: skip
    return {
        "beta": 0.1,
        "loss": loss.item(),
        "gradient": gradient(loss, logprob),
        "metrics": {name: own._metrics["train"][f"rewards/{name}"][0] for name in ("margins", "accuracies")},
    }


def reward_model(score: torch.Tensor) -> dict[str, Any]:
    score = score.clone().requires_grad_()
    own = trainer(args=Object(center_rewards_coefficient=None), _total_train_tokens=0, _tp_size=1)
    loss = RewardTrainer.compute_loss(
        own, lambda **_: Object(logits=score[:, None]), {"attention_mask": torch.ones(len(score), 1)}
    )
    return {"score": score.tolist(), "loss": loss.item(), "gradient": gradient(loss, score)}


def gradient(loss: torch.Tensor, x: torch.Tensor) -> Any:
    found = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)[0]
    return None if found is None else found.tolist()


def main(path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    given = inputs()
    defaults = {field.name: field.default for field in fields(GRPOConfig)}
    result = {
        "versions": {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
        "max_length": MAX_LENGTH,
        "group_size": G,
        "defaults": {name: defaults[name] for name in DEFAULTS},
        "inputs": {name: value.tolist() for name, value in given.items()},
        "grpo": {name: {"settings": case, **grpo_loss(case, given)} for name, case in CASES.items()},
        "rloo": rloo_loss(given),
        "advantages": [
            {"reward": reward, "scale": scale, "advantage": advantages(GRPOTrainer, reward, given, scale_rewards=scale)}
            for reward in REWARDS.values()
            for scale in ("group", "batch", "none")
        ],
        "rloo_advantages": [
            {"reward": reward, "beta": beta, "advantage": advantages(RLOOTrainer, reward, given, beta=beta)}
            for reward in REWARDS.values()
            for beta in (0.0, 0.05)
        ],
        "dpo": dpo(given),
        "reward_model": reward_model(torch.randn(8)),
        "soft_overlong": {
            "max_length": 20,
            "cache": 5,
            "length": list(range(12, 24)),
            "penalty": get_soft_overlong_punishment(20, 5)(completion_ids=[[0] * n for n in range(12, 24)]),
        },
    }
    path.write_text(json.dumps(result, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
