"""Scores that depend on the policy and the seed alone, and pictures."""

import io
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
from fake_envs import Counter
from PIL import Image

from rlx.control.evaluate import Kept, evaluate, save_gif
from rlx.control.show import film
from rlx.control.show.recording import record
from rlx.envs.episodes import EVALUATION, PLAY, episode_seed
from rlx.envs.single import EnvConfig, make_env
from rlx.envs.spaces import EnvFault

CARTPOLE = EnvConfig(name="cartpole", id="CartPole-v1")
COUNTER = EnvConfig(name="counter", id="fake_envs:Counter-v0")


def balance(obs):
    return (obs[:, 2] > 0).astype(np.int64)


def zeros(obs):
    return np.zeros(len(obs), np.int64)


def test_results_do_not_depend_on_how_many_environments_play():
    one = evaluate(balance, CARTPOLE, 11, seed=4, num_envs=1)
    assert len(set(one.returns)) > 5 and one.lengths == [int(r) for r in one.returns]
    for num_envs in (2, 3, 8, 50):
        assert evaluate(balance, CARTPOLE, 11, seed=4, num_envs=num_envs) == one
    assert evaluate(balance, CARTPOLE, 5, seed=4).returns == one.returns[:5]
    assert evaluate(balance, CARTPOLE, 11, seed=5).returns != one.returns


def test_episode_k_is_the_one_of_its_seed():
    result = evaluate(zeros, COUNTER, 9, seed=3, num_envs=4)
    env = make_env(COUNTER)
    for k, length in enumerate(result.lengths):
        env.reset(seed=episode_seed(3, EVALUATION, 0, k))
        assert length == env.unwrapped.stop
    assert result.successes == [float(length % 2 == 0) for length in result.lengths]


def test_the_time_limit_and_max_steps_cut_episodes():
    cfg = EnvConfig(name="counter", id="fake_envs:Counter-v0", kwargs={"length": 1000})
    assert evaluate(zeros, cfg, 3, seed=0).lengths == [100] * 3
    assert evaluate(zeros, cfg, 3, seed=0, max_steps=7).lengths == [7] * 3
    cfg.max_episode_steps = 0
    assert evaluate(zeros, cfg, 3, seed=0, max_steps=300).lengths == [300] * 3


def test_an_episode_that_nothing_ends_is_cut_all_the_same(monkeypatch):
    monkeypatch.setattr("rlx.control.evaluate.LONGEST", 500)
    cfg = EnvConfig(name="counter", id="fake_envs:Counter-v0", kwargs={"length": 10**9}, max_episode_steps=0)
    result = evaluate(zeros, cfg, 2, seed=0)
    assert result.lengths == [500] * 2 and "500 steps (eval_env.max_episode_steps=" in result.cut
    cfg.max_episode_steps = 500
    assert evaluate(zeros, cfg, 2, seed=0).cut == "" == evaluate(zeros, COUNTER, 2, seed=0).cut


def test_a_finished_lane_idles_and_is_not_stepped():
    cfg = EnvConfig(name="counter", id="fake_envs:Counter-v0", max_episode_steps=3)
    widths = []
    result = evaluate(lambda obs: widths.append(len(obs)) or zeros(obs), cfg, 5, seed=0, num_envs=4)
    assert set(widths) == {4} and len(result.lengths) == 5 and max(result.lengths) <= 3


def test_games_are_whole_and_rewards_raw():
    cfg = EnvConfig(name="lives", id="fake_envs:Lives-v0", wrappers=["episodic_life", "clip_reward"])
    result = evaluate(zeros, cfg, 2, seed=0)
    assert result.returns == [60.0, 60.0] and result.lengths == [12, 12]


class Harder(Counter):
    """Forgets nothing: its episodes become longer."""

    begun = 0

    def reset(self, **more):
        self.begun += 1
        found = super().reset(**more)
        self.stop = 4 + self.begun // 2
        return found


class Global(Counter):
    """Draws from numpy's global generator."""

    def _obs(self):
        return np.array([self.t, np.random.random()], np.float32)  # noqa: NPY002  # that one is meant


@pytest.mark.parametrize("kind, again", [(Counter, True), (Harder, False), (Global, False)])
def test_environments_are_kept_where_a_used_one_was_shown_to_be_as_good_as_new(kind, again, monkeypatch):
    made = []
    gym.register("Kept-v0", lambda: made.append(kind()) or made[-1])
    cfg, kept = EnvConfig(name="kept", id="Kept-v0"), Kept()
    try:
        results = [evaluate(zeros, cfg, 5, seed=3, num_envs=2, kept=kept) for _ in range(3)]
        assert len(made) == (2 if again else 6) and len(kept.environments) == (2 if again else 0)
        assert results == [evaluate(zeros, cfg, 5, seed=3, num_envs=2)] * 3
    finally:
        del gym.registry["Kept-v0"]
    kept.close()
    assert kept.environments == []


