"""What trials held of machines, core-hours and GPU-hours, and what that cost at a run's price."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from degan_search.storage.about import about_run
from degan_search.system.errors import UserError, visible

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = "give such as cpu=0.05/h,gpu=2.50/h, or 2.50eur/h"
_MONEY = re.compile(r"(?P<before>[^\W\d_]{3}|[$€£¥])?\s*(?P<amount>\d+(\.\d+)?)\s*(?P<after>[^\W\d_]{3}|[$€£¥])?")


@dataclass(frozen=True)
class Money:
    """An amount, and its currency as the user wrote it; "" where none was said."""

    amount: float
    currency: str = ""

    @classmethod
    def read(cls, text: str, why: str) -> Self:
        """Return the money of a text such as `10eur`, `$10` or `10`; `why` is the message about any other.

        Raises:
            UserError: it is not money.
        """
        found = _MONEY.fullmatch(text.strip())
        if not found or (found["before"] and found["after"]) or not isfinite(amount := float(found["amount"])):
            raise UserError(why)
        return cls(amount, found["before"] or found["after"] or "")

    def __str__(self) -> str:
        """The money for people: `12.50 eur`; four decimals of less than a tenth."""
        places = 2 if self.amount >= 0.1 or not self.amount else 4
        return f"{self.amount:,.{places}f} {self.currency}".strip()


@dataclass(frozen=True)
class Price:
    """The price of a core-hour, of a GPU-hour, or of whichever of the two a trial is counted by."""

    cpu: float
    gpu: float
    currency: str = ""
    whichever: bool = False
    """One price was given: a trial that held a GPU pays it for GPU-hours, any other for core-hours."""

    @classmethod
    def read(cls, text: str, option: str = "--price") -> Self:
        """Return the price of a text such as `cpu=0.05eur/h,gpu=2.5eur/h`, or `2.5/h` for whichever is counted.

        Raises:
            UserError: it is no price, one is given twice, or they differ in the currency.
        """
        wrong = f"{option} {visible(text)!r} is no price; {EXAMPLES}"
        prices: dict[str, Money] = {}
        for part in text.split(","):
            name, _, rate = part.strip().rpartition("=")
            amount, slash, unit = rate.rpartition("/")
            if not slash or unit.strip() != "h" or name not in ("", "cpu", "gpu") or name in prices:
                raise UserError(wrong)
            prices[name] = Money.read(amount, wrong)
        currencies = {price.currency for price in prices.values()} - {""}
        if len(currencies) > 1 or ("" in prices and len(prices) > 1):
            raise UserError(wrong)
        currency = "".join(currencies)
        if "" in prices:
            return cls(prices[""].amount, prices[""].amount, currency, whichever=True)
        cpu, gpu = (prices[name].amount if name in prices else 0.0 for name in ("cpu", "gpu"))
        return cls(cpu, gpu, currency)

    def of(self, core_hours: Any, gpu_hours: Any) -> Any:
        """Return the money for hours of each kind, numbers or arrays of trials."""
        cores = np.where(np.asarray(gpu_hours) > 0, 0.0, core_hours) if self.whichever else core_hours
        return self.cpu * cores + self.gpu * gpu_hours


def price_of(run: Path) -> str | None:
    """Return the price that a run was given, as text; None where it has none that can be read."""
    try:
        text = about_run(run)["options"]["price"]
        Price.read(text)
    except (KeyError, TypeError, AttributeError, UserError):
        return None
    return str(text)


def seconds(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return each trial's seconds; one that ended before it reported any counts from its start to its end."""
    return frame["seconds"].fillna((frame["finished"] - frame["started"]).dt.total_seconds())


def core_hours(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return each trial's hours times the CPUs that it held; rows of an older version count their last attempt."""
    return (frame["core_seconds"].fillna(seconds(frame) * frame["threads"].fillna(1)) / 3600).astype(float)


def gpu_hours(frame: pd.DataFrame) -> pd.Series[Any]:
    """Return each trial's hours times the share of a GPU that it held; 0 where an older version did not say."""
    return (frame["gpu_seconds"].fillna(0.0) / 3600).astype(float)


def held(frame: pd.DataFrame) -> dict[str, Any]:
    """Return the `core_hours` and `gpu_hours` of trials together, and the `money` where all their runs have a price.

    Args:
        frame: from `ledger.load`, with the price of each row's run.
    """
    import pandas as pd

    cores, gpus = core_hours(frame), gpu_hours(frame)
    money, currency = 0.0, set[str]()
    for text, own in frame.groupby("price", dropna=False):
        if pd.isna(text):
            money = nan
            continue
        price = Price.read(str(text))
        money += float(np.sum(price.of(cores[own.index], gpus[own.index])))
        currency |= {price.currency}
    if frame.empty or len(currency) != 1:  # of two currencies there is no sum
        money = nan
    known = next(iter(currency)) if pd.notna(money) else None
    return {"core_hours": cores.sum(), "gpu_hours": gpus.sum(), "money": money, "currency": known}


def together(parts: pd.DataFrame) -> dict[str, Any]:
    """Return the sum of several `held`, one a row; its `money` is null where one with hours has none, or another's.

    Args:
        parts: with the columns core_hours, gpu_hours, money and currency.
    """
    paid = parts[parts["core_hours"] + parts["gpu_hours"] > 0]
    one = paid["money"].notna().all() and paid["currency"].nunique() == 1
    hours = {name: parts[name].sum() for name in ("core_hours", "gpu_hours")}
    known = (paid["money"].sum(), paid["currency"].iloc[0]) if one else (nan, None)
    return hours | dict(zip(("money", "currency"), known, strict=True))


def in_words(held: Mapping[Any, Any]) -> str:
    """Return what trials held, from `held`, such as `12.3 core-hours, 1.2 GPU-hours, 4.50 eur`."""
    import pandas as pd

    parts = [f"{held['core_hours']:,.2f} core-hours"]
    if held["gpu_hours"]:
        parts.append(f"{held['gpu_hours']:,.2f} GPU-hours")
    if pd.notna(held["money"]):
        parts.append(str(Money(float(held["money"]), str(held["currency"]))))
    return ", ".join(parts)
