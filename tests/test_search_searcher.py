"""The searcher with real Optuna studies, as Tune would drive it, but without a cluster."""

import math

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.config import TrialConfig
from degan_search.records import Phase
from degan_search.search import space as spaces
from degan_search.search.searcher import CellSearcher, GivenJobs, job
from degan_search.search.space import Space

TRIAL = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}}
WEIGHTS = {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": {"range": [0, 50]}}


def searcher(**changes):
    settings = {"trial": TRIAL, "cells": {"proxy": ["digits", "photos"]}, "parameters": WEIGHTS}
    space = Space.model_validate({**settings, "search": {"trials": 6}, **changes})
    spaces.check(space)
    return CellSearcher(spaces.cells(space))


def result(score, state=None, budget=10):
    return {"score": score, "state": state, "budget": budget}


def run_all(given, score=lambda config: 0.5):
    """Finish every trial in order; returns the jobs."""
    jobs = []
    while (suggested := given.suggest(str(len(jobs)))) != Searcher.FINISHED:
        value = score(TrialConfig.model_validate(suggested["config"]))
        given.on_trial_complete(str(len(jobs)), result(value, "COMPLETE"))
        jobs.append(suggested)
    return jobs


def test_cells_take_turns_and_jobs_say_what_to_do():
    given = searcher()
    jobs = run_all(given)
    assert [job["cell"] for job in jobs] == ["proxy=digits", "proxy=photos"] * 6
    assert [job["number"] for job in jobs] == [*range(12)]
    assert [job["id"] for job in jobs[:2]] == ["search-0000", "search-0001"]
    assert {job["phase"] for job in jobs} == {"search"}
    for suggested in jobs:
        config = TrialConfig.model_validate(suggested["config"])
        assert suggested["cell"] == f"proxy={config.proxy}"
        assert config.gan.lambda_e == 0 or 0.1 <= config.gan.lambda_e <= 10
    assert given.suggest("more") == Searcher.FINISHED


def test_studies_are_told_how_each_trial_ended():
    given = searcher(cells={"proxy": ["digits"]})
    for name in ("good", "poor", "broken", "lost", "unmeasured", "removed"):
        assert isinstance(given.suggest(name), dict)
    given.on_trial_result("good", result(0.25, budget=10))
    given.on_trial_result("good", result(0.5, budget=20))
    given.on_trial_complete("good", result(0.75, "COMPLETE", budget=30))
    given.on_trial_result("poor", result(0.2, budget=10))
    # Tune does not tell of the result at which ASHA stops a trial before its end.
    given.on_trial_complete("poor", result(0.1, budget=20))
    given.on_trial_complete("broken", result(math.nan, "FAIL"))
    given.on_trial_complete("lost", None, error=True)
    given.on_trial_complete("unmeasured", result(math.nan, "COMPLETE"))
    given.on_trial_complete("removed")
    told = given.studies["proxy=digits"].get_trials()
    complete, pruned, fail = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
    assert [trial.state for trial in told] == [complete, pruned, fail, fail, fail, fail]
    assert [trial.value for trial in told] == [0.75, 0.1, None, None, None, None]
    assert [trial.intermediate_values for trial in told] == [{10: 0.25, 20: 0.5}, {10: 0.2, 20: 0.1}, {}, {}, {}, {}]
    assert given.studies["proxy=digits"].best_value == 0.75
    assert not given.asked


def test_a_final_result_is_no_rung_and_an_unknown_trial_is_nobodys():
    given = searcher()
    given.suggest("a")
    given.on_trial_result("a", result(0.9, "COMPLETE"))
    given.on_trial_result("unknown", result(0.9))
    given.on_trial_complete("unknown", result(0.9, "COMPLETE"))
    given.on_trial_complete("a", result(0.9, "COMPLETE"))
    told = given.studies["proxy=digits"].get_trials()
    assert [trial.intermediate_values for trial in told] == [{}]
    assert not given.studies["proxy=photos"].get_trials()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_equal_seeds_and_order_give_equal_suggestions(sampler):
    def jobs(seed):
        # More trials than TPE's random start, so that its model takes part.
        given = searcher(search={"sampler": sampler, "trials": 9, "seed": seed})
        return run_all(given, lambda config: config.gan.lambda_d / 100)

    first = jobs(1)
    assert first == jobs(1)
    assert first != jobs(2)
    # Cells draw from streams of their own.
    digits, photos = first[::2], first[1::2]
    assert [job["config"]["gan"] for job in digits] != [job["config"]["gan"] for job in photos]


def test_tpe_learns_from_scores():
    given = searcher(cells={"proxy": ["digits"]}, search={"trials": 30})
    jobs = run_all(given, lambda config: -abs(config.gan.lambda_d - 40))
    drawn = [job["config"]["gan"]["lambda_d"] for job in jobs]
    off = [abs(value - 40) for value in drawn]
    assert sum(off[-15:]) / 15 < 7 < sum(off[:5]) / 5


def test_first_points_come_first_in_each_cell():
    first = [{"gan.lambda_e": 0, "gan.lambda_d": 5}, {"gan.lambda_e": 1, "gan.lambda_d": 10}]
    jobs = run_all(searcher(first=first))
    weights = [(job["config"]["gan"]["lambda_e"], job["config"]["gan"]["lambda_d"]) for job in jobs]
    assert weights[:4] == [(0, 5), (0, 5), (1, 10), (1, 10)]


def test_a_cell_without_parameters_has_one_trial_or_leaves_it_to_the_finals():
    changes = {
        "cells": {"method": ["dcgan", "degan"]},
        "parameters": {},
        "when": [{"if": {"method": "degan"}, "parameters": WEIGHTS}],
        "search": {"trials": 3},
    }
    cells = [job["cell"] for job in run_all(searcher(**changes))]
    assert cells == ["method=dcgan", "method=degan", "method=degan", "method=degan"]
    cells = [job["cell"] for job in run_all(searcher(**changes, finals={"seeds": [1]}))]
    assert cells == ["method=degan"] * 3
    assert run_all(searcher(parameters={}, finals={"seeds": [1]})) == []


def test_a_grid_gives_every_combination_once():
    given = searcher(parameters={"gan.lambda_e": [0, 1], "gan.lambda_d": [0, 5, 10]}, search={"sampler": "grid"})
    jobs = run_all(given)
    for cell in given.studies:
        gans = [job["config"]["gan"] for job in jobs if job["cell"] == cell]
        weights = [(gan["lambda_e"], gan["lambda_d"]) for gan in gans]
        assert weights == [(e, d) for e in (0, 1) for d in (0, 5, 10)]


def test_no_trial_is_left_running():
    given = searcher(first=[{"gan.lambda_e": 0}])
    run_all(given)
    states = {trial.state for study in given.studies.values() for trial in study.get_trials()}
    assert states == {TrialState.COMPLETE}


def test_given_jobs_are_handed_out_in_order():
    jobs = [job(Phase.FINAL, number, "all", {}) for number in range(3)]
    given = GivenJobs(jobs)
    assert [given.suggest(str(n)) for n in range(4)] == [*jobs, Searcher.FINISHED]
    assert len(jobs) == 3
    assert [one["id"] for one in jobs] == ["final-0000", "final-0001", "final-0002"]
