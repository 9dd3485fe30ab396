"""Pretraining: the loss is the cross-entropy of texts from their first character to their end token."""

import math

import pytest
import torch
from tiny_lm import algo, gpt, one_by_one, policy, run, train
from torch.testing import assert_close

from rlx.language import policy as policies
from rlx.language.model.gpt import GPT
from rlx.language.tasks import base

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-9, "atol": 1e-12}  # float64, sums in another order

# A language whose every text is known: each text and its chance.
CHANCES = {"a": 1 / 2, "b": 1 / 4, "ab": 1 / 8, "": 1 / 8}
ENTROPY = sum(-p * math.log(p) for p in CHANCES.values())  # of one text, in nats
LENGTH = sum(p * (len(text) + 1) for text, p in CHANCES.items())  # tokens of one text, its end counted


class Corpus(base.Task):
    """Each batch of 8 n texts holds each of them in exact proportion: its loss is that of the whole language."""

    def __init__(self, cfg):
        super().__init__(cfg, alphabet="abcd", symbols="abcd", prompt_length=0, longest=2, num_prompts=1)

    def draw(self, rng, n):
        return [""] * n

    def correct(self, prompt, completion, ended):
        return ended and completion in CHANCES

    dense = correct

    def text(self, rng, n):
        return rng.permutation([text for text, p in CHANCES.items() for _ in range(round(n * p))]).tolist()


@pytest.fixture
def corpus(monkeypatch):
    monkeypatch.setattr(policies, "make_task", Corpus)


@pytest.mark.parametrize("name", ["names", "parity"])
def test_the_loss_is_that_of_all_tokens_of_the_texts_and_of_their_ends(name):
    """Loss and gradient norm of the first step, from log-probs taken one token at a time."""
    _, history = train(algo("algo=pretrain", batch_size=6), name)
    start = policy(name, seed=1)
    texts = start.task.text(run().rng("text"), 6)
    logprob = torch.cat([one_by_one(start, "", text) for text in texts])
    assert history[0]["num_tokens"] == len(logprob) == sum(map(len, texts)) + 6
    assert_close(torch.tensor(history[0]["loss"]), -logprob.mean(), **EXACT)
    gradient = torch.autograd.grad(logprob.mean(), list(start.model.parameters()))
    assert_close(torch.tensor(history[0]["grad_norm"]), torch.cat([g.flatten() for g in gradient]).norm(), **EXACT)


def test_the_prompt_is_the_beginning_and_nothing_else(monkeypatch):
    seen, real = [], GPT.forward
    monkeypatch.setattr(GPT, "forward", lambda self, *inputs: seen.append(inputs) or real(self, *inputs))
    train(algo("algo=pretrain", batch_size=4), "parity")
    ((prompt, mask, completion),) = seen
    assert prompt.tolist() == [[4]] * 4 and mask is None  # 01= and the end come before it
    assert completion.shape[:2] == (4, 1) and (completion[:, 0] == 3).sum(-1).tolist() == [1] * 4  # one end each
    assert (completion[:, 0, 10] == 2).all()  # the task's own prompt is text here


def test_an_untrained_model_gives_every_token_nearly_the_same_chance():
    """As a run starts, not as the models of the other tests do: the loss is log V to a few percent."""
    shape = gpt(d_model=64, num_heads=4)
    for name, V in (("names", 27), ("parity", 4)):
        _, history = train(algo("algo=pretrain"), name, init=None, model=shape)
        assert history[0]["loss"] == pytest.approx(math.log(V), rel=0.03)


def test_the_loss_comes_down_to_the_entropy_and_never_below(corpus):
    done, history = train(algo("algo=pretrain", batch_size=8, lr=1e-2), "enumerable", steps=300)
    losses = [metrics["loss"] for metrics in history]
    assert min(losses) >= ENTROPY / LENGTH and losses[0] > 2 * ENTROPY / LENGTH
    assert losses[-1] == pytest.approx(ENTROPY / LENGTH, rel=1e-3)
    assert history[-1]["mean_token_accuracy"] == pytest.approx(12 / 16)  # a. of a., . of b., a and . of ab., none of .
    learnt = policy("enumerable")
    learnt.model.load_state_dict(done.tracked["policy"].state_dict())
    for text, chance in CHANCES.items():
        assert one_by_one(learnt, "", text).sum().exp().item() == pytest.approx(chance, abs=0.01)


def test_the_learning_rate_falls_to_0_in_a_line_or_stays():
    for anneal in (True, False):
        _, history = train(algo("algo=pretrain", batch_size=2, lr=1e-3, anneal_lr=anneal), steps=4)
        rates = [1e-3, 7.5e-4, 5e-4, 2.5e-4] if anneal else [1e-3] * 4
        assert [metrics["learning_rate"] for metrics in history] == pytest.approx(rates)
