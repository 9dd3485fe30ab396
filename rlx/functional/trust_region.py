"""The step of TRPO: the surrogate, the curvature of the KL, and the natural-gradient step of a given KL.

Vectors are flat, [P], one entry a parameter; a matrix is a function v -> F v that is never written out.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlx.functional.shapes import Scalar, check_shapes

Product = Callable[[Tensor], Tensor]


def surrogate(logprob: Tensor, old_logprob: Tensor, advantage: Tensor) -> Tensor:
    """What a new policy promises on the old one's actions.

        r = pi(a|s) / pi_old(a|s);   L = -r A

    Any shape -> the same shape; no gradient through old_logprob and A.  At r = 1 the gradient is
    policy_gradient's.  ppo_clip without the clip, ppo_penalty without the penalty.  Schulman et al. 2015,
    arXiv:1502.05477, eq. 14.

    >>> surrogate(tensor([1.3, 0.7]).log(), tensor([0.0, 0.0]), tensor([1.0, -1.0]))
    tensor([-1.3000,  0.7000])
    """
    check_shapes(logprob=logprob, old_logprob=old_logprob, advantage=advantage)
    return -((logprob - old_logprob.detach()).exp() * advantage.detach())


def flat_gradient(loss: Tensor, params: Sequence[Tensor], *, differentiable: bool = False) -> Tensor:
    """d loss / d params, end to end; zeros for a parameter that the loss does not depend on.

    loss 0-dim, with its graph (which is kept); params of any shapes -> [P].  `differentiable` makes a gradient
    that can be differentiated again.

    >>> a, b = tensor([3.0], requires_grad=True), tensor([[1.0, 2.0]], requires_grad=True)
    >>> flat_gradient(a.square().sum() + 5 * b.sum(), [a, b])
    tensor([6., 5., 5.])
    """
    grads = torch.autograd.grad(
        loss, list(params), retain_graph=True, create_graph=differentiable, materialize_grads=True
    )
    return torch.cat([grad.reshape(-1) for grad in grads])


def fisher_vector_product(kl: Tensor, params: Sequence[Tensor], damping: Scalar = 0.0) -> Product:
    """v -> (F + damping I) v, where F is the Hessian of the mean KL: at pi = pi_old, the Fisher matrix.

        F v = grad( (grad KL)' v )

    kl: mean KL(pi_old || pi), 0-dim, with its graph; params -> a function [P] -> [P] that keeps that graph and may
    be called any number of times while the parameters stay as they are.  Two backward passes make one product
    (Pearlmutter 1994); the first is done here, once.  damping is added to every eigenvalue: 0 keeps F exact, more
    shortens the step where F is nearly singular.  Schulman et al. 2015, arXiv:1502.05477, appendix C.

    >>> x = tensor([0.0, 0.0], requires_grad=True)
    >>> kl = 0.5 * (x[0].square() + 4 * x[1].square())  # F = diag(1, 4)
    >>> fisher_vector_product(kl, [x], damping=0.1)(tensor([1.0, 1.0]))
    tensor([1.1000, 4.1000])
    """
    params = list(params)
    gradient = flat_gradient(kl, params, differentiable=True)

    def product(v: Tensor) -> Tensor:
        check_shapes(gradient=gradient, v=v)
        damped: Tensor = flat_gradient(torch.dot(gradient, v), params) + damping * v
        return damped

    return product


def conjugate_gradient(product: Product, b: Tensor, steps: int, tolerance: Scalar = 1e-10) -> Tensor:
    """x with F x = b, F symmetric and positive definite: exact after P steps, near enough long before.

        alpha = r'r / p'Fp;   x += alpha p;   r -= alpha F p;   p = r + (r'r / r_old'r_old) p,   from r = p = b

    b [P] -> x [P]; `product` is v -> F v and is called `steps` times.  The solution stays as it is from the step on
    where r'r <= tolerance * b'b, and from one where p'Fp <= 0 (F is not positive definite, or rounding says so):
    then x is what the steps before it gave, still a direction of descent.  b = 0 gives 0; NaN gives NaN.  That is a
    mask and no branch: nothing is read back from the device.  Hestenes & Stiefel 1952.

    >>> conjugate_gradient(lambda v: tensor([1.0, 4.0]) * v, tensor([1.0, 1.0]), steps=2)  # F = diag(1, 4)
    tensor([1.0000, 0.2500])
    """
    x, r, p = torch.zeros_like(b), b, b
    square = start = torch.dot(b, b)
    for _ in range(steps):
        image = product(p)
        check_shapes(b=b, product=image)
        curvature = torch.dot(p, image)
        stopped = (square <= tolerance * start) | (curvature <= 0.0)  # for good: x, r and p stay as they are
        alpha = (square / curvature).masked_fill(stopped, 0.0)
        x = x + alpha * p
        r = r - alpha * image
        last, square = square, torch.dot(r, r)
        p = torch.where(stopped, p, r + (square / last) * p)
    return x


def step_length(direction: Tensor, fisher_direction: Tensor, max_kl: Scalar) -> Tensor:
    """How far along a direction the quadratic model of the KL is max_kl.

        s = sqrt(2 max_kl / x'Fx),   so that .5 (s x)'F(s x) = max_kl

    x and F x [P] -> 0-dim; max_kl in nats.  0 where x'Fx <= 0: no length has that KL.  Schulman et al. 2015,
    arXiv:1502.05477, appendix C.

    >>> step_length(tensor([1.0, 1.0]), tensor([1.0, 4.0]), max_kl=0.1)  # sqrt(.2 / 5)
    tensor(0.2000)
    """
    check_shapes(direction=direction, fisher_direction=fisher_direction)
    curvature = torch.dot(direction, fisher_direction)
    length: Tensor = (2 * max_kl / curvature).masked_fill(curvature <= 0.0, 0.0).sqrt()
    return length
