"""GRPO's loss and advantages, against numbers by hand and a loop over tokens."""

import math
from types import SimpleNamespace

import pytest
import torch
from some_tasks import task as make_task
from tiny_lm import advantage_of, algo, counts, groups_of, loss_of
from torch.testing import assert_close

from rlx.algos import grpo

pytestmark = pytest.mark.usefixtures("float64")
L = 5


def batch(B=4, seed=0):
    """Completions of lengths 1, 5, 3, 2 off the policy that drew them, some advantages equal to 0."""
    generator = torch.Generator().manual_seed(seed)
    old = -2 * torch.rand(B, L, generator=generator)
    new = old + 0.4 * torch.randn(B, L, generator=generator)
    return new, {
        "logprob": old,
        "ref_logprob": old + 0.5 * torch.randn(B, L, generator=generator),
        "advantage": torch.randn(B, L, generator=generator) * (torch.arange(B) != 3)[:, None],
        "mask": torch.arange(L) < torch.tensor([1, 5, 3, 2] * (B // 4))[:, None],
    }


# By hand


@pytest.mark.parametrize("how, value", [("grpo", 0.0), ("dapo", 0.5), ("dr_grpo", 0.25), ("sequence", 1.0)])
def test_the_four_reductions_by_hand(how, value):
    """A = (1, -1), lengths (1, 3), ratio 1, at most four tokens."""
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]]).bool()
    advantage, zero = torch.tensor([1.0, -1.0])[:, None].expand(2, 4), torch.zeros(2, 4)
    given = {"logprob": zero, "ref_logprob": zero, "advantage": advantage, "mask": mask}
    assert loss_of(algo(reduction=how), zero, given, max_new=4)[0].item() == value


@pytest.mark.parametrize(
    "rewards, win, lose",
    [
        ([1, 0, 0, 1], {"none": 0.5, "loo": 0.666667, 1: 0.865875, 0: 0.999800}, -1),
        ([1, 0, 0, 0], {"none": 0.75, "loo": 1, 1: 1.499700, 0: 1.731651}, -1 / 3),
    ],
)
def test_advantages_by_hand(rewards, win, lose):
    won = torch.tensor(rewards).bool()
    for key, value in win.items():
        cfg = algo(scale="group", std_ddof=key) if isinstance(key, int) else algo(scale=key)
        advantage, _ = advantage_of(cfg, groups_of([rewards]))
        expected = torch.where(won, value, value * lose)[None, :, None].expand(1, 4, L)
        assert_close(advantage, expected, rtol=0, atol=5e-7)  # printed to six places


def test_process_supervision_by_hand():
    """Two completions with steps of (.2, .8) and (1, .4, .6), on tokens (0, 2) and (0, 1, 4)."""
    steps = {"a": [(0, 0.2), (2, 0.8)], "b": [(0, 1.0), (1, 0.4), (4, 0.6)]}
    task = SimpleNamespace(max_new=L, step_rewards=lambda prompt, text, ended: steps[text])
    groups = groups_of([[0, 0]], texts=["a", "b"])
    advantage, mask = advantage_of(algo("algo=grpo_process", std_eps=1e-12), groups, task)
    low, high = -0.632456, 0.632456
    expected = torch.tensor([[[low, high, high, 0, 0], [high, low, 0, 0, 0]]])
    assert_close(advantage, expected, rtol=0, atol=1e-6)  # printed to six places


def test_process_supervision_blames_the_token_that_is_wrong():
    """Parity of 1101 is 1001; 1101 has two wrong steps, its second and third; the second blames nobody else."""
    task = make_task("parity", length=4)
    texts = ["1001", "1101"]
    groups = groups_of([[1, 0]], prompts=["1101="], texts=texts)
    advantage, mask = advantage_of(algo("algo=grpo_process"), groups, task)
    assert mask.all() and advantage.shape == (1, 2, 5)
    right, wrong = advantage[0]
    step = -wrong.diff()  # r~ of each step but the last
    assert step[0] > 0 and step[1] < 0 and step[2] < 0 and step[3] > 0
    assert (right > 0).all()  # all that it still does is right
    assert wrong[1] < 0 and wrong[2] < 0 and wrong[3] > 0 and wrong[4] > 0


def test_gspo_has_one_ratio_a_completion():
    """Log-ratios (.1, -.3, .2): each token is far from 1, their geometric mean is 1."""
    new, mask = torch.tensor([[0.1, -0.3, 0.2, 9.0]]).requires_grad_(), torch.tensor([[1, 1, 1, 0]]).bool()
    given = {
        "logprob": torch.zeros(1, 4),
        "ref_logprob": torch.zeros(1, 4),
        "advantage": torch.ones(1, 4),
        "mask": mask,
    }
    loss, told = loss_of(algo("algo=gspo"), new, given)
    assert_close(loss, torch.tensor(-1.0))
    assert_close(torch.autograd.grad(loss, new)[0], torch.tensor([[-1 / 3, -1 / 3, -1 / 3, 0]]))
    assert told["clip_ratio/low_mean"] == told["clip_ratio/high_mean"] == 0
    loss, told = loss_of(algo(clip_low=3e-4, clip_high=4e-4), new, given)
    assert_close(told["clip_ratio/high_mean"], torch.tensor(2 / 3))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "dapo", "gspo", "cispo"])
