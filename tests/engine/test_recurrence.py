"""Discounted sums by the compiled kernels are those of torch, to the last bit, wherever nobody watches."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from rlx.engine import kernels, recurrence
from rlx.engine.tape import Tape
from rlx.functional import returns

torch.set_num_threads(1)


@pytest.fixture
def native() -> None:
    if not recurrence._agrees():
        pytest.skip(kernels.problem() or "torch rounds otherwise on this CPU")


def by_torch(function: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(returns, "shortcuts", [])
        return function()


def same(got: Tensor, want: Tensor) -> bool:
    """To the sign of a zero; one NaN is like another."""
    nan = want.isnan()
    return torch.equal(got.isnan(), nan) and torch.equal(got[~nan].view(torch.int32), want[~nan].view(torch.int32))


@pytest.mark.parametrize("seed", range(150))
def test_gae_by_the_kernels_is_gae_by_torch_to_the_last_bit(
    seed: int, native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every shape and layout, with ends anywhere, and where numbers are NaN, infinite, 0 or -0."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 200)), *rng.integers(1, 9, rng.integers(0, 3)).tolist())
    numbers = rng.standard_normal((3, *shape)).astype(np.float32) * 10.0 ** rng.integers(-3, 4)
    if seed % 3:
        odd = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38], np.float32), numbers.shape)
        numbers = np.where(rng.random(numbers.shape) < 0.03, odd, numbers)
    tensors = list(torch.from_numpy(numbers.astype(np.float32)))
    if seed % 2:
        tensors = [t.movedim(0, -1).contiguous().movedim(-1, 0) for t in tensors]
    done = torch.from_numpy(rng.random(shape) < (0.0, 0.1, 0.9)[seed % 3])
    terminated = done & torch.from_numpy(rng.random(shape) < 0.5)
    gamma, gae_lambda = float(rng.choice([1.0, 0.99, 0.0])), float(rng.choice([1.0, 0.95, 0.0]))

    def gae() -> Tensor:
        return returns.gae(*tensors, terminated, done, gamma, gae_lambda)

    assert same(gae(), by_torch(gae, monkeypatch))
    assert recurrence.recurrence(tensors[0], tensors[1]) is not None


def test_gradients_transforms_recordings_and_other_types_are_left_to_torch(
    native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, decay = torch.randn(9, 4), torch.rand(9, 4)
    for function in (
        lambda: torch.autograd.grad(returns.linear_recurrence(leaf := x.clone().requires_grad_(), decay).sum(), leaf)[
            0
        ],
        lambda: torch.func.vmap(returns.linear_recurrence, in_dims=1)(x, decay),
        lambda: returns.linear_recurrence(x.double(), decay.double()).float(),
    ):
        assert same(function(), by_torch(function, monkeypatch))
    with forward_ad.dual_level():
        assert recurrence.recurrence(x, decay) is None
    tape = Tape(lambda i: (returns.linear_recurrence(i["x"], i["c"]),), {"x": x, "c": decay})
    tape.inputs["x"].copy_(2 * x)
    tape.replay()
    torch.testing.assert_close(tape.outputs[0], returns.linear_recurrence(2 * x, decay))


def test_kernels_that_round_otherwise_than_torch_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def almost(x: Tensor, decay: Tensor) -> Tensor:
        y = returns._by_doubling(x, decay)
        return torch.nextafter(y, torch.full_like(y, torch.inf))

    monkeypatch.setattr(recurrence, "_run", almost)
    assert not recurrence._agrees.__wrapped__()
