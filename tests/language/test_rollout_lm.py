"""Groups of completions: what stands where, and that cutting and joining them loses nothing."""

import numpy as np
import pytest
import torch
from tiny_lm import policy
from torch.testing import assert_close

from rlx.language.ranks import Ranks
from rlx.language.rollout import (
    Groups,
    collect,
    completion_metrics,
    forward_logprobs,
    join,
    logprobs_entropy,
    step_rewards,
)

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, sums in another order


def sampled(name="count", P=6, G=4, seed=0, temperature=1.0, **task):
    """Groups of the task count, whose prompts `7=` and `12=` differ in length."""
    mine = policy(name, **task)
    prompts = mine.task.prompts(np.random.default_rng(seed), P)
    return mine, collect(mine, prompts, G, np.random.default_rng(seed), temperature, Ranks())


def test_every_row_is_the_reward_the_text_and_the_logprob_of_its_own_prompt():
    mine, groups = sampled(P=12, reward="dense")
    assert groups.prompt_mask is not None  # prompts of two lengths
    assert 0 < groups.ended.double().mean() < 1
    P, G, L = groups.tokens.shape
    assert (P, G) == (12, 4) and groups.mask.shape == groups.logprob.shape == (P, G, L)
    alphabet = mine.tokenizer.alphabet
    for p in range(P):
        start = [mine.tokenizer.begin] + [alphabet.index(c) for c in groups.prompts[p]]
        assert groups.prompt[p, groups.prompt_mask[p]].tolist() == start
        for g in range(G):
            ids = groups.tokens[p, g, groups.mask[p, g]].tolist()
            ended = ids[-1] == mine.tokenizer.end
            assert groups.ended[p, g] == ended and mine.tokenizer.end not in ids[:-1]
            text = "".join(alphabet[i] for i in (ids[:-1] if ended else ids))
            assert groups.texts[p * G + g] == text
            assert groups.lengths[p, g] == len(ids)
            row = groups.prompts[p], text, ended
            assert groups.reward[p, g] == torch.tensor(mine.task.reward(*row), dtype=torch.float32)
            assert groups.correct[p, g] == float(mine.task.correct(*row))
            logits = mine.model(torch.tensor([start]), None, torch.tensor([[ids]]))[0, 0]
            expected = logits.log_softmax(-1)[range(len(ids)), ids]
            assert_close(groups.logprob[p, g, : len(ids)], expected, **EXACT)
    assert len(set(groups.reward.flatten().tolist())) > 2


def test_a_group_is_the_same_alone_in_the_batch_and_selected_from_it():
    mine, groups = sampled(P=12)
    index = torch.tensor([7, 2])
    some = groups.select(index)
    assert some.prompts == [groups.prompts[7], groups.prompts[2]]
    assert some.texts == groups.texts[28:32] + groups.texts[8:12]
    for name in ("prompt", "prompt_mask", "tokens", "mask", "logprob", "ended", "reward", "correct"):
        assert torch.equal(getattr(some, name), getattr(groups, name)[index]), name


def test_joined_groups_are_the_groups_though_prompts_and_completions_differ_in_width():
    mine = policy("count")
    short, long = (
        collect(mine, prompts, 3, np.random.default_rng(seed), 1.0, Ranks())
        for prompts, seed in ((["3=", "9="], 1), (["12=", "4="], 2))
    )
    short = Groups(**{**vars(short), **{n: getattr(short, n)[..., :2] for n in ("tokens", "mask", "logprob")}})
    assert short.prompt.shape[1] < long.prompt.shape[1] and short.tokens.shape[2] < long.tokens.shape[2]
    whole = join(mine, [short, long])
    assert whole.prompts == short.prompts + long.prompts and whole.texts == short.texts + long.texts
    assert_close(whole.lengths, torch.cat([short.lengths, long.lengths]))
    assert_close(whole.reward, torch.cat([short.reward, long.reward]))
    expected = torch.cat([part.logprob[part.mask] for part in (short, long)])
    assert_close(whole.logprob[whole.mask], expected)
    again = forward_logprobs(mine.model, whole, 1.0)
    assert_close(again[whole.mask], expected, **EXACT)
    assert join(mine, [long]) is long


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_learners_logprobs_are_those_of_sampling_at_the_same_temperature(temperature):
    mine, groups = sampled(P=12, temperature=temperature)
    assert_close(forward_logprobs(mine.model, groups, temperature)[groups.mask], groups.logprob[groups.mask], **EXACT)
    other = forward_logprobs(mine.model, groups, 1.3 * temperature)
    assert (other - groups.logprob)[groups.mask].abs().max() > 1e-3


