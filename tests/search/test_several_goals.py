"""A real sweep after two goals at once: a student's score and its size."""

import json

import pytest

import degan_search as ds
from degan_search.search.suggest import studies
from degan_search.search.suggest.asha import Rungs
from tests.cli.calls import TRIAL, call
from tests.search.tiny_sweep import share

GOALS = ["score", "student_parameters"]
SPACE = {
    "trial": {**TRIAL, "probe": {"at": [2], "steps": 4, "batch_size": 8}},
    "cells": {"proxy": ["digits"], "method": ["degan"]},
    "parameters": {"student.width": [2, 3, 4], "student.network": ["lenet", "lenet_half"]},
    "search": {"trials": 6, "objectives": GOALS},
    "asha": {"reduction_factor": 1.5},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goals")
    share(SPACE, folder / "cache")
    return ds.sweep(SPACE, storage=folder, name="tiny", max_concurrent=1, keep=1, quiet=True)


def test_each_student_has_its_size_also_where_it_was_stopped(run):
    trials = run.trials
    assert len(trials) == 6 and trials["student_parameters"].notna().all()
    by_student = trials.groupby(["config_student_network", "config_student_width"])["student_parameters"]
    assert (by_student.nunique() == 1).all() and trials["student_parameters"].nunique() == 3


def test_the_front_is_printed_and_its_students_are_kept(run):
    printed = call("best", run.path, "--pareto", "--json")
    rows = json.loads(printed.stdout)
    done = run.trials[run.trials["state"] == "COMPLETE"]
    smallest = done.loc[done["student_parameters"].idxmin(), "trial_id"]
    best = done.loc[done["score"].idxmax(), "trial_id"]
    named = [row["trial"] for row in rows]
    assert named[0] == best and smallest in named
    for row in rows:
        assert row["config"]["student"]["width"] == row["width"]
        assert run.student(row["trial"])
    assert "Pareto front" in run.report().read_text()


def test_studies_and_rungs_are_rebuilt_from_the_ledger(run):
    (study,) = studies.studies(run.path).values()
    told = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    for row in run.trials.to_dict("records"):
        trial = told[row["trial_id"]]
        assert trial.values == ([row[goal] for goal in GOALS] if row["state"] == "COMPLETE" else None)
    assert study.ask().number == 6
    rungs = Rungs(1.5, GOALS)
    rungs.fill(run.curves, run.trials)
    (recorded,) = rungs.scores.values()
    assert sorted(size for _, size in recorded) == sorted(run.trials["student_parameters"])
