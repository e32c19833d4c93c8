"""Agreement across trials: known values with networks whose answers are known."""

import math

import pytest
import torch
from torch import nn

from degan_search.evaluation.across_trials import OWN_IMAGES, POOL, Competitor, agreements

SHAPE = (1, 8, 8)


class Paints(nn.Module):
    """A generator whose images all have one brightness in [-1, 1]."""

    def __init__(self, brightness: float) -> None:
        super().__init__()
        self.brightness = nn.Parameter(torch.tensor(brightness))

    def forward(self, z):
        return self.brightness.expand(len(z), *SHAPE)


class Reads(nn.Module):
    """A classifier: class 1 if an image is brighter than its threshold."""

    def __init__(self, threshold: float, sharp: float = 1e4) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))
        self.sharp = sharp

    def forward(self, images):
        above = (images.mean((1, 2, 3)) - self.threshold) * self.sharp
        return torch.stack([torch.zeros_like(above), above], 1)


DARK = torch.zeros(10, *SHAPE, dtype=torch.uint8)


def competitor(name, threshold, brightness):
    generator = None if brightness is None else Paints(brightness)
    return Competitor(name, Reads(threshold), generator, 4, seed=0)


def test_a_student_is_judged_on_the_images_of_others():
    # The teacher calls -0.5 dark and 0.5 bright; the second student calls both dark.
    trials = [competitor("a", 0.0, -0.5), competitor("b", 0.9, 0.5), competitor("c", 0.0, 0.5)]
    scores = agreements(trials, DARK, Reads(0.0))
    assert scores["a"] == {"own_agreement": 1.0, "cross_agreement": 1.0, "cross_soft_agreement": pytest.approx(1.0)}
    # Bright images come from "c" too: of the two classes it has one right, however many images each has.
    assert scores["b"]["own_agreement"] == 0.0
    assert scores["b"]["cross_agreement"] == pytest.approx(0.5)
    assert scores["b"]["cross_soft_agreement"] == pytest.approx(0.5)


def test_its_own_generator_counts_for_nothing():
    # Alone with bright images, a student that misses them all is not judged on them.
    scores = agreements([competitor("a", 0.9, 0.5), competitor("b", 0.0, -0.5)], DARK, Reads(0.0))
    assert scores["a"]["cross_agreement"] == 1.0
    assert scores["b"]["cross_agreement"] == 1.0


def test_a_trial_without_a_generator_is_judged_on_all():
    scores = agreements([competitor("images", 0.9, None), competitor("a", 0.0, 0.5)], DARK, Reads(0.0))
    assert math.isnan(scores["images"]["own_agreement"])
    assert scores["images"]["cross_agreement"] == pytest.approx(0.5)


def test_with_no_image_of_others_there_is_no_agreement():
    scores = agreements([competitor("a", 0.0, 0.5)], DARK[:0], Reads(0.0))
    assert scores["a"]["own_agreement"] == 1.0
    assert math.isnan(scores["a"]["cross_agreement"])


def test_the_same_twice_and_the_order_does_not_matter():
    trials = [competitor("a", 0.1, -0.5), competitor("b", 0.9, 0.5), competitor("c", -0.7, 0.0)]
    first = agreements(trials, DARK, Reads(0.0, sharp=1.0))
    assert first == agreements(trials, DARK, Reads(0.0, sharp=1.0))
    other_way = agreements(trials[::-1], DARK, Reads(0.0, sharp=1.0))
    for name, scores in first.items():
        assert scores == pytest.approx(other_way[name])


def test_every_generator_has_an_equal_share():
    assert POOL // 5 > 1 and OWN_IMAGES >= POOL // 5
    # Four of five generators are bright and one is in between, which the teacher calls bright and "images" does not.
    trials = [competitor(f"bright {index}", 0.0, 0.9) for index in range(4)]
    trials += [competitor("between", 0.0, 0.2), competitor("images", 0.5, None)]
    scores = agreements(trials, DARK, Reads(0.0))
    # Dark all right, of the bright class four fifths.
    assert scores["images"]["cross_agreement"] == pytest.approx((1 + 4 / 5) / 2, abs=1e-3)


def test_a_repeat_is_judged_as_its_trial_is_and_changes_nothing_for_others():
    trials = [competitor("a", 0.1, -0.5), competitor("b", 0.9, 0.5), competitor("c", -0.7, 0.0)]
    again = Competitor("again", Reads(0.9), None, 4, seed=7, repeats="b")
    with_it = agreements([again, *trials], DARK, Reads(0.0, sharp=1.0))
    assert {name: with_it[name] for name in "abc"} == agreements(trials, DARK, Reads(0.0, sharp=1.0))
    cross = ("cross_agreement", "cross_soft_agreement")
    assert [with_it["again"][name] for name in cross] == [with_it["b"][name] for name in cross]  # the same student
    assert math.isnan(with_it["again"]["own_agreement"])
