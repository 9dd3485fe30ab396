"""Running rlx in the tests: as a real process, or forked from one that has imported torch already (fast)."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import PATIENCE, until

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
TINY = ["total_steps=512", "eval_every=0", "video=false", "tensorboard=false"]  # a run of a fifth of a second
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


Command = Callable[..., Done]  # Forks, or some of its calls


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("RLX_", "HYDRA_", "COMP_"))}
    return {**kept, **QUIET, **more}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "rlx", *words]


def rlx(*words: str, cwd: Path, timeout: float = PATIENCE, **env: str) -> Done:
    """`rlx words...` as its own process."""
    done = subprocess.run(command(*words), cwd=cwd, env=environment(**env), capture_output=True, timeout=timeout)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


LISTING_MODULES = (  # rlx's command line; the last line of stderr is what it imported
    "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    "from rlx.cli.main import main; main()"
)


def imported(*words: str, cwd: Path) -> tuple[set[str], str]:
    """The slow modules that a command imports, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", LISTING_MODULES, *words], cwd=cwd, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return SLOW & set(done.stderr.splitlines()[-1].split()), done.stdout


def entries(place: Path) -> set[str]:
    """Everything under a directory."""
    return {str(path.relative_to(place)) for path in place.rglob("*")}


class Forks:
    """A process that has imported everything, and forks itself for each command. See rlx() for the words.

    `without` names modules that the command shall not find; `unheard` closes the pipes it prints to; `env` is what
    each of the commands finds in its environment besides; `path` is its PYTHONPATH.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(PYTHONPATH=f"{ROOT}{os.pathsep}{PLUGIN}"),  # rlx beside these tests, a copy of it too
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
        env: Sequence[Mapping[str, str]] = (),
        path: Path = PLUGIN,
    ) -> list[Done]:
        """The same command `count` times at once."""
        with tempfile.TemporaryDirectory() as place:
            job = {"words": words, "cwd": str(cwd), "place": place, "without": without, "unheard": unheard}
            job["path"] = str(path)
            pids = [self.ask({**job, "index": i, "env": dict(env[i]) if env else {}}) for i in range(count)]
            codes = self.ask({"wait": pids, "timeout": timeout})
            return [Done(code, *texts(Path(place), i)) for i, code in enumerate(codes)]

    def begin(self, *words: str, cwd: Path) -> Begun:
        """A command that goes on while the test does something else."""
        place = Path(tempfile.mkdtemp())
        for name in ("out0", "err0"):
            (place / name).touch()
        job = {"words": words, "cwd": str(cwd), "place": str(place), "without": (), "unheard": False, "env": {}}
        return Begun(self, self.ask({**job, "index": 0, "session": True, "path": str(PLUGIN)}), place)

    def ask(self, job: dict[str, Any]) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=10)


def texts(place: Path, index: int = 0) -> list[str]:
    """What a command has printed to stdout and to stderr."""
    return [(place / f"{name}{index}").read_text() for name in ("out", "err")]


class Begun:
    """A command in a fork with a session of its own, to be used like subprocess.Popen."""

    def __init__(self, forks: Forks, pid: int, place: Path) -> None:
        self.forks, self.pid, self.place = forks, pid, place
        self.returncode: int | None = None

    @property
    def err(self) -> str:
        """What it has printed to stderr so far."""
        return texts(self.place)[1]

    def poll(self) -> int | None:
        if self.returncode is None:
            (self.returncode,) = self.forks.ask({"wait": [self.pid], "timeout": None})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        until(lambda: self.poll() is not None)
        assert self.returncode is not None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Its end, and what it printed to stdout and stderr."""
        self.wait()
        out, err = texts(self.place)
        shutil.rmtree(self.place)
        return out, err


# -- the process that forks ------------------------------------------------------------------------------------


def _serve() -> None:
    _warm()
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer: Any = [_wait(pid, job["timeout"]) for pid in job["wait"]]
        elif (answer := os.fork()) == 0:
            _child(job)
        print(json.dumps(answer), flush=True)


def _warm() -> None:
    """What a command would spend its time on: imports, and what is read once for a process."""
    import rlx

    for module in pkgutil.walk_packages(rlx.__path__, "rlx."):
        if module.name != "rlx.__main__":
            importlib.import_module(module.name)
    for name in ("gymnasium.vector", "matplotlib.figure", "matplotlib.backends.backend_agg", "optuna", "jinja2"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

    import torch

    from rlx.launch import composing
    from rlx.training.runner import typed

    torch.set_num_threads(1)
    _remember_yaml()
    for words in ([], ["algo=sft", "task=add2"]):
        with composing.compose_all() as compose:
            typed(composing.plain(compose(words)))
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page


def _remember_yaml() -> None:
    """What a YAML file says is decided by its text: those that every command reads are parsed once."""
    import yaml

    real, known = yaml.load, {}

    def load(stream: Any, Loader: Any) -> Any:
        if not hasattr(stream, "read"):
            return real(stream, Loader)
        begin, text = stream.tell(), stream.read()
        stream.seek(begin)
        key = (Loader.__qualname__, text)
        if key not in known:
            known[key] = real(stream, Loader)
        return copy.deepcopy(known[key])

    yaml.load = load


def _child(job: dict[str, Any]) -> None:
    """Never returns."""
    from rlx.cli import main

    code = 70
    try:
        if job.get("session"):
            os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(Path(job["place"]) / f"{name}{job['index']}", os.O_WRONLY | os.O_CREAT), number)
        if job["unheard"]:
            reader, writer = os.pipe()
            os.close(reader)
            os.dup2(writer, 1)
            os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(job["cwd"])
        os.environ.update(job["env"], PYTHONPATH=job["path"])
        sys.path[sys.path.index(str(PLUGIN))] = job["path"]
        sys.argv = ["rlx", *job["words"]]
        sys.modules.update(dict.fromkeys(job["without"]))
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 71
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, timeout: float | None) -> int | None:
    """The exit code of a child; without a timeout, None for one that still runs."""
    end, pause = time.monotonic() + (timeout or 0.0), 0.001
    while True:
        waited, status = os.waitpid(pid, os.WNOHANG)
        if waited:
            return os.waitstatus_to_exitcode(status)
        if timeout is None:
            return None
        if time.monotonic() > end:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return 124
        time.sleep(pause)
        pause = min(1.5 * pause, 0.02)


if __name__ == "__main__":
    _serve()
