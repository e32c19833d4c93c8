"""The searcher with real Optuna studies, as Tune would drive it, but without a cluster."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.search import Searcher

from degan_search.ledger.columns import METRICS, Phase, State, config_columns
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.outbox import Outbox
from degan_search.search.run.results import TrialResult
from degan_search.search.space import cell as spaces
from degan_search.search.space import check, schema
from degan_search.search.space.schema import Space
from degan_search.search.suggest import cell_searcher as module
from degan_search.search.suggest.cell_searcher import CellSearcher, Past
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.trial import TrialConfig

CURVES = pd.DataFrame({"trial_id": [], "cell": [], "phase": [], "stage": [], "budget": [], "score": []})
TRIAL = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}}
WEIGHTS = {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": {"range": [0, 50]}}


def searcher(**changes):
    settings = {"trial": TRIAL, "cells": {"proxy": ["digits", "photos"]}, "parameters": WEIGHTS}
    space = Space.model_validate({**settings, "search": {"trials": 6}, **changes})
    check.check(space)
    return CellSearcher(spaces.cells(space))


def result(score, state=None, budget=10):
    return {"score": score, "state": state, "budget": budget}


def tell(given, trial_id, last, name=None):
    """Tell of a result as Tune does."""
    told = TrialResult(id=name or given.out[trial_id][0].id, **last)
    given.on_trial_result(trial_id, tune_dicts.to_result([told], [] if told.state else [told.id], 1))


def end(given, trial_id, last=None, state=State.FAIL):
    """End a trial as the callbacks do; `state` is the last result's, if that has one."""
    (one,) = given.out[trial_id]
    told = TrialResult(id=one.id, **last) if last else None
    given.on_trial_complete(trial_id, last, error=not last)
    given.ended(one, told.state if told and told.state else state, told)


def suggest(given, trial_id):
    """Return the job that is suggested, or what else is."""
    suggested = given.suggest(trial_id)
    return tune_dicts.from_config(suggested)[0] if isinstance(suggested, dict) else suggested


def run_all(given, score=lambda config: 0.5):
    """Finish every trial in order; returns the jobs."""
    jobs = []
    while (suggested := suggest(given, str(len(jobs)))) != Searcher.FINISHED:
        value = score(suggested.config)
        end(given, str(len(jobs)), result(value, "COMPLETE"))
        jobs.append(suggested)
    return jobs


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
    tell(given, "good", result(0.25, budget=10))
    tell(given, "good", result(0.5, budget=20))
    tell(given, "good", result(0.1, budget=20))  # cut short and come by again
    end(given, "good", result(0.75, "COMPLETE", budget=30))
    tell(given, "poor", result(0.2, budget=10))
    # Tune does not tell of the result at which ASHA stops a trial before its end.
    end(given, "poor", result(0.1, budget=20), State.PRUNED)
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
    assert [job.config.gan for job in digits] != [job.config.gan for job in photos]


def test_tpe_learns_from_scores():
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
    assert given.had == {"proxy=digits": 3, "proxy=photos": 2}
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


def test_what_waits_is_told_in_order():
    given = searcher(search={"trials": 1})
    first = suggest(given, "a")
    given.on_trial_complete("a", error=True)
    given.retry(first, 99)
    assert given.waiting() == [("search", "proxy=digits"), ("search", "proxy=photos")]
    finals = GivenJobs([new_job(Phase.FINAL, number, "all", TrialConfig()) for number in range(2)])
    suggest(finals, "a")
    assert finals.waiting() == [("final", "all")]


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


def test_given_jobs_are_handed_out_in_order():
    jobs = [new_job(Phase.FINAL, number, "all", TrialConfig()) for number in range(3)]
    given = GivenJobs(jobs)
    assert [suggest(given, str(n)) for n in range(4)] == [*jobs, None]
    for n in range(3):
        end(given, str(n), result(0.5, "COMPLETE"))
    assert suggest(given, "more") == Searcher.FINISHED
    assert len(jobs) == given.total == 3
    assert [one.id for one in jobs] == ["final-0000", "final-0001", "final-0002"]


def test_a_job_that_a_fault_cut_short_comes_again_after_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    given = searcher(cells={"proxy": ["digits"]}, search={"trials": 1})
    first = suggest(given, "a")
    given.on_trial_complete("a", error=True)
    given.retry(first, 5)
    assert suggest(given, "b") is None
    now[0] += 5
    again = suggest(given, "b")
    assert again == first.changed(attempt=2, faults=1)
    assert suggest(given, "c") is None  # it may come back once more
    end(given, "b", result(0.5, "COMPLETE"))
    assert suggest(given, "c") == Searcher.FINISHED
    assert [trial.state for trial in given.studies["proxy=digits"].get_trials()] == [TrialState.COMPLETE]


def test_nothing_starts_while_the_disk_takes_no_rows():
    outbox, full = Outbox(), [True]

    def write():
        if full:
            raise OSError("No space left on device")

    given = GivenJobs([new_job(Phase.FINAL, 0, "all", TrialConfig())], outbox)
    outbox.put("search-0000", write)
    assert suggest(given, "a") is None
    assert outbox.flush() == ["search-0000: No space left on device"]
    assert outbox.refused_for() > 0
    full.clear()
    assert outbox.flush() == []
    assert outbox.refused_for() == 0
    assert suggest(given, "a").id == "final-0000"


def rows_of(jobs, state="COMPLETE", score=0.5):
    moment = pd.Timestamp("2026-01-01", tz="UTC")
    about = dict.fromkeys(METRICS, math.nan) | {"score": score, "state": state, "started": moment, "finished": moment}
    return pd.DataFrame(
        [
            {**about, **config_columns(one.config), "trial_id": one.id}
            | {name: getattr(one, name) for name in ("cell", "phase", "number", "attempt")}
            | {"reason": None}
            for one in jobs
        ]
    )


@given(done=st.integers(0, 6), begun=st.integers(0, 3), more=st.integers(0, 3))
@settings(max_examples=25)
def test_a_search_that_goes_on_meets_its_budget_and_repeats_nothing(done, begun, more):
    first = [{"gan.lambda_e": 1, "gan.lambda_d": float(n)} for n in (1, 2, 3)]
    cut = searcher(first=first)
    jobs = [suggest(cut, str(n)) for n in range(done + begun)]
    frame = rows_of(jobs[:done]) if done else rows_of([new_job(Phase.SEARCH, 0, "a", TrialConfig())])[:0]
    rungs = {one.id: {10: 0.25} for one in jobs[done:]}
    past = Past(frame, CURVES, jobs[done:], rungs, done + begun)
    space = cut.cells["proxy=digits"].space.model_copy(update={"search": schema.SearchConfig(trials=6 + more)})
    on = CellSearcher(spaces.cells(space), past=past)
    assert on.total == 2 * (6 + more) - done
    later = run_all(on)
    assert later[:begun] == jobs[done:]
    everything = [*jobs[:done], *later]
    assert [one.number for one in everything] == [*range(2 * (6 + more))]
    for cell in on.studies:
        gans = [one.config.gan for one in everything if one.cell == cell]
        assert [gan.lambda_d for gan in gans[:3]] == [1, 2, 3]
        assert len({(gan.lambda_e, gan.lambda_d) for gan in gans}) == 6 + more
        told = on.studies[cell].get_trials()
        assert len(told) == 6 + more
        assert {trial.state for trial in told} == {TrialState.COMPLETE}
        assert sum(10 in trial.intermediate_values for trial in told) == sum(one.cell == cell for one in jobs[done:])
