"""DPO: the loss and its gradient from log-probs taken one token at a time, and what a few pairs teach."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_lm import algo, one_by_one, policy, train
from torch.testing import assert_close

from rlx.algos import dpo
from rlx.base.errors import ConfigError
from rlx.language import preferences
from rlx.language.policy import TokenPolicy
from rlx.language.tasks import base

pytestmark = pytest.mark.usefixtures("float64")
PAIRS = 5
TINY = {"num_pairs": PAIRS, "batch_size": PAIRS, "candidates": 3, "lr": 1e-2, "anneal_lr": False}  # all pairs a step
DATA = pytest.mark.parametrize("data", ["policy", "task"])


def as_text(mine: TokenPolicy, data: preferences.Preferences) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(prompt, [(text, ended) of the chosen and the rejected]) of each pair, read from the ids."""
    order, found = mine.tokenizer.alphabet, []
    for n in range(len(data)):
        prompt = "".join(order[i] for i in data.prompt[n, data.prompt_mask[n]][1:].tolist())
        rows = [ids[mask].tolist() for ids, mask in zip(data.tokens[n], data.mask[n])]
        texts = [("".join(order[i] for i in row if i < len(order)), row[-1] == len(order)) for row in rows]
        found.append((prompt, texts))
    return found


def logps(mine, pairs, temperature=1.0):
    """Log-probs of the chosen and of the rejected completions, SUMMED over their tokens: [N] each."""
    rows = [[one_by_one(mine, prompt, *said, temperature).sum() for said in both] for prompt, both in pairs]
    return torch.stack([torch.stack(row) for row in rows]).unbind(-1)


def after(steps, **changes):
    """The policy after so many steps, the reference, the pairs as text, and the metrics of each step."""
    done, history = train(algo("algo=dpo", **{**TINY, **changes}), "count", steps=steps, reward="dense")
    learnt, reference = policy("count"), policy("count")
    learnt.model.load_state_dict(done.tracked["policy"].state_dict())
    reference.model.load_state_dict(done.tracked["reference"].state_dict())
    return learnt, reference, as_text(learnt, done.tracked["data"]), history


@DATA
def test_at_the_reference_the_loss_is_log_2_and_no_reward_differs(data):
    first = after(1, data=data)[-1][0]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-12)
    assert {first[f"rewards/{name}"] for name in ("chosen", "rejected", "margins", "accuracies")} == {0.0}


@DATA
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_loss_gradient_and_rewards_are_those_of_an_independent_formula(data, temperature):
    """At the reference and a step away from it; SUMS over the tokens of completions of several lengths, their ends
    included, and not those of the prompts, which are padded:

        grad = -beta mean( sigmoid(-margin) (grad l_chosen - grad l_rejected) ),  margin = rewards' difference
    """
    beta, same = 0.3, {"data": data, "temperature": temperature, "beta": 0.3}
    history = after(2, **same)[-1]
    start = policy("count", seed=1)
    learnt, reference, pairs, _ = after(1, **same)
    assert len({len(text) for _, both in pairs for text, _ in both}) > 3
    assert len({len(prompt) for prompt, _ in pairs}) == 2 or data == "policy"
    assert any(ended for _, both in pairs for _, ended in both)
    for mine, told in zip((start, learnt), history, strict=True):
        chosen, rejected = logps(mine, pairs, temperature)
        with torch.no_grad():
            ref_chosen, ref_rejected = logps(reference, pairs, temperature)
        won, lost = beta * (chosen - ref_chosen).detach(), beta * (rejected - ref_rejected).detach()
        weight = 1 / (1 + (won - lost).exp())
        gradient = torch.autograd.grad(-beta * (weight * (chosen - rejected)).mean(), list(mine.model.parameters()))
        expected = {
            "loss": (1 + (lost - won).exp()).log().mean(),
            "grad_norm": torch.cat([g.flatten() for g in gradient]).norm(),
            "rewards/chosen": won.mean(),
            "rewards/rejected": lost.mean(),
            "rewards/margins": (won - lost).mean(),
            "logps/chosen": chosen.mean(),
            "logps/rejected": rejected.mean(),
        }
        for name, value in expected.items():
            assert told[name] == pytest.approx(value.item(), rel=1e-9, abs=1e-12), name  # sums in another order
        assert told["rewards/accuracies"] == pytest.approx((won > lost).double().mean().item())  # counted in float32
    assert history[1]["rewards/margins"] > 0 and history[1]["loss"] < math.log(2)


