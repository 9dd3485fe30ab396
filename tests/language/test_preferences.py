"""Completions that were compared: what stands where, that the best come first, and that nothing else was drawn."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_lm import policy
from torch.testing import assert_close

from rlx.base.errors import ConfigError, UserError
from rlx.language import preferences
from rlx.language.preferences import FIELDS, best_and_worst, of_task, ranked

pytestmark = pytest.mark.usefixtures("float64")


def rng(seed=0):
    return np.random.default_rng(seed)


def texts_of(mine, data):
    """[N][K] texts and whether they ended; and the prompts [N], read back from the ids alone."""
    alphabet, end = mine.tokenizer.alphabet, mine.tokenizer.end
    prompts, rows = [], []
    for n in range(len(data)):
        ids = data.prompt[n, data.prompt_mask[n]].tolist()
        assert ids[0] == mine.tokenizer.begin
        prompts.append("".join(alphabet[i] for i in ids[1:]))
        row = []
        for tokens, mask in zip(data.tokens[n], data.mask[n]):
            ids = tokens[mask].tolist()
            assert mask[: len(ids)].all() and not mask[len(ids) :].any()  # by position, from the first on
            ended = ids[-1] == end
            assert end not in ids[:-1]
            row.append(("".join(alphabet[i] for i in ids[: len(ids) - ended]), ended))
        rows.append(row)
    return prompts, rows


@pytest.mark.parametrize("name, seed", [("count", 0), ("count", 3), ("enumerable", 0)])
def test_every_ranking_is_of_one_prompts_samples_by_the_tasks_reward_the_best_first(name, seed):
    mine = policy(name, reward="dense")
    data = ranked(mine, rng(seed), 10, 4, 1.0)
    assert len(data) == 10 and data.tokens.shape[:2] == (10, 4)
    prompts, rows = texts_of(mine, data)
    if name == "count":
        assert len(set(map(len, prompts))) == 2  # padded
    for prompt, row, reward in zip(prompts, rows, data.reward):
        expected = [mine.task.reward(prompt, text, ended) for text, ended in row]
        assert_close(reward, torch.tensor(expected, dtype=torch.float32))
        assert sorted(expected, reverse=True) == expected and expected[0] > expected[-1]
    assert any(len(set(reward.tolist())) < 4 for reward in data.reward)  # some of a ranking may be equal


def test_prompts_whose_samples_are_all_worth_the_same_are_asked_again_in_others_place():
    """Only the samples of every third prompt differ in reward: the first five such prompts are kept, in their order."""
    mine = policy("parity", length=6)
    asked, real = [], mine.task.prompts
    mine.task.prompts = lambda *how: asked.append(real(*how)) or asked[-1]

    def reward(prompt, text, ended):
        place = [prompt for prompts in asked for prompt in prompts].index(prompt)
        return float(len(text)) if place % 3 == 0 else 0.5

    mine.task.reward = reward
    data = ranked(mine, rng(), 5, 8, 1.0)
    drawn = [prompt for prompts in asked for prompt in prompts]
    kept = [prompt for prompt in drawn if drawn.index(prompt) % 3 == 0]
    assert len(asked) > 1 and texts_of(mine, data)[0] == kept[:5]
    assert (data.reward[:, 0] > data.reward[:, -1]).all()


def test_a_policy_whose_samples_are_all_worth_the_same_is_an_error_in_one_line():
    mine = policy("parity", length=6, reward="exact")
    mine.task.reward = lambda *_: 0.0
    with pytest.raises(UserError, match="task=parity: of 400 prompts only 0 had samples of different reward") as error:
        ranked(mine, rng(), 4, 2, 1.0)
    assert "\n" not in str(error.value)


def test_samples_depend_on_the_generator_alone_and_follow_the_temperature():
    mine = policy("count", reward="dense")
    one, same, other = (ranked(mine, rng(seed), 6, 3, 1.0) for seed in (1, 1, 2))
    assert all(torch.equal(getattr(one, name), getattr(same, name)) for name in FIELDS)
    assert one.tokens.shape != other.tokens.shape or not torch.equal(one.tokens, other.tokens)
    cold = ranked(mine, rng(1), 6, 3, 0.5)
    assert cold.tokens.shape != one.tokens.shape or not torch.equal(cold.tokens, one.tokens)


def test_the_best_and_the_worst_are_the_ends_of_the_ranking():
    mine = policy("count", reward="dense")
    data = ranked(mine, rng(), 8, 4, 1.0)
    pairs = best_and_worst(data)
    prompts, rows = texts_of(mine, data)
    assert texts_of(mine, pairs) == (prompts, [[row[0], row[3]] for row in rows])
    assert torch.equal(pairs.reward, data.reward[:, [0, 3]])


@pytest.mark.parametrize("name", ["count", "parity", "names"])
def test_the_tasks_pairs_are_as_it_makes_them_the_chosen_first(name):
    mine = policy(name)
    data = of_task(mine, rng(), 12)
    prompts, rows = texts_of(mine, data)
    expected = mine.task.pairs(rng(), 12)
    assert [(prompt, *(text for text, _ in row)) for prompt, row in zip(prompts, rows)] == expected
    assert all(ended for row in rows for _, ended in row)
    assert data.reward.tolist() == [[1.0, 0.0]] * 12


def test_a_batch_is_those_rankings_as_narrow_as_they_are():
    mine = policy("count", reward="dense")
    data = ranked(mine, rng(), 20, 2, 1.0)
    lengths = data.mask.sum(-1)
    short = lengths.amax(-1).argsort()[:3]
    groups = data.batch(short)
    assert groups.tokens.shape[-1] == lengths[short].max() < data.tokens.shape[-1]
    assert torch.equal(groups.lengths, lengths[short]) and torch.equal(groups.reward, data.reward[short])
    assert torch.equal(groups.tokens[groups.mask], data.tokens[short][data.mask[short]])
    assert torch.equal(groups.prompt, data.prompt[short])
    longest = data.prompt_mask.sum(-1) == data.prompt_mask.sum(-1).max()
    assert data.batch(longest.nonzero()[:, 0]).prompt_mask is None  # nothing is padded there
    assert torch.equal(data.batch((~longest).nonzero()[:, 0]).prompt_mask, data.prompt_mask[~longest])


def test_what_was_drawn_is_saved_and_a_resumed_run_draws_nothing():
    mine = policy("count", reward="dense")
    algo = SimpleNamespace(data="policy", temperature=1.0)
    data = preferences.draw(mine, algo, rng(), 6, 3, False)
    untouched = rng()
    again = preferences.draw(mine, algo, untouched, 6, 3, True)
    assert untouched.random() == rng().random()
    again.load_state_dict(data.state_dict())
    index = torch.tensor([4, 1])
    assert len(again) == 6
    assert vars(again.batch(index)).keys() == vars(data.batch(index)).keys()
    for name in FIELDS:
        assert torch.equal(getattr(again, name), getattr(data, name))


def test_pairs_are_asked_only_of_a_task_that_has_some():
    for task in ("names", "parity"):
        preferences.check(SimpleNamespace(data="task"), policy(task).task)
    preferences.check(SimpleNamespace(data="policy"), policy("enumerable").task)
    with pytest.raises(ConfigError, match="^algo.data=task: task=enumerable has no pairs of its own"):
        preferences.check(SimpleNamespace(data="task"), policy("enumerable").task)
