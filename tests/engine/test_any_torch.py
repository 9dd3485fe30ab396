"""Whatever torch can differentiate is learnt as torch learns it: by a recording, or by ordinary torch with a notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, distributions as D, nn

from rlx.engine.learner import Learner
from rlx.engine.tape import Forward

torch.set_num_threads(1)
EIGHT = torch.arange(8)


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return 2 * ctx.saved_tensors[0] * grad


def shifted_in_place(h: Tensor) -> Tensor:
    copy = h.clone()
    copy[:, 0] = 0.5
    return copy.square().mean()


def with_a_hook(h: Tensor) -> Tensor:
    h.register_hook(lambda grad: grad * 2)
    return h.square().mean()


def covariance(h: Tensor) -> Tensor:
    return h.T @ h / len(h) + torch.eye(8)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {  # of the output h [64, 8] of a network
    # in place, views whose shape changes after they were read
    "transpose_": lambda h: h.clone().transpose_(0, 1).mul_(2).square().mean(),
    "as_strided_": lambda h: h.clone().as_strided_((8, 8), (8, 1)).square().mean(),
    "unsqueeze_": lambda h: h.clone().unsqueeze_(1).squeeze_(1).t_().square().mean(),
    "in place": lambda h: h.clone().mul_(2).add_(1).clamp_(-1, 1).mean(),
    "assignment": shifted_in_place,
    # types and layouts that no engine has
    "complex": lambda h: torch.complex(h[:, 0], h[:, 1]).abs().mean(),
    "fft": lambda h: torch.fft.rfft(h).abs().mean(),
    "sparse": lambda h: torch.sparse.mm(torch.eye(64).to_sparse(), h).square().mean(),
    "float64": lambda h: h.double().square().mean().float(),
    "bfloat16": lambda h: h.bfloat16().square().mean().float(),
    # what depends on data, or on chance
    "mask": lambda h: h[h > 0].mean(),
    "item": lambda h: h.square().mean() * float(h.detach().abs().max()),
    "numpy": lambda h: (h * torch.from_numpy(h.detach().numpy() ** 2)).mean(),
    "rsample": lambda h: D.Normal(h, 1.0).rsample().square().mean(),
    # functions whose derivatives go unusual ways
    "cumprod": lambda h: (h.sigmoid() + 0.5).cumprod(1).square().mean(),
    "quantile": lambda h: torch.quantile(h, 0.3, dim=1).square().mean(),
    "median": lambda h: h.median(1)[0].square().mean(),
    "sort": lambda h: (h.sort(0)[0] * torch.linspace(0, 1, 64)[:, None]).square().mean(),
    "topk": lambda h: h.topk(3, 1)[0].square().mean(),
    "cdist": lambda h: torch.cdist(h, h.detach() + 1).mean(),
    "einsum": lambda h: torch.einsum("bi,bj->bij", h, h).mean(),
    "log det": lambda h: torch.logdet(covariance(h)),
    "solve": lambda h: torch.linalg.solve(covariance(h), h.T).square().mean(),
    "cholesky": lambda h: torch.linalg.cholesky(covariance(h)).diagonal().log().sum(),
    "scatter": lambda h: torch.zeros(64, 8).scatter_add(1, EIGHT.flip(0).expand(64, 8), h).square().mean(),
    "index_add": lambda h: torch.zeros(8, 8).index_add(0, torch.arange(64) % 8, h).square().mean(),
    "log cumsum": lambda h: h.logcumsumexp(1).square().mean(),
    "mixture": lambda h: -D.MixtureSameFamily(
        D.Categorical(logits=h[:, :4]), D.Normal(h[:, 4:], torch.ones(64, 4))
    ).log_prob(torch.zeros(64)).mean(),
    "beta": lambda h: -D.Beta(h[:, 0].exp() + 1, h[:, 1].exp() + 1).log_prob(torch.full((64,), 0.3)).mean(),
    "vmap": lambda h: torch.vmap(lambda row: (row * row).sum())(h).mean(),
    "own function": lambda h: Squared.apply(h).mean(),  # type: ignore[no-untyped-call]
    "hook": with_a_hook,
    "gradient in it": lambda h: torch.autograd.grad(h.square().sum(), h, create_graph=True)[0].square().mean(),
}  # fmt: skip


class Last(nn.Module):
    """The last output of a recurrent network that reads the four numbers one after another."""

    def __init__(self, kind: type[nn.RNNBase], **options: bool) -> None:
        super().__init__()
        self.over_time = kind(1, 8, batch_first=True, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.over_time(x.unsqueeze(-1))[0][:, -1]


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = x.unsqueeze(-1).expand(-1, 4, 8)
        return self.attention(h, h, h)[0].mean(1)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(9, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows((x[:, 0] * 3).long().clamp(-4, 4) + 4)


def after(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), *layers)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: Last(nn.GRU),
    "LSTM": lambda: Last(nn.LSTM),
    "two ways": lambda: Last(nn.GRU, bidirectional=True),
    "attention": Attentive,
    "transformer": lambda: after(nn.Unflatten(1, (1, 8)), nn.TransformerEncoderLayer(8, 2, 16, 0.0), nn.Flatten()),
    "embedding": Embedded,
    "dropout": lambda: after(nn.Dropout(0.3)),
    "batch norm": lambda: after(nn.BatchNorm1d(8)),
    "layer norm": lambda: after(nn.LayerNorm(8), nn.GELU()),
    "group norm": lambda: after(nn.GroupNorm(2, 8), nn.Mish()),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 3, padding=1), nn.Flatten()),
    "pooling": lambda: after(nn.Unflatten(1, (2, 4)), nn.MaxPool1d(2), nn.Flatten()),
    "learnt slopes": lambda: after(nn.PReLU(), nn.Softsign(), nn.Hardswish()),
    "float64": lambda: nn.Linear(4, 8).double(),
}


def learnt(
    make: Callable[[], nn.Module], loss: Callable[[Tensor], Tensor], engine: str
) -> tuple[list[Tensor], Learner, nn.Module]:
    torch.manual_seed(0)
    network = make()
    dtype = next(network.parameters()).dtype

    def objective(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value = loss(network(batch["x"].to(dtype)).float())
        return value, {"loss": value}

    learner = Learner(network, objective, max_grad_norm=0.0, engine=engine)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        learner.step({"x": torch.randn(64, 4, generator=generator)}, None, 1e-3)
    return [tensor.clone() for tensor in (*network.parameters(), *network.buffers())], learner, network


def compare(make: Callable[[], nn.Module], loss: Callable[[Tensor], Tensor], engine: str) -> nn.Module:
    want, _, _ = learnt(make, loss, "torch")
    got, learner, network = learnt(make, loss, engine)
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-5)
    assert learner.notice == "" or learner.notice.startswith("ordinary torch instead of the tape: ")
    return network


@pytest.mark.parametrize("engine", ["auto", "tape"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_any_operations_is_learnt(name: str, engine: str) -> None:
    compare(lambda: nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 8)), LOSSES[name], engine)


@pytest.mark.parametrize("engine", ["auto", "tape"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_any_layers_is_learnt_and_acts(name: str, engine: str) -> None:
    weights = torch.linspace(-1, 1, 64)[:, None]
    network = compare(NETWORKS[name], lambda h: (h - weights).square().mean(), engine).eval()
    dtype = next(network.parameters()).dtype
    forward = Forward(lambda i: (network(i["x"].to(dtype)),), torch.device("cpu"), engine=engine)  # type: ignore[arg-type]
    for seed in range(3):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            torch.testing.assert_close(forward(x=x)[0], network(x.to(dtype)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["auto", "tape", "torch"])
def test_an_error_of_the_loss_is_the_error_of_the_step(engine: str) -> None:
    def loss(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        raise ZeroDivisionError("of the loss")

    with pytest.raises(ZeroDivisionError, match="of the loss"):
        Learner(nn.Linear(4, 1), loss, engine=engine).step({"x": torch.zeros(3, 4)}, None, 1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["auto", "tape", "torch"])
def test_a_loss_may_say_nothing_of_itself(engine: str) -> None:
    network = nn.Linear(4, 1)
    learner = Learner(network, lambda batch: (network(batch["x"]).square().mean(), {}), engine=engine)  # type: ignore[arg-type]
    before = network.weight.clone()
    for _ in range(3):
        assert set(learner.step({"x": torch.ones(3, 4)}, None, 1e-3)) == {"grad_norm"}
    assert not learner.notice and not torch.equal(network.weight, before)
