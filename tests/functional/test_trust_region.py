"""The curvature against autograd's Hessian and against the Fisher matrix summed by hand; the solver against LAPACK."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.testing import assert_close

from rlx.control.distributions import Bernoulli, Categorical, Gaussian, MultiCategorical
from rlx.functional import policy as pg
from rlx.functional.trust_region import conjugate_gradient, fisher_vector_product, flat_gradient, step_length, surrogate

ACTIONS = {
    "categorical": (Categorical(3), [torch.tensor(a) for a in range(3)]),
    "multi-categorical": (MultiCategorical([2, 3]), [torch.tensor(a) for a in itertools.product(range(2), range(3))]),
    "bernoulli": (Bernoulli(3), [torch.tensor(a) for a in itertools.product(range(2), repeat=3)]),
}
HEADS = {name: head for name, (head, _) in ACTIONS.items()} | {"gaussian": Gaussian(2)}


class Net(nn.Module):
    """2 - 2 - size, and the head's free parameters: about 20 of them."""

    def __init__(self, head):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, head.size))
        self.log_std = nn.Parameter(0.3 * torch.randn(head.free)) if head.free else None

    def forward(self, obs):
        out = self.layers(obs)
        return out if self.log_std is None else torch.cat([out, self.log_std.expand_as(out)], -1)


def flat(net):
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def at(net, theta, obs):
    """The network's output as a function of its flat parameters."""
    named = dict(net.named_parameters())
    parts = theta.split([p.numel() for p in named.values()])
    return functional_call(net, {k: x.view_as(p) for (k, p), x in zip(named.items(), parts)}, (obs,))


def matrix(product, n):
    return torch.stack([product(e) for e in torch.eye(n)], -1)


@pytest.mark.parametrize("moved", [False, True], ids=["at pi_old", "elsewhere"])
@pytest.mark.parametrize("kind", HEADS)
def test_the_fisher_vector_product_is_the_hessian_of_the_mean_kl_times_v(kind, moved):
    head, obs = HEADS[kind], torch.randn(7, 2)
    net = Net(head)
    old = net(obs).detach() + 0.2 * torch.randn(7, 1) * moved
    theta = flat(net)
    assert 12 <= len(theta) <= 24
    hessian = torch.autograd.functional.hessian(lambda x: head.kl(old, at(net, x, obs)).mean(), theta)
    product = fisher_vector_product(head.kl(old, net(obs)).mean(), net.parameters())
    assert_close(matrix(product, len(theta)), hessian)
    v = torch.randn_like(theta)
    assert_close(product(v), hessian @ v)
    assert_close(product(v), hessian @ v)  # the graph is kept


@pytest.mark.parametrize("kind", ACTIONS)
def test_at_pi_old_it_is_the_fisher_matrix_summed_over_all_actions(kind):
    """F = mean over states of sum_a pi(a) grad log pi(a) grad log pi(a)'."""
    head, actions = ACTIONS[kind]
    net, obs = Net(head), torch.randn(5, 2)
    theta = flat(net)

    def logprobs(x):
        params = at(net, x, obs)
        return torch.stack([head.logprob_entropy(params, a.expand(5, *a.shape))[0] for a in actions])

    score, prob = jacrev(logprobs)(theta), logprobs(theta).exp()  # [actions, 5, P], [actions, 5]
    assert_close(prob.sum(0), torch.ones(5))
    fisher = torch.einsum("ab,abi,abj->ij", prob, score, score) / 5
    product = fisher_vector_product(head.kl(net(obs).detach(), net(obs)).mean(), net.parameters())
    assert_close(matrix(product, len(theta)), fisher)


def test_at_pi_old_it_is_the_fisher_matrix_of_a_gaussian():
    """In the mean 1 / sigma^2, in log sigma 2, between them nothing: carried to the parameters by the Jacobian."""
    head, obs = Gaussian(2), torch.randn(5, 2)
    net = Net(head)
    theta = flat(net)
    jacobian = jacrev(lambda x: at(net, x, obs))(theta)  # [5, 4, P]
    metric = torch.diag(torch.cat([(-2 * net.log_std.detach()).exp(), torch.full((2,), 2.0)]))
    fisher = torch.einsum("bki,kl,blj->ij", jacobian, metric, jacobian) / 5
    product = fisher_vector_product(head.kl(net(obs).detach(), net(obs)).mean(), net.parameters())
    assert_close(matrix(product, len(theta)), fisher)


