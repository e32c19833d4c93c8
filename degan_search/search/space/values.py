"""The values of a space file, each turned once to what its setting takes, when the file is read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from degan_search.search.space.schema import Parameter, Prior, Scalar, Space
from degan_search.settings.resolve import setting_names, setting_value
from degan_search.system.errors import UserError, close_matches


def resolved(space: Space) -> Space:
    """Return the space with each value of its lists, points and conditions as the setting has it, so "0.1" as 0.1.

    A value that equals its setting's stays as it was written, 1 for 1.0. One that the setting cannot take stays too:
    `check` refuses it, with its cell.

    Raises:
        UserError: a name that is no setting's, one value twice in a list, or a condition that nothing can meet.
    """
    when = [
        condition.model_copy(
            update={
                "if_": {name: _met(name, value) for name, value in condition.if_.items()},
                "parameters": _lists(condition.parameters, f"when.{number}.parameters: "),
            }
        )
        for number, condition in enumerate(space.when)
    ]
    known = set(space.parameters).union(*(condition.parameters for condition in space.when))

    def taken(point: dict[str, Scalar]) -> dict[str, Scalar]:
        return {name: _value(name, value) if name in known else value for name, value in point.items()}

    first = [taken(point) for point in space.first]
    earlier = [one.model_copy(update={"point": taken(one.point)}) for one in space.earlier]
    prior = space.prior and Prior(confidence=space.prior.confidence, **taken(space.prior.point))
    changes = {
        "cells": _lists(space.cells, "cells: cell "),
        "parameters": _lists(space.parameters, "parameters: "),
        "when": when,
        "first": first,
        "earlier": earlier,
        "prior": prior,
    }
    return space.model_copy(update=changes)


def _lists(given: dict[str, Any], place: str) -> dict[str, Any]:
    return {name: _parameter(name, spec, place) for name, spec in given.items()}


def _parameter(name: str, spec: Parameter, place: str) -> Parameter:
    _check_name(name, place.partition(":")[0])
    if not isinstance(spec, list):
        return spec
    values = [_value(name, value) for value in spec]
    for number, value in enumerate(values):
        if value in values[:number]:
            before = spec[values.index(value)]
            same = f", as {before!r} and {spec[number]!r}" if repr(before) != repr(spec[number]) else ""
            raise UserError(f"{place}{name}={value} is in the list twice{same}; remove one")
    return values


def _met(name: str, value: Scalar | list[Scalar]) -> Any:
    _check_name(name, "when: if")
    if isinstance(value, list):
        return [_met(name, item) for item in value]
    try:
        return _of(name, value)
    except ValueError as error:
        raise UserError(f"when: if: {name} = {value!r}: no trial has this value: {error}") from None


def _value(name: str, value: Scalar) -> Any:
    try:
        return _of(name, value)
    except ValueError:
        return value


def _of(name: str, value: Scalar) -> Any:
    found = setting_value(name, value)
    return value if value == found else found


def _check_name(name: str, place: str) -> None:
    known: Iterable[str] = setting_names()
    if name not in known:
        raise UserError(f"{place}: unknown key {name!r}; {close_matches(name, known)}")
