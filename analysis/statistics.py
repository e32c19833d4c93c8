"""Bootstrap intervals and rank correlations, each with the number of values that it rests on.

`scipy.stats` takes longer to load than a table takes to make. So what tables need is written out here, and a test
compares it with scipy's; what the report and the benchmarks need loads it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from degan_search.selection.paired_test import finite_pairs

RESAMPLES = 9_999
BATCH = 1_000_000
"""Values resampled at a time, as memory is limited."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval at `level`; bounds are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation with its bootstrap interval, and its two-sided permutation p value."""

    rho: float
    low: float
    high: float
    p: float
    n: int


def interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of finite values and its percentile bootstrap interval (Efron 1979), drawn from `seed`.

    With three seeds the interval can be no wider than the values themselves, and is too narrow: read n first.
    """
    kept = _finite(values)
    if len(kept) < 2:
        return Interval(float(kept.mean()) if len(kept) else nan, nan, nan, len(kept), level)
    rng, batch = _rng(seed), max(1, BATCH // len(kept))
    counts = (min(batch, RESAMPLES - start) for start in range(0, RESAMPLES, batch))
    means = np.concatenate([kept[rng.integers(0, len(kept), (count, len(kept)))].mean(axis=1) for count in counts])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(kept.mean()), float(low), float(high), len(kept), level)


def wilson(share: float, n: int, level: float = 0.95) -> Interval:
    """Return a share of n images with its Wilson score interval (1927): what the share of all such images may be."""
    hits, z = round(share * n), NormalDist().inv_cdf((1 + level) / 2)
    middle, half = hits + z**2 / 2, z * sqrt(hits * (1 - hits / n) + z**2 / 4)
    low, high = (middle - half) / (n + z**2), (middle + half) / (n + z**2)
    return Interval(share, low if hits else 0.0, high if hits < n else 1.0, n, level)


def rank_correlation(first: ArrayLike, second: ArrayLike, level: float = 0.95, seed: int = 0) -> Correlation:
    """Return Spearman's correlation of pairs of finite values, permutations and resamples drawn from `seed`.

    NaN where fewer than three pairs are left or one side does not vary. Up to 7 pairs, p is exact. Resamples in
    which one side does not vary are left out of the interval.

    Raises:
        ValueError: the two are not equally long.
    """
    from scipy import stats

    pairs = finite_pairs(first, second)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return Correlation(nan, nan, nan, nan, len(pairs))
    x, y = pairs.T
    batch = max(1, BATCH // len(pairs))

    def rho(x: Any, y: Any, axis: int = -1) -> Any:
        ranks = [stats.rankdata(values, axis=axis) for values in (x, y)]
        centred = [rank - rank.mean(axis=axis, keepdims=True) for rank in ranks]
        scale = np.sqrt((centred[0] ** 2).sum(axis=axis) * (centred[1] ** 2).sum(axis=axis))
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold one value alone
            return (centred[0] * centred[1]).sum(axis=axis) / scale

    # Permuting values permutes their ranks, so ranks are computed once and Pearson's correlation of them is taken.
    ranks = stats.zscore(stats.rankdata(pairs, axis=0), axis=0)
    test = stats.permutation_test(
        (ranks[:, 1],),
        lambda moved, axis=-1: (ranks[:, 0] * moved).mean(axis=axis),
        permutation_type="pairings",
        n_resamples=RESAMPLES,
        vectorized=True,
        batch=batch,
        rng=_rng(seed),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples in which one side does not vary
        drawn = stats.bootstrap(
            (x, y),
            rho,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=batch,
            method="percentile",
            rng=_rng(seed),
        ).bootstrap_distribution
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Correlation(float(test.statistic), float(low), float(high), float(test.pvalue), len(pairs))


def _finite(values: ArrayLike) -> np.ndarray:
    given: np.ndarray = np.asarray(values, float)
    return np.asarray(given[np.isfinite(given)])


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
