"""When a search is flat."""

from math import inf, nan

import pytest

from degan_search.selection.flat import flat_after


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