def test_equal_rewards_give_exactly_no_loss_and_no_gradient(name):
    cfg = algo(f"algo={name}")
    advantage, mask = advantage_of(cfg, groups_of([[0.1] * 4, [1 / 3] * 4]))
    new, given = batch(8)
    new = new.requires_grad_()
    loss, _ = loss_of(cfg, new, {**given, "advantage": advantage.flatten(0, 1)})
    assert loss.item() == 0 and (torch.autograd.grad(loss, new)[0] == 0).all()


def test_reinforce_pp_pays_the_kl_from_each_token_on_and_standardises_over_all_tokens():
    """Rewards 1 and 0, beta .5, log-ratios (.2, .4) and (-.6), lengths 2 and 1: returns (.7, .8), (.3)."""
    mask = torch.tensor([[[1, 1], [1, 0]]]).bool()
    ratio = torch.tensor([[[0.2, 0.4], [-0.6, 7.0]]])
    cfg = algo("algo=reinforce_pp", kl_coef=0.5, whiten=False)
    advantage, _ = advantage_of(cfg, groups_of([[1, 0]], mask, ratio), ref=torch.zeros(1, 2, 2))
    assert_close(advantage, torch.tensor([[[0.7, 0.8], [0.3, 0.0]]]))
    cfg = algo("algo=reinforce_pp", kl_coef=0.5, std_ddof=0, std_eps=1e-12)
    advantage, _ = advantage_of(cfg, groups_of([[1, 0]], mask, ratio), ref=torch.zeros(1, 2, 2))
    std = (0.14 / 3) ** 0.5  # of .7, .8, .3 about .6
    assert_close(advantage, torch.tensor([[[0.1, 0.2], [-0.3, 0.0]]]) / std)


def test_completions_that_were_cut_are_filtered_or_pay():
    mask = torch.arange(L) < torch.tensor([2, 5, 5, 4])[None, :, None]
    ended = torch.tensor([[True, True, False, True]])
    groups = groups_of([[1, 0, 0, 1]], mask, ended=ended)
    plain, kept = advantage_of(algo(), groups)
    assert torch.equal(kept, mask)
    filtered, kept = advantage_of(algo(overlong="filter"), groups)
    assert torch.equal(kept, mask & ended.unsqueeze(-1))  # one that ends with the last token is not cut
    assert torch.equal(filtered, plain * kept)
    soft, kept = advantage_of(algo(overlong="soft", overlong_cache=2, scale="none"), groups)
    reward = torch.tensor([1.0, -1.0, -1.0, 0.5])  # 3 tokens are free, 4 cost .5, 5 cost 1
    assert torch.equal(kept, mask)
    assert_close(soft, (reward - reward.mean())[None, :, None] * mask)


# Against loops over tokens


def by_hand(cfg, new, given, entropy, max_new):
    """The loss again, token by token."""
    old, ref, A, mask = (given[name] for name in ("logprob", "ref_logprob", "advantage", "mask"))
    per_completion = []
    for i in range(len(new)):
        steps = [t for t in range(new.shape[1]) if mask[i, t]]
        costs = []
        for t in steps:
            log_ratio = new[i, t] - old[i, t]
            if cfg.ratio == "sequence":
                log_ratio = sum(new[i, s] - old[i, s] for s in steps) / len(steps)
            ratio, a = torch.exp(log_ratio), A[i, t].item()
            low, high = 1 - cfg.clip_low, 1 + cfg.clip_high
            if cfg.objective == "cispo":
                cost = -min(max(ratio.item(), low), high) * a * new[i, t]
            elif a >= 0:  # the two branches of Spinning Up
                cost = -a * (ratio if ratio.item() < high else torch.tensor(high))
            else:
                cost = -a * (ratio if ratio.item() > low else torch.tensor(low))
                if cfg.dual_clip and ratio.item() > cfg.dual_clip:
                    cost = torch.tensor(-cfg.dual_clip * a)
            if cfg.kl_coef:
                d = ref[i, t] - new[i, t]
                k3 = torch.exp(d) - 1 - d
                kl = {"k2": d * d / 2, "k3": k3, "ratio_k3": torch.exp(new[i, t] - old[i, t]) * k3}[cfg.kl_estimator]
                cost = cost + cfg.kl_coef * kl
            costs.append(cost - cfg.ent_coef * entropy[i, t])
        per_completion.append(costs)
    sums = [sum(costs) for costs in per_completion]
    if cfg.reduction == "grpo":
        return sum(s / len(costs) for s, costs in zip(sums, per_completion)) / len(sums)
    if cfg.reduction == "dapo":
        return sum(sums) / sum(len(costs) for costs in per_completion)
    return sum(sums) / len(sums) / (max_new if cfg.reduction == "dr_grpo" else 1)