def test_environments_are_not_kept_behind_an_evaluation_that_fails(monkeypatch):
    cfg, kept = EnvConfig(name="counter", id="fake_envs:Counter-v0", kwargs={"fault": "raise", "at": 2}), Kept()
    with pytest.raises(EnvFault):
        evaluate(zeros, cfg, 5, seed=3, kept=kept)
    assert kept.environments == []


def test_no_episodes_are_no_results():
    assert evaluate(zeros, CARTPOLE, 0, seed=0).returns == []


@pytest.mark.parametrize("id", ["CartPole-v1", "LunarLander-v3", "Hopper-v5"])
def test_a_recorded_episode_has_its_frames_its_return_and_its_length(id):
    cfg = EnvConfig(name="test", id=id)
    size = make_env(cfg).action_space.shape
    made = record(lambda obs: np.zeros((1, *size)), cfg, seed=1, max_steps=21, width=100, plainly=True)
    assert 0 < len(made.steps) <= 21 and np.isfinite(made.total)
    assert len(made.frames) == 1 + len(made.steps) and all(frame.width == 100 for frame in made.frames)
    assert np.asarray(made.frames[0]).std() > 0


def test_a_recorded_episode_is_the_one_of_the_play_seed():
    made = record(balance, CARTPOLE, seed=6, max_steps=1000)
    env = make_env(CARTPOLE)
    obs, _ = env.reset(seed=episode_seed(6, PLAY, 0, 0))
    steps, over = 0, False
    while not over:
        obs, _, over, *_ = env.step(int(balance(obs[None])[0]))
        steps += 1
    assert (made.total, len(made.steps)) == (steps, steps)


def drawn(made):
    """The step that each frame shows."""
    return [frame.getpixel((0, 0))[0] for frame in made.frames]


def test_a_long_film_keeps_the_environment_s_speed_and_ends_early_where_it_would_not_move():
    cfg = EnvConfig(name="drawn", id="fake_envs:Drawn-v0", kwargs={"length": 83})  # at 30 steps a second
    assert drawn(made := record(zeros, cfg, 0, 100, 40, most=10)) == [*range(0, 41, 4)] and made.fps / made.every == 7.5
    assert drawn(record(zeros, cfg, 0, 100, 40, most=10, length=83)) == [*range(0, 41, 4)]  # drawn once each
    assert drawn(made := record(zeros, cfg, 0, 100, 40, most=50)) == [*range(0, 83, 2), 83] and made.every == 2
    assert drawn(made := record(zeros, cfg, 0, 100, 40, most=90)) == [*range(84)] and made.every == 1


def test_a_film_is_the_episode_that_its_policy_plays_here_with_what_it_thinks_of_each_frame():
    class Judging:
        seen: ClassVar = {"act": [], "judge": []}

        def __call__(self, obs):
            self.seen["act"].append(obs[0, 0])
            return zeros(obs)

        def judge(self, obs):
            self.seen["judge"].append(obs[0, 0])
            return {"probability": np.array([[0.5, 0.5]]), "value": np.zeros(1)}

    cfg = EnvConfig(name="drawn", id="fake_envs:Drawn-v0", kwargs={"length": 12})
    gif, width, height = film.film(Judging(), cfg, 0)
    assert Judging.seen == {"act": [*range(12)], "judge": [*range(12)]} and (width, height) == (240, 218)
    with Image.open(io.BytesIO(gif)) as shown:
        assert shown.n_frames == 13 and shown.info["duration"] == 30


def test_a_film_of_noise_is_small():
    cfg = EnvConfig(name="noise", id="fake_envs:Drawn-v0", kwargs={"length": 12, "renders": "noise"})
    gif, *_ = film.film(zeros, cfg, 0)
    with Image.open(io.BytesIO(gif)) as shown:
        assert len(gif) <= film.BYTES and 2 <= shown.n_frames < 13


def test_a_gif_is_small_and_animated(tmp_path):
    frames = record(balance, CARTPOLE, 0, 100, width=160).frames
    save_gif(frames, tmp_path / "play.gif", fps=25)
    buffer = io.BytesIO()
    save_gif(frames, buffer, fps=25)
    assert (tmp_path / "play.gif").read_bytes() == buffer.getvalue()
    assert len(buffer.getvalue()) < 1500 * len(frames)
    with Image.open(tmp_path / "play.gif") as gif:
        assert gif.n_frames == len(frames) and gif.info["duration"] == 40 and gif.info["loop"] == 0
