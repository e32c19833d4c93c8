"""Budgets in money."""

import io

import pytest
from rich.console import Console

from degan_search.search.planning.money import seconds_for, with_time
from degan_search.search.run.options import Options
from degan_search.system.errors import UserError


@pytest.mark.parametrize(
    ("spend", "price", "held", "hours"),
    [
        ("10eur", "cpu=1eur/h", (1, 0.0), 5),
        ("10eur", "cpu=1/h", (2, 0.0), 2.5),
        ("$10", "cpu=$1/h,gpu=$8/h", (1, 0.5), 1),
        ("10eur", "2eur/h", (8, 0.25), 10),  # of the GPU alone
    ],
)
def test_the_time_that_money_pays_for_two_processes(spend, price, held, hours):
    assert seconds_for(spend, price, 2, *held) == pytest.approx(3600 * hours)


@pytest.mark.parametrize(
    ("spend", "price", "says"),
    [
        ("10eur", None, "--budget 10eur needs a price: give such as --price cpu=0.05eur/h"),
        ("10eur", "1usd/h", "is not in the currency of --price 1usd/h; give it in usd"),
        ("10eur", "gpu=1/h", "says no time: a trial holds 1 CPUs, 0 GPUs"),
        ("0eur", "1/h", "says no time"),
    ],
)
def test_what_makes_no_time_is_refused(spend, price, says):
    with pytest.raises(UserError) as caught:
        seconds_for(spend, price, 1, 1, 0.0)
    assert says in str(caught.value)


def test_options_get_a_time_budget_and_a_cluster_needs_its_size():
    out = io.StringIO()
    options = Options(spend="10eur", price="cpu=1eur/h", max_concurrent=4)
    made = with_time(options, Console(file=out))
    assert (made.budget, made.spend, made.price) == (9000, None, "cpu=1eur/h")
    assert out.getvalue() == "10eur at cpu=1eur/h pay for 2 h 30 min of 4 at a time\n"
    with pytest.raises(UserError, match="--budget 10eur on a cluster needs --max-concurrent"):
        with_time(Options(spend="10eur", price="1/h", address="head:6379"), Console(file=out))
