"""The statistics of few seeds: interquartile mean, probability of improvement, their intervals, and how many seeds
would tell two sides apart. What the intervals cover was simulated: docs/comparing.md has the table, a test repeats it.

numpy and scipy.special are imported when there is something to compute. Never imports torch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

LEVEL, POWER = 0.95, 0.8
RESAMPLES, CHUNK = 1000, 1_000_000  # numbers at a time
CAP = 100  # seeds; beyond it the estimate is only "more than"


@dataclass
class Estimate:
    """A value and its interval; None where there is too little to say."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def known(self) -> bool:
        return self.low is not None


# -- of one side -----------------------------------------------------------------------------------------------


def mean(x: Any, axis: int = -1) -> Any:
    """NaN-ignoring mean."""
    import numpy as np

    mask = ~np.isnan(x)
    count = mask.sum(axis)
    return np.where(count > 0, np.where(mask, x, 0.0).sum(axis) / np.maximum(count, 1), np.nan)


def iqm(x: Any, axis: int = -1) -> Any:
    """NaN-ignoring interquartile mean: the mean without the lowest and the highest floor(n / 4).

    Of fewer than four numbers it is their mean. Agarwal et al. 2021, arXiv:2108.13264, sec. 4.3 (a trimmed mean).
    """
    import numpy as np

    x = np.moveaxis(np.sort(x, axis), axis, -1)  # NaN comes last
    if x.shape[-1] and not np.isnan(x[..., -1]).any():
        cut = x.shape[-1] // 4
        return x[..., cut : x.shape[-1] - cut].mean(-1)
    count = (~np.isnan(x)).sum(-1)
    cut = count // 4
    place = np.arange(x.shape[-1])
    inside = (place >= cut[..., None]) & (place < (count - cut)[..., None])
    total = np.where(inside, x, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count - 2 * cut, 1), np.nan)


