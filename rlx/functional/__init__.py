"""The equations: torch only, pure, elementwise, to be minimised.

No function here reduces a loss, calls `.item()` or branches on the value of a tensor, so the same lines serve
CartPole and tokens, CPU and CUDA graphs, one run and (by `torch.vmap`) many. A hyper-parameter is a float or
a 0-dim tensor. Where two tensors meet their shapes must be equal: broadcasting (B,) against (B, 1) is
refused, not done. Masks are bool or 0/1 floats. Reduction is a function of its own (`reduce`), and so are
diagnostics (under no_grad, in `policy` and `value`). What a loss takes as data (old log-probs, advantages,
targets, the reference in DPO) it detaches: no gradient leaks through it. The divergences in `kl` detach
nothing, because either side may be the learner. In the examples `tensor` is `torch.tensor`; each is run by the suite.
"""