def test_damping_is_added_to_every_eigenvalue():
    head, obs = Categorical(3), torch.randn(7, 2)
    net = Net(head)
    n = len(flat(net))
    plain, damped = (
        matrix(fisher_vector_product(head.kl(net(obs).detach(), net(obs)).mean(), net.parameters(), damping), n)
        for damping in (0.0, 0.1)
    )
    assert_close(damped - plain, 0.1 * torch.eye(n))
    assert torch.linalg.eigvalsh(plain).min() < 1e-9  # three logits, two degrees of freedom: F is singular
    assert torch.linalg.eigvalsh(damped).min() > 0.09


def test_a_flat_gradient_has_zeros_where_the_loss_does_not_depend_on_a_parameter():
    a, b = torch.tensor([1.0, 2.0], requires_grad=True), torch.ones(2, 2, requires_grad=True)
    assert_close(flat_gradient(a.square().sum(), [a, b]), torch.tensor([2.0, 4.0, 0, 0, 0, 0]))


def test_a_vector_of_another_length_is_refused():
    net, obs = Net(Categorical(3)), torch.randn(7, 2)
    product = fisher_vector_product(net(obs).square().mean(), net.parameters())
    with pytest.raises(ValueError, match="shapes differ: gradient"):
        product(torch.ones(1))


# -- conjugate gradient


def spd(n, seed=0, condition=100.0):
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator))
    return q @ torch.diag(torch.logspace(0, -torch.log10(torch.tensor(condition)).item(), n)) @ q.T


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_n_steps_solve_any_positive_definite_system_of_n_equations(n):
    for seed in range(5):
        a, b = spd(n, seed, 10.0), torch.randn(n)  # worse ones lose in rounding what 20 steps need
        x = conjugate_gradient(lambda v, a=a: a @ v, b, n, tolerance=0.0)
        assert (a @ x - b).norm() < 1e-6 * b.norm()
        assert_close(x, torch.linalg.solve(a, b), rtol=1e-5, atol=1e-7)  # rounding over 20 steps


def test_every_step_is_the_best_in_its_krylov_space():
    """x_k minimises .5 x'Ax - b'x over span(b, Ab, ..., A^(k-1) b)."""
    a, b = spd(8), torch.randn(8)
    for k in range(1, 8):
        space, _ = torch.linalg.qr(torch.stack([torch.linalg.matrix_power(a, i) @ b for i in range(k)], -1))
        best = space @ torch.linalg.solve(space.T @ a @ space, space.T @ b)
        assert_close(conjugate_gradient(lambda v: a @ v, b, k), best, rtol=1e-5, atol=1e-7)


def test_as_many_steps_as_there_are_different_eigenvalues_are_enough_and_later_ones_change_nothing():
    q, _ = torch.linalg.qr(torch.randn(9, 9))
    a, b = q @ torch.diag(torch.tensor([1.0, 2.0, 5.0]).repeat(3)) @ q.T, torch.randn(9)
    x = conjugate_gradient(lambda v: a @ v, b, 3)
    assert (a @ x - b).norm() < 1e-10
    assert torch.equal(conjugate_gradient(lambda v: a @ v, b, 50), x)


def test_it_stops_at_the_tolerance():
    a, b = spd(20), torch.randn(20)
    x = conjugate_gradient(lambda v: a @ v, b, 100, tolerance=1e-2)
    assert 1e-4 < (a @ x - b).square().sum() / b.square().sum() <= 1e-2
    first = next(k for k in range(100) if torch.equal(conjugate_gradient(lambda v: a @ v, b, k, 1e-2), x))
    assert (a @ conjugate_gradient(lambda v: a @ v, b, first - 1, 0.0) - b).square().sum() > 1e-2 * b.square().sum()


