"""Running rlx in the tests: as a real process, or forked from one that has imported torch already (fast)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import PATIENCE

SLOW = {"torch", "gymnasium", "hydra", "omegaconf", "tensorboard", "matplotlib", "jinja2"}
ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "tests" / "plugin"
WARNINGS = [  # those of pyproject.toml, but that a message here is its beginning, to the letter
    "error::DeprecationWarning", "error::PendingDeprecationWarning",
    *(f"ignore:{text}:DeprecationWarning" for text in ("builtin type", "html5lib", "This process (pid")),
]  # fmt: skip
QUIET = {
    "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80",
    "PYTHONWARNINGS": ",".join(WARNINGS),
}  # fmt: skip
TINY = ["total_steps=2048", "eval_every=0", "video=false", "tensorboard=false"]  # a run of well under a second
CORRIDOR = ["env=gym", "env.id=rlx_random.envs:Corridor-v0"]  # of tests/plugin, where that is on PYTHONPATH
CRASH = ["env=gym", "env.id=rlx_random.envs:Crash-v0"]


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> str:
        """The path on the last line of stdout, as the contract has it."""
        last = (self.out.splitlines() or [""])[-1]
        assert last.startswith("run: "), f"{self.code}\n{self.out}\n{self.err}"
        return last.removeprefix("run: ")


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RLX_", "HYDRA_", "COMP_"))}
    return {**kept, **QUIET, **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlx", *words]


def rlx(*words: str, cwd: Path, timeout: float = PATIENCE, **env: str) -> Done:
    """`rlx words...` as its own process."""
    done = subprocess.run(command(*words), cwd=cwd, env=environment(**env), capture_output=True, timeout=timeout)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def imported(*words: str, cwd: Path) -> tuple[set[str], str]:
    """The slow modules that a command imports, and what it prints."""
    code = (
        "import sys, atexit; atexit.register(lambda: print('MODULES', *sys.modules)); "
        "from rlx.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    out, _, modules = done.stdout.rpartition("MODULES ")
    return SLOW & set(modules.split()), out


def entries(place: Path) -> set[str]:
    """Everything under a directory."""
    return {str(path.relative_to(place)) for path in place.rglob("*")}


class Forks:
    """A process that has imported everything, and forks itself for each command. See rlx() for the words.

    `without` names modules that the command shall not find; `unheard` closes the pipes it prints to.
    """

    def __init__(self, path: Path = PLUGIN) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(PYTHONPATH=str(path)),
        )  # fmt: skip

    def __call__(self, *words: str, cwd: Path, **more: Any) -> Done:
        return self.together(1, *words, cwd=cwd, **more)[0]

    def together(
        self,
        count: int,
        *words: str,
        cwd: Path,
        timeout: float = PATIENCE,
        without: Sequence[str] = (),
        unheard: bool = False,
    ) -> list[Done]:
        """The same command `count` times at once."""
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as place:
            job = {"words": words, "cwd": str(cwd), "place": place, "timeout": timeout, "without": without}
            self.process.stdin.write(json.dumps({**job, "count": count, "unheard": unheard}) + "\n")
            self.process.stdin.flush()
            codes = json.loads(self.process.stdout.readline())
            texts = [[(Path(place) / f"{name}{i}").read_text() for name in ("out", "err")] for i in range(count)]
        return [Done(code, out, err) for code, (out, err) in zip(codes, texts)]

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=10)


# -- the process that forks ------------------------------------------------------------------------------------


def _serve() -> None:
    import gymnasium  # noqa: F401
    import torch

    from rlx.algos import ppo  # noqa: F401
    from rlx.cli import main as cli
    from rlx.control import evaluate  # noqa: F401
    from rlx.launch import launch  # noqa: F401
    from rlx.rundir import reader as runs  # noqa: F401
    from rlx.training import runner  # noqa: F401

    with contextlib.suppress(ImportError):
        import optuna  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for index in range(job["count"]):
            if (pid := os.fork()) == 0:
                _child(job, index, cli.main)
            children.append(pid)
        print(json.dumps([_wait(pid, job["timeout"]) for pid in children]), flush=True)


def _child(job: dict[str, Any], index: int, main: Any) -> None:
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(job["place"]) / f"{name}{index}", os.O_WRONLY | os.O_CREAT), number)
        if job["unheard"]:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(job["cwd"])
        sys.argv = ["rlx", *job["words"]]
        sys.modules.update(dict.fromkeys(job["without"]))
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 71
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, timeout: float) -> int:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return 124


if __name__ == "__main__":
    _serve()
