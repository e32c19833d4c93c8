"""Which configurations cannot win any more, on scores whose p values are known."""

import math

import pandas as pd

from degan_search.selection.paired_test import losers


class TestLosers:
    """`losers`: leader minus A is 1, 2, 3 (one-sided p 0.0371), minus B 0.9, 1, 1.1 (p 0.0017)."""

    LEADER = (5.0, 6.0, 7.0)
    A = (4.0, 4.0, 4.0)
    B = (4.1, 5.0, 5.9)

    def test_one_sided_for_one_comparison(self):
        assert losers(pd.DataFrame({"A": self.A, "leader": self.LEADER})) == ["A"]
        assert losers(pd.DataFrame({"A": self.A, "leader": self.LEADER}), level=0.037) == []
        assert losers(pd.DataFrame({"A": self.A, "leader": self.LEADER}), level=0.0372) == ["A"]

    def test_holm_lets_the_clear_one_pave_the_way(self):
        scores = pd.DataFrame({"A": self.A, "leader": self.LEADER, "B": self.B})
        assert losers(scores) == ["B", "A"]
        # Beside one that is as good as the leader, 0.0371 x 2 is too much for A, and B still goes.
        like = [5.1, 5.9, 6.99]
        assert losers(scores.assign(like=like)) == ["B"]

    def test_nobody_wins_by_chance(self):
        assert losers(pd.DataFrame({"A": (1.0, 2.0, 3.0), "B": (2.0, 1.0, 3.1)})) == []

    def test_alone_or_without_scores(self):
        nan = (math.nan,) * 3
        assert losers(pd.DataFrame({"A": self.A})) == []
        assert losers(pd.DataFrame({"A": self.A, "B": nan})) == []
        assert losers(pd.DataFrame({"A": nan, "B": nan})) == []

    def test_seeds_that_failed_are_left_out(self):
        scores = pd.DataFrame({"leader": (*self.LEADER, 9.0), "A": (*self.A, math.nan)})
        assert losers(scores) == ["A"]
        assert losers(scores.iloc[2:]) == []  # one pair is no test
