"""The default sampler, as Tune would drive it."""

import math

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from degan_search.ledger.columns import State
from degan_search.search.suggest.box_sampler import REPEATED, _values
from degan_search.settings.resolve import stable_hash
from tests.search.suggest.as_tune import end, result, run_all, searcher, suggest

RANGES = {"gan.lambda_e": {"zero_or_log": [0.01, 10]}, "gan.lambda_d": {"zero_or_log": [0.1, 50]}}
ONE = {"cells": {"proxy": ["digits"]}}


def bowl(config):
    """Return a score that is highest at lambda_e 1 and lambda_d 10."""
    e, d = (math.log(value + 0.03) for value in (config.gan.lambda_e, config.gan.lambda_d))
    return -((e - math.log(1.03)) ** 2) - (d - math.log(10.03)) ** 2


def test_a_few_trials_find_the_best_weights():
    given = searcher(parameters=RANGES, search={"trials": 12}, **ONE)
    scores = [bowl(job.config) for job in run_all(given, bowl)]
    assert max(scores) > -0.1  # of a hundred random ones two are
    assert max(scores[5:]) > max(scores[:5])


def test_conditions_and_lists_of_names_are_no_hindrance():
    given = searcher(
        parameters={"method": ["dcgan", "degan"], "gan.latent": {"int": [2, 8]}},
        when=[{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"zero_or_log": [0.1, 50]}}}],
        search={"trials": 14},
        **ONE,
    )
    jobs = run_all(given, lambda config: config.gan.latent + 10 * (config.method == "degan"))
    late = jobs[7:]
    assert {job.config.method for job in jobs} == {"dcgan", "degan"}
    assert sum(job.config.method == "degan" for job in late) > len(late) / 2
    assert max(job.config.gan.latent for job in late if job.config.method == "degan") == 8


def test_all_points_of_a_list_are_tried_once():
    given = searcher(parameters={"gan.lambda_d": [*range(4)], "gan.lambda_e": [0, 1, 2]}, search={"trials": 50}, **ONE)
    jobs = run_all(given, lambda config: -config.gan.lambda_d)
    assert len(jobs) == len({stable_hash(job.config) for job in jobs}) == 12


def test_trials_that_run_at_once_differ_and_a_diverged_place_is_left():
    given = searcher(parameters=RANGES, search={"trials": 12}, **ONE)
    for number in range(6):
        job = suggest(given, str(number))
        end(given, str(number), result(bowl(job.config), "COMPLETE"))
    beside = [suggest(given, str(number)) for number in range(6, 9)]
    assert len({stable_hash(job.config) for job in beside}) == 3
    for number in range(6, 9):
        end(given, str(number), None, State.FAIL)
    after = suggest(given, "9")
    assert stable_hash(after.config) not in {stable_hash(job.config) for job in beside}


@pytest.mark.parametrize("finished", [True, False])
def test_a_stopped_trial_counts_with_what_others_gained_since(finished):
    study = optuna.create_study(direction="maximize")

    def tell(state, value=None, **attributes):
        trial = optuna.trial.create_trial(
            state=state,
            value=value,
            params={"x": 0.5},
            distributions={"x": FloatDistribution(0, 1)},
            intermediate_values={10: 0.25},
            user_attrs=attributes,
        )
        study.add_trial(trial)

    if finished:
        tell(TrialState.COMPLETE, 0.75)
    tell(TrialState.PRUNED, 0.25)
    tell(TrialState.FAIL)
    tell(TrialState.FAIL, **{REPEATED: True})
    values = [*_values(study.get_trials()).values()]
    assert values == ([0.75, 0.75, 0.75] if finished else [0.25, 0.25])
