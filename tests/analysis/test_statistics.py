"""Intervals, paired tests and rank correlations: values known by hand or from scipy's own, and edges."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
from scipy import stats

from analysis.statistics import BATCH, RESAMPLES, Correlation, Interval, interval, rank_correlation, wilson
from degan_search.selection.paired_test import Paired, paired


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def near(result, *expected):
    return tuple(vars(result).values()) == pytest.approx(expected, nan_ok=True)


class TestInterval:
    """`interval`: a resample's mean is at an end with a chance that can be counted."""

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0, 1], (0.5, 0, 1)),  # each end: 1/4 of resamples, more than 2.5%
            ([1, 2, 3], (2, 1, 3)),  # 1/27
            ([0, 0, 0, 1], (0.25, 0, 0.75)),  # 81/256 have mean 0, 13/256 a mean of 3/4 or more
            ([5, 5, 5], (5, 5, 5)),
        ],
    )
    def test_of_few_values(self, values, expected):
        assert near(interval(values), *expected, len(values), 0.95)

    def test_a_lower_level_is_narrower(self):
        assert near(interval([0, 0, 0, 1], level=0.5), 0.25, 0, 0.5, 4, 0.5)  # 1/4 of resamples are 1/2 or more

    def test_of_many_values_it_is_the_normal_one(self):
        values = np.random.default_rng(0).normal(size=2000)
        wide = 1.96 * values.std() / math.sqrt(2000)
        result = interval(values)
        assert (result.low, result.high) == pytest.approx((values.mean() - wide, values.mean() + wide), abs=0.1 * wide)

    def test_values_that_are_not_finite_do_not_count(self):
        assert interval([1, math.nan, 2, math.inf, 3]) == interval([1, 2, 3])

    @pytest.mark.parametrize(("values", "mean", "n"), [([], math.nan, 0), ([7], 7, 1), ([math.nan, 7], 7, 1)])
    def test_fewer_than_two_have_no_bounds(self, values, mean, n):
        assert near(interval(values), mean, math.nan, math.nan, n, 0.95)

    def test_the_seed_decides(self):
        values = np.random.default_rng(1).normal(size=9)
        assert interval(values, seed=3) == interval(values, seed=3)
        assert interval(values, seed=3) != interval(values, seed=4)
        assert isinstance(interval(values), Interval)

    @pytest.mark.parametrize("n", [2, 3, 150])
    def test_it_is_scipys(self, n):
        values = np.random.default_rng(n).normal(size=n)
        options = {"n_resamples": RESAMPLES, "batch": BATCH // n, "method": "percentile", "rng": 3}
        low, high = stats.bootstrap((values,), np.mean, confidence_level=0.9, **options).confidence_interval
        result = interval(values, 0.9, seed=3)
        assert (result.low, result.high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 7), (886, 1000), (1, 10_000)])
