"""The global generators: seeded, saved, and borrowed without a trace."""

import random

import numpy as np
import torch

from rlx.base import global_rngs
from rlx.run import Run


def draws() -> tuple[float, ...]:
    return random.random(), random.gauss(), np.random.rand(), np.random.randn()  # noqa: NPY002


def test_a_run_seeds_the_global_generators_and_a_resumed_one_goes_on_with_them(tmp_path):
    def run(state=None, seed=1):
        return Run(tmp_path, torch.device("cpu"), seed, state)

    first = run()
    begun = draws()
    saved = first.state_dict()
    after = draws()
    run()
    assert draws() == begun
    run(saved)
    assert draws() == after
    run(seed=2)
    assert draws() != begun


def test_a_borrowed_generator_goes_on_where_it_was():
    global_rngs.seed(3)
    expected = [draws(), draws()]
    global_rngs.seed(3)
    first = draws()
    with global_rngs.seeded(5):
        inside = draws()
    assert [first, draws()] == expected
    global_rngs.seed(5)
    assert inside == draws()
