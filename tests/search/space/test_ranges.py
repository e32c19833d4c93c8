"""Ranges: what is drawn from them, and which are refused."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from degan_search.search.space.schema import Range
from tests.search.space.made_spaces import read, refused


@given(st.data())
def test_ranges_draw_inside(data):
    kind = data.draw(st.sampled_from(["range", "log", "int", "zero_or_log"]))
    number = st.integers(1, 1000) if kind == "int" else st.floats(0.001, 1000)
    low, high = sorted(data.draw(st.lists(number, min_size=2, max_size=2, unique=True)))
    spec = Range.model_validate({kind: [low, high]})
    values = [spec.suggest("x", optuna.create_study().ask()) for _ in range(5)]
    assert all(low <= value <= high or (kind == "zero_or_log" and value == 0) for value in values)
    if kind == "int":
        assert all(isinstance(value, int) for value in values)


def test_zero_or_log_gives_zero_and_both_ends_of_the_range():
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    spec = Range(zero_or_log=(0.01, 100))
    values = [spec.suggest("x", made.ask()) for _ in range(400)]
    positive = [value for value in values if value > 0]
    assert 130 < len(positive) < 270
    assert set(values) - set(positive) == {0.0}
    assert min(positive) < 0.03 < 30 < max(positive)
    # Log-uniform: about as many below the geometric middle as above.
    assert sum(value < 1 for value in positive) / len(positive) == pytest.approx(0.5, abs=0.12)


@given(st.sampled_from(["range", "log", "int", "zero_or_log"]), st.integers(1, 50), st.integers(1, 50), st.data())
def test_known_value_is_what_is_drawn(kind, low, above, data):
    spec = Range.model_validate({kind: [low, low + above]})
    value = data.draw(st.integers(low, low + above) | (st.just(0) if kind == "zero_or_log" else st.nothing()))
    made = optuna.create_study()
    made.enqueue_trial(spec.known("x", value))
    assert spec.suggest("x", made.ask()) == value


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ({"range": [2, 1]}, "lower bound 2.0 must be below the upper bound 1.0"),
        ({"int": [3, 3]}, "must be below"),
        ({"log": [0, 1]}, "must begin above 0"),
        ({"zero_or_log": [-1, 1]}, "must begin above 0"),
        ({"log": [2, 1]}, "must be below"),
        ({"range": [0, float("inf")]}, "finite"),
        ({"range": [0, float("nan")]}, "finite"),
        ({"range": [0, 1], "log": [1, 2]}, "exactly one"),
        ({"range": [0, 1, 2]}, "at most 2"),
        ({"int": [1.5, 3]}, "integer"),
        ({"linear": [0, 1]}, "linear"),
        ({}, "exactly one"),
        ([], "at least"),
        (3, "list"),
    ],
)
def test_wrong_ranges(bounds, says, tmp_path):
    refused(lambda: read(tmp_path, parameters={"gan.lambda_e": bounds}), "gan.lambda_e", says)