def test_logprobs_and_entropy_are_those_of_the_categorical_distribution():
    logits, tokens = torch.randn(2, 3, 5, requires_grad=True), torch.randint(0, 5, (2, 3))
    theirs = torch.distributions.Categorical(logits=logits / 0.7)
    for learn in (False, True):
        logprob, entropy = logprobs_entropy(logits, tokens, 0.7, learn)
        assert_close(logprob, theirs.log_prob(tokens))
        assert_close(entropy, theirs.entropy())
        assert entropy.requires_grad == learn
    mine, expected = (torch.autograd.grad(x.sum(), logits)[0] for x in (entropy, theirs.entropy()))
    assert_close(mine, expected)


def test_step_rewards_stand_at_the_last_token_of_their_step():
    """Parities of 1101 are 1001, of 0000 they are 0000. A wrong bit is to blame alone; the end token is a step."""
    mine, prompts = policy("parity", length=4), ["1101=", "0000="]
    texts = ["1001", "1101", "10", "10010", "1001", "0000", "", "0"]
    ended = [True, True, True, False, True, True, True, False]
    tokens, mask = mine.completions(texts, ended)
    shape, zero = (2, 4, -1), torch.zeros(2, 4)
    groups = Groups(
        prompts, texts, *mine.prompts(prompts), tokens.view(shape), mask.view(shape),
        torch.zeros(2, 4, tokens.shape[1]), torch.tensor(ended).view(2, 4), zero, zero,
    )  # fmt: skip
    reward, end = step_rewards(mine.task, groups)
    assert reward[0, :, :5].tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert reward[1, :, :5].tolist() == [[0, 0, 1, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert torch.equal(end.bool(), groups.mask)


def test_completion_metrics_by_hand():
    """Two groups of two; lengths 1, 3, 2, 2; the last was cut."""
    mask = torch.tensor([[[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 0]]]).bool()
    zero = torch.zeros(2, 2, 3)
    groups = Groups(
        ["a", "b"], ["", "xy", "x", "xy"], zero[:, 0].long(), None, zero.long(), mask, zero,
        torch.tensor([[True, True], [True, False]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]]),
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
    )  # fmt: skip
    assert completion_metrics(groups) == {
        "reward": 0.5,
        "reward_std": pytest.approx(0.5**0.5 / 2),
        "frac_reward_zero_std": 0.5,
        "accuracy": 0.25,
        "completions/mean_length": 2.0,
        "completions/min_length": 1.0,
        "completions/max_length": 3.0,
        "completions/clipped_ratio": 0.25,
        "completions/mean_terminated_length": 2.0,
    }
    one = Groups(**{**vars(groups), "reward": torch.ones(2, 1)})
    assert completion_metrics(one)["frac_reward_zero_std"] == 1.0  # not NaN


def test_log_probs_of_a_few_groups_at_a_time_are_those_of_all_at_once():
    mine, groups = sampled(P=5)
    whole = forward_logprobs(mine.model, groups, 0.7)
    for most in (1, 2, 5, 9):
        assert_close(forward_logprobs(mine.model, groups, 0.7, most), whole, **EXACT)
