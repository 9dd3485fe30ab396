"""videos/: films of a run as files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_run, ramp
from tiny_runs import status, train

from rlx.control import evaluate
from rlx.rundir import films

LOOKS: dict[str, Any] = {"video": True, "env.max_episode_steps": 20}


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "videos").glob("*"))


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the evaluations of a run have these scores."""

    def let(*scores: float) -> None:
        left = list(scores)

        def one(*_: Any, **__: Any) -> evaluate.EvalResult:
            return evaluate.EvalResult([left.pop(0)], [1], [None])

        monkeypatch.setattr(evaluate, "evaluate", one)

    return let


@pytest.mark.parametrize("scores, kept", [([1, 2, 3, 4], [320]), ([4, 3, 2, 1], [96, 320]), ([1, 4, 3, 2], [192, 320])])
def test_the_films_of_the_newest_and_of_the_best_evaluation_are_kept(
    scores: list[float], kept: list[int], scored: Any, tmp_path: Path
) -> None:
    scored(*scores)
    run = train(tmp_path, **LOOKS)
    assert names(run) == [f"step_{step:012d}.gif" for step in kept]
    assert all((run / "videos" / name).read_bytes().startswith(b"GIF8") for name in names(run))


def test_without_video_there_is_no_film(tmp_path: Path) -> None:
    assert not (train(tmp_path) / "videos").exists()


def test_a_full_disk_at_a_film_warns_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(films, "write_atomically", full)
    run = train(tmp_path, **LOOKS)
    assert status(run)["status"] == "finished" and names(run) == []
    assert capsys.readouterr().err.count("warning: no more films (") == 1


def test_the_report_takes_the_newest_film_that_is_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", ramp(1))
    assert films.last(run) is None
    for step, gif in ((100, b"GIF89a first"), (200, b"GIF89a second"), (300, b"no film")):
        films.write(run, step, gif)
    (run / "videos" / "step_999.gif").write_bytes(b"GIF89a of another program")
    assert films.last(run) == (200, b"GIF89a second")
    films.keep(run, (100,))
    assert films.last(run) == (100, b"GIF89a first") and names(run) == ["step_000000000100.gif", "step_999.gif"]


def test_the_film_of_an_older_run_is_read_from_its_events(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", ramp(1), events=True, gif=b"GIF89a in an event")
    assert films.last(run) == (100, b"GIF89a in an event")
    films.write(run, 50, b"GIF89a in a file")
    assert films.last(run) == (50, b"GIF89a in a file")


def test_file_and_event_hold_the_same_film(tmp_path: Path) -> None:
    run = train(tmp_path, tensorboard=True, **LOOKS)
    film = films.last(run)
    shutil.rmtree(run / "videos")
    assert film is not None and film == films.last(run)
