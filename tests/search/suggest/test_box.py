"""A cell's parameters as axes of one box."""

import numpy as np
import pytest

from degan_search.search.space.cell import Cell
from degan_search.search.space.schema import Range, Space
from degan_search.search.suggest.box import ZERO, Axis, axes

RANGES = {
    "linear": ({"range": [-1, 3]}, [-1, 0.5, 3]),
    "log": ({"log": [1e-3, 10]}, [1e-3, 0.1, 10]),
    "int": ({"int": [2, 5]}, [2, 3, 5]),
    "zero or log": ({"zero_or_log": [0.01, 10]}, [0, 0.01, 1, 10]),
    "numbers": ([5, 0, 20], [0, 5, 20]),
    "names": (["a", "b", "c"], ["a", "b", "c"]),
}


@pytest.mark.parametrize("kind", RANGES)
def test_each_value_has_a_place_and_each_place_a_value(kind):
    spec, values = RANGES[kind]
    axis = Axis(spec if isinstance(spec, list) else Range.model_validate(spec))
    places = [axis.at(value) for value in values]
    assert places == sorted(places)  # in the order of the values
    assert [axis.value(at) for at in places] == [pytest.approx(value) for value in values]
    top = axis.places - 1 if axis.places else 1
    assert 0 <= places[0] < places[-1] <= top
    drawn = [axis.value(axis.part(share)) for share in np.linspace(0, 1, 2001)]
    for value in values:
        assert value in drawn if isinstance(value, str) else min(abs(one - value) for one in drawn) < 0.01


def test_zero_lies_beside_the_lowest_value_and_takes_its_share():
    axis = Axis(Range.model_validate({"zero_or_log": [0.01, 10]}))
    assert axis.at(0) < ZERO == axis.at(0.01)
    assert np.mean([axis.value(share) == 0 for share in np.linspace(0, 1, 1001)]) == pytest.approx(ZERO, abs=0.002)
    assert axis.of("x", {"x is 0": True}) == axis.at(0)
    assert axis.of("x", {"x is 0": False, "x": 1.0}) == axis.at(1.0)
    assert axis.of("x", {}) is None


def test_parameters_under_conditions_are_axes_too():
    when = [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 50]}}}]
    space = Space.model_validate({"parameters": {"method": ["dcgan", "degan"]}, "when": when})
    found = axes(Cell({}, space))
    assert {name: axis.places for name, axis in found.items()} == {"method": 2, "gan.lambda_d": 0}