def standard_error(x: Any, strata: Sequence[Any], statistic: Callable[..., Any] = iqm) -> Any:
    """Of a statistic of the rows of x (N, ...): the standard deviation over resamples of whole rows, drawn within each
    stratum, times sqrt(N / (N - strata)).

    A resample of n numbers varies too little by the factor (n - 1) / n, which at three seeds is a fifth of the
    interval. Efron and Tibshirani 1993, ch. 6; Hesterberg 2015, arXiv:1411.5279, sec. 3.2. 0 where N = strata.
    """
    import numpy as np

    index = _resamples(tuple(strata))
    parts = np.array_split(index, max(1, RESAMPLES * x.size // CHUNK))
    spread = np.nanstd(np.concatenate([statistic(x[part], axis=1) for part in parts]), axis=0)
    return spread * math.sqrt(len(x) / max(len(x) - len(set(strata)), 1))


@cache
def _resamples(strata: tuple[Any, ...]) -> Any:
    """Row numbers (RESAMPLES, N), drawn within each stratum."""
    import numpy as np

    rng, names = np.random.default_rng(0), np.array([list(dict.fromkeys(strata)).index(each) for each in strata])
    groups = [np.flatnonzero(names == i) for i in range(len(set(strata)))]
    return np.concatenate([rng.choice(rows, (RESAMPLES, len(rows))) for rows in groups], axis=1)


def t_quantile(probability: float, freedom: float) -> float:
    from scipy.special import stdtrit  # without the rest of scipy.stats, which takes a second

    return float(stdtrit(freedom, probability))


def half_width(freedom: float, level: float = LEVEL) -> float:
    """How many standard errors an interval reaches to each side: Student's t."""
    return t_quantile((1 + level) / 2, freedom)


def estimate(x: Sequence[float], strata: Sequence[Any] = (), statistic: Callable[..., Any] = iqm) -> Estimate:
    """A statistic of one score a seed: value -+ t(N - strata) times the bootstrap's standard error.

    No interval for a single seed, or where all scores of each stratum are equal: nothing is known of their spread.
    """
    import numpy as np

    values, strata = np.array(x, float), strata or [0] * len(x)
    value, error, freedom = float(statistic(values)), *_error(values, strata, statistic)
    if not error:
        return Estimate(value)
    reach = half_width(freedom) * error
    return Estimate(value, value - reach, value + reach)


def _error(values: Any, strata: Sequence[Any], statistic: Callable[..., Any] = iqm) -> tuple[float, int]:
    freedom = len(values) - len(set(strata))
    if freedom < 1 or values.max() == values.min():
        return 0.0, freedom
    return float(standard_error(values, strata, statistic)), freedom


# -- of two sides ----------------------------------------------------------------------------------------------


@dataclass
class Difference(Estimate):
    error: float = 0.0  # standard error

    def seeds_needed(self, a: int, b: int) -> int | None:
        """Seeds on each side with which a difference as large as this one would be told apart with 80 % power; None
        beyond CAP or where there is no difference.

            |d| >= (t_(.975, 2 n - 2) + t_(.8, 2 n - 2)) se(n),   se(n) = se sqrt(n_now / n)

        Cohen 1988, sec. 2.4, with t for z. n_now: the harmonic mean of both sides.
        """
        now = 2 / (1 / a + 1 / b)
        if not self.value:
            return None
        return _enough(max(a, b), abs(self.value), lambda n: self.error * math.sqrt(now / n))


def difference(x: Sequence[float], y: Sequence[float], of: Sequence[Any] = (), on: Sequence[Any] = ()) -> Difference:
    """IQM of x minus IQM of y, each with its own spread: the bootstrap's standard errors add in squares, and Welch's
    degrees of freedom (Welch 1947) say how far t reaches. `of` and `on` are the strata of x and y."""
    import numpy as np

    first, second = np.array(x, float), np.array(y, float)
    value = float(iqm(first) - iqm(second))
    (se1, df1), (se2, df2) = _error(first, of or [0] * len(x)), _error(second, on or [0] * len(y))
    error = math.hypot(se1, se2)
    if min(df1, df2) < 1 or not error:
        return Difference(value)
    freedom = error**4 / (se1**4 / df1 + se2**4 / df2)
    reach = half_width(freedom) * error
    return Difference(value, value - reach, value + reach, error)


def improvement(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Probability that a run of x scores more than a run of y, ties half:  P(X > Y) + P(X = Y) / 2.

    Agarwal et al. 2021, sec. 4.3; Mann and Whitney's U over m n. The interval is Newcombe's method 5 (Newcombe 2006,
    Statistics in Medicine 25:559), which is defined where one side wins every pair, with t(m + n - 2) for z: all p with

        (p - p_hat)^2 m n <= t^2 p (1 - p) (1 + ((m + n) / 2 - 1) ((1 - p) / (2 - p) + p / (1 + p)))
    """
    import numpy as np

    first, second = np.array(x, float)[:, None], np.array(y, float)[None, :]
    value = float((first > second).mean() + (first == second).mean() / 2)
    m, n = len(x), len(y)
    if min(m, n) < 2:
        return Estimate(value)
    squared, more = half_width(m + n - 2) ** 2, (m + n) / 2 - 1

    def outside(p: float) -> bool:
        return (p - value) ** 2 * m * n > squared * p * (1 - p) * (1 + more * ((1 - p) / (2 - p) + p / (1 + p)))

    return Estimate(value, _edge(outside, 0.0, value), _edge(outside, 1.0, value))


def _edge(outside: Callable[[float], bool], out: float, inside: float) -> float:
    """Where the interval ends, by bisection."""
    if not outside(out):
        return out
    for _ in range(50):
        middle = (out + inside) / 2
        out, inside = (middle, inside) if outside(middle) else (out, middle)
    return inside


def mean_improvement(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over environments, each a stratum of its own. Its interval combines theirs:

        low = p - sqrt(sum (p_k - low_k)^2) / K      and likewise above

    The method of variance estimates recovery: Zou and Donner 2008, Statistics in Medicine 27:1693.
    """
    count = len(estimates)
    value = sum(each.value for each in estimates) / count
    if not all(each.known for each in estimates):
        return Estimate(value)
    below = math.sqrt(sum((each.value - (each.low or 0.0)) ** 2 for each in estimates)) / count
    above = math.sqrt(sum(((each.high or 0.0) - each.value) ** 2 for each in estimates)) / count
    return Estimate(value, value - below, value + above)


def improvement_seeds(value: float, now: int, places: int = 1) -> int | None:
    """Seeds on each side (in each of `places` environments) with which a probability of improvement as far from 1/2
    as this one would be told from it with 80 % power; None beyond CAP. With n seeds on each side

        |p - 1/2| >= (t_(.975) + t_(.8)) sqrt((2 n + 1) / (12 n^2 places))

    Noether 1987, JASA 82:645, with the exact variance of Mann and Whitney's statistic, and t for z.
    """
    return _enough(now, abs(value - 0.5), lambda n: math.sqrt((2 * n + 1) / (12 * n**2 * places)))


def _enough(now: int, effect: float, error: Callable[[int], float]) -> int | None:
    """The first number of seeds beyond `now` at which an effect is so many standard errors; None beyond CAP."""
    for n in range(now + 1, CAP + 1):
        freedom = 2 * n - 2
        if effect >= (half_width(freedom) + t_quantile(POWER, freedom)) * error(n):
            return n
    return None
