"""A budget in money: as much time as it pays for."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from degan_search.ledger.cost import Money, Price
from degan_search.search.open_run import here
from degan_search.search.planning.cost_model import duration
from degan_search.search.run.options import Options
from degan_search.search.workers.slots import slots
from degan_search.system.errors import UserError


def with_time(options: Options, console: Console) -> Options:
    """Return options whose budget in money, if there is one, is a time budget, and say that in a line.

    Raises:
        UserError: as `seconds_for`; on a cluster, whose size is not known yet, also without `max_concurrent`.
    """
    if options.spend is None:
        return options
    if options.address and options.max_concurrent is None:
        raise UserError(f"--budget {options.spend} on a cluster needs --max-concurrent: it pays for so many at a time")
    processes = options.max_concurrent or slots(options, here())
    seconds = seconds_for(options.spend, options.price, processes, options.cpus_per_trial, options.gpus_per_trial)
    console.print(
        f"{options.spend} at {options.price} pay for {duration(seconds)} of {processes} at a time",
        highlight=False,
        soft_wrap=True,
    )
    return replace(options, budget=seconds, spend=None)


def seconds_for(spend: str, price: str | None, processes: int, cpus: float, gpus: float) -> float:
    """Return the seconds for which money pays, if so many processes run all the time.

    Args:
        spend: such as `10eur`.
        price: for `Price.read`.
        processes: at a time.
        cpus: that each of them holds.
        gpus: share of a GPU that each of them holds.

    Raises:
        UserError: no price, one in another currency, or one by which nothing costs anything.
    """
    money = Money.read(spend, f"--budget {spend!r} is no money; give such as 10eur")
    if price is None:
        raise UserError(f"--budget {spend} needs a price: give such as --price cpu=0.05{money.currency}/h")
    rate = Price.read(price)
    if rate.currency and rate.currency != money.currency:
        raise UserError(f"--budget {spend} is not in the currency of --price {price}; give it in {rate.currency}")
    an_hour = processes * float(rate.of(cpus, gpus))
    if an_hour <= 0 or money.amount <= 0:
        raise UserError(f"--budget {spend} at --price {price} says no time: a trial holds {cpus:g} CPUs, {gpus:g} GPUs")
    return 3600 * money.amount / an_hour