def test_wilsons_interval_is_scipys(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci(0.9, method="wilson")
    assert near(wilson(hits / n, n, 0.9), hits / n, *expected, n, 0.9)


class TestPaired:
    """`paired`: Student's t."""

    def test_known_value(self):
        # Differences 1, 2, 3: t = 2 sqrt(3) with 2 degrees of freedom, whose 97.5% point is 4.302653.
        half = 4.302653 / math.sqrt(3)
        p = 1 - math.sqrt(12 / 14)  # t's distribution in closed form: 1 - t / sqrt(2 + t^2), two-sided
        assert near(paired([11, 12, 13], [10, 10, 10]), 2, 2 - half, 2 + half, p, 3)

    def test_turned_round(self):
        ours, theirs = [0.7, 0.8, 0.75, 0.6], [0.6, 0.75, 0.8, 0.5]
        there, back = paired(ours, theirs), paired(theirs, ours)
        assert near(back, -there.difference, -there.high, -there.low, there.p, 4)

    def test_pairs_belong_together(self):
        assert paired([1, 2, 3, 9], [0, 2, 1, math.nan]) == paired([1, 2, 3], [0, 2, 1])
        assert paired([1, 2, 3], [0, 2, 1]).p != paired([1, 2, 3], [2, 1, 0]).p

    @pytest.mark.parametrize(
        ("ours", "theirs", "difference", "n"),
        [
            ([], [], math.nan, 0),
            ([2], [1], 1, 1),
            ([2, math.nan], [1, 1], 1, 1),
            ([3, 4, 5], [1, 2, 3], 2, 3),
            ([0.3, 0.4, 0.5], [0.1, 0.2, 0.3], 0.2, 3),  # equal but for rounding
            ([0.5, 0.5], [0.5, 0.5], 0, 2),
            ([0, 0], [0, 0], 0, 2),
        ],
    )
    def test_without_a_spread_there_is_no_test(self, ours, theirs, difference, n):
        assert near(paired(ours, theirs), difference, math.nan, math.nan, math.nan, n)

    def test_unequal_lengths_are_refused(self):
        with pytest.raises(ValueError):
            paired([1, 2, 3], [1])
        assert isinstance(paired([1, 2], [2, 4]), Paired)


def of_spearman(first, second, *levels):
    """SciPy's own percentile bootstrap of its own correlation, from the same resamples."""

    def rho(x, y):
        return stats.spearmanr(x, y).statistic

    drawn = stats.bootstrap(
        (first, second), rho, paired=True, vectorized=False, method="percentile", rng=np.random.default_rng(0)
    )
    again = partial(stats.bootstrap, (first, second), rho, paired=True, vectorized=False, method="percentile")
    return [
        again(n_resamples=0, bootstrap_result=drawn, confidence_level=level).confidence_interval for level in levels
    ]


class TestRankCorrelation:
    """`rank_correlation`: Spearman's, p by permutation."""

    @pytest.mark.parametrize("sign", [1, -1])
    def test_in_order(self, sign):
        # 2 of the 24 orders of four values are as far from none as this one.
        result = rank_correlation([1, 2, 3, 4], [sign * value for value in (1, 10, 100, 1000)])
        assert near(result, sign, sign, sign, 2 / 24, 4)

    def test_ties_share_ranks_as_in_scipy(self):
        first, second = [1, 1, 2, 3, 5, 0], [1, 2, 2, 9, 7, 7]
        result = rank_correlation(first, second)
        assert result.rho == pytest.approx(stats.spearmanr(first, second).statistic)
        assert result.low <= result.rho <= result.high

    def test_p_of_many_values_is_near_the_t_distributions(self):
        rng = np.random.default_rng(2)
        first = rng.normal(size=40)
        second = 0.3 * first + rng.normal(size=40)
        expected, result = stats.spearmanr(first, second), rank_correlation(first, second)
        assert result.rho == pytest.approx(expected.statistic)
        assert result.p == pytest.approx(expected.pvalue, abs=0.02)
        assert -1 <= result.low < result.rho < result.high <= 1

    def test_the_interval_is_scipys_bootstrap_at_the_level(self):
        rng = np.random.default_rng(6)
        first = rng.normal(size=25)
        second = 0.6 * first + rng.normal(size=25)
        expected = of_spearman(first, second, 0.95, 0.9, 0.5)
        default, half = rank_correlation(first, second), rank_correlation(first, second, level=0.5)
        assert (default.low, default.high) == pytest.approx(expected[0], abs=1e-9)
        assert (half.low, half.high) == pytest.approx(expected[2], abs=1e-9)
        lows, highs = zip(*expected, strict=True)
        assert min(np.diff(lows)) > 0.01  # so that another level is noticed
        assert max(np.diff(highs)) < -0.01

    def test_only_the_order_counts(self):
        rng = np.random.default_rng(3)
        first, second = rng.normal(size=12), rng.normal(size=12)
        assert rank_correlation(first, second) == rank_correlation(np.exp(first), second**3)

    def test_the_batch_does_not_change_the_result(self, monkeypatch):
        rng = np.random.default_rng(4)
        first, second = rng.normal(size=9), rng.normal(size=9)
        whole = rank_correlation(first, second)
        monkeypatch.setattr("analysis.statistics.BATCH", 999)
        assert vars(rank_correlation(first, second)) == pytest.approx(vars(whole))

    def test_the_seed_decides(self):
        rng = np.random.default_rng(5)
        first, second = rng.normal(size=15), rng.normal(size=15)
        assert rank_correlation(first, second, seed=1) == rank_correlation(first, second, seed=1)
        assert rank_correlation(first, second, seed=1) != rank_correlation(first, second, seed=2)

    @pytest.mark.parametrize(
        ("first", "second", "n"),
        [([], [], 0), ([1, 2], [1, 2], 2), ([1, 2, 3, math.nan], [1, 2, math.inf, 4], 2), ([1, 2, 3], [4, 4, 4], 3)],
    )
    def test_nothing_to_correlate(self, first, second, n):
        result = rank_correlation(first, second)
        assert near(result, *[math.nan] * 4, n)
        assert isinstance(result, Correlation)

    def test_unequal_lengths_are_refused(self):
        with pytest.raises(ValueError):
            rank_correlation([1, 2, 3], [1, 2])
