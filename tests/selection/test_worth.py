"""What a student is worth without data: only where its bank is like those that the estimate was calibrated on."""

import pytest

from degan_search.ledger.columns import config_columns
from degan_search.selection.worth import ERROR, INTERCEPT, SLOPE, worth
from degan_search.settings.resolve import trial_config

SETS = {"bank.proxies": ["glyphs/[K-Z]", "photos"], "bank.judges": ["noise/uniform"], "bank.generators": []}


def row(agreement, **changes):
    settings = {"proxy": "photos"} | SETS | {name.replace("__", "."): value for name, value in changes.items()}
    return {"trial_id": "final-0000", "balanced_agreement": agreement} | config_columns(trial_config(settings))


def test_a_line_with_bounds_that_are_shares():
    found = worth(row(0.4))
    assert found.estimate == pytest.approx(SLOPE * 0.4 + INTERCEPT)
    assert (found.low, found.high) == pytest.approx((found.estimate - ERROR, found.estimate + ERROR))
    assert (worth(row(1.0)).estimate, worth(row(1.0)).high, worth(row(0.0)).low) == (1, 1, 0)


@pytest.mark.parametrize(
    "change",
    [{"bank__generators": [[0, 5]]}, {"bank__judges": []}, {"bank__proxies": ["photos"]}],
    ids=["generated images", "two sets", "one proxy"],
)
def test_none_where_the_bank_is_of_another_kind(change):
    assert worth(row(0.4, **change)) is None


def test_none_where_nothing_was_measured():
    assert worth(row(float("nan"))) is None
