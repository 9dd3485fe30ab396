"""Running statistics against NumPy's on all the data at once."""

import numpy as np
import pytest

from rlx.control.normalize import EPS, ObsNormalizer, RewardNormalizer, RunningMeanStd


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_batches_merged_equal_the_whole(shape):
    rng = np.random.default_rng(0)
    batches = [rng.normal(5e3, 7, (n, *shape)) for n in (1, 2, 37, 0, 500)]
    stats = RunningMeanStd(shape)
    for batch in batches:
        stats.update(batch)
    data = np.concatenate(batches)
    np.testing.assert_allclose(stats.mean, data.mean(0), rtol=1e-10)
    np.testing.assert_allclose(stats.var, data.var(0), rtol=1e-10)
    assert stats.count == 540


def test_the_order_of_leading_axes_does_not_matter():
    x = np.random.default_rng(0).normal(size=(6, 5, 3))
    one, two = RunningMeanStd((3,)), RunningMeanStd((3,))
    one.update(x)
    two.update(x.reshape(30, 3))
    assert np.array_equal(one.mean, two.mean) and np.array_equal(one.var, two.var)


def test_normalized_observations_have_mean_0_and_variance_1_and_are_clipped():
    raw = np.random.default_rng(0).normal(1e4, 3, (4000, 2)).astype(np.float32)
    normalizer = ObsNormalizer((2,), clip=2.5)
    assert np.array_equal(normalizer.normalize(np.array([[1.0, -9.0]])), [[1, -2.5]])  # before any update
    normalizer.update(raw)
    wide = ObsNormalizer((2,), clip=100)
    wide.load_state_dict(normalizer.state_dict())
    x = wide.normalize(raw)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)  # float32 sums of 4000
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    assert np.abs(normalizer.normalize(raw)).max() == 2.5


def test_rewards_are_scaled_by_the_deviation_of_discounted_returns():
    rng = np.random.default_rng(0)
    gamma, lanes = 0.9, 3
    reward, done = rng.normal(2, 5, (40, lanes)), rng.random((40, lanes)) < 0.2
    normalizer = RewardNormalizer(lanes, gamma, clip=1e9)
    for t in range(0, 40, 8):
        normalizer.update(reward[t : t + 8], done[t : t + 8])
    returns = np.zeros((40, lanes))  # each one summed anew from its episode's beginning
    for n in range(lanes):
        for t in range(40):
            start = max([k + 1 for k in range(t) if done[k, n]], default=0)
            returns[t, n] = sum(gamma ** (t - k) * reward[k, n] for k in range(start, t + 1))
    np.testing.assert_allclose(normalizer.stats.var, returns.var(), rtol=1e-10)
    expected = (reward / np.sqrt(returns.var() + EPS)).astype(np.float32)
    np.testing.assert_allclose(normalizer.normalize(reward), expected, rtol=1e-6)


def test_the_clip_comes_after_the_scale_and_statistics_see_raw_rewards():
    raw = np.array([[1000.0], [-1000.0], [1.0]])
    normalizer = RewardNormalizer(1, 0.0, clip=0.5)
    normalizer.update(raw, np.zeros((3, 1), bool))
    np.testing.assert_allclose(normalizer.stats.var, raw.var(), rtol=1e-12)
    assert normalizer.normalize(raw)[:2].tolist() == [[0.5], [-0.5]]
    assert 0 < normalizer.normalize(raw)[2, 0] < 0.01


@pytest.mark.parametrize("make", [lambda: ObsNormalizer((3,)), lambda: RewardNormalizer(3, 0.99)])
def test_a_restored_normalizer_equals_one_never_stopped(make):
    rng = np.random.default_rng(0)
    one, two = make(), make()
    for k in range(6):
        x, done = rng.normal(3, 2, (5, 3)).astype(np.float32), rng.random((5, 3)) < 0.3
        arguments = (x,) if isinstance(one, ObsNormalizer) else (x, done)
        one.update(*arguments)
        if k == 2:
            two.load_state_dict(one.state_dict())
        elif k > 2:
            two.update(*arguments)
    assert np.array_equal(one.normalize(x), two.normalize(x))
    for key, value in one.state_dict().items():
        assert np.array_equal(value, two.state_dict()[key])


def test_state_is_a_copy():
    normalizer = RewardNormalizer(2, 0.9)
    state = normalizer.state_dict()
    normalizer.update(np.ones((4, 2)), np.zeros((4, 2), bool))
    assert state["count"] == 0 and state["returns"].tolist() == [0, 0]
