"""Choosing among finished search trials: by which measure, within which groups, and what is refused."""

import math

import pandas as pd
import pytest

from degan_search.selection import choose
from degan_search.system.errors import UserError
from tests.selection.made_trials import trials


class TestBest:
    """`best`."""

    FRAME = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(score=[0.3, 0.2, 0.1], trial_id=["a", "b", "c"])

    def picked(self, frame=FRAME, **options):
        return list(choose.best(frame, **options)["trial_id"])

    def test_the_score_decides_unless_told_otherwise(self):
        assert self.picked() == ["a"]
        assert self.picked(by="balanced_soft_agreement") == ["c"]
        assert self.picked(by="agreement") == ["a"]
        assert self.picked(by="oracle_accuracy", top=2) == ["b", "c"]

    def test_less_is_better_for_a_distance(self):
        assert self.picked(by="bn_distance", top=3) == ["a", "b", "c"]

    def test_each_group_has_its_own(self):
        name = "noise/uniform"
        other = self.FRAME.assign(config_proxy=name, trial_id=["d", "e", "f"], score=[0.5, 0.6, 0.4])
        both = pd.concat([self.FRAME, other.assign(compared_on=name)])
        assert sorted(self.picked(both)) == ["a", "e"]
        assert self.picked(pd.concat([self.FRAME, other])) == ["e"]  # compared on one bank
        assert self.picked(both, per=()) == ["e"]
        assert self.picked(both, per=["config_teacher_dataset"], top=2) == ["e", "d"]

    def test_of_equals_the_first(self):
        assert self.picked(self.FRAME.assign(score=1.0)) == ["a"]

    def test_trials_without_the_measure_or_an_end_are_passed_over(self):
        assert self.picked(self.FRAME.assign(score=[math.nan, 0.2, 0.1])) == ["b"]
        assert self.picked(self.FRAME.assign(state=["PRUNED", "COMPLETE", "FAIL"])) == ["b"]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"by": "scor"}, "did you mean score"),
            ({"by": "effective_classes"}, "unknown"),
            ({"by": "test_accuracy"}, "unknown"),
            ({"per": ["config_prox"]}, "did you mean config_proxy"),
            ({"top": 0}, "top = 0"),
        ],
    )
    def test_what_cannot_be_chosen_by(self, options, says):
        with pytest.raises(UserError, match=says):
            choose.best(self.FRAME, **options)

    def test_nothing_finished(self):
        with pytest.raises(UserError, match="nothing to choose"):
            choose.best(self.FRAME.assign(state="FAIL"))


def test_without_agreement_across_trials_the_score_chooses():
    frame = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(
        config_objective="balanced_soft_agreement", cross_soft_agreement=math.nan
    )
    assert choose.chosen_by(frame) == "score"
