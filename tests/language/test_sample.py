"""Sampling: what is drawn is the model's distribution, and what is recorded is what was drawn."""

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_lm import Everything, make, policy
from torch.testing import assert_close

from rlx.language.model.sample import generate, noise
from rlx.language.rollout import logprobs

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, sums in another order
NEVER = -torch.inf
V, END, L = 5, 4, 6


class Fixed:
    """A model whose logits depend on the place alone: [L, V]."""

    def __init__(self, logits):
        self.table = torch.tensor(logits, dtype=torch.float32)

    def begin(self, prompt, mask, size, length):
        return self.table[0].expand(len(prompt), 1, -1), None

    def extend(self, cache, token, t):
        return self.table[t + 1].expand(*token.shape, -1)

    def logits(self, features):
        return features


def prompts(P=3, s=4, seed=0):
    return torch.randint(0, V + 1, (P, s), generator=torch.Generator().manual_seed(seed))


def draw(model, prompt, size=4, seed=0, max_new=L, uniform=None, mask=None, **options):
    if uniform is None:
        uniform = noise(np.random.default_rng(seed), len(prompt) * size, max_new)
    return generate(model, prompt, mask, size=size, max_new=max_new, end=END, uniform=uniform, **options)


def fresh(model, prompt, found, size, temperature=1.0):
    """Log-probs of what was drawn, by the parallel forward pass."""
    tokens = found.tokens.view(len(prompt), size, -1)
    return logprobs(model(prompt, None, tokens), tokens, temperature).flatten(0, 1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_frequencies_are_the_models_probabilities(temperature):
    """All 31 completions of two letters and at most four tokens, 20,000 draws, chi-squared."""
    tiny = policy(letters=2, max_new=4)
    all_of_them, draws = Everything(tiny), 20_000
    logprob = logprobs(all_of_them.logits(), all_of_them.tokens, temperature)
    probability = logprob.masked_fill(~all_of_them.mask, 0.0).sum(-1).exp().detach()
    assert_close(probability.sum(), torch.tensor(1.0))
    found, texts = tiny.generate([""], draws, np.random.default_rng(0), temperature)
    counts = dict.fromkeys(zip(all_of_them.texts, all_of_them.ended.tolist()), 0)
    for row in zip(texts, found.ended.tolist()):
        counts[row] += 1
    expected, observed = draws * probability.numpy(), np.array(list(counts.values()))
    rare = expected < 5  # cells too rare for the test are one cell
    expected = np.append(expected[~rare], expected[rare].sum())
    observed = np.append(observed[~rare], observed[rare].sum())
    kept = expected > 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > 0.01
    wrong = np.roll(expected[kept], 1)
    assert stats.chisquare(observed[kept], wrong).pvalue < 1e-6  # the test can fail


def test_without_noise_it_is_the_likeliest_token_each_time():
    model, prompt = make(V), prompts()
    found = generate(model, prompt, None, size=1, max_new=L, end=END)
    tokens = found.tokens[:, None]
    likeliest = model(prompt, None, tokens).argmax(-1)  # after what was drawn before
    assert torch.equal(tokens[:, 0][found.mask], likeliest[:, 0][found.mask])
    cold = draw(model, prompt, size=1, temperature=1e-6)
    assert torch.equal(cold.tokens[cold.mask], found.tokens[found.mask])


@pytest.mark.parametrize("temperature", [1.0, 0.7, 3.0])
def test_recorded_logprobs_are_those_of_a_fresh_forward_pass(temperature):
    model, prompt = make(V), prompts()
    found = draw(model, prompt, temperature=temperature)
    assert 0 < found.ended.sum() < len(found.ended)  # both kinds
    again = fresh(model, prompt, found, 4, temperature)
    assert_close(found.logprob[found.mask], again[found.mask], **EXACT)
    assert (found.logprob[~found.mask] == 0).all()
    other = fresh(model, prompt, found, 4, 1.1 * temperature)
    assert (other - found.logprob)[found.mask].abs().max() > 1e-3


def test_no_number_draws_a_token_of_probability_0():
    """The first, the last and a middle token are impossible, and so is all but one token at the second place."""
    logits = [[NEVER, 0.3, NEVER, 0.1, NEVER], [NEVER, NEVER, 0.0, NEVER, NEVER], [0.0, -200.0, 0.0, 0.0, -200.0]]
    edges = [0.0, np.nextafter(np.float32(1), np.float32(0)), 1e-45, 0.5]
    uniform = torch.tensor(edges, dtype=torch.float32).expand(3, -1).contiguous()
    for shift in np.linspace(-3, 3, 50):  # whatever the sum of the probabilities rounds to
        table = np.array(logits) + shift * np.sin(np.arange(V))
        found = draw(Fixed(table), torch.zeros(1, 1), size=4, max_new=3, uniform=uniform)
        first, second, third = found.tokens.T
        assert set(first.tolist()) <= {1, 3} and set(second.tolist()) == {2} and set(third.tolist()) <= {0, 2, 3}
        assert first[0] == 1 and first[1] == 3
        assert found.logprob.isfinite().all()


def test_a_uniform_number_inverts_the_distribution_function():
    probability = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25])
    uniform = torch.tensor([[0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, 0.74, 0.76, 0.99]], dtype=torch.float32)
    found = draw(Fixed([probability.log().tolist()]), torch.zeros(1, 1), size=10, max_new=1, uniform=uniform)
    assert found.tokens[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert_close(found.logprob[:, 0].exp(), probability[found.tokens[:, 0]].float())


def test_masks_go_by_position_and_the_end_is_inside():
    """Completion 0 is only the end; 1 ends at its third token; 2 never does. The prompt holds end tokens itself."""
    model = Fixed([[0.0] * V] * L)
    at = lambda token: (token + 0.5) / V  # noqa: E731
    rows = [[END, 1, 1, END, 1, 1], [0, 1, END, 2, END, 3], [0, 1, 2, 3, 0, 1]]
    uniform = torch.tensor([[at(token) for token in row] for row in rows], dtype=torch.float32).T
    found = draw(model, torch.full((1, 3), END), size=3, uniform=uniform)
    assert found.mask.tolist() == [[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1] * 6]
    assert found.lengths.tolist() == [1, 3, 6]
    assert found.ended.tolist() == [True, True, False]
    assert [row[:n] for row, n in zip(found.tokens.tolist(), found.lengths)] == [[END], [0, 1, END], rows[2]]
    assert_close(found.logprob, torch.where(found.mask, -np.log(V), 0.0).float())
    at_the_limit = torch.tensor([[at(token) for token in [0, 1, 2, 3, 0, END]]], dtype=torch.float32).T
    last = draw(model, torch.zeros(1, 1), size=1, uniform=at_the_limit)
    assert last.ended.tolist() == [True] and last.lengths.tolist() == [6]


def test_an_end_token_in_the_prompt_is_a_token_like_any_other():
    model, plain = make(V), prompts()
    prompt = plain.clone()
    prompt[:, 1] = END
    found = draw(model, prompt)
    assert found.mask[:, 0].all()
    assert_close(found.logprob[found.mask], fresh(model, prompt, found, 4)[found.mask], **EXACT)
    wide = torch.cat([torch.full((3, 2), END), prompt], 1)
    padded = draw(model, wide, mask=torch.arange(6).expand(3, -1) >= 2)
    assert torch.equal(padded.mask, found.mask) and torch.equal(padded.tokens[found.mask], found.tokens[found.mask])


def test_when_the_others_end_changes_nothing_that_is_drawn():
    """The whole batch; each completion alone; and with fewer steps because all have ended."""
    model, prompt = make(V), prompts()
    uniform = noise(np.random.default_rng(3), 12, L)
    whole = draw(model, prompt, uniform=uniform)
    widths = set()
    for p in range(3):
        for g in range(4):
            row = 4 * p + g
            one = draw(model, prompt[p : p + 1], size=1, uniform=uniform[:, row : row + 1].contiguous())
            length = int(whole.lengths[row])
            assert one.tokens.shape[1] == length == int(one.lengths)  # it stops there
            assert torch.equal(one.tokens[0], whole.tokens[row, :length])
            assert_close(one.logprob[0], whole.logprob[row, :length], **EXACT)
            assert one.ended[0] == whole.ended[row]
            widths.add(length)
    assert len(widths) > 2


def test_noise_belongs_to_a_completion_however_many_are_drawn_at_a_time():
    whole, rng = noise(np.random.default_rng(5), 10, 7), np.random.default_rng(5)
    assert whole.shape == (7, 10) and whole.dtype == torch.float32 and ((whole >= 0) & (whole < 1)).all()
    parts = [noise(rng, n, 7) for n in (1, 4, 5)]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_sampling_leaves_no_graph_and_reads_no_global_generator():
    model, prompt = make(V), prompts()
    before = torch.get_rng_state()
    found = draw(model, prompt)
    assert not found.logprob.requires_grad
    assert torch.equal(torch.get_rng_state(), before)
