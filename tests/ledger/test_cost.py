"""What trials held, and what it cost: prices as text, money, sums, rows of older versions."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from degan_search import ledger
from degan_search.ledger import cost
from degan_search.ledger.cost import Money, Price
from degan_search.system.errors import UserError
from tests.ledger.rows import synthetic


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("cpu=0.05/h,gpu=2.5/h", Price(0.05, 2.5)),
        (" gpu=2.5eur/h", Price(0, 2.5, "eur")),
        ("cpu=$0.05/h, gpu=2/h", Price(0.05, 2, "$")),
        ("2.5/h", Price(2.5, 2.5, whichever=True)),
        ("€3 / h", Price(3, 3, "€", whichever=True)),
    ],
)
def test_prices(text, price):
    assert Price.read(text) == price


WRONG = ["", "2.5", "2.5/min", "cpu=-1/h", "disk=1/h", "cpu=1/h,cpu=2/h", "cpu=1eur/h,gpu=1usd/h", "1/h,gpu=2/h"]
WRONG += ["€1eur/h", "nan/h", "9" * 400 + "/h", "cpu=/h", "=2/h/h"]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_price_is_refused_in_a_line(text):
    with pytest.raises(UserError, match="is no price; give such as cpu=0") as caught:
        Price.read(text)
    assert "\n" not in str(caught.value)


def test_money_for_people():
    assert [str(Money(*one)) for one in ((12.5, "eur"), (0, ""), (0.00123, "$"), (4321.0, "€"))] == [
        "12.50 eur",
        "0.00",
        "0.0012 $",
        "4,321.00 €",
    ]


def test_one_price_is_of_what_a_trial_is_counted_by():
    assert list(Price.read("2/h").of(np.ones(2), np.array([0.0, 0.5]))) == [2, 1]
    assert list(Price.read("cpu=2/h,gpu=10/h").of(pd.Series([1.0, 1.0]), pd.Series([0.0, 0.5]))) == [2, 7]


def run(folder, rows, price=None):
    for number, row in enumerate(rows):
        started = pd.Timestamp("2026-01-01", tz="UTC")
        about = {"config_proxy": "photos", "started": started, "finished": started + pd.Timedelta(hours=3)}
        ledger.write_row(folder, synthetic(f"search-{number:04}", **about, **row))
    if price is not None:
        (folder / "run.json").write_text(price if price.startswith("{") else json.dumps({"options": {"price": price}}))
    return folder


HOURS = [
    {"core_seconds": 7200.0, "gpu_seconds": 1800.0, "seconds": 1.0, "threads": 8},
    {"seconds": 3600.0, "threads": 2},  # of an older version
    {"threads": None},  # which ended before it reported anything
]


def test_what_trials_held(tmp_path):
    frame = ledger.load(run(tmp_path / "a", HOURS, "cpu=1eur/h,gpu=10eur/h"))
    assert set(frame["price"]) == {"cpu=1eur/h,gpu=10eur/h"}
    assert list(cost.core_hours(frame)) == [2, 2, 3]
    assert list(cost.gpu_hours(frame)) == [0.5, 0, 0]
    held = cost.held(frame)
    assert held == {"core_hours": 7, "gpu_hours": 0.5, "money": 12, "currency": "eur"}
    assert cost.in_words(held) == "7.00 core-hours, 0.50 GPU-hours, 12.00 eur"
    parts = pd.DataFrame([cost.held(frame.head(1)), cost.held(frame.tail(2)), cost.held(frame.head(0))])
    assert cost.together(parts) == held
    assert math.isnan(cost.held(frame.head(0))["money"])


@pytest.mark.parametrize("price", [None, "", "much", "{", "[]", '{"options": [1]}', '{"options": {"price": 3}}'])
def test_a_run_without_a_price_that_can_be_read_has_no_money(tmp_path, price):
    frame = ledger.load(run(tmp_path / "a", HOURS[:2], price))
    assert frame["price"].isna().all()
    held = cost.held(frame)
    assert math.isnan(held["money"])
    assert cost.in_words(held) == "4.00 core-hours, 0.50 GPU-hours"


def test_each_run_has_its_price_and_two_currencies_have_no_sum(tmp_path):
    runs = [
        run(tmp_path / name, HOURS[:1], f"{number}{currency}/h")
        for name, number, currency in (("a", 2, "eur"), ("b", 4, "eur"), ("c", 4, "usd"))
    ]
    assert cost.held(ledger.load(runs[:2]))["money"] == 1 + 2
    assert math.isnan(cost.held(ledger.load(runs))["money"])
