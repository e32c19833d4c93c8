"""What the benchmark of growth makes of seconds."""

import pytest

from benchmarks.scaling import AXES, constant_share, exponent, measured, worst_ratio

SIZES = (10, 20, 40, 80)


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_growth_of_a_known_power(power):
    seconds = {size: 3 * size**power for size in SIZES}
    assert exponent(seconds) == pytest.approx(power)
    assert worst_ratio(seconds) == pytest.approx(2 ** (power - 1))


@pytest.mark.parametrize(("start", "share"), [(0, 0.0), (80, 0.5), (240, 0.75)])
def test_what_does_not_grow_is_found(start, share):
    seconds = {size: start + size for size in SIZES}
    assert constant_share(seconds) == pytest.approx(share)
    assert worst_ratio(seconds) == pytest.approx((start + 80) / (start + 40) / 2)


def test_the_worst_step_counts():
    assert worst_ratio({10: 1.0, 20: 2.0, 40: 12.0, 80: 12.0}) == 3.0


def test_sizes_take_turns_and_medians_are_kept():
    asked = []

    def once(size):
        asked.append(size)
        return {"": float(len(asked)), "part": size / 2}

    found = measured(once, (1, 2), 3)
    assert asked == [1, 1, 2, 1, 2, 1, 2]
    assert found == {"": {1: 4.0, 2: 5.0}, "part": {1: 0.5, 2: 1.0}}


def test_each_axis_has_four_sizes_that_ascend():
    for _, sizes in AXES.values():
        assert len(sizes) == 4
        assert list(sizes) == sorted(set(sizes))
