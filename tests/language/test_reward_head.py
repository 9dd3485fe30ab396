"""A score is read after the last token of a completion, and after nothing else."""

import numpy as np
import pytest
import torch
from tiny_lm import gpt, policy, varied
from torch.testing import assert_close

from rlx.language.ranks import Ranks
from rlx.language.reward_head import Scorer, make_critic
from rlx.language.rollout import Groups, collect

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-12}  # float64, sums in another order


class Cfg:
    model = gpt()


def sampled(P=6, G=3, name="count"):
    """A scorer, the policy whose body it has, and completions."""
    mine = policy(name)
    drawn = (
        collect(mine, mine.task.prompts(rng, P), G, rng, 1.0, Ranks()) for rng in map(np.random.default_rng, range(100))
    )
    groups = next(filter(varied, drawn))
    return Scorer.new(Cfg, mine, torch.Generator().manual_seed(3)), mine, groups


def changed(groups, **fields):
    return Groups(**{**vars(groups), **fields})


def test_the_score_is_the_output_at_the_last_token_of_the_sequence_alone():
    """Of each completion by itself: prompt and completion as one text, one token longer, its last feature."""
    scorer, mine, groups = sampled()
    order = mine.tokenizer.alphabet
    for p, prompt in enumerate(groups.prompts):
        for g in range(3):
            text, ended = groups.texts[3 * p + g], bool(groups.ended[p, g])
            ids = [len(order) + 1, *map(order.index, prompt + text), *([len(order)] if ended else [])]
            after = scorer.model.features(torch.tensor([ids]), None, torch.tensor([[[0]]]))[0, 0, 0]
            assert_close(scorer(groups)[p, g], scorer.model.unembed[0] @ after, **EXACT)


def test_what_follows_the_end_changes_nothing_and_the_end_does():
    scorer, mine, groups = sampled()
    score = scorer(groups)
    noise = torch.randint(0, mine.tokenizer.end + 1, groups.tokens.shape)
    after = changed(groups, tokens=torch.where(groups.mask, groups.tokens, noise))
    assert_close(scorer(after), score, **EXACT)
    last = groups.mask & ~torch.cat([groups.mask[..., 1:], torch.zeros_like(groups.mask[..., :1])], -1)
    for other in (groups.mask & ~last, groups.mask):  # without its last token; with another one there
        tokens = torch.where(last, (groups.tokens + 1) % (mine.tokenizer.end + 1), groups.tokens)
        moved = scorer(changed(groups, tokens=tokens, mask=other)) - score
        assert (moved.abs() > 1e-6).all()


def test_a_score_does_not_depend_on_the_other_completions_nor_on_the_padding():
    scorer, _, groups = sampled()
    score, widths = scorer(groups), groups.lengths.amax(-1)
    for p, width in enumerate(widths.tolist()):
        alone = groups.select(torch.tensor([p]))
        assert_close(scorer(alone), score[p : p + 1], **EXACT)
        narrow = changed(alone, tokens=alone.tokens[..., :width], mask=alone.mask[..., :width])
        assert_close(scorer(narrow), score[p : p + 1], **EXACT)


def test_normalised_scores_have_mean_0_and_standard_deviation_1_in_the_same_order():
    scorer, _, groups = sampled()
    before = scorer(groups).detach()
    scorer.normalise(groups)
    after = scorer(groups)
    assert_close(after.mean(), torch.zeros(()), rtol=0, atol=1e-12)
    assert_close(after.std(), torch.ones(()))
    assert_close(after, (before - before.mean()) / before.std())
    assert_close(scorer.raw(groups), before)
    scorer.normalise(groups)  # twice is once
    assert_close(scorer(groups), after)


def test_gain_and_bias_are_saved_and_are_not_learnt():
    scorer, mine, groups = sampled()
    assert not {"gain", "bias"} & {name for name, _ in scorer.named_parameters()}
    scorer.normalise(groups)
    again = Scorer.new(Cfg, mine, torch.Generator())
    again.load_state_dict(scorer.state_dict())
    assert torch.equal(again(groups), scorer(groups))


def test_equal_scores_are_normalised_to_0_and_not_to_nan():
    scorer, _, groups = sampled()
    scorer.model.unembed.data.zero_()
    scorer.normalise(groups)
    assert (scorer(groups) == 0).all()


def test_a_new_scorer_has_the_policys_body_and_an_output_of_its_own():
    scorer, mine, _ = sampled()
    for name, weight in mine.model.named_parameters():
        if name != "unembed":
            assert torch.equal(scorer.model.get_parameter(name), weight)
            assert scorer.model.get_parameter(name).data_ptr() != weight.data_ptr()
    assert scorer.model.unembed.shape == (1, 8)
    outputs = torch.cat([Scorer.new(Cfg, mine, torch.Generator().manual_seed(i)).model.unembed for i in range(500)])
    assert outputs.std().item() == pytest.approx(9**-0.5, rel=0.05)  # N(0, 1 / (D + 1)): 4000 draws


def test_a_critic_from_the_policy_says_0_everywhere_and_one_from_the_reward_model_says_its_score_at_the_end():
    scorer, mine, groups = sampled()
    rows = groups.rows(slice(None))
    zero = make_critic(Cfg, mine)
    assert (zero(*rows) == 0).all() and zero(*rows).shape == (*groups.mask.shape, 1)
    assert torch.equal(zero.embed, mine.model.embed) and torch.equal(zero.blocks[1].up, mine.model.blocks[1].up)
    same = make_critic(Cfg, mine, scorer.model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), scorer.model.state_dict().values()))
    value = same(*rows)[..., 0]
    p, g = next((p, g) for p in range(6) for g in range(3) if groups.lengths[p, g] > 2)
    cut = changed(groups, mask=torch.arange(groups.mask.shape[-1]).expand_as(groups.mask) < 2)
    assert_close(value[p, g, 2], scorer.raw(cut)[p, g], **EXACT)  # before token 2 is after token 1
    same.unembed.data.zero_()
    assert scorer.model.unembed.abs().sum() > 0  # a copy
