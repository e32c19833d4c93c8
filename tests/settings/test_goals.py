"""The table of goals, and where each one's value is found."""

import math

import pytest
from pydantic import ValidationError

from degan_search.ledger.columns import METRICS, TRIAL_METRICS
from degan_search.networks.image_input import signed
from degan_search.networks.size import size
from degan_search.search.run.results import TrialResult
from degan_search.search.space import check
from degan_search.search.space.schema import SearchConfig, Space
from degan_search.settings.goals import GOALS, OF_STUDENT, Source
from degan_search.system.errors import UserError


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
class TestContract:
    """Every goal of the table."""

    def test_is_a_column_of_trials_with_its_direction(self, goal):
        assert TRIAL_METRICS[goal.name] == METRICS[goal.name] == goal.direction
        assert goal.help

    def test_has_its_value_in_a_result(self, goal):
        own = {goal.name: 7.0} if goal.source is Source.RESULT else {"metrics": {goal.name: 7.0}}
        assert TrialResult(id="x", gan_steps=0, **own).goals([goal.name]) == (7.0,)
        assert math.isnan(TrialResult(id="x", gan_steps=0).goals([goal.name])[0])

    def test_is_counted_of_a_student_if_it_is_of_the_student(self, goal):
        assert (goal.name in size("lenet", 10, 2, signed(1))) == (goal.source is Source.STUDENT)

    def test_a_search_takes_it(self, goal):
        objectives = [*dict.fromkeys(["score", goal.name])]
        assert SearchConfig(objectives=objectives).objectives == objectives


@pytest.mark.parametrize("wrong", [[], ["seconds"], ["seconds", "score"], ["score", "score"], ["score", "size"]])
def test_objectives_begin_with_the_score(wrong):
    with pytest.raises(ValidationError):
        SearchConfig(objectives=wrong)


def test_a_network_that_learns_new_classes_has_no_student_to_count():
    space = {"trial": {"task": "incremental"}, "search": {"objectives": ["score", *OF_STUDENT]}}
    with pytest.raises(UserError, match="multiply_adds and student_parameters cannot be pursued"):
        check.check(Space.model_validate(space))
