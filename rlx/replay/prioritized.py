"""Prioritised replay, proportional variant. Schaul et al. 2016, arXiv:1511.05952.

    P(i) = p_i^alpha / sum_j p_j^alpha,   p_i = |td error| + eps        (eq. 1)
    w_i = (1 / (N P(i)))^beta / max_j w_j                               (section 3.4; the max is over the minibatch)

New transitions get the highest priority seen so far. Sampling is stratified: one draw from each of `size` equal parts
of the total (appendix B.2.1). The sum tree is one array, its leaves the second half; a node is always the sum of its
two children, computed anew, so that a tree rebuilt from its leaves is equal to the last bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray


class SumTree:
    """Weights of `size` leaves, and draws in proportion to them."""

    def __init__(self, size: int) -> None:
        self.depth = max(1, (size - 1).bit_length())
        self.first = 1 << self.depth  # the first leaf; node n has the children 2n and 2n + 1, the root is 1
        self.size = size
        self.nodes = np.zeros(2 * self.first)

    @property
    def total(self) -> float:
        return float(self.nodes[1])

    @property
    def leaves(self) -> Array:
        return self.nodes[self.first : self.first + self.size]

    def set(self, index: Array, weight: Array | float) -> None:
        """Set the weights; where an index comes twice, its last weight counts."""
        if not len(index):
            return
        self.leaves[index] = weight
        nodes, node = self.nodes, index + self.first
        for _ in range(self.depth):
            node = node >> 1
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1]

    def rebuild(self, leaves: Array) -> None:
        self.leaves[:] = leaves
        level = self.first
        while level > 1:
            level >>= 1
            children = self.nodes[2 * level : 4 * level]
            self.nodes[level : 2 * level] = children[::2] + children[1::2]

    def find(self, mass: Array) -> Array:
        """The leaves that the points `mass` in [0, total) of the cumulated weights fall on."""
        node, mass = np.ones(len(mass), np.int64), mass.copy()
        for _ in range(self.depth):
            node *= 2
            left = self.nodes[node]
            right = mass >= left
            mass -= left * right
            node += right
        return node - self.first


class Priorities:
    """The priorities of a ring of transitions. `ranked` is for its owner: how far it has admitted rows."""

    def __init__(self, size: int, alpha: float = 0.6, eps: float = 1e-6) -> None:
        self.tree, self.alpha, self.eps = SumTree(size), alpha, eps
        self.highest = 1.0  # of all p_i seen
        self.ranked = 0
        self.count = 0  # transitions that can be drawn

    def admit(self, index: Array) -> None:
        self.tree.set(index, self.highest**self.alpha)
        self.count += len(index)

    def clear(self, index: Array) -> None:
        self.count -= int(np.count_nonzero(self.tree.leaves[index]))
        self.tree.set(index, 0.0)

    def update(self, index: Array, error: Array) -> None:
        """`error`: |td error| of transitions that were sampled."""
        priority = np.abs(error).astype(np.float64) + self.eps
        self.highest = max(self.highest, float(priority.max()))
        self.tree.set(index, priority**self.alpha)

    def sample(self, rng: np.random.Generator, size: int, beta: float) -> tuple[Array, Array]:
        """Indices and importance weights (float32), each [size]."""
        total = self.tree.total
        index = self.tree.find((np.arange(size) + rng.random(size)) * (total / size))
        weight = self.tree.leaves[index]
        while len(bad := np.flatnonzero(weight == 0)):  # a sum that was rounded up
            index[bad] = self.tree.find(rng.random(len(bad)) * total)
            weight = self.tree.leaves[index]
        weight = (weight * (self.count / total)) ** -beta
        return index, (weight / weight.max()).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"leaves": self.tree.leaves.copy(), "highest": self.highest, "ranked": self.ranked, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if len(state["leaves"]) != self.tree.size:
            raise ValueError(f"{self.tree.size} priorities needed, {len(state['leaves'])} saved")
        self.tree.rebuild(state["leaves"])
        self.highest, self.ranked, self.count = float(state["highest"]), int(state["ranked"]), int(state["count"])
