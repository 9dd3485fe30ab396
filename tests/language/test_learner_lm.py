"""The learner of language models: a batch cut into parts is the batch, and the step is AdamW's."""

import pytest
import torch
from tiny_lm import make
from torch import nn
from torch.testing import assert_close

from rlx.language.learner import TokenLearner, parts

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-12, "atol": 1e-14}  # float64, sums in another order


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(12, 3, generator=generator), torch.randn(12, 1, generator=generator)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.05, 100.0])
def test_steps_equal_those_of_torch_adamw_and_clip_grad_norm(max_grad_norm, weight_decay):
    mine, theirs, (x, y) = net(), net(), data()
    learner = TokenLearner(mine, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay, max_grad_norm=max_grad_norm)
    adamw = torch.optim.AdamW(theirs.parameters(), betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay)
    for i in range(10):
        lr = 0.05 / (1 + i)
        learner.add((mine(x) - y).square().mean())
        info = learner.step(lr)
        adamw.param_groups[0]["lr"] = lr
        adamw.zero_grad()
        loss = (theirs(x) - y).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm or float("inf"))
        adamw.step()
        assert info == {"loss": pytest.approx(loss.item()), "grad_norm": pytest.approx(norm.item())}
        for a, b in zip(mine.parameters(), theirs.parameters()):
            assert_close(a, b, rtol=1e-9, atol=1e-12)  # ten steps
    assert learner.num_steps == 10


@pytest.mark.parametrize("most", [1, 5, 12])
def test_parts_divided_by_the_counts_of_the_whole_add_up_to_it(most):
    whole, cut, (x, y) = net(), net(), data()
    one, several = (TokenLearner(module, eps=1.0) for module in (whole, cut))
    one.add((whole(x) - y).square().sum() / 12, {"n": torch.tensor(1.0), "gap/max": (x.abs().max())})
    sizes = []
    for rows in parts(slice(0, 12), most):
        error = (cut(x[rows]) - y[rows]).square().sum() / 12
        sizes.append(len(x[rows]))
        several.add(error, {"n": torch.tensor(len(x[rows]) / 12), "gap/max": x[rows].abs().max()})
    assert sum(sizes) == 12 and max(sizes) <= most
    assert_close(several.flat.grad, one.flat.grad, **EXACT)
    a, b = one.step(0.1), several.step(0.1)
    assert a == pytest.approx(b, rel=1e-12)
    assert a["gap/max"] == x.abs().max()
    assert_close(several.flat.data, one.flat.data, **EXACT)


def test_parts_cover_the_rows_once_and_in_order():
    assert list(parts(slice(4, 10), 0)) == [slice(4, 10)]
    assert list(parts(slice(4, 11), 3)) == [slice(4, 7), slice(7, 10), slice(10, 11)]


def test_a_step_forgets_the_gradient_and_the_diagnostics():
    module, (x, _) = net(), data()
    learner = TokenLearner(module)
    learner.add(module(x).sum(), {"a": torch.tensor(2.0)})
    assert learner.step(0.0)["a"] == 2.0
    assert (learner.flat.grad == 0).all()
    learner.add(module(x).sum() * 0)
    assert learner.step(0.0) == {"loss": 0.0, "grad_norm": 0.0}


def test_a_gradient_that_is_not_finite_raises_and_leaves_the_parameters():
    module, (x, _) = net(), data()
    learner = TokenLearner(module, max_grad_norm=1.0)
    before = learner.flat.data.clone()
    learner.add(module(x).sum() * torch.inf)
    with pytest.raises(FloatingPointError, match="the gradient is not finite"):
        learner.step(0.1)
    assert torch.equal(learner.flat.data, before)
    assert learner.num_steps == 0


def test_the_gradient_of_a_weight_that_a_batch_does_not_use_is_0():
    """The positions that short sequences never reach, after a longer batch did."""
    model = make(5, context=16)
    learner = TokenLearner(model)
    prompt, completion = torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 1, 9, dtype=torch.long)
    learner.add(model(prompt, None, completion).sum())
    assert model.position.grad.abs().sum(-1).count_nonzero() == 10
    learner.step(0.0)
    learner.add(model(prompt, None, completion[..., :3]).sum())
    assert model.position.grad.abs().sum(-1).count_nonzero() == 4


def test_a_learner_restored_goes_on_as_if_it_had_never_stopped():
    (x, y), modules = data(), [net(), net()]
    straight, stopped = (TokenLearner(module) for module in modules)

    def step(learner, module):
        learner.add((module(x) - y).square().mean())
        learner.step(0.05)

    for _ in range(3):
        step(straight, modules[0])
        step(stopped, modules[1])
    again = net(seed=9)
    again.load_state_dict(modules[1].state_dict())
    resumed = TokenLearner(again)
    resumed.load_state_dict({k: v.clone() if hasattr(v, "clone") else v for k, v in stopped.state_dict().items()})
    for _ in range(3):
        step(straight, modules[0])
        step(resumed, again)
    assert torch.equal(straight.flat.data, resumed.flat.data)
    assert resumed.num_steps == 6
