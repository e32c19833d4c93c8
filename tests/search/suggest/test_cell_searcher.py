"""The searcher with real Optuna studies, as Tune would drive it, but without a cluster."""

import math

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.ledger.columns import State
from degan_search.search.space.cell import fewer_points
from degan_search.settings.resolve import stable_hash
from tests.search.suggest.as_tune import WEIGHTS, end, result, run_all, searcher, suggest, tell


def test_cells_take_turns_and_jobs_say_what_to_do():
    given = searcher()
    jobs = run_all(given)
    assert [job.cell for job in jobs] == ["proxy=digits", "proxy=photos"] * 6
    assert [job.number for job in jobs] == [*range(12)]
    assert [job.id for job in jobs[:2]] == ["search-0000", "search-0001"]
    assert {job.phase for job in jobs} == {"search"}
    for suggested in jobs:
        config = suggested.config
        assert suggested.cell == f"proxy={config.proxy}"
        assert config.gan.lambda_e == 0 or 0.1 <= config.gan.lambda_e <= 10
    assert suggest(given, "more") == Searcher.FINISHED


def test_studies_are_told_how_each_trial_ended():
    given = searcher(cells={"proxy": ["digits"]})
    for name in ("good", "poor", "broken", "lost", "unmeasured", "removed"):
        assert isinstance(given.suggest(name), dict)
    tell(given, "good", result(0.25, gan_steps=10))
    tell(given, "good", result(0.5, gan_steps=20))
    tell(given, "good", result(0.1, gan_steps=20))  # cut short and come by again
    end(given, "good", result(0.75, "COMPLETE", gan_steps=30))
    tell(given, "poor", result(0.2, gan_steps=10))
    # Tune does not tell of the result at which ASHA stops a trial before its end.
    end(given, "poor", result(0.1, gan_steps=20), State.PRUNED)
    end(given, "broken", result(math.nan, "FAIL"))
    end(given, "lost")
    end(given, "unmeasured", result(math.nan, "COMPLETE"))
    end(given, "removed")
    told = given.studies["proxy=digits"].get_trials()
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in told] == [complete, pruned, fail, fail, fail, fail]
    assert [trial.value for trial in told] == [0.75, 0.1, None, None, None, None]
    assert [trial.intermediate_values for trial in told] == [{10: 0.25, 20: 0.5}, {10: 0.2, 20: 0.1}, {}, {}, {}, {}]
    assert given.studies["proxy=digits"].best_value == 0.75
    assert not given.asked


def test_a_final_result_is_no_rung_and_an_unknown_trial_is_nobodys():
    given = searcher()
    suggest(given, "a")
    tell(given, "a", result(0.9, "COMPLETE"))
    tell(given, "unknown", result(0.9), "search-0009")
    given.on_trial_complete("unknown", result(0.9, "COMPLETE"))
    end(given, "a", result(0.9, "COMPLETE"))
    told = given.studies["proxy=digits"].get_trials()
    assert [trial.intermediate_values for trial in told] == [{}]
    assert not given.studies["proxy=photos"].get_trials()


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
def test_equal_seeds_and_order_give_equal_suggestions(sampler):
    def jobs(seed):
        # More trials than come before the model, so that its model takes part.
        given = searcher(search={"sampler": sampler, "trials": 9, "seed": seed})
        return run_all(given, lambda config: config.gan.lambda_d / 100)

    first = jobs(1)
    assert first == jobs(1)
    assert first != jobs(2)
    # Cells draw from streams of their own.
    digits, photos = first[::2], first[1::2]
    assert [job.config.gan for job in digits] != [job.config.gan for job in photos]


def test_the_default_learns_from_scores():
    given = searcher(cells={"proxy": ["digits"]}, search={"trials": 30})
    jobs = run_all(given, lambda config: -abs(config.gan.lambda_d - 40))
    drawn = [job.config.gan.lambda_d for job in jobs]
    off = [abs(value - 40) for value in drawn]
    assert sum(off[-15:]) / 15 < 7 < sum(off[:5]) / 5


def test_first_points_come_first_in_each_cell():
    first = [{"gan.lambda_e": 0, "gan.lambda_d": 5}, {"gan.lambda_e": 1, "gan.lambda_d": 10}]
    jobs = run_all(searcher(first=first))
    weights = [(job.config.gan.lambda_e, job.config.gan.lambda_d) for job in jobs]
    assert weights[:4] == [(0, 5), (0, 5), (1, 10), (1, 10)]


