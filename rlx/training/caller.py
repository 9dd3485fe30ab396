"""rlx as a guest in a process that is not its own (rlx.api): it computes as in one of its own, and leaves no trace."""

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import threadpoolctl
import torch

from rlx.base import global_rngs, streams

_one_at_a_time = threading.RLock()  # what is set here is the process's, not a thread's


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Within, torch and numpy are as a new process has them, whatever the caller has set; afterwards these and the
    environment, the thread counts, the global generators, sys.path and the warnings are as they were."""
    with _one_at_a_time, contextlib.ExitStack() as later:
        later.callback(_restore, os.environ, dict(os.environ))
        later.callback(sys.path.__setitem__, slice(None), list(sys.path))
        later.enter_context(warnings.catch_warnings())
        later.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        later.enter_context(streams.belongs_to_caller())
        later.callback(global_rngs.load_state, global_rngs.state())
        later.callback(threadpoolctl.ThreadpoolController().limit(limits=None).restore_original_limits)
        _torch(later)
        yield


def _restore(environ: os._Environ, before: dict[str, str]) -> None:
    for name in set(environ) - set(before):
        del environ[name]
    environ.update(before)


def _torch(later: contextlib.ExitStack) -> None:
    later.callback(torch.set_num_threads, torch.get_num_threads())
    later.callback(torch.set_flush_denormal, not (torch.tensor(1e-310, dtype=torch.float64) * 1.0).item())
    later.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():
        later.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    for name in ("benchmark", "deterministic"):
        later.callback(setattr, torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    later.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    torch.set_float32_matmul_precision("highest")
    later.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    before = torch.are_deterministic_algorithms_enabled()
    later.callback(torch.use_deterministic_algorithms, before, warn_only=only_warns)
    torch.use_deterministic_algorithms(False)
    if torch.get_default_device().type != "cpu":
        later.enter_context(torch.device("cpu"))
    later.enter_context(torch.inference_mode(False))
    later.enter_context(torch.enable_grad())
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            later.enter_context(torch.autocast(kind, enabled=False))
