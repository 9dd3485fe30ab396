"""A replayed tape computes what the function computes, with whatever its inputs and parameters hold by then."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from rlx.engine.tape import Forward, Tape, Untapeable

torch.set_num_threads(1)


def net(*sizes: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def zeros_like(params: list[Tensor]) -> list[Tensor]:
    return [torch.full_like(p, float("nan")) for p in params]


LOSSES = {
    "square": lambda y, x: y.square().mean(),
    "huber": lambda y, x: nn.functional.smooth_l1_loss(y, torch.zeros_like(y)),
    "entropy": lambda y, x: (y.log_softmax(-1).exp() * y.log_softmax(-1)).sum(-1).mean(),
    "gather": lambda y, x: -y.log_softmax(-1).gather(-1, x.argmax(-1, keepdim=True) % y.shape[-1]).mean(),
    "largest": lambda y, x: (y.detach().amax(-1) - y[:, 0]).square().mean() + y.amax(-1).sum(),
    "two columns": lambda y, x: (y[:, :2].amax(-1) * y[:, 1]).mean(),
    "gather from a slice": lambda y, x: y[:, 1:].gather(1, x.argmax(-1, keepdim=True) % 2).square().sum(),
    "clip": lambda y, x: torch.minimum(y * 2, y.exp().clamp(0.8, 1.2) * x.sum(-1, keepdim=True)).mean(),
    "clip by tensors": lambda y, x: y.clamp(-x.abs().mean(), x.abs().mean()).pow(2).sum() / 7,
    "maximum": lambda y, x: torch.maximum(y, y.detach() - 0.1).square().sum(),
    "where": lambda y, x: torch.where(y > 0, y, 0.1 * y).mean(),
    "std": lambda y, x: ((y - y.mean()) / (y.std() + 1e-8)).pow(3).mean(),
    "abs log": lambda y, x: (y.abs() + 1).log().mean() - 0.5 * y.sigmoid().mean(),
    "cat": lambda y, x: torch.cat([y, 2 * y], -1).square().mean(),
    "in place": lambda y, x: (y * 3).mul_(x.sum(-1, keepdim=True)).add_(1.0).square().mean(),
    "masked": lambda y, x: y.masked_fill(y < 0, 0.0).sum() / (y > 0).float().sum(),
    "masked, one after another": lambda y, x: (y.masked_fill(x[:, :3] < 0, -1.0) * y).masked_fill(y > 1, 0.5).max(),
    "masked mean": lambda y, x: (y * (kept := x[:, :3] > 0)).sum((0, 1)) / kept.sum((0, 1)).clamp(min=1),
    "none is kept": lambda y, x: y.sum() / (x > 1e6).sum((0, 1)).clamp(min=3) + (~(x > 0)).sum((0, 1)).clamp(max=5),
    "addcmul": lambda y, x: torch.addcmul(y, y, x[:, :3]).sum((0, 1)),
    "addcmul by a value": lambda y, x: torch.addcmul(y, y, x[:, :3], value=2.0).sum((0, 1)),
    "slices": lambda y, x: (y[2:5] * x[1:4, :3] + y[:6:2] * y[3::2]).sum((0, 1)) + y[:, 1].square().mean(),
    "rows joined": lambda y, x: (torch.cat([y[3:] * 2, y[:3]]) * torch.stack([y[0], y[1]], 1).sum()).mean(),
    "sum kept": lambda y, x: (y / y.exp().sum((0, 1), keepdim=True)).square().sum((0, 1)),
    "expm1": lambda y, x: (torch.expm1(y) - y).mean() + (1 - y).abs().sqrt().mean(),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.ELU, nn.SiLU])
def test_a_replay_gives_the_value_and_gradient_that_autograd_gives(name: str, activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = net(5, 16, 16, 3, activation=activation)
    params = list(model.parameters())

    def function(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        y = model(inputs["x"])
        loss = LOSSES[name](y, inputs["x"])
        return loss, torch.stack([loss.detach(), y.detach().mean()])

    grads = zeros_like(params)
    tape = Tape(function, {"x": torch.randn(9, 5)}, params, grads)
    for _ in range(3):  # other inputs and other parameters than those it was recorded with
        x = torch.randn(9, 5)
        with torch.no_grad():
            for p in params:
                p.add_(0.1 * torch.randn_like(p))
        tape.inputs["x"].copy_(x)
        tape.replay()
        loss, info = function({"x": x})
        torch.testing.assert_close(tape.outputs[0], loss.detach(), rtol=1e-4, atol=1e-5)  # float32, other kernels
        torch.testing.assert_close(tape.outputs[1], info, rtol=1e-4, atol=1e-5)
        for grad, expected in zip(grads, torch.autograd.grad(loss, params, allow_unused=True)):
            torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5)


def test_large_matrices_replay_too() -> None:
    torch.manual_seed(0)
    model = net(5, 256, 256, 2, activation=nn.ReLU)
    params = list(model.parameters())
    grads = zeros_like(params)
    tape = Tape(lambda i: (model(i["x"]).square().mean(),), {"x": torch.randn(64, 5)}, params, grads)
    x = torch.randn(64, 5)
    tape.inputs["x"].copy_(x)
    tape.replay()
    for grad, expected in zip(grads, torch.autograd.grad(model(x).square().mean(), params)):
        torch.testing.assert_close(grad, expected, rtol=1e-3, atol=1e-5)


def test_convolutions_replay_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    params = list(model.parameters())

    def function(inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (model(inputs["x"].to(torch.float32) / 255).square().mean(),)

    grads = zeros_like(params)
    tape = Tape(function, {"x": torch.randint(0, 256, (5, 2, 8, 8), dtype=torch.uint8)}, params, grads)
    x = torch.randint(0, 256, (5, 2, 8, 8), dtype=torch.uint8)
    tape.inputs["x"].copy_(x)
    tape.replay()
    for grad, expected in zip(grads, torch.autograd.grad(function({"x": x})[0], params)):
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6)


def test_a_parameter_the_loss_does_not_use_has_gradient_zero() -> None:
    used, unused = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    grads = zeros_like([used, unused])
    Tape(lambda x: ((used * x["x"]).sum(),), {"x": torch.ones(3)}, [used, unused], grads).replay()
    assert grads[0].tolist() == [1, 1, 1] and grads[1].tolist() == [0, 0, 0]


def test_replays_are_bitwise_equal() -> None:
    torch.manual_seed(0)
    model = net(4, 64, 64, 2)
    params = list(model.parameters())
    x = torch.randn(256, 4)
    results = []
    for _ in range(2):
        grads = zeros_like(params)
        tape = Tape(lambda i: (model(i["x"]).square().mean(),), {"x": torch.randn(256, 4)}, params, grads)
        tape.inputs["x"].copy_(x)
        tape.replay()
        results.append([grad.clone() for grad in grads])
    assert all(torch.equal(a, b) for a, b in zip(*results))


@pytest.mark.parametrize(
    "function",
    [
        lambda i: (i["x"] * torch.rand(3),),
        lambda i: (nn.functional.dropout(i["x"], 0.5),),
        lambda i: (i["x"][i["x"] > 0].sum(),),
        lambda i: (i["x"] * float(i["x"].sum()),),
    ],
    ids=["random numbers", "dropout", "boolean indexing", "a number read out"],
)
def test_what_a_replay_could_not_repeat_is_refused(function) -> None:
    with pytest.raises(Untapeable):
        Tape(function, {"x": torch.ones(3)})


def test_forward_falls_back_to_ordinary_torch_and_says_why() -> None:
    forward = Forward(lambda i: (i["x"] * float(i["x"].sum()),), torch.device("cpu"))
    for value in (1.0, 2.0):
        assert forward(x=torch.full((3,), value))[0].tolist() == [3 * value**2] * 3
    assert "cannot be replayed" in forward.notice


def test_forward_keeps_a_tape_for_each_shape() -> None:
    model = net(4, 8, 2)
    forward = Forward(lambda i: (model(i["x"]),), torch.device("cpu"))
    for rows in (3, 5, 3, 5):
        x = torch.randn(rows, 4)
        torch.testing.assert_close(forward(x=x)[0], model(x).detach())
    assert len(forward._tapes) == 2 and not forward.notice


def test_a_wrong_lowering_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlx.engine import lowering

    monkeypatch.setitem(lowering.LOWER, "aten.tanh.default", lowering._elementwise("square", 1))
    model = net(4, 8, 2)
    forward = Forward(lambda i: (model(i["x"]),), torch.device("cpu"))
    x = torch.randn(3, 4)
    torch.testing.assert_close(forward(x=x)[0], model(x).detach())
    assert "differs" in forward.notice


def test_a_program_is_printed_a_line_an_operation() -> None:
    tape = Tape(lambda i: ((i["x"].t().tanh() > 0.5).sum(0, keepdim=True),), {"x": torch.ones(2, 3)})
    assert tape.program.text.splitlines() == [
        "tanh_2 [3, 2] strides [1, 3] = tanh(x_1 [3, 2] strides [1, 3])",
        "gt_3 bool [3, 2] strides [1, 3] = gt(tanh_2 [3, 2] strides [1, 3], 0.5)",
        "sum_4 int64 [1, 2] = sum(gt_3 bool [3, 2] strides [1, 3], dims=(0,), keepdim=True)",
    ]


@pytest.mark.parametrize("name", ["smooth_l1_loss", "mse_loss", "huber_loss"])
def test_a_loss_of_torchs_own_replays_in_silence(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Its out= overload may resize what it is given, and say so at every call."""
    x, y = torch.randn(2, 9)
    tape = Tape(lambda i: (getattr(nn.functional, name)(i["x"], i["y"]),), {"x": x, "y": y})
    tape.inputs["x"].copy_(2 * x)
    tape.replay()
    assert torch.equal(tape.outputs[0], getattr(nn.functional, name)(2 * x, y)) and capfd.readouterr().err == ""
