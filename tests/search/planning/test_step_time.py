"""A step's seconds are a line through those of two small batches."""

import itertools

import pytest

from degan_search.search.planning import step_time


@pytest.mark.parametrize(
    ("small", "large", "fixed", "image"),
    [
        (5.0, 11.0, 3.0, 1.0),
        (2.0, 8.0, 0.0, 1.0),
        (1.0, 8.0, 0.0, 7 / 6),  # a step never takes less than nothing
        (9.0, 8.0, 6.0, 0.25),  # odd times still have an image take some
    ],
)
def test_a_step_takes_some_for_itself_and_some_for_each_image(small, large, fixed, image, monkeypatch):
    clocks = itertools.chain([(99.0, 99.0)] * 2, itertools.cycle([(small, small), (large, large)]))
    monkeypatch.setattr(step_time, "_seconds", lambda step, device: next(clocks))
    found = step_time.timed_step(lambda batch: lambda: None, "cpu")
    assert (found.fixed, found.image) == pytest.approx((fixed, image))
    assert found.of(128) == pytest.approx(fixed + 128 * image)


def test_what_other_programs_take_lengthens_both_batches_alike(monkeypatch):
    clocks = iter([(1, 1), (1, 1), (10.0, 5.0), (11.0, 11.0), (5.0, 5.0), (48.0, 11.0)])  # twice and four times as long
    monkeypatch.setattr(step_time, "_seconds", lambda step, device: next(clocks))
    found = step_time.timed_step(lambda batch: lambda: None, "cpu")
    slower = (10 + 11 + 5 + 48) / (5 + 11 + 5 + 11)
    assert (found.fixed, found.image) == pytest.approx((3 * slower, slower))
