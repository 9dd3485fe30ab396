"""The transformer: what its sharing of prompts, its cache, its padding and its positions may not change."""

import math

import pytest
import torch
from tiny_lm import gpt, make
from torch.testing import assert_close

from rlx.language.model.gpt import GPTConfig

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-9}  # float64, sums in another order
P, G, S, L, V = 3, 2, 5, 4, 5

both = pytest.mark.parametrize("positions", ["learned", "rotary"])


def batch(seed=0, s=S):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, V + 1, (P, s), generator=generator), torch.randint(0, V, (P, G, L), generator=generator)


def padded(prompt, lengths):
    """The prompts' last `lengths` tokens, with padding (of any id) before them."""
    mask = torch.arange(prompt.shape[1]) >= prompt.shape[1] - torch.tensor(lengths)[:, None]
    return prompt.masked_fill(~mask, V), mask


def textbook(model, tokens, shift=0):
    """A decoder over one sequence, from its parameters and the equations: logits [T, V] after each token."""
    d, heads = model.embed.shape[1], model.cfg.num_heads
    size, T = d // heads, len(tokens)

    def norm(x):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def act(x):
        gelu, relu = 0.5 * x * (1 + torch.erf(x / 2**0.5)), x.clamp(min=0)
        return {"relu": relu, "relu2": relu**2, "gelu": gelu}[model.cfg.activation]

    def rotate(x, position):
        angle = position / 10_000 ** (2 * torch.arange(size // 2) / size)
        a, b = x[: size // 2], x[size // 2 :]
        return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()])

    x = model.embed[tokens]
    if model.cfg.positions == "learned":
        x = x + model.position[shift : shift + T]
    for block in model.blocks:
        q, k, v = (norm(x) @ block.qkv.T).split(d, -1)
        mixed = []
        for h in range(heads):
            query, key, value = (part[:, h * size : (h + 1) * size] for part in (q, k, v))
            if model.cfg.positions == "rotary":
                query, key = (torch.stack([rotate(row, shift + t) for t, row in enumerate(x)]) for x in (query, key))
            rows = []
            for t in range(T):
                weight = (key[: t + 1] @ query[t] / math.sqrt(size)).exp()
                rows.append(weight / weight.sum() @ value[: t + 1])
            mixed.append(torch.stack(rows))
        x = x + torch.cat(mixed, -1) @ block.out.T
        x = x + act(norm(x) @ block.up.T) @ block.down.T
    return norm(x) @ model.unembed.T


def alone(model, prompt, completion, mask=None):
    """The textbook's logits of each token of each completion [P, G, L, V]."""
    rows = []
    for p in range(len(prompt)):
        start = prompt[p] if mask is None else prompt[p][mask[p]]
        for tokens in completion[p]:
            rows.append(textbook(model, torch.cat([start, tokens[:-1]]))[len(start) - 1 :])
    return torch.stack(rows).view(*completion.shape, -1)


@pytest.mark.parametrize("activation", ["relu", "gelu", "relu2"])
@both
def test_logits_and_gradients_are_those_of_a_textbook_transformer_run_on_each_sequence_alone(positions, activation):
    model, (prompt, completion) = make(V, positions=positions, activation=activation), batch()
    prompt, mask = padded(prompt, [5, 2, 3])
    ours, theirs = model(prompt, mask, completion), alone(model, prompt, completion, mask)
    assert_close(ours, theirs, **EXACT)
    weight = torch.randn(ours.shape)
    parameters = dict(model.named_parameters())
    gradients = [torch.autograd.grad((x * weight).sum(), list(parameters.values())) for x in (ours, theirs)]
    for name, mine, other in zip(parameters, *gradients):
        assert other.abs().max() > 0, name
        assert_close(mine, other, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@both
def test_padding_on_the_left_changes_nothing(positions):
    model, (prompt, completion) = make(V, positions=positions), batch()
    expected = model(prompt, None, completion)
    assert_close(model(prompt, torch.ones_like(prompt, dtype=torch.bool), completion), expected, **EXACT)
    for filler in (0, V):
        wide = torch.cat([torch.full((P, 3), filler), prompt], 1)
        mask = torch.arange(S + 3).expand(P, -1) >= 3
        assert_close(model(wide, mask, completion), expected, **EXACT)


@both
@pytest.mark.parametrize("lengths", [None, [5, 1, 3]])
def test_reading_token_by_token_is_reading_all_at_once(positions, lengths):
    model, (prompt, completion) = make(V, positions=positions), batch()
    mask = None
    if lengths:
        prompt, mask = padded(prompt, lengths)
    expected = model.features(prompt, mask, completion, last=True)
    with torch.no_grad():
        first, cache = model.begin(prompt, mask, G, L)
        assert_close(first.expand(P, G, -1), expected[:, :, 0], **EXACT)
        for t in range(L):
            assert_close(model.extend(cache, completion[..., t], t), expected[:, :, t + 1], **EXACT)


@both
def test_last_adds_what_is_known_after_the_last_token(positions):
    model, (prompt, completion) = make(V, positions=positions), batch()
    longer = model.features(prompt, None, completion, last=True)
    assert longer.shape == (P, G, L + 1, 8)
    assert_close(longer[:, :, :-1], model.features(prompt, None, completion), **EXACT)
    other = torch.cat([completion, completion[..., :1]], -1)
    assert_close(longer, model.features(prompt, None, other), **EXACT)


@both
def test_later_tokens_change_nothing_earlier_and_members_of_a_group_do_not_see_each_other(positions):
    model, (prompt, completion) = make(V, positions=positions), batch()
    before = model(prompt, None, completion)
    for t in range(L):
        other = completion.clone()
        other[1, 1, t] = (other[1, 1, t] + 1) % V
        moved = (model(prompt, None, other) - before).abs().amax(-1) > 1e-9
        expected = torch.zeros(P, G, L, dtype=torch.bool)
        expected[1, 1, t + 1 :] = True  # its own later tokens, and nothing else
        assert torch.equal(moved, expected)
    other = prompt.clone()
    other[1, 0] = (other[1, 0] + 1) % V
    moved = (model(other, None, completion) - before).abs().amax(-1) > 1e-9
    assert moved[1].all() and not moved[[0, 2]].any()


def test_rotary_positions_enter_by_their_differences_only():
    model, (prompt, completion) = make(V, positions="rotary"), batch()
    tokens = torch.cat([prompt[0], completion[0, 0]])
    assert_close(textbook(model, tokens, shift=7), textbook(model, tokens), **EXACT)
    ours = model(prompt[:1], None, completion[:1, :1])[0, 0]
    assert_close(ours, textbook(model, tokens, shift=7)[S - 1 : -1], **EXACT)
    learned = make(V, positions="learned")
    assert (textbook(learned, tokens, shift=3) - textbook(learned, tokens)).abs().max() > 1e-3


@both
def test_completions_of_one_token_need_the_prompt_alone(positions):
    model, (prompt, completion) = make(V, positions=positions), batch()
    prompt, mask = padded(prompt, [5, 2, 3])
    ours = model(prompt, mask, completion[..., :1])
    assert_close(ours, model(prompt, mask, completion)[:, :, :1], **EXACT)
    ours.square().sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters())


def test_activations_in_bfloat16_give_float32_logits_near_those_of_float32():
    torch.set_default_dtype(torch.float32)
    prompt, completion = batch()
    one, half = (make(V, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert half.embed.dtype == torch.float32
    logits = half(prompt, None, completion)
    assert logits.dtype == torch.float32
    assert_close(logits, one(prompt, None, completion), rtol=0.1, atol=0.1)  # bfloat16 has 8 bits
    logits.sum().backward()
    assert half.unembed.grad.dtype == torch.float32


def test_initial_weights_are_the_generators_alone():
    a, b, c = (make(V, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.embed, c.embed)


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"d_model": 9}, "d_model=9: must be a multiple of num_heads=2"),
        ({"d_model": 6, "positions": "rotary"}, "d_model=6: rotary positions need an even d_model / num_heads"),
        ({"name": "hf"}, "path=null: name=hf needs the directory"),
        ({"path": "x"}, "path=x: only name=hf reads a model"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(changes, fault):
    with pytest.raises(ValueError) as error:
        gpt(**changes)
    assert str(error.value).startswith(fault) and "\n" not in str(error.value)
    assert isinstance(gpt(), GPTConfig)


def test_norm_is_layer_norm():
    """Of the features: mean 0, mean square 1, and blind to their scale but for its epsilon."""
    model, (prompt, completion) = make(V), batch()
    features = model.features(prompt, None, completion)
    assert_close(features.mean(-1), torch.zeros(P, G, L), rtol=0, atol=1e-9)
    assert_close(features.square().mean(-1), torch.ones(P, G, L), rtol=0, atol=1e-2)  # epsilon 1e-5 beside a variance
