"""GRPO's loop: cutting the work changes nothing, and what each step samples, keeps, learns and remembers."""

import copy
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_lm import Everything, algo, gpt, policy, task_config, train
from torch.testing import assert_close

from rlx.algos import grpo
from rlx.base.errors import UserError
from rlx.language import learner
from rlx.language.ranks import Ranks
from rlx.language.rollout import collect
from rlx.run import Run

pytestmark = pytest.mark.usefixtures("float64")
# A step of adam_eps=1 is smooth in the gradient; with 1e-8 a gradient of 1e-17 counts as much as one of 1.
SMALL = {"num_prompts": 4, "group_size": 3, "adam_eps": 1.0, "lr": 0.3, "max_grad_norm": 0.1}
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64, sums in another order
PARITY = {"length": 3, "reward": "dense"}


def weights(run):
    return torch.cat([p.flatten() for p in run.tracked["policy"].parameters()])


def start(**task):
    return copy.deepcopy(policy("parity", seed=1, **task).model.state_dict())


def test_a_step_follows_the_gradient_of_its_completions():
    """Drawn again from the run's streams; A and the loss by hand, on policy -A log pi; clipped; Adam's first step."""
    run, (metrics,) = train(algo(**SMALL), **PARITY)
    first, same = policy("parity", seed=1, **PARITY), Run(Path("."), torch.device("cpu"), 1)
    prompts = first.task.prompts(same.rng("prompts"), 4)
    groups = collect(first, prompts, 3, same.rng("sampling"), 1.0, Ranks())
    assert metrics["reward"] == groups.reward.mean()
    loss = torch.tensor(0.0)
    for p in range(4):
        rewards = groups.reward[p].double()
        for g in range(3):
            n = int(groups.lengths[p, g])
            advantage = (rewards[g] - rewards.mean()) / (rewards.std() + 1e-4)
            logits = first.model(groups.prompt[p : p + 1], None, groups.tokens[p : p + 1, g : g + 1, :n])[0, 0]
            logprob = logits.log_softmax(-1)[range(n), groups.tokens[p, g, :n]]
            loss = loss - advantage * logprob.mean() / 12
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in first.model.parameters()])
    before = torch.cat([p.detach().flatten() for p in first.model.parameters()])
    assert metrics["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-6)  # rewards are float32
    clipped = gradient * min(1, 0.1 / gradient.norm())
    assert gradient.norm() > 0.1
    assert_close(weights(run) - before, -0.3 * clipped / (clipped.abs() + 1), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampler_learner_and_reference_divide_the_logits_by_the_same_temperature(temperature):
    """On the first pass they are one policy: no log-prob differs, no KL, no gradient of it."""
    _, (metrics,) = train(algo(**SMALL, temperature=temperature, kl_coef=10.0), **PARITY)
    assert metrics[grpo.GAP] < 1e-6 and metrics["kl"] == pytest.approx(0, abs=1e-12)
    _, (without,) = train(algo(**SMALL, temperature=temperature), **PARITY)
    assert metrics["grad_norm"] == pytest.approx(without["grad_norm"], rel=1e-6)


@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo", "sequence"])
def test_micro_batches_change_nothing(reduction):
    cfg = dict(SMALL, reduction=reduction, num_epochs=2, num_minibatches=2, kl_coef=0.1, ent_coef=0.05)
    whole, expected = train(algo(**cfg), steps=8, **PARITY)
    before = torch.cat([p.flatten() for p in start(**PARITY).values()])
    assert (weights(whole) - before).abs().max() > 1e-3
    one, metrics = train(algo(**cfg, micro_batch=1), steps=8, **PARITY)
    assert_close(weights(one), weights(whole), **EXACT)
    assert [row.keys() for row in metrics] == [row.keys() for row in expected] and len(metrics) == 2
    for mine, other in zip(metrics, expected):
        assert mine == pytest.approx(other, rel=1e-9, abs=1e-12)


class Thread(Ranks):
    """One of several ranks of this process, each in a thread of its own."""

    here = threading.local()

    def __init__(self):
        self.shared, self.rank = self.here.shared, self.here.rank
        self.count = len(self.shared.slots)

    def exchange(self, x):
        self.shared.slots[self.rank] = x.clone()
        self.shared.barrier.wait(60)
        found = list(self.shared.slots)
        self.shared.barrier.wait(60)
        return found

    def gather(self, rows):
        return torch.cat(self.exchange(rows))

    def add(self, tensor):
        return tensor.copy_(sum(self.exchange(tensor)))


def on_ranks(count, work):
    """work() on each of `count` ranks -> what each returned."""
    shared, results = SimpleNamespace(slots=[None] * count, barrier=threading.Barrier(count)), [None] * count

    def one(rank):
        Thread.here.shared, Thread.here.rank = shared, rank
        try:
            results[rank] = work()
        except BaseException as error:
            results[rank] = error
            shared.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(failed, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error  # the first cause, not that another rank waited for it in vain
    return results


@pytest.mark.parametrize(
    "count, changes",
    [
        (2, {"reduction": "grpo", "num_minibatches": 2}),
        (2, {"reduction": "dapo", "num_minibatches": 2, "dynamic_sampling": 2, "micro_batch": 1}),
        (3, {"reduction": "dapo"}),  # four groups: 1, 1 and 2
    ],
)
def test_several_ranks_are_one_run(monkeypatch, count, changes):
    cfg = algo(**{**SMALL, "num_epochs": 2, "kl_coef": 0.1, **changes})
    alone, expected = train(cfg, steps=8, **PARITY)
    monkeypatch.setattr(grpo, "Ranks", Thread)
    monkeypatch.setattr(learner, "Ranks", Thread)
    for run, metrics in on_ranks(count, lambda: train(cfg, steps=8, **PARITY)):
        assert_close(weights(run), weights(alone), **EXACT)
        for mine, other in zip(metrics, expected, strict=True):
            assert mine == pytest.approx(other, rel=1e-9, abs=1e-12)


def test_more_ranks_than_groups_are_refused(monkeypatch):
    monkeypatch.setattr(grpo, "Ranks", Thread)
    monkeypatch.setattr(learner, "Ranks", Thread)
    cfg = algo(**SMALL)
    policy("parity", **PARITY)  # the configurations are composed here, not in the threads
    with pytest.raises(UserError, match="4 rows of a batch cannot be shared by 5 processes"):
        on_ranks(5, lambda: train(cfg, **PARITY))


def test_before_anything_is_learnt_ratios_are_1_and_the_kl_is_0():
    _, (first, second) = train(algo(**SMALL, kl_coef=0.1), steps=2, **PARITY)
    assert first[grpo.GAP] < 1e-12 and second[grpo.GAP] < 1e-12
    assert first["kl"] == pytest.approx(0, abs=1e-15) and second["kl"] > 1e-9
    assert first["clip_ratio/low_mean"] == first["clip_ratio/high_mean"] == 0
    assert first["learning_rate"] == 0.3 and second["learning_rate"] == 0.15
    assert first["num_completions"] == 12


def test_epochs_take_a_step_for_each_minibatch_and_leave_the_policy_that_drew():
    run, metrics = train(algo(**SMALL, num_epochs=3, num_minibatches=2), steps=12, **PARITY)
    assert run.step == 12 and len(metrics) == 2 and run.tracked["optimizer"].num_steps == 12
    assert metrics[1][grpo.GAP] < 1e-12  # of the first minibatch of the new completions


@pytest.mark.parametrize("name", ["dr_grpo", "rloo", "dapo", "gspo", "cispo", "grpo_process", "reinforce_pp"])
def test_every_variant_learns_from_a_batch(name):
    cfg = algo(f"algo={name}", **SMALL)
    run, metrics = train(cfg, steps=cfg.num_minibatches, **PARITY)
    change = weights(run) - torch.cat([p.flatten() for p in start(**PARITY).values()])
    assert change.isfinite().all() and change.abs().max() > 1e-5
    assert metrics[0]["grad_norm"] > 0


# Dynamic sampling


def scripted(monkeypatch, rounds):
    """`collect`, but the groups of each round have these rewards."""
    rounds, asked = iter(rounds), []

    def collecting(policy, prompts, *rest):
        groups = collect(policy, prompts, *rest)
        groups.reward = torch.tensor(next(rounds))
        asked.append(list(prompts))
        return groups

    monkeypatch.setattr(grpo, "collect", collecting)
    return asked


def sampling(cfg):
    mine = policy("parity", length=8)
    return grpo.sample(cfg, mine, np.random.default_rng(0), np.random.default_rng(1), Ranks())


SAME, ONES, DIFFER = [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]


def test_dynamic_sampling_keeps_groups_that_differ_and_asks_for_others(monkeypatch):
    cfg = algo("algo=dapo", num_prompts=3, group_size=2, dynamic_sampling=5)
    asked = scripted(monkeypatch, [[SAME, DIFFER, ONES], [SAME, SAME, ONES], [DIFFER, SAME, [0.5, 0.25]]])
    groups, drawn = sampling(cfg)
    assert drawn == 3 * 3 * 2 and len(asked) == 3
    assert groups.prompts == [asked[0][1], asked[2][0], asked[2][2]]
    assert (groups.reward.amax(-1) > groups.reward.amin(-1)).all()
    assert groups.tokens.shape[:2] == (3, 2) and len(groups.texts) == 6
    assert groups.reward.tolist() == [DIFFER, DIFFER, [0.5, 0.25]]


def test_dynamic_sampling_stops_when_the_batch_is_full(monkeypatch):
    cfg = algo("algo=dapo", num_prompts=3, group_size=2, dynamic_sampling=5)
    asked = scripted(monkeypatch, [[DIFFER, DIFFER, ONES], [DIFFER, DIFFER, DIFFER]])
    groups, drawn = sampling(cfg)
    assert drawn == 12 and groups.prompts == [asked[0][0], asked[0][1], asked[1][0]]  # more than needed is let go


def test_when_the_rounds_are_over_equal_groups_fill_the_batch(monkeypatch):
    cfg = algo("algo=dapo", num_prompts=3, group_size=2, dynamic_sampling=1)  # drawn anew once
    asked = scripted(monkeypatch, [[SAME, SAME, ONES], [SAME, DIFFER, SAME]])
    groups, drawn = sampling(cfg)
    assert drawn == 12 and groups.prompts == [asked[1][1], asked[0][0], asked[0][1]]
    assert groups.reward.tolist() == [DIFFER, SAME, SAME]


def test_without_it_groups_stay_as_they_are(monkeypatch):
    asked = scripted(monkeypatch, [[SAME, DIFFER, ONES]])
    groups, drawn = sampling(algo(num_prompts=3, group_size=2))
    assert drawn == 6 and groups.prompts == asked[0]


# The reference, resuming, learning


def test_the_reference_becomes_the_policy_every_so_many_steps():
    cfg = algo(**SMALL, kl_coef=0.1, ref_sync_every=4, num_minibatches=2, num_epochs=1)
    seen = []
    mine = Run(Path("."), torch.device("cpu"), 1)
    mine._open_saved = lambda path: SimpleNamespace(tracked={"policy": start(**PARITY)})
    full = SimpleNamespace(
        algo=cfg, task=task_config("parity", **PARITY), model=gpt(), seed=1, total_steps=10, init="start"
    )
    for step, metrics in grpo.train(full, mine):
        now = [torch.cat([p.flatten() for p in mine.tracked[name].parameters()]) for name in ("policy", "reference")]
        seen.append((step, torch.equal(*now), now[1].clone(), metrics["kl"]))
    assert [row[:2] for row in seen] == [(2, False), (4, True), (6, False), (8, True), (10, False)]
    first = torch.cat([p.flatten() for p in start(**PARITY).values()])
    assert torch.equal(seen[0][2], first) and torch.equal(seen[2][2], seen[1][2])
    assert not any(p.requires_grad for p in mine.tracked["reference"].parameters())


def test_without_a_kl_there_is_no_reference():
    run, _ = train(algo(**SMALL), **PARITY)
    assert run.tracked.keys() == {"policy", "optimizer", "vocabulary"}


def test_a_resumed_run_equals_one_never_stopped():
    cfg = algo(**SMALL, kl_coef=0.1, ref_sync_every=2, dynamic_sampling=1, num_minibatches=2)
    straight, metrics = train(cfg, steps=8, **PARITY)
    full = SimpleNamespace(
        algo=cfg, task=task_config("parity", **PARITY), model=gpt(), seed=1, total_steps=8, init="start"
    )
    stopped = Run(Path("."), torch.device("cpu"), 1)
    stopped._open_saved = lambda path: SimpleNamespace(tracked={"policy": start(**PARITY)})
    for step, _ in grpo.train(full, stopped):
        if step == 4:
            state = copy.deepcopy(stopped.state_dict())
            break
    resumed = Run(Path("."), torch.device("cpu"), 1, state=state)  # it has nowhere to read `init` from
    again = [row for _, row in grpo.train(full, resumed)]
    assert again == metrics[2:]
    assert torch.equal(weights(resumed), weights(straight))


def test_the_expected_reward_rises_to_that_of_the_best_completion():
    """Exact: the sum over all 31 completions of their probability and reward, before and after 120 steps."""
    task = {"letters": 2, "max_new": 4}
    run, _ = train(algo("algo=rloo", num_prompts=4, lr=3e-2), "enumerable", steps=120, **task)
    every = Everything(policy("enumerable", seed=1, **task))
    reward = torch.tensor([every.policy.task.reward("", *row) for row in zip(every.texts, every.ended.tolist())])

    def value(model=None):
        return (every.logprob(model).sum(-1).exp() * reward).sum().item()

    assert value() < 0.2 and value(run.tracked["policy"]) > 0.9
