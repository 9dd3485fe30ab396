"""The compiled kernels compute what torch computes, at every size and layout, and are built safely."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from test_tape import LOSSES, net, zeros_like
from torch import Tensor, nn

from rlx.engine import kernels as kernels_module
from rlx.engine.learner import Learner
from rlx.engine.native_ops import NativeStep, OperationTable, Update
from rlx.engine.optim import OPTIMIZERS
from rlx.engine.program import Operation, Program
from rlx.engine.tape import Forward, Tape

torch.set_num_threads(1)
KERNELS = kernels_module.load()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=kernels_module.problem())


def native(function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """What the kernels make of a function of tensors."""
    inputs = {f"x{index}": operand for index, operand in enumerate(operands)}
    tape = Tape(lambda given: (function(*given.values()),), inputs, kernels=KERNELS)
    assert tape.table is not None, tape.program.text
    for name, operand in inputs.items():  # in place: the operand may be a view with its own strides
        tape.inputs[name].copy_(operand)
    tape.outputs[0].fill_(float("nan") if tape.outputs[0].is_floating_point() else 0)
    tape.replay()
    return tape.outputs[0]


def ulps(got: Tensor, exact: np.ndarray) -> float:
    """The largest error in units of the last place of the exact value."""
    want = exact.astype(np.float32)
    finite = np.isfinite(want) & (np.abs(want) > 1.2e-38)
    error = np.abs(got.numpy().astype(np.float64) - exact)[finite]
    return float((error / np.spacing(np.abs(want[finite]))).max())


EXACT: dict[str, tuple[Callable, Callable, float, float]] = {
    "exp": (torch.exp, np.exp, -87.0, 88.7),
    "expm1": (torch.expm1, np.expm1, -20.0, 88.0),
    "tanh": (torch.tanh, np.tanh, -11.0, 11.0),
    "sigmoid": (torch.sigmoid, lambda x: 1 / (1 + np.exp(-x)), -80.0, 80.0),
    "softplus": (nn.functional.softplus, lambda x: np.where(x > 20, x, np.log1p(np.exp(x))), -80.0, 40.0),
}


@pytest.mark.parametrize("name", EXACT)
def test_functions_are_within_four_units_of_the_last_place(name: str) -> None:
    function, exact, low, high = EXACT[name]
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(400_000, generator=generator) * (high - low) + low
    small = wide / high * 10.0 ** (torch.rand(400_000, generator=generator) * -6)
    x = torch.cat([wide, small])
    assert ulps(native(function, x), exact(x.double().numpy())) <= 4


def test_log_is_within_four_units_of_the_last_place() -> None:
    x = torch.exp(torch.rand(400_000, generator=torch.Generator().manual_seed(0)) * 170 - 85)
    x = torch.cat([x, 1 + (torch.rand(400_000) - 0.5) * 1e-3])
    assert ulps(native(torch.log, x), np.log(x.double().numpy())) <= 4


SPECIAL = torch.tensor([0.0, 1.0, -1.0, float("inf"), -float("inf"), float("nan"), 1e-30, -1e-30, 3e38, -3e38, 89.0])
ONE = ["reciprocal", "exp", "expm1", "log", "tanh", "sigmoid", "abs", "neg", "sqrt", "square", "relu"]
TWO = ["add", "sub", "mul", "div", "minimum", "maximum", "eq", "ne", "lt", "le", "gt", "ge"]


@pytest.mark.parametrize("name", ONE)
def test_nan_infinity_and_zero_are_as_torch_has_them(name: str) -> None:
    got, want = native(getattr(torch, name), SPECIAL), getattr(torch, name)(SPECIAL)
    torch.testing.assert_close(got, want, equal_nan=True, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", TWO)
def test_pairs_of_special_numbers_are_as_torch_has_them(name: str) -> None:
    x, y = SPECIAL[:, None].expand(11, 11).contiguous(), SPECIAL[None].expand(11, 11).contiguous()
    got, want = native(getattr(torch, name), x, y), getattr(torch, name)(x, y)
    torch.testing.assert_close(got, want, equal_nan=True, rtol=0, atol=0)


def test_exp_of_zero_is_one_and_tanh_stays_within_one() -> None:
    assert native(torch.exp, torch.zeros(33)).tolist() == [1.0] * 33
    x = torch.linspace(-40, 40, 100_001)
    assert native(torch.tanh, x).abs().max() == 1.0
    assert (native(torch.tanh, x).diff() >= -1e-6).all()


def layouts(x: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """Views that a program may read instead of a whole contiguous tensor."""
    return [lambda x: x, lambda x: x.t().contiguous().t(), lambda x: torch.cat([x, x], 1)[:, : x.shape[1]]]


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # products in which columns of `y` [B, n] may sleep
    "forward, and back through stacked layers": lambda y, w: y @ w.t(),
    "back through a layer": lambda y, w: y @ w.t().contiguous(),
    "a layer's gradient": lambda y, x: y.t() @ x,
    "a stacked layer's gradient": lambda y, x: x.t() @ y,
}


def asleep(form: str, share: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """y with columns of zeros (of both signs), which of them are none, and the other matrix."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    batch, n, other = (int(size) for size in torch.randint(70, 300, (3,), generator=generator))
    awake = torch.rand(n, generator=generator) >= share
    y = draw(batch, n).relu() * draw(batch, n) * awake
    return y, awake, draw(other, n) if "gradient" not in form else draw(batch, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 1.0])
