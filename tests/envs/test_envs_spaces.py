"""What learners see of observations, and what environments get of actions."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from fake_envs import SPACES
from gymnasium import spaces

from rlx.envs.make import make_envs
from rlx.envs.single import EnvConfig, make_env
from rlx.envs.spaces import (
    ActionDecoder,
    EnvError,
    QuickDiscrete,
    all_finite,
    kind_of,
    observation_encoder,
    quicken,
    with_channels,
)  # fmt: skip
from rlx.envs.wrappers import FireReset


def envs_of(name, **changes):
    return make_envs(EnvConfig(name="test", id=f"fake_envs:Spaces{name}-v0", **changes), 2, seed=0)


@pytest.mark.parametrize("name", ["Plain", "Start", "Multi", "Bits", "Dict", "Whole"])
def test_vectors_are_gymnasiums_flattening(name):
    space = SPACES[name][0]
    envs = envs_of(name)
    envs.reset()
    assert envs.obs.dtype == np.float32 and envs.obs.shape == (2, *envs.observation_space.shape)
    for _ in range(5):
        for i, env in enumerate(envs.envs):
            now = env.unwrapped.now
            expected = spaces.flatten(space, now)
            assert np.array_equal(envs.obs[i], np.asarray(expected, np.float32))
            assert envs.observation_space.contains(envs.obs[i])
        envs.step(np.stack([envs.action_space.sample() for _ in range(2)]))


@pytest.mark.parametrize("start, dtype", [(0, np.int64), (-3, np.int8), (2, np.uint8)])
def test_the_quick_test_of_an_action_says_what_gymnasium_says(start, dtype):
    plain, quick = (spaces.Discrete(4, start=start, dtype=dtype) for _ in range(2))
    quicken(quick)
    whole = [kind(x) for x in range(-5, 8) for kind in (int, np.int64, np.int8, float, np.array, str)]
    for x in [*whole, 300, -(10**30), 10**30, True, False, None, np.nan, np.array([1]), [1]]:
        assert quick.contains(x) is plain.contains(x) and (x in quick) is (x in plain), x
    assert quick == plain and repr(quick) == repr(plain) and kind_of(quick) == "Discrete"
    for other in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert other == plain and other.contains(start + 3) and not other.contains(start + 4)


def test_a_plain_discrete_space_is_made_quick_and_a_derived_one_is_left():
    class Own(spaces.Discrete):
        def contains(self, x):
            return x == 7

    own = Own(3)
    quicken(own)
    assert own.contains(7) and not own.contains(0) and kind_of(own) == "Discrete"
    assert type(make_env(EnvConfig(name="test", id="CartPole-v1")).action_space) is QuickDiscrete


@pytest.mark.parametrize(
    "name, shape", [("Gray", (1, 8, 9)), ("Color", (3, 8, 9)), ("Stack", (4, 8, 9)), ("ColorStack", (6, 8, 9))]
)
def test_images_stay_uint8_with_channels_first(name, shape):
    envs = envs_of(name)
    envs.reset()
    assert envs.observation_space.shape == shape and envs.obs.dtype == np.uint8
    envs.step(np.zeros(2, int))
    image, raw = envs.obs[1], envs.envs[1].unwrapped.now
    if name == "Color":
        assert np.array_equal(image[2], raw[:, :, 2])
    elif name == "ColorStack":
        assert np.array_equal(image[4], raw[1, :, :, 1])
    else:
        assert np.array_equal(image, raw.reshape(shape))


@pytest.mark.parametrize(
    "shape, where",
    [
        ((64, 64, 3), "last"), ((3, 64, 64), "first"), ((40, 64, 64), "first"), ((64, 64, 40), "last"),
        ((8, 60, 80), "first"), ((60, 80, 8), "last"), ((6, 6, 20), "last"), ((40, 64, 50), None), ((9, 9, 9), None),
    ],
)  # fmt: skip
def test_channels_are_where_the_shape_says_or_the_key(shape, where):
    space = spaces.Box(0, 255, shape, np.uint8)
    picture = space.sample()
    expected = {"first": picture, "last": np.moveaxis(picture, -1, 0)}
    if where is None:
        with pytest.raises(EnvError, match=rf"^env\.id=X: .*\[{shape[0]}, .*env\.channels=first or last$"):
            observation_encoder(space, "env.id=X")
    else:
        assert np.array_equal(observation_encoder(space, "env.id=X")[1](picture), expected[where])
    for said in expected:
        box, encode = observation_encoder(with_channels(space, said), "env.id=X")
        assert box.shape == expected[said].shape and np.array_equal(encode(picture), expected[said])


class Picture(gym.Env):
    """One picture, its channels first or last."""

    action_space = spaces.Discrete(2)

    def __init__(self, first, shape=(40, 48, 3)):
        picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.picture = np.moveaxis(picture, -1, 0) if first else picture
        self.observation_space = spaces.Box(0, 255, self.picture.shape, np.uint8)

    def reset(self, *, seed=None, options=None):
        return self.picture, {}

    def step(self, action):
        return self.picture, 0.0, False, False, {}


@pytest.fixture
def picture():
    gym.register("Picture-v0", Picture)
    yield lambda **how: make_envs(EnvConfig(name="test", id="Picture-v0", **how), 1, seed=0)
    del gym.registry["Picture-v0"]


@pytest.mark.parametrize("names", [["resize_84"], ["frame_stack_2"], ["grayscale"], ["grayscale", "frame_stack_5"]])
def test_wrappers_of_images_see_them_the_same_wherever_their_channels_are(names, picture):
    seen = [picture(kwargs={"first": first}, wrappers=names).reset() for first in (False, True)]
    assert np.array_equal(*seen) and seen[0].any()
    odd = [
        picture(kwargs={"first": first, "shape": (40, 48, 20)}, wrappers=names[:1], channels=channels)
        for first, channels in ((False, "last"), (True, "first"))
        if names[0] != "grayscale"
    ]
    assert all(np.array_equal(odd[0].reset(), other.reset()) for other in odd[1:])


def test_a_key_about_channels_is_refused_where_there_are_no_images():
    with pytest.raises(EnvError, match=r"^env\.channels=first: CartPole-v1 has no uint8 images .* but \[4\]$"):
        make_env(EnvConfig(name="test", id="CartPole-v1", channels="first"))


def given(name, action):
    """What the two environments received for one action of the learner."""
    envs = envs_of(name)
    envs.reset()
    envs.step(np.asarray(action))
    return [env.unwrapped.actions[-1] for env in envs.envs]


def test_discrete_actions_become_ints_counted_from_the_start():
    assert given("Plain", [0, 2]) == [0, 2] and type(given("Plain", [0, 2])[0]) is int
    assert given("Start", [0, 2]) == [-1, 1] and type(given("Start", [0, 2])[0]) is int
    assert envs_of("Start").action_space == spaces.Discrete(3)


def test_multidiscrete_actions_get_their_shape_and_start_back():
    one, two = given("Multi", [[0, 0, 0, 0], [1, 2, 3, 4]])
    assert np.array_equal(one, [[0, 1], [2, 3]]) and np.array_equal(two, [[1, 3], [5, 7]])


def test_multibinary_actions_are_int8():
    one, two = given("Bits", [[0, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    assert one.dtype == np.int8 and one.tolist() == [0, 1, 0, 1, 1] and two.tolist() == [1] * 5


def test_box_actions_are_clipped_and_shaped_and_the_learners_own_stay_as_they_are():
    action = np.array([[-9, -9, -9, -9], [0.5, 0.25, 9, 9]], np.float32)
    before = action.copy()
    one, two = given("Dict", action)
    assert one.dtype == np.float64 and np.array_equal(one, [[-1, -2], [0, -4]])
    assert np.array_equal(two, [[0.5, 0.25], [3, 4]])
    assert np.array_equal(action, before)


def test_integer_boxes_are_rounded():
    one, two = given("Whole", [[-7.0, 0.6], [2.4, 3.4]])
    assert one.dtype == np.int32 and one.tolist() == [-2, 1] and two.tolist() == [2, 3]


def test_an_environment_may_keep_the_action_it_got():
    envs = envs_of("Dict")
    envs.reset()
    for k in range(4):
        envs.step(np.full((2, 4), k / 10))
    kept = envs.envs[0].unwrapped.actions[-4:]
    assert [a[0, 0] for a in kept] == [np.float32(k / 10) for k in range(4)]


@pytest.mark.parametrize("name", ["Plain", "Start", "Multi", "Bits", "Dict", "Whole"])
def test_the_log_dtype_holds_every_action_exactly(name):
    decoder = ActionDecoder(SPACES[name][1], "x")
    for _ in range(20):
        action = np.asarray(decoder.space.sample(), decoder.dtype)[None]
        direct, logged = decoder.decode(action), decoder.decode(action.astype(decoder.log_dtype))
        assert np.array_equal(direct, logged)


def test_a_float64_bound_beyond_float32_becomes_infinite_without_a_warning(recwarn):
    box, encode = observation_encoder(spaces.Box(-1e300, 1e300, (2,), np.float64), "x")
    assert np.isinf(box.high).all() and encode is None and not recwarn.list


@pytest.mark.parametrize("n", [5, 2000])
def test_a_discrete_observation_outside_its_space_is_an_error(n):
    _, encode = observation_encoder(spaces.Discrete(n, start=3), "x")
    assert encode(3).tolist() == [1] + [0] * (n - 1) and encode(n + 2)[-1] == 1
    for outside in (2, n + 3):
        with pytest.raises(IndexError):
            encode(outside)


@pytest.mark.parametrize("size", [1, 4, 5000])
def test_all_finite_is_isfinite_all(size):
    for bad in (np.nan, np.inf, -np.inf):
        x = np.ones(size, np.float32)
        assert all_finite(x)
        x[size // 2] = bad
        assert not all_finite(x)
    with np.errstate(over="ignore"):
        assert all_finite(np.full(size, 3e38, np.float32))  # the sum of squares is not


def test_wrapper_names_build_what_they_say():
    def shape(id, *wrappers, **kwargs):
        cfg = EnvConfig(name="test", id=id, wrappers=list(wrappers), kwargs=kwargs)
        return make_envs(cfg, 1, seed=0).observation_space.shape

    assert shape("CartPole-v1", "frame_stack_4") == (16,)
    assert shape("CartPole-v1", "time_aware") == (5,)
    assert shape("MiniGrid-Empty-5x5-v0", "minigrid_image") == (3, 7, 7)
    assert shape("MiniGrid-Empty-5x5-v0", "minigrid_image", "flatten") == (147,)
    assert shape("CarRacing-v3", "grayscale", "resize_48", "frame_stack_4") == (4, 48, 48)
    assert shape("ALE/Pong-v5", "atari", frameskip=1) == (4, 84, 84)
    scaled = make_envs(EnvConfig(name="test", id="Pendulum-v1", wrappers=["rescale_action"]), 1, seed=0)
    assert scaled.action_space.low == -1 and scaled.action_space.high == 1


def test_atari_needs_frameskip_1_and_says_so():
    with pytest.raises(EnvError, match=r"^env.wrappers=atari: .*\(set env.kwargs.frameskip=1\)$"):
        make_env(EnvConfig(name="test", id="ALE/Pong-v5", wrappers=["atari"]))


def test_a_registered_limit_counts_bare_steps_under_wrappers_that_repeat():
    cfg = EnvConfig(name="test", id="CartPole-v1", wrappers=["repeat_action_3"])
    assert make_envs(cfg, 1, seed=0).limit == 167  # 500 bare steps


def test_an_atari_game_is_restored_to_the_bit():
    cfg = EnvConfig(name="test", id="ALE/Breakout-v5", kwargs={"frameskip": 1})
    cfg.wrappers = ["atari", "fire_reset", "episodic_life", "clip_reward"]
    envs, again = make_envs(cfg, 1, seed=0), make_envs(cfg, 1, seed=0)
    assert envs.replayable
    envs.reset()
    envs.action_space.seed(0)
    some = [np.array([envs.action_space.sample()]) for _ in range(120)]
    for action in some[:60]:
        envs.step(action)
    again.load_state_dict(envs.state_dict())
    assert np.array_equal(envs.obs, again.obs)
    ends = 0
    for action in some[60:]:
        one, two = envs.step(action), again.step(action)
        ends += len(one[3])
        assert np.array_equal(envs.obs, again.obs) and all(np.array_equal(a, b) for a, b in zip(one[:3], two[:3]))
    assert ends > 0 and gym.spaces.Discrete(4) == envs.action_space


class Ball(gym.Env):
    """Waits for FIRE (1) at the start and after each of three lives, of three steps; observes how long it waited."""

    observation_space, action_space = gym.spaces.Box(0, 99, (1,), np.float32), gym.spaces.Discrete(3)

    def get_action_meanings(self):
        return ["NOOP", "FIRE", "LEFT"]

    def _now(self):
        return np.array([self.waited], np.float32)

    def reset(self, *, seed=None, options=None):
        self.lives, self.left, self.waited = 3, 0, 0
        return self._now(), {"lives": 3}

    def step(self, action):
        if self.left == 0 and action == 1:
            self.left = 3
        elif self.left == 0:
            self.waited += 1
        else:
            self.left -= 1
            self.lives -= self.left == 0
        return self._now(), 0.0, self.lives == 0, False, {"lives": self.lives}


@pytest.mark.parametrize("wrapped", [True, False])
def test_fire_is_pressed_at_the_start_and_after_each_lost_life(wrapped):
    env = FireReset(Ball()) if wrapped else Ball()
    env.reset()
    for _ in range(50):
        obs, _, over, _, _ = env.step(0)
        if over:
            break
    assert over is wrapped and obs[0] == (0 if wrapped else 50)