def test_the_step_is_along_the_gradient():
    """Adam's first step moves each weight by lr against the sign of its gradient."""
    start = policy("count", seed=1)
    learnt, _, pairs, _ = after(1, max_grad_norm=0, adam_eps=1e-12)
    chosen, rejected = logps(start, pairs)
    loss = -torch.nn.functional.logsigmoid(0.1 * ((chosen - chosen.detach()) - (rejected - rejected.detach()))).mean()
    gradients = torch.autograd.grad(loss, list(start.model.parameters()))
    for before, now, g in zip(start.model.parameters(), learnt.model.parameters(), gradients):
        clear = g.abs() > 1e-6
        assert_close((now - before)[clear], (-1e-2 * g.sign())[clear], rtol=1e-4, atol=0)  # eps / |g|


@DATA
def test_a_few_pairs_are_learnt_and_the_reference_stays(data):
    start = policy("count", seed=1)
    learnt, reference, pairs, history = after(40, data=data)
    assert history[-1]["loss"] < 0.3 and history[-1]["rewards/accuracies"] == 1
    (chosen, rejected), (was_chosen, was_rejected) = logps(learnt, pairs), logps(start, pairs)
    assert ((chosen - rejected) > (was_chosen - was_rejected) + 1).all()
    assert all(torch.equal(a, b) for a, b in zip(reference.model.parameters(), start.model.parameters()))


def test_pairs_are_the_best_and_the_worst_of_the_policys_samples_or_the_tasks_own():
    done, _ = train(algo("algo=dpo", **TINY), "count", reward="dense")
    mine = policy("count", seed=1, reward="dense")
    ranked = preferences.ranked(mine, np.random.default_rng(done._entropy("data")), PAIRS, 3, 1.0)
    rows = [(prompt, [texts[0], texts[-1]]) for prompt, texts in as_text(mine, ranked)]
    assert as_text(mine, done.tracked["data"]) == rows
    for prompt, ((best, ended), (worst, cut)) in rows:
        assert mine.task.reward(prompt, best, ended) > mine.task.reward(prompt, worst, cut)
    done, _ = train(algo("algo=dpo", data="task", **TINY), "count")
    pairs = mine.task.pairs(np.random.default_rng(done._entropy("data")), PAIRS)
    expected = [(prompt, [(chosen, True), (rejected, True)]) for prompt, chosen, rejected in pairs]
    assert as_text(mine, done.tracked["data"]) == expected
    assert isinstance(mine.task, base.AnswerTask)


def test_a_step_uses_no_pair_twice(monkeypatch):
    seen, real = [], preferences.Preferences.batch
    monkeypatch.setattr(preferences.Preferences, "batch", lambda *it: seen.append(it[1].tolist()) or real(*it))
    _, history = train(algo("algo=dpo", **{**TINY, "batch_size": 4}), "count", steps=6, reward="dense")
    assert all(len(set(index)) == 4 and set(index) <= set(range(PAIRS)) for index in seen)
    assert len(seen) == 6 and len(set(map(tuple, seen))) > 1
    assert [metrics["epoch"] for metrics in history] == pytest.approx([4 * n / PAIRS for n in range(1, 7)])


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"candidates": 1}, "candidates=1: a pair needs at least 2"),
        ({"batch_size": 4097}, "batch_size=4097: must be at most num_pairs=4096"),
        ({"beta": 0}, "beta=0"),
    ],
)
def test_what_makes_no_pairs_is_refused_by_name(changes, text):
    with pytest.raises(ConfigError, match=text):
        algo("algo=dpo", **changes)


def test_the_tasks_pairs_need_no_policy_to_start_from():
    cfg = SimpleNamespace(init=None, algo=algo("algo=dpo", data="task"))
    dpo.check(cfg, policy("names").task)
    _, history = train(algo("algo=dpo", data="task", **TINY), "names", init=None)
    assert history[0]["loss"] == pytest.approx(math.log(2))