def test_a_product_without_what_sleeps_has_the_same_bits(form: str, share: float) -> None:
    function = FORMS[form]
    for seed in range(4):
        y, awake, other = asleep(form, share, seed)
        got = native(function, y, other)
        if "gradient" not in form:
            want = native(function, y[:, awake].contiguous(), other[:, awake].contiguous()) if awake.any() else 0 * got
        else:
            want = torch.zeros_like(got)
            where = (awake,) if form == "a layer's gradient" else (slice(None), awake)
            if awake.any():
                want[where] = native(function, y[:, awake].contiguous(), other)
        assert torch.equal(got, want)
        torch.testing.assert_close(got, function(y.double(), other.double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wild", [float("nan"), float("inf"), -float("inf")])
def test_what_sleeps_does_not_hide_what_is_not_finite(form: str, wild: float) -> None:
    y, awake, other = asleep(form, 0.8, 1)
    other[3, int((~awake).nonzero()[0]) if "gradient" not in form else 5] = wild
    got, want = native(FORMS[form], y, other), FORMS[form](y, other)
    assert want.isnan().any() and torch.equal(got.isnan(), want.isnan())
    other = torch.nan_to_num(other, 0.0, 0.0, 0.0)
    y[2, int(awake.nonzero()[0])] = wild
    got, want = native(FORMS[form], y, other), FORMS[form](y, other)
    assert not want.isfinite().all() and torch.equal(got.isfinite(), want.isfinite())


def test_a_bias_is_added_where_inputs_sleep() -> None:
    y, awake, w = asleep("forward", 0.7, 3)
    bias = torch.randn(len(w), generator=torch.Generator().manual_seed(4))
    got = native(lambda y, w, b: y @ w.t() + b, y, w, bias)
    want = native(lambda y, w, b: y @ w.t() + b, y[:, awake].contiguous(), w[:, awake].contiguous(), bias)
    assert torch.equal(got, want)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 33, 64])
@pytest.mark.parametrize("inner", [1, 3, 16, 23, 65])
def test_products_of_every_shape_and_layout_are_exact_to_rounding(rows: int, inner: int) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + inner)
    for columns in (1, 2, 3, 15, 16, 17, 31, 47, 64, 65, 130):
        x, y = torch.randn(rows, inner, generator=generator), torch.randn(inner, columns, generator=generator)
        exact = (x.double() @ y.double()).float()
        for left in layouts(x):
            for right in layouts(y):
                got = native(lambda a, b, left=left, right=right: torch.mm(left(a), right(b)), x, y)
                torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-5)


def test_batched_products_are_exact_to_rounding() -> None:
    x, y = torch.randn(3, 17, 23), torch.randn(3, 23, 9)
    torch.testing.assert_close(native(torch.bmm, x, y), torch.bmm(x, y), rtol=1e-5, atol=1e-5)
    right = y.transpose(1, 2).contiguous()
    got = native(lambda a, b: torch.baddbmm(torch.ones(3, 1, 9), a, b.transpose(1, 2)), x, right)
    torch.testing.assert_close(got, torch.bmm(x, y) + 1, rtol=1e-5, atol=1e-5)


def places(x: Tensor) -> Tensor:
    """An index [2, rows, 1] that a program makes itself."""
    return torch.stack([x, -x]).argmax(-1, keepdim=True)


REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.sum(),
    "sum of rows": lambda x: x.sum(-1),
    "sum of columns": lambda x: x.sum(0),
    "sum kept": lambda x: x.sum(0, keepdim=True),
    "sum of columns of a transposed one": lambda x: x.t().sum(0),
    "mean": lambda x: x.mean(),
    "mean of rows": lambda x: x.mean(-1, keepdim=True),
    "count": lambda x: (x > 0).sum(-1),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(0),
    "argmax": lambda x: x.argmax(-1),
    "argmax of columns": lambda x: x.argmax(0, keepdim=True),
    "std": lambda x: x.std(),
    "std and mean": lambda x: torch.stack(torch.std_mean(x)),
    "log softmax": lambda x: x.log_softmax(-1),
    "log softmax of columns": lambda x: x.log_softmax(0),
    "gather": lambda x: x.gather(1, x.argmax(-1, keepdim=True)),
    "gather in three dimensions": lambda x: x.view(1, *x.shape).expand(2, -1, -1).gather(2, places(x)),
    "gather rows": lambda x: x.gather(0, x.argmax(0, keepdim=True)),
    "scatter": lambda x: torch.zeros_like(x).scatter_add(1, x.argmax(-1, keepdim=True), x[:, :1]),
    "cat": lambda x: torch.cat([x, x[:, :1]], 1),
    "stack": lambda x: torch.stack([x, 2 * x], 1),
    "masks": lambda x: torch.where(~((x > 0) & (x < 1) | (x < -1)), x, x.masked_fill(x > 0, 7.0)),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp a count": lambda x: (x > 0).sum(0).clamp(min=2, max=3),
    "by a count": lambda x: x / (x > -9).sum(),
    "broadcast": lambda x: (x[:, None, :] * x[None, :, :]).sum(2),
    "addcmul": lambda x: torch.addcmul(x, x, x[:1]),
    "silu": nn.functional.silu,
}


@pytest.mark.parametrize("shape", [(2, 2), (9, 3), (70, 17), (257, 2), (5, 200)])
@pytest.mark.parametrize("name", REDUCE)
def test_reductions_and_selections_are_torchs(name: str, shape: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(native(REDUCE[name], x), REDUCE[name](x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.SiLU])
def test_the_gradient_of_every_loss_is_autograds(name: str, activation: type[nn.Module]) -> None:
    """Within 1e-5 of the largest; what has no kernel falls to numpy as a whole."""
    torch.manual_seed(0)
    model = net(5, 16, 16, 3, activation=activation)
    params = list(model.parameters())
    grads = zeros_like(params)
    tape = Tape(lambda i: (LOSSES[name](model(i["x"]), i["x"]),), {"x": torch.randn(9, 5)}, params, grads, KERNELS)
    x = torch.randn(9, 5)
    tape.inputs["x"].copy_(x)
    tape.replay()
    wanted = torch.autograd.grad(LOSSES[name](model(x), x), params, allow_unused=True)
    for grad, expected in zip(grads, wanted):
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max() + 1e-3))


