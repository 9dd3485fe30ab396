"""videos/: films of a run as files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_run, ramp
from tiny_runs import record, status, train

from rlx.control import evaluate, family
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


@pytest.mark.parametrize(
    "scores, kept",
    [([1, 2, 3, 4], [0, 192, 320]), ([4, 3, 2, 1], [0, 96, 192, 320]), ([1, 2, 3, 2], [0, 192, 288, 320])],
)
def test_the_films_of_the_beginning_the_middle_the_best_and_the_newest_evaluation_are_kept(
    scores: list[float], kept: list[int], scored: Any, tmp_path: Path
) -> None:
    scored(*scores)
    run = train(tmp_path, **LOOKS)
    assert names(run) == [f"step_{step:012d}.gif" for step in kept]
    assert all((run / "videos" / name).read_bytes().startswith(b"GIF8") for name in names(run))


@pytest.mark.parametrize("algo, env", [("ppo", "cartpole"), ("q_learning", "frozenlake"), ("sac", "pendulum")])
def test_a_run_that_is_filmed_from_its_beginning_on_is_the_run_that_is_not(algo: str, env: str, tmp_path: Path) -> None:
    runs = [
        train(tmp_path, algo=algo, env=env, name=str(video), **{**LOOKS, "video": video}) for video in (True, False)
    ]
    assert status(runs[0])["weights_sha256"] == status(runs[1])["weights_sha256"]
    assert [step for step, _ in films.strip(runs[0])] == [0, 192, 320] and films.strip(runs[1]) == []


def test_a_beginning_that_cannot_be_filmed_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("not\nyet")

    monkeypatch.setattr(family, "beginning", broken)
    run = train(tmp_path, **LOOKS)
    assert record(run)["notices"] == ["no video of step 0: ValueError: not yet"]
    assert names(run)[-1] == "step_000000000320.gif"


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


def test_a_strip_shows_the_beginning_the_middle_and_the_end_of_what_there_is(tmp_path: Path) -> None:
    run = make_run(tmp_path, "run", ramp(1))
    for step, strip in ((90, [90]), (100, [100]), (40, [40, 100]), (0, [0, 40, 100]), (55, [0, 55, 100])):
        films.write(run, step, b"GIF89a")
        assert [film for film, _ in films.strip(run)] == strip


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
