"""A cell's parameters as axes of one flat box, whatever its conditions: what models and priors work in.

A range is an axis from 0 to 1, linear or in the logarithm; of "0 or log" the part below `ZERO` is 0, which so lies
beside the lowest value. A list of numbers is an axis too, its values at equal distances in their order. Any other list
is an axis of places.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import MAX_TRIALS, Parameter, Range, Scalar

ZERO = 0.15
"""Share of a "0 or log" axis that is 0."""

Box = dict[str, float]
"""A point of the box, by parameter: from 0 to 1, or the place in a list that is not of numbers."""


@dataclass(frozen=True)
class Axis:
    """One parameter's axis."""

    spec: Parameter

    @property
    def places(self) -> int:
        """How many values a list that is not of numbers has; 0: the axis is one of numbers."""
        return 0 if isinstance(self.spec, Range) or all(map(_is_number, self.spec)) else len(self.spec)

    def value(self, at: float) -> Scalar:
        """Return the setting at a place of the axis."""
        spec = self.spec
        if isinstance(spec, list):
            return spec[round(at)] if self.places else sorted(spec, key=_number)[_bin(at, len(spec))]
        low, high = spec.bounds
        if spec.int_:
            return int(low) + _bin(at, int(high - low) + 1)
        if spec.range:
            return low + at * (high - low)
        if spec.zero_or_log:
            if at < ZERO:
                return 0.0
            at = (at - ZERO) / (1 - ZERO)
        return min(max(math.exp(math.log(low) + at * math.log(high / low)), low), high)

    def at(self, value: Scalar) -> float:
        """Return the place of a setting, the middle of its part where a part of the axis has one value."""
        spec = self.spec
        if isinstance(spec, list):
            if self.places:
                return spec.index(value)
            return (sorted(map(_number, spec)).index(_number(value)) + 0.5) / len(spec)
        low, high = spec.bounds
        number = _number(value)
        if spec.int_:
            return (number - low + 0.5) / (high - low + 1)
        if spec.range:
            return (number - low) / (high - low)
        if spec.zero_or_log and number == 0:
            return ZERO / 2
        at = math.log(number / low) / math.log(high / low)
        return ZERO + at * (1 - ZERO) if spec.zero_or_log else at

    def part(self, share: float) -> float:
        """Return the place at a share of the axis, from 0 to 1."""
        return float(_bin(share, self.places)) if self.places else share

    def of(self, name: str, params: Mapping[str, Any]) -> float | None:
        """Return the place that Optuna's parameters of a trial give; None: they leave this one out."""
        if isinstance(self.spec, Range) and params.get(f"{name} is 0") is True:
            return self.at(0.0)
        if name not in params:
            return None
        given = params[name]
        return self.at(self.spec[given] if isinstance(self.spec, list) else given)


def axes(cell: Cell) -> dict[str, Axis]:
    """Return the axis of each parameter that varies in a cell, under any condition."""
    found: dict[str, Axis] = {}
    for _, varies, _ in itertools.islice(cell.branches(cell.space.conditions().__contains__), MAX_TRIALS):
        found |= {name: Axis(spec) for name, spec in varies.items() if name not in found}
    return found


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Scalar) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _bin(at: float, bins: int) -> int:
    return min(int(at * bins), bins - 1)
