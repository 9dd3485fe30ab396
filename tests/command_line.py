"""Running rlx in the tests: as a real process, or forked from one that has imported torch already (fast)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
TINY = ["total_steps=2048", "eval_every=0", "video=false", "tensorboard=false"]  # a run of well under a second


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def run(self) -> str:
        """The path on the last line of stdout, as the contract has it."""
        last = self.out.splitlines()[-1]
        assert last.startswith("run: "), self.out + self.err
        return last.removeprefix("run: ")


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RLX_", "HYDRA_", "COMP_"))}
    return {**kept, **QUIET, **more}


def rlx(*words: str, cwd: Path, timeout: float = 120, **env: str) -> Done:
    """`rlx words...` as its own process."""
    done = subprocess.run(
        [sys.executable, "-m", "rlx", *words], cwd=cwd, env=environment(**env), capture_output=True, timeout=timeout
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Forks:
    """A process that has imported everything, and forks itself for each command."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True
        )

    def __call__(self, *words: str, cwd: Path, timeout: float = 60, **env: str) -> Done:
        assert self.process.stdin and self.process.stdout
        with tempfile.TemporaryDirectory() as place:
            job = {"words": words, "cwd": str(cwd), "env": env, "place": place, "timeout": timeout}
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            code = int(self.process.stdout.readline())
            out, err = ((Path(place) / name).read_bytes().decode() for name in ("out", "err"))
            return Done(code, out, err)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=10)


def _serve() -> None:
    import gymnasium  # noqa: F401
    import torch

    from rlx import cli, launch, runner  # noqa: F401
    from rlx.algos import ppo  # noqa: F401
    from rlx.analysis import runs  # noqa: F401
    from rlx.control import envs, evaluate, nets  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(job, cli)
        print(_wait(pid, job["timeout"]), flush=True)


def _child(job: dict, cli) -> None:
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(job["place"]) / name, os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(job["env"])
        os.chdir(job["cwd"])
        sys.argv = ["rlx", *job["words"]]
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
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
