"""The global generators of random and numpy, which rlx itself never draws from; environments and rewards may."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np


def seed(value: int) -> None:
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002  # the global one is meant, here and below


def state() -> dict[str, Any]:
    """As plain values and arrays, for a checkpoint."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "random": {"version": version, "state": np.array(numbers, np.int64), "gauss": gauss},
        "numpy": {
            "name": name,
            "keys": np.asarray(keys, np.int64),
            "position": position,
            "has_gauss": has_gauss,
            "cached": cached,
        },
    }


def load_state(saved: dict[str, Any]) -> None:
    python, numpy = saved["random"], saved["numpy"]
    random.setstate((python["version"], tuple(int(number) for number in python["state"]), python["gauss"]))
    keys = np.asarray(numpy["keys"], np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))  # noqa: NPY002


@contextlib.contextmanager
def seeded(value: int) -> Iterator[None]:
    """Meanwhile they start from this seed; afterwards they go on where they were."""
    before = state()
    seed(value)
    try:
        yield
    finally:
        load_state(before)
