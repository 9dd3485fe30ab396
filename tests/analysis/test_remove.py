"""rlx rm: what it removes, and all that it refuses to."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from pathlib import Path

import filelock
import pytest
from command_line import Forks, command, entries, environment
from fake_runs import make_run, ramp

from rlx.analysis import remove
from rlx.base import process


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Runs a, b and c; a grid of two; a file and a folder."""
    for i, name in enumerate("abc"):
        make_run(tmp_path / "runs", name, ramp(1), seed=i, score=float(i))
    for i in range(2):
        make_run(tmp_path / "runs" / "sweeps" / "one", f"{i}_x", ramp(1), seed=i)
    (tmp_path / "runs" / "sweeps" / "one" / "jobs.jsonl").write_text("")
    (tmp_path / "afile").write_text("")
    (tmp_path / "folder").mkdir()
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def left(here: Path) -> set[str]:
    return {path.name for path in (here / "runs").iterdir()}


def test_runs_are_removed_with_all_that_is_in_them_and_the_bytes_are_counted(here: Path, forks: Forks) -> None:
    (here / "runs" / "a" / "checkpoints").mkdir()
    (here / "runs" / "a" / "checkpoints" / "x").write_bytes(bytes(1_000_000))
    size = sum(path.stat().st_size for path in (here / "runs" / "a").rglob("*") if path.is_file())
    done = forks("rm", "runs/a", "--yes", cwd=here)
    assert done.out == f"removed runs/a\n{size:,} bytes freed\n" and (done.code, done.err) == (0, "")
    assert left(here) == {"b", "c", "sweeps"}


def test_a_dry_run_removes_nothing(here: Path, forks: Forks) -> None:
    before = entries(here)
    done = forks("rm", "runs/a", "runs/sweeps/one", "--dry-run", cwd=here)
    assert done.code == 0 and "would remove runs/a\n" in done.out and "would remove runs/sweeps/one\n" in done.out
    assert entries(here) == before


def test_conditions_choose_among_the_runs(here: Path, forks: Forks) -> None:
    done = forks("rm", "--where", "eval>=1", "--where", "seed!=2", "--yes", "--json", cwd=here)
    assert json.loads(done.out)["removed"] == ["runs/b"] and left(here) == {"a", "c", "sweeps"}
    done = forks("rm", "runs", "--where", "eval>=7", "--yes", cwd=here)
    assert done.out == "nothing to remove\n" and done.code == 0


def test_a_pattern_names_runs(here: Path, forks: Forks) -> None:
    assert forks("rm", "runs/[ab]", "--yes", cwd=here).code == 0 and left(here) == {"c", "sweeps"}


def test_a_grid_goes_with_its_runs_and_after_them(here: Path, forks: Forks) -> None:
    sweep = here / "runs" / "sweeps" / "one"
    done = forks("rm", "runs/sweeps/one/0_x", "runs/sweeps/one/1_x", "--yes", cwd=here)
    assert done.code == 0 and [path.name for path in sweep.iterdir()] == ["jobs.jsonl"]
    assert forks("rm", "runs/sweeps/one", "--yes", cwd=here).code == 0 and not sweep.exists()
    make_run(here / "runs" / "sweeps" / "two", "x", ramp(1))
    (here / "runs" / "sweeps" / "two" / "study.json").write_text("{}")
    done = forks("rm", "runs/sweeps/two", "--yes", "--json", cwd=here)
    assert json.loads(done.out)["removed"] == ["runs/sweeps/two/x", "runs/sweeps/two"]
    assert left(here) == {"a", "b", "c", "sweeps"}


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "RUN is missing"),
        (["nix"], "nix: no such run directory"),
        (["afile"], "afile: not a run directory"),
        (["folder"], "folder: not a run directory"),
        (
            ["runs"],
            "runs: not a run directory (no config.yaml and run.json; `rlx ls` lists the runs there are); it has 5",
        ),
        (["runs/sweeps"], "runs/sweeps: not a run directory"),
        (["."], "not a run directory"),
        (["runs/a/.."], "not a run directory"),
        (["/"], "/: not a run directory (no config.yaml and run.json; `rlx ls` lists the runs there are)\n"),
        ([""], "rm '': must be a run directory"),
        (["runs/z*"], "runs/z*: no run matches"),
        (["runs/a", "nix"], "nix: no such run"),
        (["--where", "nix=1"], "no run's configuration has this key"),
        (["link"], "link: is a link"),
    ],
)
def test_what_is_no_run_stays_and_so_does_all_else(words: list[str], said: str, here: Path, forks: Forks) -> None:
    (here / "link").symlink_to(here / "runs" / "a")
    before = entries(here)
    done = forks("rm", *words, "--yes", cwd=here)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and said in done.err, done
    assert entries(here) == before


@pytest.mark.parametrize(("at", "word"), [("runs/a", "."), ("runs/a", "../../runs/a"), ("runs/sweeps/one/0_x", "..")])
def test_the_working_directory_and_what_is_around_it_stay(at: str, word: str, here: Path, forks: Forks) -> None:
    before = entries(here)
    done = forks("rm", word, "--yes", cwd=here / at)
    assert done.code == 2 and "is the working directory, or around it" in done.err, done
    assert entries(here) == before


def test_a_grid_that_was_killed_before_its_first_job_ended_is_one(here: Path, forks: Forks) -> None:
    (here / "runs" / "sweeps" / "two").mkdir()
    (here / "runs" / "sweeps" / "two" / "sweep.json").write_text("{}")
    assert forks("show", "runs/sweeps/two", cwd=here).code == 0
    assert forks("rm", "runs/sweeps/two", "--yes", cwd=here).code == 0
    assert not (here / "runs" / "sweeps" / "two").exists()


def test_without_a_terminal_nothing_goes_unasked(here: Path, forks: Forks) -> None:
    done = forks("rm", "runs/a", "runs/b", cwd=here)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and "2 runs would be removed; --yes" in done.err
    assert left(here) == {"a", "b", "c", "sweeps"}


@pytest.mark.parametrize("answer, gone", [("y", True), ("n", False), ("", False)])
def test_on_a_terminal_it_asks(answer: str, gone: bool, here: Path) -> None:
    ours, theirs = pty.openpty()
    asked = subprocess.Popen(
        command("rm", "runs/a"), cwd=here, env=environment(), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    text = b""
    while b"[y/N]" not in text and select.select([ours], [], [], 60)[0]:
        text += os.read(ours, 1000)
    os.write(ours, f"{answer}\n".encode())
    assert asked.wait(60) == 0 and b"runs/a" in text and b"remove 1 run?" in text
    assert ("a" not in left(here)) is gone
    os.close(ours)


def test_a_run_that_goes_on_stays(here: Path, forks: Forks) -> None:
    edit(here / "runs" / "b" / "status.json", status="running", **process.me())
    done = forks("rm", "runs/a", "runs/b", "--yes", cwd=here)
    assert done.code == 2 and "rm runs/b: is running" in done.err and left(here) >= {"a", "b"}


def test_one_that_is_just_being_taken_up_stays(here: Path, forks: Forks) -> None:
    """Its status says finished still, but another process has its lock."""
    with filelock.FileLock(here / "runs" / "a" / ".lock"):
        done = forks("rm", "runs/a", "--yes", cwd=here)
    assert done.code == 2 and "rm runs/a: is running" in done.err and (here / "runs" / "a" / "config.yaml").exists()


def test_a_run_that_another_one_starts_from_goes_only_with_it(here: Path, forks: Forks) -> None:
    edit(here / "runs" / "b" / "run.json", reward_model={"run": str(here / "runs" / "a")})
    done = forks("rm", "runs/a", "--yes", cwd=here)
    assert done.code == 2 and "rm runs/a: the run runs/b starts from it (reward_model=)" in done.err
    assert left(here) >= {"a", "b"}
    assert forks("rm", "runs/a", "runs/b", "--yes", cwd=here).code == 0 and left(here) == {"c", "sweeps"}


def test_what_links_in_a_run_point_to_stays(here: Path, forks: Forks) -> None:
    (here / "folder" / "precious").write_text("")
    (here / "runs" / "a" / "folder").symlink_to(here / "folder")
    (here / "runs" / "a" / "file").symlink_to(here / "afile")
    assert forks("rm", "runs/a", "--yes", cwd=here).code == 0
    assert (here / "folder" / "precious").exists() and (here / "afile").exists() and "a" not in left(here)


def test_a_removal_that_was_cut_off_can_be_repeated(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    (here / "runs" / "a" / "zzz").write_text("")
    real, seen = os.unlink, []

    def unlink(path: str) -> None:
        seen.append(os.path.basename(path))
        if seen[-1] in remove.LAST:
            raise OSError(5, "the disk is gone")
        real(path)

    with monkeypatch.context() as broken:
        broken.setattr(os, "unlink", unlink)
        with pytest.raises(remove.UserError, match="rm runs/a: cannot be removed: the disk is gone"):
            remove.carry_out(remove.plan(["runs/a"]))
    assert {path.name for path in (here / "runs" / "a").iterdir()} == set(remove.LAST)
    remove.carry_out(remove.plan(["runs/a"]))
    assert "a" not in left(here)