def test_nothing_to_solve_is_zero_and_nan_is_nan():
    assert torch.equal(conjugate_gradient(lambda v: 2 * v, torch.zeros(3), 5), torch.zeros(3))
    assert conjugate_gradient(lambda v: 2 * v, torch.tensor([1.0, torch.nan]), 5).isnan().all()


def test_at_negative_curvature_the_steps_before_it_are_the_answer():
    a, b = torch.diag(torch.tensor([3.0, 2.0, 1.0, -1.0])), torch.tensor([1.0, 1.0, 1.0, 0.3])
    products = []

    def product(v):
        products.append(float(v @ a @ v))
        return a @ v

    x = conjugate_gradient(product, b, 10)
    bad = next(k for k, curvature in enumerate(products) if curvature <= 0)
    assert bad > 0 and torch.equal(x, conjugate_gradient(lambda v: a @ v, b, bad))
    assert x @ b > 0  # still uphill
    assert torch.equal(conjugate_gradient(lambda v: -v, b, 10), torch.zeros(4))


# -- the step


def test_along_the_step_the_quadratic_model_of_the_kl_is_max_kl():
    a, b = spd(6), torch.randn(6)
    x = conjugate_gradient(lambda v: a @ v, b, 6)
    step = step_length(x, a @ x, 0.01) * x
    assert_close(0.5 * step @ a @ step, torch.tensor(0.01))
    assert float(step_length(x, -a @ x, 0.01)) == float(step_length(0 * x, 0 * x, 0.01)) == 0


def test_for_small_steps_the_kl_is_its_quadratic_model():
    """KL(theta + s) = .5 s'Fs + O(|s|^3): a tenth of the length, a hundredth of the KL."""
    head, obs = Gaussian(2), torch.randn(50, 2)
    net = Net(head)
    theta, old = flat(net), net(obs).detach()
    fisher = fisher_vector_product(head.kl(old, net(obs)).mean(), net.parameters())
    x = torch.randn_like(theta)
    for max_kl, error in [(1e-4, 0.05), (1e-6, 0.005)]:
        step = step_length(x, fisher(x), max_kl) * x
        assert_close(head.kl(old, at(net, theta + step, obs)).mean().item(), max_kl, rtol=error, atol=0)


def test_no_direction_of_the_same_kl_improves_the_objective_more_than_the_natural_gradient():
    """max g's with .5 s'Fs = delta is sqrt(2 delta g'F^-1 g), taken at s ~ F^-1 g (Cauchy-Schwarz)."""
    a, g = spd(6), torch.randn(6)
    x = conjugate_gradient(lambda v: a @ v, g, 6)
    gain = step_length(x, a @ x, 0.01) * x @ g
    assert_close(gain, (0.02 * g @ torch.linalg.solve(a, g)).sqrt())
    for other in torch.randn(100, 6):
        assert step_length(other, a @ other, 0.01) * other @ g <= gain


# -- the surrogate


def test_the_surrogate_is_ppo_without_its_clip_and_without_its_penalty():
    logprob, old, advantage, kl = torch.randn(4, 6)
    assert_close(surrogate(logprob, old, advantage), pg.ppo_penalty(logprob, old, advantage, kl, 0.0))
    assert_close(surrogate(logprob, old, advantage), pg.ppo_clip(logprob, old, advantage, 1e9, 1e9))
    assert_close(surrogate(torch.log(torch.tensor(1.5)), torch.tensor(0.0), torch.tensor(2.0)), torch.tensor(-3.0))


def test_on_policy_its_value_is_minus_the_advantage_and_its_gradient_the_policy_gradient():
    logprob, advantage = torch.randn(6, requires_grad=True), torch.randn(6)
    assert_close(surrogate(logprob, logprob, advantage), -advantage)
    (got,) = torch.autograd.grad(surrogate(logprob, logprob, advantage).sum(), logprob)
    (expected,) = torch.autograd.grad(pg.policy_gradient(logprob, advantage).sum(), logprob)
    assert_close(got, expected)
