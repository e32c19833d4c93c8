"""Configurations compared seed by seed by Student's paired t-test: which of them cannot win any more."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

ROUNDING = 1e-12
"""Differences whose range is below this share of the largest value differ by rounding alone."""


@dataclass(frozen=True)
class Paired:
    """Mean difference over pairs with its interval, and the two-sided p value of no difference."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def losers(scores: pd.DataFrame, level: float = 0.05) -> list[str]:
    """Return the configurations that cannot win any more: those that the leader beats significantly.

    The leader has the highest mean score. Another one cannot win where the one-sided paired t-test over the seeds
    of leader minus it has p < `level` after Holm's correction (1979) for the number of others. The figure must be
    the finals' `score`, which needs no true image: stopping by test or oracle accuracy would choose by true
    data and make the survivor's accuracy look better than it is. As the leader is chosen by the same scores and
    the test is repeated after each seed, the share of wrong stops is somewhat above `level`; a stop saves compute,
    it proves nothing.

    Args:
        scores: one row a seed, one column a configuration, higher is better; null where a run failed.
        level: chance of a wrong stop over all comparisons of one call, in (0, 1).
    """
    scores = scores.dropna(axis="columns", how="all")
    if scores.shape[1] < 2:
        return []
    leader = scores.mean().idxmax()
    p_values = []
    for name in scores.columns[scores.columns != leader]:
        test = paired(scores[leader], scores[name])
        if not isnan(test.p):
            p_values.append((test.p / 2 if test.difference > 0 else 1 - test.p / 2, str(name)))
    beaten = []
    for rank, (p, name) in enumerate(sorted(p_values)):
        if p * (scores.shape[1] - 1 - rank) >= level:
            break
        beaten.append(name)
    return beaten


def paired(ours: ArrayLike, theirs: ArrayLike, level: float = 0.95) -> Paired:
    """Return the paired t-test of two methods over the same seeds, in the order given.

    Pairs with a value that is not finite are left out. With fewer than two pairs, or where all differences are
    equal up to rounding, there is no test: bounds are NaN, and p is NaN.

    Raises:
        ValueError: not as many of ours as of theirs.
    """
    from scipy import stats  # half a second, and a sweep of finals alone needs it

    pairs = finite_pairs(ours, theirs)
    first, second = pairs.T
    differences = first - second
    if len(differences) < 2 or np.ptp(differences) <= ROUNDING * np.abs(pairs).max():
        return Paired(float(differences.mean()) if len(differences) else nan, nan, nan, nan, len(differences))
    test = stats.ttest_rel(first, second)
    low, high = test.confidence_interval(level)
    return Paired(float(differences.mean()), float(low), float(high), float(test.pvalue), len(differences))


def finite_pairs(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Return an N x 2 array of the pairs in which both values are finite."""
    pairs = np.column_stack([np.asarray(first, float), np.asarray(second, float)])
    return np.asarray(pairs[np.isfinite(pairs).all(axis=1)])
