"""The options that decide how trials are run, each declared once, for Python and for the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from degan_search.system.errors import UserError, close_matches

UNITS = {"": 1, "s": 1, "min": 60, "h": 3600}
"""Seconds of the units that most times are given in."""
SIMPLE_TIME = re.compile(rf"(?P<number>\d+(\.\d+)?)(?P<unit>{'|'.join(UNITS)})", re.ASCII)


def seconds(option: str, given: str | float) -> float:
    """Return the seconds of a time such as 90s, 30min or 2h; a number alone is of seconds.

    Raises:
        UserError: it is no time, or a time below 0.
    """
    if simple := SIMPLE_TIME.fullmatch(str(given)):
        found = round(float(simple["number"]) * UNITS[simple["unit"]], 9)
    else:
        import pandas as pd  # knows more forms, and takes a fifth of a second to load

        try:
            text = f"{given}s" if not isinstance(given, str) or given.replace(".", "").isdecimal() else given
            found = pd.Timedelta(text).total_seconds()
        except ValueError:
            found = -1.0
    if not 0 <= found < math.inf:
        raise UserError(f"{option} {given!r} is no time; give such as 90s, 30min or 2h")
    return float(found)


def _positive_seconds(option: str, given: str | float) -> float:
    found = seconds(option, given)
    if found == 0:
        raise UserError(f"{option} {given!r} is no time at all; give such as 30min or 2h")
    return found


def _time_or_money(option: str, given: str | float) -> float | str:
    """Return seconds, or money with a currency as it was given."""
    from degan_search.ledger.cost import Money

    try:
        return _positive_seconds(option, given)
    except UserError as error:
        found = Money.read(str(given), str(error))
        if not found.currency:
            raise
        return str(given)


def _price(option: str, text: str) -> str:
    from degan_search.ledger.cost import Price

    Price.read(text, option)
    return text


def _number_to_keep(option: str, given: str | int) -> int | None:
    if given == "all":
        return None
    if not str(given).isdecimal():
        raise UserError(f"{option} {given!r} must be a whole number, or all")
    return int(given)


def _as_given(option: str, value: Any) -> Any:
    return value


def _or_none(option: str, text: str) -> str | None:
    return text or None


@dataclass(frozen=True)
class RunOption:
    """One option, named as the field of `search.run.options.Options` that it sets."""

    name: str
    kind: type
    """Its type on the command line."""
    help: str
    default: Any = None
    """None for the default of `Options`."""
    minimum: int | None = None
    help_of_resume: str | None = None
    """The help where a command goes on with a run; None if it is the same."""
    read: Callable[[str, Any], Any] = _as_given
    """From the option's name as it is typed (for messages) and what was given, to the field's value."""

    @property
    def flag(self) -> str:
        """The option as it is typed on the command line."""
        return "--" + self.name.replace("_", "-")


RUN_OPTIONS = (
    RunOption("cpus_per_trial", int, "CPUs, and torch threads, of a trial.", default=1, minimum=1),
    RunOption(
        "gpus_per_trial",
        float,
        "Share of a GPU for a trial, such as 0.25.",
        default=0.0,
        minimum=0,
        help_of_resume="Share of a GPU for a trial.",
    ),
    RunOption("max_concurrent", int, "Trials at a time; as many as fit.", minimum=1),
    RunOption(
        "fuse",
        int,
        "Trials of a cell side by side in one process; chosen by the GPU's load, 1 on a CPU.",
        minimum=1,
    ),
    RunOption(
        "address",
        str,
        "An existing Ray cluster, host:port or auto.",
        help_of_resume="An existing Ray cluster; '' for none.",
        read=_or_none,
    ),
    RunOption("track", str, "Log to mlflow, wandb or tensorboard as well."),
    RunOption(
        "retries",
        int,
        "Further attempts of a trial whose worker, memory or disk failed.",
        default=2,
        minimum=0,
        help_of_resume="Further attempts of a broken trial.",
    ),
    RunOption("time_limit", str, "End a trial that takes longer, such as 30min or 2h.", read=seconds),
    RunOption(
        "checkpoint_every",
        str,
        "Time between two checkpoints of a trial, such as 60s.",
        default="60s",
        help_of_resume="Time between two checkpoints.",
        read=seconds,
    ),
    RunOption(
        "keep",
        str,
        "Search trials of each cell whose networks are kept: the best few, or all.",
        default="5",
        help_of_resume="Trials of each cell whose networks are kept, or all.",
        read=_number_to_keep,
    ),
    RunOption(
        "budget",
        str,
        "Time for all of it, such as 2h, or with --price money, 10eur: it decides how many search trials there are.",
        help_of_resume="Time, or money, from now, such as 1h; by default what is left of the run's own, if it has one.",
        read=_time_or_money,
    ),
    RunOption(
        "price",
        str,
        "Of an hour of a core and of a GPU, such as cpu=0.05eur/h,gpu=2.5eur/h: table and report show money.",
        read=_price,
    ),
)
"""In the order of `--help`."""


class RunOptions(TypedDict, total=False):
    """The options of `RUN_OPTIONS` but the budget, as Python takes them; None is as left out."""

    cpus_per_trial: int | None
    gpus_per_trial: float | None
    max_concurrent: int | None
    fuse: int | None
    address: str | None
    track: str | None
    retries: int | None
    time_limit: str | float | None
    checkpoint_every: str | float | None
    keep: int | Literal["all"] | None
    price: str | None


def as_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `Options` from the options' values by name: a budget in money is a field of its own."""
    fields = dict(values)
    if isinstance(fields.get("budget"), str):
        fields["spend"] = fields.pop("budget")
    return fields


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `Options` from options as Python gives them; those that are None are left out.

    Raises:
        UserError: an unknown option, or a value of a wrong kind or out of range.
    """
    from degan_search.search.run.options import loaded

    known, values = {option.name: option for option in RUN_OPTIONS}, {}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"option {name!r} is unknown; {close_matches(name, known)}")
        if value is not None:
            values[name] = known[name].read(name, value)
    values = as_fields(values)
    fields = {name: getattr(loaded({}, values, "options"), name) for name in values}
    for name, value in fields.items():
        minimum = known[name].minimum if name in known else None
        if minimum is not None and value < minimum:
            raise UserError(f"{name} = {value!r} must be {minimum} or more")
    return fields


def stored_in(storage: str) -> dict[str, Any]:
    """Return the fields of `Options` that say where runs are kept; for an object store also its working copy."""
    if "://" not in storage:
        from degan_search.settings.paths import whole

        return {"storage": Path(whole(storage)) if storage.startswith("~") else Path(storage)}
    from degan_search.storage import working_copy

    return {"storage": working_copy(storage), "remote": storage}


def run_at(run: str) -> dict[str, Any]:
    """Return the fields of `Options` that say which run is meant, by its folder or `s3://bucket/runs/name`.

    Raises:
        UserError: an address that names no run.
    """
    from degan_search.settings.paths import whole

    if "://" in run:
        from degan_search.storage import split_run

        storage, name = split_run(run)
        return {**stored_in(storage), "name": name}
    folder = Path(whole(run)).resolve()
    return {"storage": folder.parent, "name": folder.name}