def random_learner(seed: int, engine: str) -> tuple[Learner, dict[str, Tensor]]:
    """A small network of random depth, widths and activation, one of three losses, random rows."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    widths = rng.integers(1, 70, rng.integers(1, 4)).tolist()
    inputs, actions, rows = int(rng.integers(1, 30)), int(rng.integers(2, 20)), int(rng.integers(2, 150))
    model = net(inputs, *widths, actions, activation=[nn.Tanh, nn.ReLU][seed % 2])
    losses = [
        lambda q, b: (q.gather(1, b["a"][:, None]).squeeze(1) - b["y"]).square().mean(),
        lambda q, b: -(q.log_softmax(-1).gather(1, b["a"][:, None]).squeeze(1) * b["y"]).mean(),
        lambda q, b: nn.functional.smooth_l1_loss(q.amax(-1), b["y"]) + 0.01 * q.exp().clamp(max=5).sum(),
    ]

    def loss(batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value = losses[seed % 3](model(batch["x"]), batch)
        return value, {"loss": value}

    optimizer = ("adam", "rmsprop", "rmsprop_tf")[seed % 3]
    learner = Learner(model, loss, optimizer=optimizer, max_grad_norm=(0.0, 0.5)[seed % 2], engine=engine)
    batch = {"x": torch.randn(rows, inputs), "a": torch.randint(0, actions, (rows,)), "y": torch.randn(rows)}
    return learner, batch


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_random_networks_and_losses_learn_alike_on_the_kernels_and_on_torch(first: int) -> None:
    for seed in range(first, first + 50):
        ends = []
        for engine in ("native", "torch"):
            learner, batch = random_learner(seed, engine)
            rng = np.random.default_rng(seed)
            for step in range(4):
                index = torch.from_numpy(rng.permutation(len(batch["x"])))[: len(batch["x"]) // 2 + 1]
                info = learner.step(batch, [index, None, slice(1, 2), index][step], 1e-3)
            assert not learner.notice
            ends.append((learner.flat.data.clone(), info))
        torch.testing.assert_close(*(data for data, _ in ends), rtol=1e-4, atol=2e-5)
        assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("max_grad_norm", [0.0, 0.1])
def test_the_optimisers_of_the_kernels_are_those_of_torch(optimizer: str, max_grad_norm: float) -> None:
    ends = {}
    for engine in ("native", "torch"):
        torch.manual_seed(0)
        model = net(3, 8, 1)
        batch = {"x": torch.randn(32, 3)}

        def loss(b: Mapping[str, Tensor], model: nn.Module = model) -> tuple[Tensor, dict[str, Tensor]]:
            value = (model(b["x"]) - 1).square().mean()
            return value, {"loss": value}

        learner = Learner(model, loss, optimizer=optimizer, max_grad_norm=max_grad_norm, engine=engine)
        norms = [learner.step(batch, None, 1e-3)["grad_norm"] for _ in range(50)]
        ends[engine] = learner.flat.data.clone(), norms, learner.num_steps
    torch.testing.assert_close(ends["native"][0], ends["torch"][0], rtol=1e-4, atol=1e-5)
    assert ends["native"][1] == pytest.approx(ends["torch"][1], rel=1e-4) and ends["native"][2] == 50


def test_the_gradient_before_the_clip_stays_to_be_looked_at() -> None:
    learner, batch = random_learner(1, "native")  # one with a clip
    for _ in range(12):  # calls that are compared, and plain ones
        norm = learner.step(batch, None, 1e-2)["grad_norm"]
        assert float(learner.flat.grad.norm()) == pytest.approx(norm, rel=1e-5)
    assert norm > learner.max_grad_norm


def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was() -> None:
    learner, batch = random_learner(0, "native")
    for _ in range(4):
        learner.step(batch, None, 1e-3)
    before, steps = learner.flat.data.clone(), learner.num_steps
    state = {name: value.clone() for name, value in learner.state_dict().items() if isinstance(value, Tensor)}
    batch["y"][0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.step(batch, None, 1e-3)
    assert torch.equal(before, learner.flat.data) and learner.num_steps == steps
    assert all(torch.equal(value, learner.state_dict()[name]) for name, value in state.items())


def test_rows_that_the_kernels_cannot_read_in_place_give_the_same_step() -> None:
    ends = []
    for contiguous in (True, False):
        learner, batch = random_learner(4, "native")
        if not contiguous:
            batch = {**batch, "x": batch["x"].t().contiguous().t()}
        for _ in range(5):
            learner.step(batch, None, 1e-3)
        ends.append(learner.flat.data)
    assert torch.equal(*ends)


def test_a_whole_batch_of_uneven_lengths_is_one_call_and_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A2C's: one observation more than rewards. A tensor of another length than was recorded is refused, not cut."""
    ends = []
    for engine in ("native", "torch"):
        torch.manual_seed(0)
        model = net(3, 8, 1)

        def loss(b: Mapping[str, Tensor], model: nn.Module = model) -> tuple[Tensor, dict[str, Tensor]]:
            value = model(b["x"]).squeeze(1)
            error = (b["y"] * b["scale"] + value[1:] - 0.5 * value[:-1]).square().mean()
            return error, {"loss": error}

        learner = Learner(model, loss, engine=engine)
        batch = {"x": torch.randn(6, 3), "y": torch.randn(5), "scale": torch.tensor(0.5)}
        for _ in range(3):
            learner.step(batch, None, 1e-2)
        if engine == "native":
            monkeypatch.setattr(learner, "_step", None)  # which takes what the kernels do not take in one call
        learner.step(batch, None, 1e-2)
        ends.append(learner.flat.data)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
    learner, _ = random_learner(0, "native")
    recorded = {"x": torch.randn(6, 3), "y": torch.randn(5)}
    tape = Tape(lambda b: (b["x"].sum() + b["y"].sum(),), recorded, kernels=KERNELS)
    assert KERNELS is not None and tape.table is not None
    update = Update(KERNELS, learner.flat, learner.optimizer, 0.0)
    step = NativeStep(update, tape.table, tape.inputs, 6)
    assert step.takes(recorded, None) and not step.takes(recorded, 0)
    assert not step.takes({**recorded, "y": torch.randn(7)}, None)