def test_the_search_grows_and_shrinks_but_not_below_what_has_begun():
    given = searcher()
    begun = [suggest(given, str(number)) for number in range(5)]
    assert given.started == {"proxy=digits": 3, "proxy=photos": 2}
    assert given.total == 12
    given.set_trials(8)
    assert (given.trials, given.total) == (8, 16)
    assert given.waiting(4) == [("search", f"proxy={name}") for name in ("photos", "digits", "photos")]
    assert len(given.waiting()) == 11  # asking changes nothing
    given.set_trials(4)
    assert (given.trials, given.total) == (4, 8)
    assert given.waiting() == given.waiting(4)
    given.set_trials(0)
    assert (given.total, given.waiting()) == (5, [])
    for number in range(5):
        end(given, str(number), result(0.5, "COMPLETE"))
    given.set_trials(3)
    assert given.total == 6
    more = run_all(given)
    assert [one.cell for one in [*begun, *more]] == ["proxy=digits", "proxy=photos"] * 3
    assert [one.number for one in [*begun, *more]] == [*range(6)]


def test_cells_without_parameters_keep_their_one_trial():
    given = searcher(parameters={}, when=[{"if": {"proxy": "photos"}, "parameters": WEIGHTS}])
    assert given.varied == ["proxy=photos"]
    given.set_trials(2)
    assert [cell for _, cell in given.waiting()] == ["proxy=digits", "proxy=photos", "proxy=photos"]
    assert given.waiting(0) == [("search", "proxy=digits")]


def test_a_cell_without_parameters_has_one_trial_or_leaves_it_to_the_finals():
    changes = {
        "cells": {"method": ["dcgan", "degan"]},
        "parameters": {},
        "when": [{"if": {"method": "degan"}, "parameters": WEIGHTS}],
        "search": {"trials": 3},
    }
    cells = [job.cell for job in run_all(searcher(**changes))]
    assert cells == ["method=dcgan", "method=degan", "method=degan", "method=degan"]
    cells = [job.cell for job in run_all(searcher(**changes, finals={"seeds": [1]}))]
    assert cells == ["method=degan"] * 3
    assert run_all(searcher(parameters={}, finals={"seeds": [1]})) == []


def test_a_grid_gives_every_combination_once():
    given = searcher(parameters={"gan.lambda_e": [0, 1], "gan.lambda_d": [0, 5, 10]}, search={"sampler": "grid"})
    jobs = run_all(given)
    for cell in given.studies:
        gans = [job.config.gan for job in jobs if job.cell == cell]
        weights = [(gan.lambda_e, gan.lambda_d) for gan in gans]
        assert weights == [(e, d) for e in (0, 1) for d in (0, 5, 10)]


def test_no_trial_is_left_running():
    given = searcher(first=[{"gan.lambda_e": 0}])
    run_all(given)
    states = {trial.state for study in given.studies.values() for trial in study.get_trials()}
    assert states == {TrialState.COMPLETE}


FEW = {
    "lists": ({"gan.lambda_e": [0, 1], "gan.lambda_d": [5]}, 2),
    "whole numbers": ({"gan.width": {"int": [2, 3]}, "gan.lambda_d": [5, 6]}, 4),
    "weights without effect": ({"method": ["degan", "dcgan"], "gan.lambda_d": [0, 1, 5]}, 4),
    "a range without effect": (None, 1),
}


@pytest.mark.parametrize("name", FEW)
def test_each_of_a_few_possible_points_is_tried_once(name):
    parameters, points = FEW[name]
    changes = {"parameters": parameters or WEIGHTS, "cells": {"proxy": ["digits"]}, "search": {"trials": 30}}
    if parameters is None:
        changes["cells"]["method"] = ["dcgan"]
    given = searcher(**changes)
    assert given.total == points
    (line,) = fewer_points(given.cells.values())
    assert f"search.trials is 30, but there are only {points} possible points: {points} are run" in line
    given.set_trials(20)
    assert len(given.waiting()) == len(given.waiting(1000)) == points
    given.set_trials(1)
    assert given.total == 1
    given.set_trials(1000)
    jobs = run_all(given)
    assert len(jobs) == points
    assert len({stable_hash(job.config) for job in jobs}) == points


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_last_points_of_a_list_are_found(sampler):
    parameters = {"gan.lambda_d": [*range(12)], "gan.lambda_e": [0, 1, 2]}
    given = searcher(parameters=parameters, cells={}, search={"trials": 50, "sampler": sampler})
    jobs = run_all(given, score=lambda config: -config.gan.lambda_d)
    assert len(jobs) == len({stable_hash(job.config) for job in jobs}) == 36


def test_a_range_has_points_for_any_number_of_trials():
    given = searcher(search={"trials": 30}, cells={"proxy": ["digits"]})
    assert given.total == 30
    assert not list(fewer_points(given.cells.values()))
    beside = searcher(search={"trials": 30}, cells={"proxy": ["digits"], "method": ["dcgan", "degan"]})
    assert beside.total == 31
    assert not list(fewer_points(beside.cells.values()))
