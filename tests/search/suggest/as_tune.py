"""Searchers that tests drive as Tune would: jobs are suggested, results told, trials ended."""

from ray.tune.search import Searcher

from degan_search.ledger.columns import State
from degan_search.search.run import tune_dicts
from degan_search.search.run.results import TrialResult
from degan_search.search.space import cell as spaces
from degan_search.search.space import check
from degan_search.search.space.schema import Space
from degan_search.search.suggest.cell_searcher import CellSearcher

TRIAL = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}}
WEIGHTS = {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": {"range": [0, 50]}}


def searcher(**changes):
    settings = {"trial": TRIAL, "cells": {"proxy": ["digits", "photos"]}, "parameters": WEIGHTS}
    space = Space.model_validate({**settings, "search": {"trials": 6}, **changes})
    check.check(space)
    return CellSearcher(spaces.cells(space))


def result(score, state=None, gan_steps=10):
    return {"score": score, "state": state, "gan_steps": gan_steps}


def tell(given, trial_id, last, name=None):
    """Tell of a result as Tune does."""
    told = TrialResult(id=name or given.running[trial_id][0].id, **last)
    given.on_trial_result(trial_id, tune_dicts.to_result([told], [] if told.state else [told.id], 1))


def end(given, trial_id, last=None, state=State.FAIL):
    """End a trial as the callbacks do; `state` is the last result's, if that has one."""
    (one,) = given.running[trial_id]
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
