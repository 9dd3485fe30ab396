"""RLHF by PPO: its first step against loops over single tokens, and what a run learns and leaves alone."""

from types import SimpleNamespace

import pytest
import tiny_lm
import torch
from rlhf import CFG, TASK, G, P, cfg, sampled, scored, seed, train
from tiny_lm import Everything, algo, gpt, one_by_one, outputs, policy
from torch.testing import assert_close

from rlx.algos import rlhf_ppo
from rlx.language.reward_head import ValueHead, make_critic

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-12}  # float64, sums in another order


# -- one step ------------------------------------------------------------------------------------------------------


def test_on_the_first_pass_the_ratio_is_1_the_kl_0_and_nothing_is_clipped():
    _, history = train(cfg(num_epochs=1), steps=3)
    for metrics in history:
        assert metrics["policy/approxkl_avg"] == pytest.approx(0, abs=1e-12)
        assert metrics["policy/clipfrac_avg"] == 0
        assert metrics["loss/policy_avg"] == pytest.approx(0, abs=1e-9)  # the mean of whitened advantages
    _, history = train(cfg(num_epochs=4, lr=1e-2), steps=4)
    assert history[0]["policy/approxkl_avg"] > 1e-4 and history[0]["policy/clipfrac_avg"] > 0


@pytest.mark.parametrize("value_init", ["zero", "reward_model"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_step_is_that_of_loops_over_single_tokens(value_init, temperature):
    """Loss, gradient norm and what is logged: REINFORCE with whitened advantages, and half the squared error of the
    values, which start from the reward model or at 0."""
    mine, groups = sampled(temperature=temperature)
    scorer = scored(mine)
    said = cfg(num_epochs=1, value_init=value_init, reward_model="model", temperature=temperature, max_grad_norm=0)
    _, (told,) = train(said, scorer=scorer.state_dict())

    critic = make_critic(CFG, mine, scorer.model.state_dict() if value_init == "reward_model" else None)
    texts, ended = groups.texts, groups.ended.flatten().tolist()
    rows = [(groups.prompts[i // G], texts[i], ended[i]) for i in range(P * G)]
    logprobs = [one_by_one(mine, *row, temperature) for row in rows]
    values = [outputs(critic, mine, *row)[0][:, 0] for row in rows]
    with torch.no_grad():
        scores = [s if end else -1.0 for s, end in zip(scorer(groups).flatten().tolist(), ended)]
    advantages, returns = [], []
    for score, value in zip(scores, values):
        v, after, found = [*value.tolist(), 0.0], 0.0, []
        for t in reversed(range(len(value))):
            after = (score if t == len(value) - 1 else 0.0) + v[t + 1] - v[t] + 0.95 * after
            found.insert(0, after)
        advantages += found
        returns += [a + b for a, b in zip(found, v)]
    advantage, return_ = torch.tensor(advantages), torch.tensor(returns)
    whitened = (advantage - advantage.mean()) / advantage.std(correction=0)
    policy_loss = -(torch.cat(logprobs) * whitened).mean()
    value_loss = 0.5 * (torch.cat(values) - return_).square().mean()

    def gradient(x, model):
        found = torch.autograd.grad(x, list(model.parameters()), retain_graph=True)
        return torch.cat([g.flatten() for g in found])

    norm = torch.cat([gradient(policy_loss, mine.model), gradient(0.1 * value_loss, critic)]).norm()
    assert told["grad_norm"] == pytest.approx(norm.item(), rel=1e-6)  # whitening has an eps of 1e-8
    assert told["loss/value_avg"] == pytest.approx(value_loss.item(), rel=1e-9)
    assert told["loss"] == pytest.approx(0.1 * value_loss.item(), rel=1e-6)  # that of the policy is 0 in value
    assert told["objective/scores"] == pytest.approx(sum(scores) / (P * G), rel=1e-6)  # rewards are float32
    assert told["reward"] == pytest.approx(groups.reward.mean().item())  # the task's, which nobody learns from
    if value_init == "zero":
        assert (torch.cat(values) == 0).all()


def test_the_policys_gradient_on_the_first_minibatch_is_reinforce_with_its_advantages():
    mine, groups = sampled()
    critic = make_critic(CFG, mine, scored(mine).model.state_dict())
    batch = {name: torch.randn(groups.mask.shape) for name in ("value", "return_", "advantage")}
    rows = rlhf_ppo.rows_of(groups, {**batch, "logprob": groups.logprob}, torch.tensor([4, 6, 2, 7]), cfg())
    num_tokens = int(rows["mask"].sum())
    loss, _ = rlhf_ppo.loss(cfg(), mine.model, critic, rows, num_tokens)
    total = 0.0
    for row, index in enumerate([4, 6, 2, 7]):
        said = groups.prompts[index // G], groups.texts[index], bool(groups.ended.flatten()[index])
        logprob = one_by_one(mine, *said)
        total = total - (logprob * rows["advantage"][row, : len(logprob)]).sum()
    expected = torch.autograd.grad(total / num_tokens, list(mine.model.parameters()))
    for a, b in zip(torch.autograd.grad(loss, list(mine.model.parameters()), retain_graph=True), expected, strict=True):
        assert_close(a, b, **EXACT)


def test_neither_network_learns_from_the_others_loss():
    mine, groups = sampled()
    critic = make_critic(CFG, mine, scored(mine).model.state_dict())
    batch = {name: torch.randn(groups.mask.shape) for name in ("value", "return_", "advantage")}
    rows = rlhf_ppo.rows_of(groups, {**batch, "logprob": groups.logprob}, torch.arange(P * G), cfg())
    _, told = rlhf_ppo.loss(cfg(), mine.model, critic, rows, int(rows["mask"].sum()))
    for name, own, other in (("policy", mine.model, critic), ("value", critic, mine.model)):
        parts = [*own.parameters()], [*other.parameters()]
        mine_, theirs = (
            torch.autograd.grad(told[f"loss/{name}_avg"], part, retain_graph=True, allow_unused=True) for part in parts
        )
        assert all(g is None for g in theirs) and any(g.abs().max() > 0 for g in mine_)


def test_the_value_may_not_gain_by_moving_further_than_the_clip():
    """v = 1, before 1.5, return .5, clip .2: .5 max(.25, .64); without a clip .125."""
    mine, groups = sampled()
    critic = make_critic(CFG, mine)  # it says 0: all is shifted by 1
    same = {"value": 0.5, "return_": -0.5, "advantage": 0.0, "logprob": 0.0}
    batch = {name: torch.full(groups.mask.shape, number) for name, number in same.items()}
    rows = rlhf_ppo.rows_of(groups, batch, torch.arange(P * G), cfg())
    for clip, expected in ((0.2, 0.32), (0.0, 0.125)):
        _, told = rlhf_ppo.loss(cfg(clip_vloss=clip), mine.model, critic, rows, int(rows["mask"].sum()))
        assert told["loss/value_avg"].item() == pytest.approx(expected)


def test_whitened_rewards_have_standard_deviation_1_and_keep_their_mean(monkeypatch):
    seen, real = [], rlhf_ppo.token_gae
    monkeypatch.setattr(rlhf_ppo, "token_gae", lambda *it: seen.append(it) or real(*it))
    for white in (False, True):
        train(cfg(num_epochs=1, whiten_rewards=white))
    (plain, _, mask, *_), (white, *_) = seen
    assert_close(white[mask].std(correction=0), torch.ones(()), rtol=1e-6, atol=0)  # eps 1e-8
    assert_close(white[mask].mean(), plain[mask].mean())
    assert_close(torch.corrcoef(torch.stack([white[mask], plain[mask]]))[0, 1], torch.ones(()))
    assert (white[~mask] == 0).all()


def test_the_kl_is_that_of_the_policy_to_the_reference_summed_over_a_completions_tokens(monkeypatch):
    """In the second iteration, where they differ: from log-probs taken one token at a time, at the temperature."""
    seen, real = [], rlhf_ppo.collect

    def collected(mine, *how):
        now = policy("count", **TASK)
        now.model.load_state_dict(mine.model.state_dict())
        seen.append((now, real(mine, *how)))
        return seen[-1][1]

    monkeypatch.setattr(rlhf_ppo, "collect", collected)
    _, history = train(cfg(num_epochs=1, lr=3e-2, temperature=0.7), steps=2)
    reference, _ = sampled(0.7)
    now, groups = seen[1]
    spent = []
    for i, text in enumerate(groups.texts):
        row = groups.prompts[i // G], text, bool(groups.ended.flatten()[i]), 0.7
        spent.append((one_by_one(now, *row) - one_by_one(reference, *row)).sum().item())
    assert history[1]["objective/kl"] == history[1]["kl"] == pytest.approx(sum(spent) / len(spent))
    assert abs(sum(spent)) > 0.1


# -- a run ---------------------------------------------------------------------------------------------------------


def test_the_critic_and_the_judge_are_what_was_asked_for():
    mine, groups = sampled()
    saved = scored(mine)
    it = SimpleNamespace(resumed=False, saved=lambda path: SimpleNamespace(tracked={"scorer": saved.state_dict()}))
    rows = groups.rows(slice(None))
    for value_init, expected in (("zero", torch.zeros(*groups.mask.shape, 1)), ("reward_model", saved.model(*rows))):
        chosen = SimpleNamespace(model=gpt(), algo=cfg(value_init=value_init, reward_model="model"))
        scorer, critic = rlhf_ppo.judges(chosen, it, mine)
        assert torch.equal(scorer(groups), saved(groups)) and torch.equal(critic(*rows), expected)
        assert not any(weight.requires_grad for weight in scorer.parameters())
        assert all(weight.requires_grad for weight in critic.parameters())
    nobody, critic = rlhf_ppo.judges(SimpleNamespace(model=gpt(), algo=cfg()), None, mine)
    assert nobody is None and (critic(*rows) == 0).all()


def test_reference_and_reward_model_learn_nothing():
    mine = policy("count", seed(), **TASK)
    saved = scored(mine)
    done, _ = train(cfg(reward_model="model", lr=1e-2), steps=8, scorer=saved.state_dict())
    for name, weight in mine.model.state_dict().items():
        assert torch.equal(done.tracked["reference"].state_dict()[name], weight)
    for name, weight in saved.state_dict().items():
        assert torch.equal(done.tracked["scorer"].state_dict()[name], weight)
    assert not torch.equal(done.tracked["policy"].embed, mine.model.embed)
    assert not torch.equal(done.tracked["critic"].unembed, torch.zeros(1, 8))


def outcome(**changes):
    """Expected reward and KL from the start, both exact, before and after 30 iterations on an enumerable task."""
    task = {"letters": 2, "max_new": 3}
    said = algo("algo=rlhf_ppo", num_prompts=1, group_size=64, num_epochs=2, missing_end="none", **changes)
    done, history = tiny_lm.train(said, "enumerable", steps=60, **task)
    mine, start = policy(**task), policy(seed=1, **task)
    mine.model.load_state_dict(done.tracked["policy"].state_dict())
    listed = Everything(mine)
    with torch.no_grad():
        log, ref = listed.logprob().sum(-1), listed.logprob(start.model).sum(-1)
    worth = torch.tensor([mine.task.reward("", *said) for said in mine.task.all_completions()])
    return (ref.exp() @ worth).item(), (log.exp() @ worth).item(), (log.exp() @ (log - ref)).item()


def test_without_a_penalty_the_expected_reward_rises_and_with_one_the_policy_stays_near_the_reference():
    before, free, far = outcome(kl_coef=0, lr=2e-2)
    assert free > before + 0.4 and far > 0.3
    _, held, near = outcome(kl_coef=5.0, kl_target=0, lr=2e-2)
    assert near < far / 5 and before - 0.05 < held < free


def weights_of(done):
    return [p.detach().clone() for p in done.tracked["policy"].parameters()]


def test_without_a_value_loss_one_network_learns_the_policy_of_two():
    """The values stay 0 in both; what differs is only where the critic lives."""
    (one, _), (two, _) = (train(cfg(network=network, vf_coef=0), steps=4) for network in ("one", "two"))
    for mine, theirs in zip(weights_of(one), weights_of(two), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_loss_of_one_network_is_the_actors_and_a_tenth_of_the_critics_and_both_move_its_body():
    mine, groups = sampled()
    critic = ValueHead(mine.model)
    batch = {name: torch.randn(P, G, groups.tokens.shape[-1]) for name in ("value", "advantage", "return_")}
    rows = rlhf_ppo.rows_of(groups, {**batch, "logprob": groups.logprob}, torch.arange(P * G), cfg(network="one"))
    torch.nn.init.normal_(critic.weight)
    total, told = rlhf_ppo.loss(cfg(network="one"), mine.model, critic, rows, int(rows["mask"].sum()))
    assert total.item() == pytest.approx(told["loss/policy_avg"].item() + 0.1 * told["loss/value_avg"].item())
    assert len(critic.state_dict()) == 1 and torch.isfinite(total)
    body = [p for p in mine.model.parameters() if p is not mine.model.unembed]
    grads = torch.autograd.grad(told["loss/value_avg"], body, retain_graph=True, allow_unused=True)
    assert any(grad is not None and grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("network", ["one", "two"])
@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo", "sequence"])
def test_however_tokens_are_reduced_micro_batches_add_up(reduction, network):
    said = {"reduction": reduction, "network": network, "num_epochs": 2}
    (whole, (first, *_)), (cut, (again, *_)) = (train(cfg(**said, micro_batch=micro), steps=2) for micro in (0, 3))
    assert first["loss"] == pytest.approx(again["loss"])
    for mine, theirs in zip(weights_of(whole), weights_of(cut), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_advantages_that_are_not_whitened_keep_their_mean():
    _, groups = sampled()
    advantage = torch.randn(P, G, groups.tokens.shape[-1]) + 3
    batch = {"advantage": advantage, "logprob": groups.logprob}
    rows = rlhf_ppo.rows_of(groups, batch, torch.arange(P * G), cfg(whiten_advantage=False))
    assert torch.equal(rows["advantage"], advantage.flatten(0, 1))
    whitened = rlhf_ppo.rows_of(groups, batch, torch.arange(P * G), cfg())["advantage"]
    assert whitened[rows["mask"]].mean().item() == pytest.approx(0, abs=1e-6)
