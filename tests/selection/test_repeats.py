"""Measures over the students of one generator: what is chosen by their mean, and how sure that is."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from degan_search.selection import choose
from degan_search.selection.repeats import chance_ahead, number_repeated, ordered, over_seeds
from tests.selection.made_trials import trials

OWN = trials([0.2, 0.5, 0.4], [0.6, 0.5, 0.4]).assign(trial_id=["a", "b", "c"], cell="all", score=0.0)
OWN["config_combine_members"] = [() for _ in range(3)]


def again(name, values, place):
    rows = [OWN.iloc[place].to_dict() for _ in values]
    frame = pd.DataFrame(rows).assign(phase="repeat", trial_id=[f"{name}-{n}" for n in range(len(values))])
    members = (f"{name}@0123456789abcdef",)
    return frame.assign(infomax=values, bn_distance=values, config_combine_members=[members for _ in values])


FRAME = pd.concat([OWN, again("a", [0.3, 0.3], 0), again("b", [0.5, 0.44], 1)], ignore_index=True)
# Students of a: 0.6, 0.3, 0.3; of b: 0.5, 0.5, 0.44; of c: 0.4.


def test_a_quarter_is_repeated():
    assert [number_repeated(finished) for finished in (0, 1, 4, 5, 16)] == [0, 1, 1, 2, 4]


def test_the_mean_of_several_students_decides_before_one_students_luck():
    found = choose.best(FRAME, "infomax", per=(), top=3)
    assert list(found["trial_id"]) == ["b", "a", "c"]
    assert list(found["infomax"]) == pytest.approx([0.48, 0.4, 0.4])
    assert list(found["seeds"]) == [3, 3, 1]
    lucky = FRAME.assign(infomax=FRAME["infomax"].where(FRAME["trial_id"] != "c", 0.9))
    assert list(choose.best(lucky, "infomax", per=(), top=3)["trial_id"]) == ["b", "a", "c"]
    assert list(choose.best(FRAME, "bn_distance", per=(), top=3)["trial_id"]) == ["a", "b", "c"]  # less is better
    assert list(choose.best(OWN, "infomax", per=(), top=3)["trial_id"]) == ["a", "b", "c"]


def test_a_repeat_that_failed_or_whose_trial_is_not_there_does_not_count():
    assert len(over_seeds(FRAME, "infomax")) == 7
    failed = FRAME.assign(state=np.where(FRAME["trial_id"] == "a-0", "FAIL", "COMPLETE"))
    assert list(choose.best(failed, "infomax", per=(), top=2)["infomax"]) == pytest.approx([0.48, 0.45])
    assert len(over_seeds(FRAME[FRAME["trial_id"] != "a"], "infomax")) == 4


def test_the_chance_is_that_of_the_formula_and_of_a_simulation():
    first, second = (row for _, row in ordered(OWN, FRAME, "infomax").head(2).iterrows())
    spread = math.sqrt((3 * np.var([0.6, 0.3, 0.3]) + 3 * np.var([0.5, 0.5, 0.44])) / 4)
    chance = chance_ahead(FRAME, "infomax", first, second)
    assert chance == pytest.approx(stats.t.cdf(0.08 / (spread * math.sqrt(2 / 3)), 4))
    rng = np.random.default_rng(0)
    variance = 4 * spread**2 / rng.chisquare(4, 200_000)  # the posterior of the variance, then of the means
    means = [rng.normal(mean, np.sqrt(variance / 3)) for mean in (0.48, 0.4)]
    assert chance == pytest.approx((means[0] > means[1]).mean(), abs=0.005)
    assert chance_ahead(FRAME, "infomax", second, first) == pytest.approx(1 - chance)
    rows = ordered(OWN, FRAME, "bn_distance").head(2)
    assert chance_ahead(FRAME, "bn_distance", rows.iloc[0], rows.iloc[1]) == pytest.approx(chance)  # less is better


def test_without_repeats_there_is_no_chance_and_without_spread_it_is_sure():
    rows = [row for _, row in ordered(OWN, OWN, "infomax").iterrows()]
    assert math.isnan(chance_ahead(OWN, "infomax", *rows[:2]))
    same = pd.concat([OWN, again("a", [0.6], 0), again("b", [0.5], 1)], ignore_index=True)
    rows = [row for _, row in ordered(OWN, same, "infomax").iterrows()]
    assert chance_ahead(same, "infomax", *rows[:2]) == 1
    assert math.isnan(chance_ahead(same, "infomax", rows[0], rows[0]))
