"""Early stopping: the rungs' decisions, and what Ray is told."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler

from degan_search.ledger.columns import Phase
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.suggest.asha import CellAsha, Rungs
from degan_search.settings.trial import TrialConfig

SCORES = st.floats(0, 1)


def decisions(factor, scores, cell="a", budget=10, rungs=None):
    rungs = rungs or Rungs(factor)
    return [rungs.record(cell, budget, score) is None for score in scores]


@pytest.mark.parametrize(
    ("factor", "scores", "goes_on"),
    [
        # Factor 2: the median of those before, and what equals it goes on.
        (2, [0.5, 0.4, 0.6, 0.5, 0.45], [True, False, True, True, False]),
        # Factor 4: the upper quartile of those before: 0, 0.75, 1.5, 2.25.
        (4, [0, 1, 2, 3, 2.2, 2.3], [True, True, True, True, False, True]),
        (2, [0.3, 0.3, 0.3], [True, True, True]),
        # The least factors keep nearly everything, the greatest only the best.
        (1.0001, [0.5, 0.1, 0.9, 0.11], [True, False, True, True]),
        (100, [0.5, 0.6, 0.59, 0.61], [True, True, False, True]),
    ],
)
def test_known_sequences(factor, scores, goes_on):
    assert decisions(factor, scores) == goes_on


@given(st.lists(SCORES, min_size=1, max_size=30), st.floats(1.01, 100))
def test_first_and_every_new_best_go_on(scores, factor):
    for place, goes_on in enumerate(decisions(factor, scores)):
        if scores[place] >= max(scores[: place + 1]):
            assert goes_on


@given(st.lists(SCORES, min_size=1, max_size=20), st.lists(SCORES, max_size=20))
def test_cells_and_rungs_are_apart(scores, others):
    rungs = Rungs(3)
    decisions(3, others, "b", 10, rungs)
    decisions(3, others, "a", 20, rungs)
    assert decisions(3, scores, "a", 10, rungs) == decisions(3, scores)


def test_stops_the_right_share():
    scores = np.random.default_rng(0).random(2000)
    # With n scores before it, a trial is among the best third of them with probability near 1/3.
    assert np.mean(decisions(3, scores)) == pytest.approx(1 / 3, abs=0.03)


def test_reason_says_score_budget_and_cutoff():
    rungs = Rungs(2)
    rungs.record("a", 10, 0.5)
    assert rungs.record("a", 10, 0.25) == "stopped early: score 0.2500 at GAN step 10 is below the rung's 0.5000"


class TestSeveralGoals:
    """Trials compete by their rank of non-domination."""

    GOALS = ("score", "student_parameters")

    def test_a_smaller_student_may_go_on_with_a_lower_score(self):
        rungs = Rungs(2, self.GOALS)
        assert rungs.record("a", 10, (0.9, 500)) is None
        assert rungs.record("a", 10, (0.5, 100)) is None
        assert rungs.record("a", 10, (0.4, 600)) == (
            "stopped early: at GAN step 10 score 0.4, student_parameters 600 are on front 2, the rung's is 1"
        )
        assert rungs.record("a", 10, (0.6, 400)) is None
        assert rungs.record("b", 10, (0.1, 900)) is None, "another cell's"

    @given(st.lists(st.tuples(SCORES, st.integers(1, 4)), min_size=1, max_size=20))
    def test_no_trial_on_the_front_is_stopped(self, values):
        rungs = Rungs(3, self.GOALS)
        for place, own in enumerate(values):
            beaten = any(s >= own[0] and n <= own[1] and (s, n) != own for s, n in values[:place])
            if rungs.record("a", 10, own) is not None:
                assert beaten

    @given(st.lists(SCORES, min_size=1, max_size=20), st.floats(1.01, 100))
    def test_where_students_are_equal_the_order_is_that_of_the_scores(self, scores, factor):
        rungs = Rungs(factor, self.GOALS)
        for place, score in enumerate(scores):
            goes_on = rungs.record("a", 10, (score, 7)) is None
            assert goes_on or score < max(scores[:place])

    def test_what_the_ledger_has_counts(self):
        rungs, curves = Rungs(2, (*self.GOALS, "seconds")), {"phase": "search", "cell": "a", "budget": 10}
        curves = pd.DataFrame([{**curves, "stage": "gan", "trial_id": name, "seconds": 3.0} for name in "xy"])
        trials = pd.DataFrame({"trial_id": ["x", "y"], "student_parameters": [7.0, 9.0]})
        rungs.fill(curves.assign(score=[0.5, 0.75]), trials)
        assert rungs.scores == {("a", 10): [(0.5, 7.0, 3.0), (0.75, 9.0, 3.0)]}


def trial(name, cell="a"):
    one = new_job(Phase.SEARCH, 0, cell, TrialConfig()).changed(id=name)
    return SimpleNamespace(config=tune_dicts.to_config([one]))


def say(scheduler, trial, score, state=None):
    told = TrialResult(id=trial.config["id"], score=score, state=state, gan_steps=10)
    result = tune_dicts.to_result([told], [] if state else [told.id], 1)
    return scheduler.on_trial_result(None, trial, result)


def test_ray_is_told_to_stop_at_rungs_only():
    scheduler = CellAsha(Rungs(2))
    assert say(scheduler, trial("good"), 0.9) == TrialScheduler.CONTINUE
    assert say(scheduler, trial("poor"), 0.1) == TrialScheduler.STOP
    assert say(scheduler, trial("elsewhere", "b"), 0.1) == TrialScheduler.CONTINUE
    # A final score is none of a rung's: it neither stops the trial nor raises the bar for others.
    before = {key: list(scores) for key, scores in scheduler.rungs.scores.items()}
    assert say(scheduler, trial("last"), 0.0, "COMPLETE") == TrialScheduler.CONTINUE
    assert dict(scheduler.rungs.scores) == before
    assert list(scheduler.reasons) == ["poor"]


def test_without_rungs_every_trial_goes_on():
    scheduler = CellAsha(None)
    said = [say(scheduler, trial(str(n)), -n) for n in range(5)]
    assert set(said) == {TrialScheduler.CONTINUE}
    assert not scheduler.reasons
