"""What has no kernel is recorded as operations that have: losses and distributions as strangers write them."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import distributions, nn

from rlx.engine.learner import Learner
from rlx.engine.lowering import LOWER
from rlx.engine.simpler import RULES
from rlx.engine.tape import Tape
from rlx.engine.trust import Trust

KERNELS = Trust("auto", True).kernels
pytestmark = pytest.mark.skipif(KERNELS is None, reason="there is no C compiler")


def normal(i):
    return distributions.Normal(i["out"], 0.5 + i["y"].abs())


def categorical(i):
    return distributions.Categorical(logits=i["out"])


LOSSES = {
    "mse": lambda i: F.mse_loss(i["out"], i["y"]),
    "mse, each": lambda i: (i["w"] * F.mse_loss(i["out"].mean(1), i["y"].mean(1), reduction="none")).mean(),
    "mse, sum": lambda i: F.mse_loss(i["out"], i["y"], reduction="sum"),
    "l1": lambda i: F.l1_loss(i["out"], i["y"]),
    "smooth l1": lambda i: F.smooth_l1_loss(i["out"], i["y"], beta=0.5),
    "huber": lambda i: F.huber_loss(i["out"], i["y"], delta=0.7),
    "quantiles": lambda i: F.huber_loss(
        i["out"][:, :, None].expand(-1, -1, 3), i["y"][:, None, :].expand(-1, 3, -1), reduction="none"
    ).mean(),
    "cross entropy": lambda i: F.cross_entropy(i["out"], i["a"]),
    "cross entropy, each": lambda i: (i["w"] * F.cross_entropy(i["out"], i["a"], reduction="none")).sum(),
    "cross entropy, sum": lambda i: F.cross_entropy(i["out"], i["a"], reduction="sum", ignore_index=1),
    "binary": lambda i: F.binary_cross_entropy_with_logits(i["out"], torch.sigmoid(i["y"])),
    "log sigmoid": lambda i: -F.logsigmoid(30 * i["out"]).mean(),
    "Categorical": lambda i: -categorical(i).log_prob(i["a"]).mean() - 0.01 * categorical(i).entropy().mean(),
    "Normal": lambda i: -normal(i).log_prob(i["y"]).sum(-1).mean() - 0.01 * normal(i).entropy().mean(),
    "KL of Normals": lambda i: distributions.kl_divergence(normal(i), distributions.Normal(i["y"], 1.0)).mean(),
    "tanh-squashed Normal": lambda i: (
        -(
            distributions.TransformedDistribution(normal(i), [distributions.TanhTransform()])
            .log_prob(i["y"].tanh().clamp(-0.99, 0.99))
            .sum(-1)
            .mean()
        )
    ),
    "symlog": lambda i: (i["out"] - i["y"].sign() * i["y"].abs().log1p()).square().mean(),
    "binary, of probabilities": lambda i: F.binary_cross_entropy(torch.sigmoid(i["out"]), torch.sigmoid(i["y"])),
    "max": lambda i: (i["y"].max(1).values - i["out"].max(1).values).square().mean(),
    "min": lambda i: i["out"].min(0, keepdim=True)[0].mean(),
    "var": lambda i: i["out"].var() + i["out"].var(1).mean() + i["out"].var((0, 1), correction=0),
    "norm": lambda i: i["out"].norm() + i["out"].norm(dim=1).mean() + F.normalize(i["out"], dim=1)[:, 0].mean(),
    "softmax": lambda i: (F.softmax(i["out"], -1) * i["y"]).sum(-1).mean(),
    "log-sum-exp": lambda i: i["out"].logsumexp(1).mean(),
    "layer norm": lambda i: (F.layer_norm(i["out"], (3,)) * i["y"]).mean(),
    "layer norm, affine": lambda i: (F.layer_norm(i["out"], (3,), i["w"][:3], i["y"][0]) * i["y"]).mean(),
    "flags": lambda i: torch.where((i["y"] > 0) | (i["y"] < -1), i["out"], 0.1 * i["out"]).mean(),
    **{
        name: lambda i, name=name: getattr(F, name)(i["out"]).mean()
        for name in ("elu", "selu", "leaky_relu", "silu", "mish", "hardtanh", "relu6", "softsign")
    },
}


def problem():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 3))
    params = list(net.parameters())
    return net, params, [torch.zeros_like(p) for p in params]


def batch():
    return {"x": torch.randn(16, 5), "y": torch.randn(16, 3), "a": torch.randint(0, 3, (16,)), "w": torch.rand(16)}


def taped(loss):
    net, params, grads = problem()
    return Tape(lambda i: (loss({**i, "out": net(i["x"])}),), batch(), params, grads, KERNELS), net, params, grads


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_torchs_own_functions_is_run_by_the_kernels(name):
    loss = LOSSES[name]
    tape, net, params, grads = taped(loss)
    assert tape.table is not None, tape.program.text
    for _ in range(3):
        inputs = batch()
        for key, value in inputs.items():
            tape.inputs[key].copy_(value)
        tape.replay()
        expected = loss({**inputs, "out": net(inputs["x"])})
        wanted = torch.autograd.grad(expected, params)
        torch.testing.assert_close(tape.outputs[0], expected.detach(), rtol=1e-5, atol=1e-6)
        scale = max(float(grad.abs().max()) for grad in wanted)
        for mine, grad in zip(grads, wanted):
            torch.testing.assert_close(mine, grad, rtol=0.0, atol=1e-5 * scale)


def test_a_target_that_is_ignored_counts_for_nothing_and_one_that_is_none_is_not_a_number():
    tape, net, params, grads = taped(LOSSES["cross entropy"])
    inputs = batch()
    for target, alike in ((-100, True), (-1, False)):
        inputs["a"][3] = target
        for key, value in inputs.items():
            tape.inputs[key].copy_(value)
        tape.replay()
        if alike:
            torch.testing.assert_close(tape.outputs[0], F.cross_entropy(net(inputs["x"]), inputs["a"]).detach())
        else:
            assert math.isnan(tape.outputs[0])


@pytest.mark.parametrize("loss", [lambda i: F.gelu(i["out"]).mean(), lambda i: F.mse_loss(i["out"].sin(), i["y"])])
def test_where_one_operation_has_no_kernel_all_are_recorded_as_they_were(loss):
    tape = taped(loss)[0]
    net, params, grads = problem()
    plain = Tape(lambda i: (loss({**i, "out": net(i["x"])}),), batch(), params, grads, kernels=None)
    assert tape.table is None and tape.program.text == plain.program.text


@pytest.mark.parametrize("name", ["log1p", "atanh"])
def test_a_small_number_keeps_its_digits(name):
    x = torch.cat([torch.logspace(-30, -1, 60), -torch.logspace(-30, -1, 60), torch.tensor([0.0, 0.5, -0.5])])
    check_values(getattr(torch, name), x, rtol=1e-6)


@pytest.mark.parametrize("name", ["log1p", "atanh", "sign", "abs", "log_sigmoid", "leaky_relu", "logsumexp", "softmax"])
def test_infinities_and_nan_are_those_of_torch(name):
    function = getattr(F, name.replace("log_", "log"), None) or getattr(torch, name)
    along = (0,) if name in ("logsumexp", "softmax") else ()
    some = torch.tensor([math.inf, -math.inf, math.nan, 1.0, -1.0, 0.0, 1e30, -1e30, 3.0])
    for x in (some, some[3:6], some[:1].expand(3).clone(), some[1:2].expand(3).clone(), some[5:7]):
        check_values(lambda x: function(x, *along), x, rtol=1e-5)


def check_values(function, x, rtol):
    tape = Tape(lambda i: (function(i["x"]),), {"x": torch.zeros_like(x)}, kernels=KERNELS)
    tape.inputs["x"].copy_(x)
    tape.replay()
    assert tape.table is not None
    torch.testing.assert_close(tape.outputs[0], function(x), rtol=rtol, atol=0.0, equal_nan=True)


def test_the_engine_says_which_operation_kept_a_loss_from_the_kernels_and_a_resume_is_not_troubled_by_it():
    net = problem()[0]
    learner = Learner(net, lambda i: _both(F.gelu(net(i["x"])).mean()))
    learner.step(batch(), None, 1e-3)
    assert learner.engine == f"{KERNELS.identity}; numpy for: erf" and not learner.notice
    net = problem()[0]
    again = Learner(net, lambda i: _both(F.gelu(net(i["x"])).mean()))
    again.load_state_dict(learner.state_dict())
    again.step(batch(), None, 1e-3)
    assert not again.notice and again.engine == learner.engine


def _both(loss):
    return loss, {"loss": loss}


def test_distributions_look_at_their_values_again_after_a_recording():
    before = distributions.Distribution._validate_args
    taped(LOSSES["Categorical"])
    assert distributions.Distribution._validate_args is before
    with pytest.raises(ValueError, match="logits"):
        distributions.Categorical(logits=torch.full((2,), math.nan))


def test_every_rule_is_of_an_operation_without_a_kernel():
    assert not set(map(str, RULES)) & set(LOWER)
