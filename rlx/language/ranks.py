"""Data parallel over processes (torchrun): every process has the same run, and computes a part of each batch.

Random numbers are drawn for the whole batch on every rank, and each uses its own rows; what was sampled is gathered, so
that rewards, advantages and shuffles are the same everywhere; gradients are summed. One rank and several are therefore
the same run, up to the order of sums.
"""

import os
from collections.abc import Mapping

import torch
from torch import Tensor, distributed as dist

from rlx.base.errors import ConfigError, UserError


def check_batches(batches: Mapping[str, int]) -> None:
    """Raises ConfigError where torchrun has started more processes than one of these batches (of the keys that make
    it) has rows: before a run begins."""
    count = os.environ.get("WORLD_SIZE", "1")
    for keys, rows in batches.items():
        if count.isdigit() and rows < int(count):
            raise ConfigError(f"{keys}: gives batches of {rows} rows, and torchrun {count} processes to share them")


class Ranks:
    """The processes of this run; one alone where torch.distributed was not set up."""

    def __init__(self) -> None:
        several = dist.is_available() and dist.is_initialized()
        self.rank, self.count = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)

    def part(self, size: int) -> slice:
        """The rows of this rank, of so many. UserError where there is not one for each."""
        if size < self.count:
            raise UserError(f"torchrun: {size} rows of a batch cannot be shared by {self.count} processes")
        return slice(self.rank * size // self.count, (self.rank + 1) * size // self.count)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks, in their order; [part of B, ...] -> [B, ...]."""
        if self.count == 1:
            return rows
        sizes = torch.zeros(self.count, dtype=torch.long, device=rows.device)
        sizes[self.rank] = len(rows)
        dist.all_reduce(sizes)
        sent = rows.new_zeros(int(sizes.max()), *rows.shape[1:])  # all send equally many
        sent[: len(rows)] = rows
        sent = sent.to(torch.uint8) if rows.dtype == torch.bool else sent
        parts = [torch.empty_like(sent) for _ in range(self.count)]
        dist.all_gather(parts, sent)
        return torch.cat([part[:size] for part, size in zip(parts, sizes.tolist())]).to(rows.dtype)

    def add(self, tensor: Tensor) -> Tensor:
        """Summed over the ranks, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor
