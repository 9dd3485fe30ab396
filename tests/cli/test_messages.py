"""One line is one line, whoever wrote it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from command_line import Forks

from rlx.cli import main, printing

LONG = "a" * 5_000


@pytest.mark.parametrize("verb", ["rm", "show", "eval", "resume", "sample", "play", "compare", "ls", "plot", "report"])
def test_a_name_that_no_file_can_have_is_one_line(verb: str, tmp_path: Path, forks: Forks) -> None:
    done = forks(verb, LONG, cwd=tmp_path)
    assert done.code == 2 and done.err.startswith(f"rlx: error: {LONG[:237]}...: no such"), done
    assert done.err.count("\n") == 1 and len(done.err) < 400 and "traceback" not in done.err


def test_an_old_version_of_an_environment_is_one_line(tmp_path: Path, forks: Forks) -> None:
    done = forks("train", "algo=ppo", "env=gym", "env.id=LunarLander-v2", cwd=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert done.err.startswith("rlx: error: env.id=LunarLander-v2: ") and "LunarLander-v3" in done.err


@pytest.mark.parametrize("category", [RuntimeWarning, UserWarning, FutureWarning])
def test_a_warning_of_others_is_one_line_and_said_once(
    category: type[Warning], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", main._warning)
        for _ in range(2):
            warnings.warn("\x1b[33mWARN: overflow\n in exp\x1b[0m", category, stacklevel=1)
        warnings.warn("use that", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().err == "rlx: warning: overflow in exp\n"


def test_a_resume_is_shown_as_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    resumes = [{"step": 2048, "time": "2026-11-28T14:38", "changes": {"total_steps": [2048, 4096]}, "versions": {}}]
    printing.details({"run": "runs/a", "resumes": [*resumes, {"step": 4096, "time": "2026-11-28T15:00"}]})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "resumes:",
        "  from step 2,048 at 2026-11-28T14:38: total_steps 2048 -> 4096",
        "  from step 4,096 at 2026-11-28T15:00",
    ]
