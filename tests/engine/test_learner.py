"""The learner takes the step that torch's own parts would take, by tape or without."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlx.engine.learner import Learner
from rlx.engine.optim import OPTIMIZERS, Flat

torch.set_num_threads(1)


def make(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2))


def loss_of(model: nn.Module):
    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (model(batch["x"]) - batch["y"]).square().mean() * batch["weight"]
        return error, {"loss": error, "rows": error.detach() * 0 + len(batch["x"])}

    return loss


def data() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"x": torch.randn(64, 3, generator=generator), "y": torch.randn(64, 2, generator=generator)}


@pytest.mark.parametrize("engine", ["tape", "torch"])
@pytest.mark.parametrize("max_norm", [0.0, 0.01])
def test_thirty_steps_equal_torch_optim_adam_and_clip_grad_norm(engine: str, max_norm: float) -> None:
    model, reference, batch = make(), make(), data()
    learner = Learner(model, loss_of(model), eps=1e-5, max_grad_norm=max_norm, engine=engine)
    optimizer = torch.optim.Adam(reference.parameters(), lr=1e-2, eps=1e-5)
    generator = torch.Generator().manual_seed(2)
    for step in range(30):
        index = torch.randperm(64, generator=generator)[: 16 if step % 3 else 9]
        weight = 1.0 + step / 10
        learner.step(batch, index, 1e-2, weight=weight)
        optimizer.zero_grad()
        rows = {name: tensor[index] for name, tensor in batch.items()}
        loss_of(reference)({**rows, "weight": torch.tensor(weight)})[0].backward()
        if max_norm:
            nn.utils.clip_grad_norm_(reference.parameters(), max_norm)
        optimizer.step()
    assert not learner.notice
    for got, expected in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)  # float32, 30 steps of other kernels


@pytest.mark.parametrize("engine", ["auto", "tape"])
def test_a_parameter_that_the_loss_does_not_use_has_no_gradient_and_stays(engine: str) -> None:
    model, batch = nn.ModuleDict({"used": make(), "other": make(1)}), data()
    before = [param.detach().clone() for param in model["other"].parameters()]
    learner = Learner(model, loss_of(model["used"]), engine=engine)
    for _ in range(12):
        learner.step(batch, None, 1e-2, weight=1.0)
    assert not learner.notice and learner.engine != "torch"
    assert all(map(torch.equal, model["other"].parameters(), before))


def test_a_hyper_parameter_is_read_anew_in_every_step() -> None:
    model, batch = make(), data()
    learner = Learner(model, loss_of(model), engine="tape")
    index = torch.arange(64)
    losses = [learner.step(batch, index, 0.0, weight=weight)["loss"] for weight in (1.0, 2.0, 4.0, 8.0)]
    assert [loss / losses[0] for loss in losses] == pytest.approx([1, 2, 4, 8])


def test_no_index_means_all_rows() -> None:
    batch, norms = data(), []
    for index in (None, torch.arange(64)):
        model = make()
        norms.append(Learner(model, loss_of(model)).step(batch, index, 1e-3, weight=1.0))
    assert norms[0] == pytest.approx(norms[1])


def test_flat_parameters_are_the_modules_parameters() -> None:
    model = make()
    before = [p.clone() for p in model.parameters()]
    flat = Flat(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before))
    flat.data.add_(1.0)
    assert all(torch.equal(a, b + 1) for a, b in zip(model.parameters(), before))
    model.load_state_dict(make(1).state_dict())
    assert torch.equal(flat.data, torch.cat([p.detach().flatten() for p in make(1).parameters()]))


@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_tf"])
def test_rmsprop_is_torchs_or_the_one_with_epsilon_inside_the_root(name: str) -> None:
    torch.manual_seed(0)
    data = torch.randn(7)
    optimizer = OPTIMIZERS[name](data.clone(), eps=1e-3)
    theirs = data.clone().requires_grad_()
    reference = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.99, eps=1e-3)
    by_hand, v = data.double().numpy().copy(), np.ones(7)
    for _ in range(20):
        grad = torch.randn(7)
        optimizer.step(grad, 0.01)
        theirs.grad = grad
        reference.step()
        v = 0.99 * v + 0.01 * grad.double().numpy() ** 2
        by_hand -= 0.01 * grad.double().numpy() / np.sqrt(v + 1e-3)
    expected = theirs.detach() if name == "rmsprop" else torch.tensor(by_hand, dtype=torch.float32)
    torch.testing.assert_close(optimizer.data, expected)
    other = torch.tensor(by_hand, dtype=torch.float32) if name == "rmsprop" else theirs.detach()
    assert float((optimizer.data - other).abs().max()) > 1e-3  # they do differ


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_restored_goes_on_as_if_never_stopped(name: str) -> None:
    torch.manual_seed(0)
    grads = torch.randn(6, 7)
    whole, first = OPTIMIZERS[name](torch.zeros(7)), OPTIMIZERS[name](torch.zeros(7))
    for grad in grads:
        whole.step(grad, 0.1)
    for grad in grads[:3]:
        first.step(grad, 0.1)
    second = OPTIMIZERS[name](first.data.clone())
    second.load_state_dict(first.state_dict())
    for grad in grads[3:]:
        second.step(grad, 0.1)
    assert torch.equal(whole.data, second.data) and second.t == 6


def test_a_learner_moves_the_parameters_it_was_given_and_no_others() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    before = [p.detach().clone() for p in model.parameters()]

    def loss(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        value = model(batch["x"]).square().mean()
        return value, {"value": value}

    Learner(list(model[1].parameters()), loss).step({"x": torch.ones(5, 3)}, None, 0.1)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert moved == [False, False, True, True]


def test_a_gradient_that_is_not_finite_stops_before_the_parameters_change() -> None:
    model, batch = make(), data()
    learner = Learner(model, loss_of(model))
    learner.step(batch, None, 1e-3, weight=1.0)
    before = learner.flat.data.clone()
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.step(batch, None, 1e-3, weight=float("nan"))
    assert torch.equal(learner.flat.data, before)


def test_a_tape_that_disagrees_with_torch_is_thrown_away_and_the_step_is_still_right(monkeypatch) -> None:
    from rlx.engine import lowering

    # the derivative of tanh without its square
    monkeypatch.setitem(lowering.LOWER, "aten.tanh_backward.default", lowering._elementwise("mul", 2))
    results = []
    for engine in ("tape", "torch"):
        model = make()
        learner = Learner(model, loss_of(model), engine=engine)
        learner.step(data(), None, 1e-2, weight=1.0)
        results.append((learner.flat.data.clone(), learner.notice))
    torch.testing.assert_close(results[0][0], results[1][0])
    assert "gradients differ" in results[0][1] and not results[1][1]


@pytest.mark.parametrize("engine", ["tape", "auto"])
def test_a_gradient_that_another_learners_critic_cancels_is_no_disagreement(engine: str) -> None:
    """dQ/da = sum v W is 0 but for rounding, which is another in another order, and constant: all of ReLU is active."""
    generator = torch.Generator().manual_seed(0)
    actor = make()
    critic = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 1)).requires_grad_(False)
    W, v = torch.randn(64, 2, generator=generator), torch.randn(64, generator=generator)
    v[:2] = torch.linalg.solve(W[:2].T.double(), -(W[2:].T.double() @ v[2:].double())).float()
    critic[0].weight.copy_(W), critic[0].bias.fill_(20.0), critic[2].weight.copy_(v[None])
    before = [tensor.clone() for tensor in critic.parameters()]

    def loss(rows: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value = -critic(actor(rows["x"])).mean()
        return value, {"loss": value}

    learner = Learner(actor, loss, engine=engine)
    for _ in range(10):
        learner.step(data(), None, 1e-4)
    assert 0 < float(learner.flat.grad.abs().max()) < 1e-4 and not learner.notice
    assert all(map(torch.equal, critic.parameters(), before))


def test_a_number_baked_into_the_tape_is_found_out_by_the_second_call() -> None:
    model, batch, weight = make(), data(), [1.0]

    def loss(rows: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (model(rows["x"]) - rows["y"]).square().mean() * weight[0]  # not an input
        return error, {"loss": error}

    learner = Learner(model, loss, engine="tape")
    for weight[0] in (1.0, 2.0, 3.0):
        got = learner.step(batch, None, 0.0)["loss"]
        assert got == pytest.approx(float(loss(batch)[0].detach()), rel=1e-5)
    assert "ordinary torch" in learner.notice


@pytest.mark.parametrize("engine", ["auto", "torch"])
def test_sgd_goes_down_the_gradient_and_nothing_else(engine: str) -> None:
    model, theirs = make(), make()
    learner = Learner(model, loss_of(model), optimizer="sgd", engine=engine)
    reference = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for k in range(20):
        torch.manual_seed(k)
        batch = {"x": torch.randn(8, 3), "y": torch.randn(8, 2)}
        learner.step(batch, None, 0.1, weight=1.0)
        reference.zero_grad()
        loss_of(theirs)({**batch, "weight": torch.tensor(1.0)})[0].backward()
        reference.step()
    assert learner.num_steps == 20 and not learner.notice
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)  # float32, summed in another order
