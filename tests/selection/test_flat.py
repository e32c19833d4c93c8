"""When a search is flat."""

from math import inf, nan

import pandas as pd
import pytest

from degan_search.selection.flat import flat_after, scores_in_order


@pytest.mark.parametrize(
    ("scores", "after"),
    [
        ([], None),
        ([0.1, 0.2, 0.3, 0.4], None),
        ([0.4, 0.1, 0.2, 0.4], 4),  # as good is no better
        ([0.1, 0.4, 0.1, nan, 0.3], 5),
        ([0.4, 0.1, 0.2, 0.5, 0.1, 0.1], None),
        ([0.4, 0.1, 0.2, 0.1, 0.9], 4),  # one that was running still does not begin it again
        ([nan, nan, nan, nan], None),
        ([nan, nan, nan, -inf, 0.2, nan, nan, nan], 8),
    ],
)
def test_after_three_that_are_no_better(scores, after):
    assert flat_after(scores, patience=3) == after


def test_scores_come_in_the_order_in_which_trials_ended():
    rows = [
        ("search", "a", "COMPLETE", 0.3, 5, 0),
        ("search", "a", "PRUNED", 0.9, 3, 1),
        ("search", "a", "FAIL", nan, 1, 2),
        ("search", "a", "COMPLETE", 0.1, 4, 3),
        ("search", "b", "COMPLETE", 0.8, 2, 4),
        ("repeat", "a", "COMPLETE", 0.7, 2, 0),
    ]
    frame = pd.DataFrame(rows, columns=["phase", "cell", "state", "score", "finished", "number"])
    found = scores_in_order(frame, "a")
    assert found[1:] == [0.1, 0.3] and found[0] != found[0]