def test_a_run_goes_on_with_the_engine_it_began_with() -> None:
    """A state of numpy's engine (or of before there were kernels) stays with numpy, to the last bit."""
    for state_of in ("tape", "native"):
        straight, batch = random_learner(4, state_of)
        for _ in range(7):
            straight.step(batch, None, 1e-3)
        resumed, _ = random_learner(4, "auto")
        state = {name: v.clone() if isinstance(v, Tensor) else v for name, v in straight.state_dict().items()}
        resumed.flat.data.copy_(straight.flat.data)
        resumed.load_state_dict(state)
        for learner in (straight, resumed):
            for _ in range(5):
                learner.step(batch, None, 1e-3)
        assert torch.equal(straight.flat.data, resumed.flat.data) and not resumed.notice


def test_kernels_other_than_those_of_the_checkpoint_are_said() -> None:
    learner, batch = random_learner(4, "native")
    learner.step(batch, None, 1e-3)
    other, _ = random_learner(4, "native")
    other.load_state_dict({**learner.state_dict(), "engine": "native 0123, 8 lanes"})
    assert "begun with the engine 'native 0123, 8 lanes'" in other.notice and "rounding" in other.notice


def test_an_operation_without_a_kernel_is_left_to_numpy() -> None:
    forward = Forward(lambda i: (i["x"].cumsum(0),), torch.device("cpu"), engine="native")
    assert forward(x=torch.ones(3))[0].tolist() == [1, 2, 3] and not forward.notice
    assert next(iter(forward._tapes.values())).table is None


def test_replays_of_the_kernels_are_bitwise_equal() -> None:
    learner, batch = random_learner(4, "native")
    tape = Tape(learner._stacked, batch, learner.flat.params, learner.flat.grads, KERNELS)
    assert isinstance(tape.table, OperationTable)
    grads = []
    for _ in range(2):
        learner.flat.grad.fill_(float("nan"))
        tape.replay()
        grads.append(learner.flat.grad.clone())
    assert torch.equal(*grads)


def test_a_product_that_is_read_elsewhere_is_still_there() -> None:
    """Its copy may be written at once into the gradient only where nothing else reads it."""
    assert KERNELS is not None
    x, product, grad, read = (torch.randn(4, 4) for _ in range(4))
    program = Program({})
    program.append(Operation("mm", (product,), (x, x)))
    program.append(Operation("copy", (grad,), (product,)))
    alone = OperationTable(program, KERNELS)
    assert len(alone.array) == 1
    alone.replay()
    torch.testing.assert_close(grad, x @ x)
    program.append(Operation("exp", (read,), (product,)))
    product.zero_()
    OperationTable(program, KERNELS).replay()
    torch.testing.assert_close(read, (x @ x).exp(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, x @ x)


# -- building them ---------------------------------------------------------------------------------------------


def build(home: Path, path: str | None = None, cc: str = "") -> subprocess.CompletedProcess[str]:
    """In a process of its own, with its own cache."""
    env = {**os.environ, "XDG_CACHE_HOME": str(home), "CC": cc, **({"PATH": path} if path is not None else {})}
    return subprocess.run([sys.executable, "-m", "rlx.engine.kernels"], env=env, capture_output=True, text=True)


def test_the_cache_is_the_users_own_and_built_once(tmp_path: Path) -> None:
    assert KERNELS is not None and build(tmp_path).stdout.strip() == KERNELS.identity
    (library,) = (tmp_path / "rlx" / "kernels").iterdir()
    assert (tmp_path / "rlx" / "kernels").stat().st_mode & 0o777 == 0o700 and library.stat().st_mode & 0o022 == 0
    before = library.stat().st_mtime_ns
    assert build(tmp_path).returncode == 0 and library.stat().st_mtime_ns == before
    library.chmod(0o777)
    assert "only this user can write" in build(tmp_path).stdout


def test_many_processes_may_build_at_once(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    jobs = [
        subprocess.Popen([sys.executable, "-m", "rlx.engine.kernels"], env=env, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    assert {job.wait() for job in jobs} == {0} and len({job.stdout.read() for job in jobs if job.stdout}) == 1
    assert len(list((tmp_path / "rlx" / "kernels").iterdir())) == 1


def test_without_a_compiler_or_with_one_that_fails_there_is_a_reason_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    assert build(tmp_path, path=str(tmp_path / "bin")).stdout.strip() == "no C compiler"
    broken = tmp_path / "bin" / "cc"
    broken.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    broken.chmod(0o700)
    assert build(tmp_path, cc=str(broken)).stdout.strip() == "cc failed: no such flag"
    assert not list((tmp_path / "rlx" / "kernels").iterdir())


def test_a_linked_cache_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "rlx").mkdir()
    (tmp_path / "rlx" / "kernels").symlink_to(tmp_path / "elsewhere")
    assert "is not a folder of this user" in build(tmp_path).stdout and not list((tmp_path / "elsewhere").iterdir())
