"""The one check every equation makes, and the type of a hyper-parameter."""

from typing import Any, TypeAlias

import torch

# A float or a 0-dim tensor. Any, because torch's overloads (clamp's) take each of the two, not their union.
Scalar: TypeAlias = Any


def check_shapes(**tensors: Any) -> None:
    """Raise unless all these tensors have one shape; floats and 0-dim tensors are hyper-parameters and pass.

    ValueError: `shapes differ: logprob (4,), advantage (4, 1); ...`.

    >>> check_shapes(gamma=0.99, reward=tensor([1.0, 2.0]), value=tensor([[1.0], [2.0]]))
    Traceback (most recent call last):
    ValueError: shapes differ: reward (2,), value (2, 1); they must be equal (nothing is broadcast here)
    """
    first, shape = "", None
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor) and tensor.ndim:
            if shape is None:
                first, shape = name, tensor.shape
            elif tensor.shape != shape:
                raise ValueError(
                    f"shapes differ: {first} {tuple(shape)}, {name} {tuple(tensor.shape)}; "
                    "they must be equal (nothing is broadcast here)"
                )
