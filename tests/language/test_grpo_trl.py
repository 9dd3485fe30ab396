"""GRPO and its relatives, DPO and the reward model against TRL's own code (benchmarks/peers/trl_golden.py)."""

import json
from pathlib import Path

import pytest
import torch
from tiny_lm import advantage_of, algo, groups_of, loss_of
from torch.testing import assert_close

from rlx.functional.preference import bradley_terry, dpo
from rlx.functional.returns import soft_overlong

pytestmark = pytest.mark.usefixtures("float64")
TRL = json.loads((Path(__file__).parent / "golden" / "trl.json").read_text())
GIVEN = {name: torch.tensor(value, dtype=torch.float64) for name, value in TRL["inputs"].items()}
LIKE_TRL = {"rtol": 1e-9, "atol": 1e-12}
REDUCTIONS = {
    "dapo": "dapo",
    "bnpo": "dapo",
    "cispo": "dapo",
    "grpo": "grpo",
    "dr_grpo": "dr_grpo",
    "luspo": "sequence",
}


def like_trl(settings):
    """as=trl, and what these settings of TRL are in rlx."""
    changes = {}
    for key, value in settings.items():
        if key == "loss_type":
            changes["reduction"] = REDUCTIONS[value]
        elif key == "use_bias_correction_kl":
            changes["kl_estimator"] = "ratio_k3" if value else "k3"
        elif key == "importance_sampling_level":
            changes["ratio"] = value
        else:
            name = {
                "epsilon_low": "clip_low",
                "epsilon_high": "clip_high",
                "beta": "kl_coef",
                "entropy_coef": "ent_coef",
            }
            changes[name[key]] = value
    if settings.get("loss_type") == "cispo":  # no lower bound, and the upper one itself
        changes |= {"objective": "cispo", "clip_low": 1.0, "clip_high": settings["epsilon_high"] - 1}
    return algo("algo=grpo", "as=trl", **changes)


def given_to_both():
    given = {
        "logprob": GIVEN["old_logprob"],
        "ref_logprob": GIVEN["ref_logprob"],
        "advantage": GIVEN["advantage"][:, None].expand_as(GIVEN["mask"]),
        "mask": GIVEN["mask"].bool(),
    }
    return GIVEN["logprob"].clone().requires_grad_(), GIVEN["entropy"].clone().requires_grad_(), given


@pytest.mark.parametrize("case", TRL["grpo"])
def test_loss_and_gradient_are_trls(case):
    expected = TRL["grpo"][case]
    new, entropy, given = given_to_both()
    cfg = like_trl(expected["settings"])
    loss, told = loss_of(cfg, new, given, entropy, TRL["max_length"])
    assert_close(loss.item(), expected["loss"], **LIKE_TRL)
    assert_close(torch.autograd.grad(loss, new, retain_graph=True)[0], torch.tensor(expected["gradient"]), **LIKE_TRL)
    if expected["entropy_gradient"]:
        assert_close(torch.autograd.grad(loss, entropy)[0], torch.tensor(expected["entropy_gradient"]), **LIKE_TRL)
    for name, value in expected["metrics"].items():
        if name in told and cfg.ratio == "token":  # of a completion's ratio TRL's is a mean over completions
            assert_close(told[name].item(), value, rtol=1e-6, atol=0)  # its own are float32


def test_as_trl_is_trls_defaults():
    cfg, theirs = algo("algo=grpo", "as=trl"), TRL["defaults"]
    assert (cfg.clip_low, cfg.clip_high) == (theirs["epsilon"], theirs["epsilon_high"] or theirs["epsilon"])
    assert (cfg.reduction, cfg.scale, cfg.ratio) == (
        theirs["loss_type"], theirs["scale_rewards"], theirs["importance_sampling_level"]
    )  # fmt: skip
    assert (cfg.kl_estimator == "ratio_k3") == theirs["use_bias_correction_kl"]
    assert (cfg.kl_coef, cfg.ent_coef, cfg.dual_clip) == (theirs["beta"], theirs["entropy_coef"], theirs["delta"] or 0)
    assert (cfg.num_epochs, cfg.temperature) == (theirs["num_iterations"], theirs["temperature"])
    assert (cfg.overlong == "filter") == theirs["mask_truncated_completions"]
    assert (cfg.adam_beta1, cfg.adam_beta2, cfg.adam_eps) == (
        theirs["adam_beta1"], theirs["adam_beta2"], theirs["adam_epsilon"]
    )  # fmt: skip
    assert (cfg.weight_decay, cfg.max_grad_norm) == (theirs["weight_decay"], theirs["max_grad_norm"])


def flat_groups(row, logprob=None):
    mask = GIVEN["mask"].bool().unflatten(0, (-1, TRL["group_size"]))
    reward = torch.tensor(row["reward"], dtype=torch.float64).view(mask.shape[:2])
    return groups_of(reward, mask, None if logprob is None else logprob.view(mask.shape))


@pytest.mark.parametrize("row", TRL["advantages"], ids=lambda row: row["scale"])
def test_advantages_are_trls(row):
    advantage, _ = advantage_of(algo("algo=grpo", "as=trl", scale=row["scale"]), flat_groups(row))
    assert_close(advantage[..., 0].flatten(), torch.tensor(row["advantage"]), **LIKE_TRL)


@pytest.mark.parametrize("row", TRL["rloo_advantages"], ids=lambda row: f"beta={row['beta']}")
def test_rloo_advantages_are_those_of_trls_rloo_trainer(row):
    cfg = algo("algo=rloo", kl_coef=row["beta"])
    groups = flat_groups(row, GIVEN["logprob"])
    advantage, _ = advantage_of(cfg, groups, ref=GIVEN["ref_logprob"].view(groups.mask.shape))
    assert_close(advantage[..., 0].flatten(), torch.tensor(row["advantage"]), rtol=1e-7, atol=1e-7)


def test_the_rloo_gradient_is_that_of_trls_rloo_trainer_on_policy():
    new, entropy, given = given_to_both()
    loss, _ = loss_of(algo("algo=rloo"), new, {**given, "logprob": GIVEN["logprob"]}, entropy)
    assert_close(torch.autograd.grad(loss, new)[0], torch.tensor(TRL["rloo"]["gradient"]), **LIKE_TRL)


def test_dpo_is_trls():
    new, _, given = given_to_both()
    mask, half = GIVEN["mask"], len(new) // 2
    (chosen, rejected), ref = (new * mask).sum(-1).split(half), (GIVEN["ref_logprob"] * mask).sum(-1).split(half)
    loss = dpo(chosen, rejected, *ref, TRL["dpo"]["beta"]).mean()
    assert_close(loss.item(), TRL["dpo"]["loss"], **LIKE_TRL)
    assert_close(torch.autograd.grad(loss, new)[0], torch.tensor(TRL["dpo"]["gradient"]), **LIKE_TRL)


def test_the_reward_models_loss_is_trls():
    score = torch.tensor(TRL["reward_model"]["score"]).requires_grad_()
    loss = bradley_terry(*score.chunk(2)).mean()
    assert_close(loss.item(), TRL["reward_model"]["loss"], **LIKE_TRL)
    assert_close(torch.autograd.grad(loss, score)[0], torch.tensor(TRL["reward_model"]["gradient"]), **LIKE_TRL)


def test_the_soft_overlong_penalty_is_trls():
    theirs = TRL["soft_overlong"]
    mine = soft_overlong(torch.tensor(theirs["length"]), theirs["max_length"], theirs["cache"])
    assert_close(mine, torch.tensor(theirs["penalty"]))
