"""What every test sees: fixtures of the command line, of numbers. Modules of tests/helpers are importable."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Forks

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: one thread, as rlx has it
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rlx-state-")  # this machine's key: see rlx.config.own_code
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
MEMORY = "/dev/shm"  # a run syncs some thirty files; a disk takes 5 ms for each
with contextlib.suppress(OSError, AttributeError):  # where there is none, or no such call
    if shutil.disk_usage(MEMORY).free > 8e9 and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)
FIRST = ("test_readme.py", "test_distributed.py", "test_resume.py")  # the longest: none is left for the end


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each worker begins with a part of the files, so that what the tests of one share is made once, and one that is
    done takes from the rest of another."""
    from xdist.scheduler.worksteal import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A run flushes denormal numbers to zero; the next test must not notice."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)


@pytest.fixture
def float64() -> Iterator[None]:
    """Theorems are checked in float64, from the embedding to the logits: what float32 would hide is then visible."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """forks(*words, cwd=...): a command in a fork of a process that has imported torch already."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture(scope="session")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of PPO on CartPole that has finished. Read it only."""
    here = tmp_path_factory.mktemp("finished")
    done = forks("train", *TINY, cwd=here)
    assert done.code == 0, done.err
    return here / done.run


@pytest.fixture
def place(tmp_path: Path, finished: Path) -> Path:
    """A working directory with a finished run in runs/done, and a file where one may expect a directory."""
    shutil.copytree(finished, tmp_path / "runs" / "done")
    (tmp_path / "afile").write_text("not a directory\n")
    return tmp_path
