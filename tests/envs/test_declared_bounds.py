"""Declared bounds are used where a policy that begins around 0 would not find them, and nowhere else."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box

from rlx.envs.spaces import ActionDecoder, observation_encoder, rescaled, what_to_say
from rlx.envs.wrappers import find_wrapper

PLAIN = Box(-1, 1, (1,))


class Taken(gym.Env):
    observation_space = Box(-1, 1, (1,))

    def __init__(self, space):
        self.action_space = space

    def step(self, action):
        self.taken = action
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize(
    "low, high, dtype",
    [
        (-1000, 1000, np.float32),
        (49.5, 50.5, np.float32),
        (-0.01, 0.01, np.float64),
        (0, 255, np.int64),
        (0, 20, np.uint8),
        (-9, -3, np.int32),
    ],
)
def test_the_ends_of_such_a_range_are_minus_1_and_1(low, high, dtype):
    space = Box(low, high, (2,), dtype)
    decoder = ActionDecoder(space, "env")
    assert decoder.space == Box(-1, 1, (2,)) and rescaled(space).all()
    (ends, middle, beyond) = decoder.decode(np.array([[-1, 1], [0, 0], [-5, 5]], np.float32))
    assert ends.dtype == dtype and (ends == [space.low[0], space.high[0]]).all() and (beyond == ends).all()
    assert middle == pytest.approx(np.full(2, (low + high) / 2), abs=0.5 if np.issubdtype(dtype, np.integer) else 1e-6)
    line = what_to_say(PLAIN, space)
    assert "rescaled" in line and f"{space.low[0]:g}" in line and "\n" not in line


@pytest.mark.parametrize(
    "space",
    [
        PLAIN,
        Box(-2, 2, (1,)),
        Box(-10, 10, (2,)),
        Box(0, 1, (2,)),
        Box(-0.4, 0.4, (3,)),
        Box(0, 3, (1,), np.int64),
        Box(-np.inf, np.inf, (1,)),
        Box(20, np.inf, (1,)),
    ],
)
def test_all_other_actions_keep_their_bits(space):
    decoder, action = ActionDecoder(space, "env"), np.linspace(-12, 12, 4 * space.shape[0], dtype=np.float32)
    action = action.reshape(4, -1)
    assert decoder.space == space and what_to_say(PLAIN, space) is None
    wanted = np.clip(action, space.low, space.high)
    wanted = np.rint(wanted) if space.dtype == np.int64 else wanted
    assert (np.stack(decoder.decode(action)) == wanted.astype(space.dtype)).all()


def test_only_the_dimensions_that_need_it_are_rescaled():
    decoder = ActionDecoder(space := Box(np.float32([-1, 0]), np.float32([1, 100])), "env")
    assert (decoder.space.low == [-1, -1]).all() and (decoder.space.high == [1, 1]).all()
    assert (decoder.decode(np.float32([[0.3, 0]]))[0] == np.float32([0.3, 50])).all()
    assert what_to_say(PLAIN, space).startswith("1 of 2 numbers")


@pytest.mark.parametrize("high", [1, 7, 100])
def test_an_image_of_its_own_high_is_what_one_of_255_is(high):
    rows = np.random.default_rng(0).integers(0, high, (12, 10, 3), np.uint8, endpoint=True)
    box, encode = observation_encoder(Box(0, high, (12, 10, 3), np.uint8), "env")
    seen = encode(rows)
    assert box == Box(0, 255, (3, 12, 10), np.uint8) and seen.dtype == np.uint8
    np.testing.assert_allclose(seen / 255, rows.transpose(2, 0, 1) / high, atol=0.5 / 255)


@pytest.mark.parametrize("name", ["resize_8", "grayscale"])
def test_wrappers_of_images_take_one_of_its_own_high(name):
    class Seen(gym.Env):
        action_space = PLAIN

        def __init__(self, high):
            self.picture = np.random.default_rng(0).integers(0, 2, (16, 16, 3), np.uint8) * np.uint8(high)
            self.observation_space = Box(0, high, (16, 16, 3), np.uint8)

        def reset(self, **_how):
            return self.picture, {}

    whole, low = (find_wrapper(name)(Seen(high)) for high in (255, 1))
    assert low.observation_space == whole.observation_space and np.array_equal(low.reset()[0], whole.reset()[0])


def test_an_image_of_high_255_keeps_its_bits():
    rows = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    assert (observation_encoder(Box(0, 255, (12, 10, 3), np.uint8), "env")[1](rows) == rows.transpose(2, 0, 1)).all()


def test_a_float_image_is_said_to_go_flat():
    line = what_to_say(Box(0, 1, (36, 36, 3)), PLAIN)
    assert "flat" in line and "[36, 36, 3]" in line
    assert what_to_say(Box(0, 255, (36, 36, 3), np.uint8), PLAIN) is None


def test_rescale_action_takes_boxes_of_whole_numbers():
    env = find_wrapper("rescale_action")(Taken(Box(3, 9, (2,), np.int64)))
    assert env.action_space == Box(-1, 1, (2,))
    env.step(np.float32([-1, 0.1]))
    assert env.unwrapped.taken.dtype == np.int64 and (env.unwrapped.taken == [3, 6]).all()
