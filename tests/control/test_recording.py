"""What rlx play records: every frame at the environment's own speed, what was earned and thought."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from composed import composed
from PIL import Image
from tiny_runs import train

from rlx.base.errors import UserError
from rlx.control import evaluate
from rlx.control.policy import judge
from rlx.control.show import recording
from rlx.tabular.parts import Greedy
from rlx.training import runner


def test_a_film_has_every_frame_at_the_environment_s_own_speed(tmp_path: Path) -> None:
    cfg, _ = runner.typed(composed("algo=q_learning", "env=grid"))
    policy = Greedy(np.eye(4)[[0, 1, 2, 0, 0, 0]], 0.0)  # from the start up, to the right along the top, down
    made = recording.record(policy, cfg.env, 0, 20, width=120)
    rows = made.rows(one_hot=True)
    assert len(made.frames) == len(made.steps) + 1 and made.fps == 4
    assert rows[0]["s"] == 3 and rows[0]["a"] == 0 and made.total == pytest.approx(sum(row["r"] for row in rows))
    recording.write(made, tmp_path / "a.gif")
    film = Image.open(tmp_path / "a.gif")
    assert film.info["duration"] == 250 and film.size[0] == 120


def test_a_gif_of_a_fast_environment_keeps_its_speed_by_leaving_frames_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, float]] = []
    monkeypatch.setattr(evaluate, "save_gif", lambda frames, path, fps, *_: written.append((len(frames), fps)))
    recording.write(recording.Recording(frames=[Image.new("RGB", (8, 8))] * 101, fps=100.0), Path("a.gif"))
    recording.write(recording.Recording(frames=[Image.new("RGB", (8, 8))] * 101, fps=50.0), Path("a.gif"))
    assert written == [(51, 50.0), (101, 50.0)]


@pytest.mark.parametrize("width", [240, 280, 400])
def test_nothing_written_on_a_frame_is_cut_off(width: int) -> None:
    thought = {"value": np.float64(-1234.5), "probability": np.full(18, 0.055)}
    words = "step 200,000: step 1000  return -12345  goes on"
    frame = recording._framed(Image.new("RGB", (width, 50)), words, thought, recording._lines(thought, width))
    written = np.asarray(frame)[50:].min(-1)
    assert (written[:, -3:] == 255).all() and (written[-3:] == 255).all() and (written < 128).any()


def test_without_the_extra_an_mp4_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    made = recording.Recording(frames=[Image.new("RGB", (8, 8))])
    with pytest.raises(UserError, match=r"^--out=.*a.mp4: imageio_ffmpeg is not installed \(pip install -e .*film"):
        recording.write(made, tmp_path / "a.mp4")


def test_the_recorded_episode_is_the_one_that_is_watched_and_the_untrained_policy_is_another(tmp_path: Path) -> None:
    path = train(tmp_path, algo="ppo", name="run", eval_every=0, algo__lr=0.05)
    cfg, policy = runner.open_policy(path)
    made = recording.record(policy, cfg.env, 3, 50)
    assert (made.total, len(made.steps)) == evaluate.watch_episode(policy, cfg.env, 3, 50) and made.frames == []
    _, first = runner.untrained_policy(path)
    obs = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    before = judge(first, obs)["probability"]
    assert np.abs(before - 0.5).max() < 0.1  # the last layer begins a hundredth as large
    assert np.abs(judge(policy, obs)["probability"] - before).max() > 0.1
