"""Options as Python gives them."""

import pytest

from degan_search.api.options import RUN_OPTIONS, RunOptions, read_options
from degan_search.system.errors import UserError


def test_types_name_every_option():
    assert {*RunOptions.__annotations__, "budget"} == {option.name for option in RUN_OPTIONS}


def test_values_mean_what_they_mean_on_the_command_line():
    given = {"budget": "20m", "time_limit": 90, "checkpoint_every": 1.5, "keep": 3, "retries": 0, "track": None}
    assert read_options(given) == {
        "budget": 1200.0,
        "time_limit": 90.0,
        "checkpoint_every": 1.5,
        "keep": 3,
        "retries": 0,
    }
    assert read_options({"keep": "all", "address": ""}) == {"keep": None, "address": None}
    assert read_options({"budget": "10eur", "price": "2eur/h"}) == {"spend": "10eur", "price": "2eur/h"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_concurent": 2}, "option 'max_concurent' is unknown; did you mean max_concurrent?"),
        ({"remote": "s3://b/x"}, "option 'remote' is unknown"),
        ({"budget": "soon"}, "budget 'soon' is no time; give such as 90s, 30min or 2h"),
        ({"budget": "10quid"}, "budget '10quid' is no time"),
        ({"price": "much"}, "price 'much' is no price; give such as cpu=0.05/h,gpu=2.50/h"),
        ({"budget": 0}, "budget 0 is no time at all"),
        ({"budget": float("inf")}, "budget inf is no time"),
        ({"time_limit": [1]}, "time_limit [1] is no time"),
        ({"keep": -1}, "keep -1 must be a whole number, or all"),
        ({"cpus_per_trial": 0}, "cpus_per_trial = 0 must be 1 or more"),
        ({"gpus_per_trial": -0.5}, "gpus_per_trial = -0.5 must be 0 or more"),
        ({"max_concurrent": "many"}, "options: max_concurrent: "),
    ],
)
def test_wrong_ones_are_named_in_a_line(given, says):
    with pytest.raises(UserError) as caught:
        read_options(given)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
