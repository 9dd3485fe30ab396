"""The statistics of few seeds against scipy's, against closed forms, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from simulated import coverage

from rlx.analysis import statistics
from rlx.analysis.curves.profiles import share
from rlx.analysis.statistics import Difference, Estimate

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 11, 100])
def test_the_iqm_is_the_mean_of_the_middle_half(n: int) -> None:
    x = RNG.normal(size=n)
    assert statistics.iqm(x) == pytest.approx(stats.trim_mean(x, 0.25))
    with_gaps = np.concatenate([x, [np.nan] * 7])
    assert statistics.iqm(RNG.permutation(with_gaps)) == pytest.approx(stats.trim_mean(x, 0.25))


def test_the_standard_error_of_a_mean_is_the_deviation_over_the_root_of_n() -> None:
    for n in (3, 10, 40):
        x = RNG.normal(size=n)
        found = float(statistics.standard_error(x, [0] * n, statistics.mean))
        assert found == pytest.approx(x.std(ddof=1) / math.sqrt(n), rel=0.08)  # of 1,000 resamples: 2 % and a half


def test_what_strata_differ_by_is_no_error() -> None:
    x = np.array([1.0, 1.0, 1.0, 9.0, 9.0, 9.0])
    assert float(statistics.standard_error(x, "aaabbb")) == 0.0
    assert float(statistics.standard_error(x, "aaaaaa")) > 1.0


def test_of_three_seeds_the_difference_is_welchs() -> None:
    """Nothing is trimmed then: scipy has the same interval of the same two means."""
    x, y = RNG.normal(5, 3, 3), RNG.normal(0, 1, 3)
    found, other = statistics.difference(x, y), stats.ttest_ind(x, y, equal_var=False).confidence_interval()
    assert found.value == pytest.approx(x.mean() - y.mean())
    assert found.high - found.low == pytest.approx(other.high - other.low, rel=0.1)


def test_the_probability_of_improvement_is_mann_and_whitneys_u_over_all_pairs() -> None:
    x, y = RNG.integers(0, 5, 9), RNG.integers(1, 6, 7)  # with ties
    found = statistics.improvement(x, y)
    assert found.value == pytest.approx(stats.mannwhitneyu(x, y).statistic / 63)
    other = statistics.improvement(y, x)
    assert (other.value, other.low, other.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


def test_at_one_half_the_interval_has_mann_and_whitneys_variance() -> None:
    """An interval that ends at 1/2 is t times the root of (m + n + 1) / (12 m n) long: the exact variance there."""
    x, y = np.arange(12.0), np.arange(12.0) + 0.5
    shifts = np.arange(0, 12, 0.05)
    lows = [statistics.improvement(x + shift, y) for shift in shifts]
    least = min((each for each in lows if each.low > 0.5), key=lambda each: each.value)
    most = max((each for each in lows if each.low <= 0.5), key=lambda each: each.value)
    reach = statistics.half_width(22) * math.sqrt(25 / (12 * 12 * 12))
    assert most.value - 0.5 <= reach <= least.value - 0.5


def test_one_side_that_wins_every_pair_of_few_is_no_certainty() -> None:
    found = statistics.improvement([2, 3, 4], [0, 1, -1])
    assert found.value == found.high == 1.0 and 0.3 < found.low < 0.5


def test_the_mean_over_environments_has_a_narrower_interval_than_each() -> None:
    one = Estimate(0.7, 0.5, 0.85)
    assert statistics.mean_improvement([one]) == Estimate(0.7, pytest.approx(0.5), pytest.approx(0.85))
    four = statistics.mean_improvement([one] * 4)
    assert (four.low, four.high) == (pytest.approx(0.6), pytest.approx(0.775))  # half as far: 1 / sqrt(4)


def test_the_interval_of_a_share_is_the_exact_one() -> None:
    for count, total in ((0, 3), (1, 3), (3, 3), (4, 10), (17, 20)):
        low, high = stats.binomtest(count, total).proportion_ci(method="exact")
        assert share(count, total) == Estimate(count / total, pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("scores", [[3.0], [3.0, 3.0, 3.0]])
def test_without_spread_there_is_no_interval(scores: list[float]) -> None:
    assert statistics.estimate(scores) == Estimate(3.0)
    assert not statistics.difference(scores, [1.0]).known and not statistics.improvement(scores, [1.0]).known


# -- by simulation -------------------------------------------------------------------------------------------------

REPEATS = 700
ERROR = math.sqrt(0.95 * 0.05 / REPEATS)  # of a simulated share: .008


@pytest.mark.parametrize("n", [3, 5, 10])
def test_what_is_called_a_95_percent_interval_covers_95_percent(n: int) -> None:
    """Of roughly normal scores; the plain bootstrap, beside it, does not."""
    found = coverage("normal", n, REPEATS)
    for name in ("iqm", "difference", "improvement"):
        assert found[name] > 0.95 - 3 * ERROR, (name, found)
    assert found["plain"] == pytest.approx({3: 0.75, 5: 0.89, 10: 0.94}[n], abs=0.035)


@pytest.mark.parametrize("kind", ["skewed (exponential)", "cut off at a best score", "three seeds in ten fail"])
def test_two_sides_of_the_same_scores_are_told_apart_one_time_in_twenty_at_most(kind: str) -> None:
    assert 1 - coverage(kind, 5, 400)["difference"] < 0.05 + 3 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("delta", [2.0, 1.0])
def test_the_seeds_that_would_do_find_the_difference_four_times_in_five(delta: float) -> None:
    rng = np.random.default_rng(3)
    errors = [statistics.difference(rng.normal(size=10), rng.normal(size=10)).error for _ in range(50)]
    n = Difference(delta, error=float(np.mean(errors)) * math.sqrt(5)).seeds_needed(2, 2) or 0
    found = [statistics.difference(rng.normal(delta, 1, n), rng.normal(size=n)) for _ in range(300)]
    assert 0.7 < np.mean([each.low > 0 for each in found]) < 0.92, n


@pytest.mark.parametrize("chance, places", [(0.85, 1), (0.75, 1), (0.75, 3)])
def test_the_seeds_of_a_probability_of_improvement_find_it_four_times_in_five(chance: float, places: int) -> None:
    shift = math.sqrt(2) * stats.norm.ppf(chance)  # of a normal distribution
    n = statistics.improvement_seeds(chance, 2, places) or 0
    rng, found = np.random.default_rng(4), []
    for _ in range(500):
        each = [statistics.improvement(rng.normal(shift, 1, n), rng.normal(size=n)) for _ in range(places)]
        found.append(statistics.mean_improvement(each).low > 0.5)
    assert 0.75 < np.mean(found) < 0.96, n  # Noether takes the variance of no effect, too much for a large one


def test_a_difference_too_small_for_a_hundred_seeds_is_not_counted_out() -> None:
    assert Difference(0.01, error=1.0).seeds_needed(3, 3) is None and statistics.improvement_seeds(0.51, 3) is None
    assert Difference(0.0, error=1.0).seeds_needed(3, 3) is None
