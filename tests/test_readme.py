"""Every command of the README and of docs/usage.md runs as written, in order, in an empty directory for each part."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from command_line import Done, Forks
from waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = [
    (page, block)
    for page in ("README.md", "docs/usage.md")
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]


def commands(block: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "CI": "true"}


def by_the_shell(command: str, here: Path) -> Done:
    done = subprocess.run(["bash", "-c", command], cwd=here, env=environment(), capture_output=True, timeout=PATIENCE)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def words(command: str, here: Path) -> list[str]:
    """What the shell makes of a command of rlx: the words behind its name."""
    assert command.split()[0] == "rlx", command
    script = f"rlx() {{ printf '%s\\0' \"$@\"; }}; {command}"
    done = subprocess.run(["bash", "-c", script], cwd=here, env=environment(), capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return [word for word in done.stdout.decode().split("\0")[:-1] if word]


def part(page: str, block: str) -> str:
    """Which folder a block runs in: those of one part build on one another."""
    if page == "README.md":
        return "readme"
    return "sweeps" if "rlx sweep" in block else "language" if "task=" in block else "use"


def shorter(command: str) -> str:
    """A tenth as long (a task: a quarter), 4,000 steps where it does not say how long, evaluated in two episodes."""
    part, least = (4, 1) if "task=" in command else (10, 1_200 if "=dqn" in command else 400)  # it refuses fewer
    short = re.sub(r"(?<=total_steps=)[\d_]+", lambda number: str(max(int(number[0]) // part, least)), command)
    if "task=" in command or not command.startswith("rlx train"):
        return short
    return short + " eval_episodes=2" + " total_steps=4_000" * ("total_steps" not in command)


@pytest.mark.parametrize("name, least", [("readme", 12), ("use", 16), ("sweeps", 8), ("language", 5)])
def test_the_commands_of_the_readme_run_as_written(name: str, least: int, tmp_path: Path, forks: Forks) -> None:
    """The first by the shell and the script that is installed; of the others the shell reads the words. A command that
    stands twice runs once, and training is made shorter."""
    here = tmp_path / "a new folder"
    here.mkdir()
    ran = 0
    for command in dict.fromkeys(
        line for page, block in BLOCKS if part(page, block) == name for line in commands(block)
    ):
        if command.split()[0] in ("make", ".") or command == "rlx dash":
            continue  # the two tests below
        done = forks(*words(shorter(command), here), cwd=here) if ran else by_the_shell(shorter(command), here)
        assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
        if command.startswith("rlx train"):
            assert done.run.startswith("runs/"), command
        ran += 1
    assert ran >= least
    if name == "use":
        assert (here / "out.gif").stat().st_size > 1000


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) == 0


def test_the_dashboard_answers_on_localhost(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dash = subprocess.Popen(
        ["rlx", "dash", "--port", str(port)], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: answers(port) or dash.poll() is not None)
        assert b"TensorBoard" in urllib.request.urlopen(f"http://localhost:{port}/", timeout=PATIENCE).read()
    finally:
        os.killpg(dash.pid, 15)
        dash.wait(PATIENCE)


@pytest.mark.fresh
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a clean clone needs the repository")
def test_a_clean_clone_trains_with_one_command(tmp_path: Path) -> None:
    clone = tmp_path / "clone with a space"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    env = {key: value for key, value in environment().items() if not key.startswith("VIRTUAL_ENV")}
    env["PYTHONWARNINGS"] = ""  # pip's are not ours
    env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if not p.startswith(str(ROOT)))
    done = subprocess.run(["make", "train"], cwd=clone, env=env, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "run: runs/cartpole/ppo/" in done.stdout and ". .venv/bin/activate" in done.stdout
    assert (clone / "runs" / "cartpole" / "ppo").is_dir()
    shutil.rmtree(clone)