@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo", "sequence"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_low": 0.1, "clip_high": 0.28, "ent_coef": 0.2},
        {"dual_clip": 1.3, "kl_coef": 0.3, "kl_estimator": "k2"},
        {"ratio": "sequence", "clip_low": 0.05, "clip_high": 0.1, "kl_coef": 0.3},
        {"objective": "cispo", "clip_low": 0.1, "clip_high": 0.1, "kl_coef": 0.3, "kl_estimator": "ratio_k3"},
    ],
    ids=["clip", "higher", "dual", "sequence", "cispo"],
)
def test_loss_and_gradient_are_those_of_a_loop_over_tokens(changes, reduction):
    cfg = algo(reduction=reduction, **changes)
    new, given = batch(8, seed=3)
    new, entropy = new.requires_grad_(), torch.rand(8, L, requires_grad=True)
    found, told = loss_of(cfg, new, given, entropy)
    expected = by_hand(cfg, new, given, entropy, 7)
    assert_close(found, expected)
    given_to = (new, entropy) if cfg.ent_coef else (new,)
    for mine, other in zip(torch.autograd.grad(found, given_to), torch.autograd.grad(expected, given_to)):
        assert_close(mine, other)
    if not changes:
        assert 0 < told["clip_ratio/low_mean"] < 1 and 0 < told["clip_ratio/high_mean"] < 1


@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo", "sequence"])
def test_parts_of_a_batch_add_up_to_it_in_loss_gradient_and_diagnostics(reduction):
    cfg = algo(reduction=reduction, kl_coef=0.3, ent_coef=0.1)
    new, given = batch(8, seed=3)
    entropy, whole = torch.rand(8, L), counts(given["mask"])

    def sums(size):
        x = new.clone().requires_grad_()
        found = [
            loss_of(
                cfg, x[i : i + size], {k: v[i : i + size] for k, v in given.items()}, entropy[i : i + size], 7, whole
            )
            for i in range(0, 8, size)
        ]
        loss = sum(part for part, _ in found)
        told = {name: torch.stack([info[name] for _, info in found]) for name in found[0][1]}
        told = {name: value.max() if name.endswith("/max") else value.sum() for name, value in told.items()}
        return loss.detach(), torch.autograd.grad(loss, x)[0], told

    for size in (1, 2, 4):
        for mine, other in zip(sums(size), sums(8)):
            assert_close(mine, other, rtol=1e-12, atol=1e-14)  # float64, sums in another order


# What is read


def test_a_loss_without_kl_reads_no_reference_and_one_with_it_is_0_at_the_reference():
    new, given = batch()
    hidden = {**given, "ref_logprob": torch.full_like(new, torch.nan)}
    assert_close(loss_of(algo(), new, hidden)[0], loss_of(algo(), new, given)[0])
    same = {**given, "ref_logprob": new}
    loss, told = loss_of(algo(kl_coef=10.0), new, same)
    assert_close(loss, loss_of(algo(), new, given)[0])
    assert told["kl"] == 0 and "kl" not in loss_of(algo(), new, given)[1]


@pytest.mark.parametrize("outside", [-1e4, 1e4, torch.nan])
@pytest.mark.parametrize("changes", [{"kl_estimator": "ratio_k3"}, {"ratio": "sequence"}, {"objective": "cispo"}])
def test_what_stands_outside_the_mask_is_not_read(outside, changes):
    """Nor does it overflow: exp(1e4) is infinite, and 0 times infinity is not a number."""
    new, given = batch()
    cfg, kept = algo(kl_coef=0.1, ent_coef=0.1, **changes), given["mask"]
    noise = {
        name: torch.where(kept, given[name], sign * outside) for name, sign in (("logprob", 1), ("ref_logprob", -1))
    }
    hidden = torch.where(kept, new, outside).requires_grad_()
    loss, told = loss_of(cfg, hidden, {**given, **noise})
    expected, want = loss_of(cfg, new.requires_grad_(), given)
    assert_close(loss, expected)
    assert_close(told, want)
    mine, other = torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(expected, new)[0]
    assert (mine[~kept] == 0).all()
    assert_close(mine, other)


def test_the_gap_between_sampling_and_learning_is_the_largest_of_the_batch():
    new, given = batch()
    _, told = loss_of(algo(), new, given)
    assert_close(told[grpo.GAP], (new - given["logprob"])[given["mask"]].abs().max())
    assert math.isclose(loss_of(algo(), given["logprob"], given)[1][grpo.GAP], 0.0)
