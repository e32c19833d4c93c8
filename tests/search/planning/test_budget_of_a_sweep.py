"""A time budget given to the command, to a run that goes on, and to a sweep under a real Ray."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.ledger.columns import config_columns
from degan_search.search import resume as resuming
from degan_search.search.planning import budget as budgets
from degan_search.search.planning import timed_steps
from degan_search.search.run import jobs
from degan_search.search.run.options import Options
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.search.sweep import sweep
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError
from tests.search.planning.made_up_steps import steps_take


def called(*arguments):
    return CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


class TestCommand:
    """`--budget` before anything runs."""

    @pytest.fixture(autouse=True)
    def image(self, monkeypatch):
        steps_take(monkeypatch, 10.0, 10.0)

    def write(self, folder, tiny, **changes):
        settings = {"trial": tiny().model_dump(mode="json"), "parameters": {"gan.lambda_d": {"range": [0, 5]}}}
        file = folder / "mine.yaml"
        file.write_text(yaml.safe_dump({**settings, **changes}))
        return file

    def test_a_dry_run_prints_the_plan(self, tmp_path, tiny):
        file = self.write(tmp_path, tiny, finals={"seeds": [1, 2]})
        result = called("sweep", file, "--dry-run", "--budget", "10h", "--max-concurrent", 3)
        assert result.exit_code == 0, result.output
        last = result.stdout.splitlines()[-1]
        # A trial takes 1600 s; in 9.5 hours there are 21 rounds of three, one of them the finals'.
        assert last == "Budget 10 h: 3 trials at a time, 60 trials in one cell, 4 finals; about 9 h 20 min"

    @pytest.mark.parametrize(
        ("changes", "budget", "says"),
        [
            ({}, "30min", "--budget 30 min is too short: 4 trials in one cell take about 1 h 52 min, 1 at a time"),
            (
                {"parameters": {"gan.lambda_d": [0, 5]}},
                "30min",
                "--budget 30 min is too short: 2 trials in one cell take about 56 min, 1 at a time",
            ),
            ({}, "0s", "--budget '0s' is no time at all"),
            ({}, "soon", "--budget 'soon' is no time"),
            (
                {"search": {"sampler": "grid"}, "parameters": {"gan.lambda_d": [0, 5]}},
                "2h",
                "--budget: search.sampler grid runs every combination",
            ),
            ({"parameters": {}}, "2h", "--budget: no cell of the space has parameters"),
        ],
    )
    @pytest.mark.parametrize("dry", [True, False])
    def test_refusals_come_before_anything_starts(self, tmp_path, tiny, monkeypatch, changes, budget, says, dry):
        monkeypatch.setattr("degan_search.search.sweep.ray_cluster", None)
        file = self.write(tmp_path, tiny, **changes)
        more = ["--dry-run"] if dry else ["--storage", tmp_path / "runs"]
        result = called("sweep", file, "--budget", budget, "--max-concurrent", 1, *more)
        assert result.exit_code == 2
        assert says in result.output
        assert not [*(tmp_path / "runs").glob("mine")]


class TestResume:
    """What is left of a budget."""

    def run(self, folder, finished, phase="search"):
        options = Options(folder, "run", budget=3600.0, budget_begun=1_000_000.0)
        for number, moment in enumerate(finished):
            one = jobs.new_job(phase, number, "all", TrialConfig())
            about = {"trial_id": one.id, "attempt": 1, "phase": phase} | config_columns(TrialConfig())
            ledger.write_row(
                options.folder, about | {"state": "COMPLETE", "finished": pd.Timestamp(moment, unit="s", tz="UTC")}
            )
            jobs.write(options.folder, one)
        return options

    def test_what_the_last_driver_worked_is_gone(self, tmp_path):
        options = self.run(tmp_path, [1_000_600, 1_000_060, 900_000])
        left = resuming.with_time_budget(options, False, None)
        assert left.budget == 3000
        assert left.budget_begun > 1_000_000

    def test_once_final_runs_have_begun_no_search_trial_does(self, tmp_path):
        assert resuming.with_time_budget(self.run(tmp_path, [1_000_600], "final"), False, None).budget == 0

    def test_a_new_one_counts_from_now_and_a_number_of_trials_ends_it(self, tmp_path):
        options = self.run(tmp_path, [1_000_600], "final")
        assert resuming.with_time_budget(options, True, None).budget == 3600
        assert resuming.with_time_budget(options, False, 20).budget is None
        with pytest.raises(UserError, match="give one of the two"):
            resuming.with_time_budget(options, True, 20)
        assert resuming.with_time_budget(replace(options, budget=None), False, None).budget is None


def test_a_sweep_with_a_budget_under_ray(tmp_path, tiny, store, teacher, monkeypatch):
    """Timed steps, made up here, say that four trials fit; they turn out to be short, so there are more."""
    monkeypatch.setattr(timed_steps, "START", 0.0)
    steps_take(monkeypatch, 3.0, 1.0)
    monkeypatch.setattr(budgets, "MOST", 7)
    (tmp_path / "cache").symlink_to(store)
    trial = tiny({"gan.lr": 0.01, "bank.generators": []}).model_dump(mode="json")
    settings = {
        "trial": trial,
        "cells": {"method": ["proxy_matched", "degan"]},
        "finals": {"seeds": [1], "combine": None},
    }
    settings["search"] = {"sampler": "tpe"}  # some weights that the default suggests make this tiny GAN collapse
    when = [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 50]}}}]
    space, out = schema.Space.model_validate(settings | {"when": when}), io.StringIO()
    options = Options(tmp_path, "run", max_concurrent=1, budget=2100.0)
    sweep(space, options, Console(file=out, width=200))
    said = out.getvalue()
    assert ": 1 trial at a time, 4 trials in one cell, 2 finals; about 30 min" in said
    assert said.count("Budget, by the times measured so far: 7 trials in one cell, not 4\n") == 1
    assert "[7/7]" in said
    frame = ledger.load(tmp_path / "run")
    assert frame.groupby("phase").size().to_dict() == {"search": 7, "final": 2}
    assert (frame["state"] == "COMPLETE").all(), frame["reason"].dropna().to_list()
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["options"]["budget"] == 2100
    assert space_file.load(str(tmp_path / "run" / "space.yaml")).search.trials == 16
    # All is done: nothing more is run, though most of the time is left.
    monkeypatch.setattr("degan_search.search.sweep.ray_cluster", None)
    resuming.resume(Options(tmp_path, "run"), Console(file=out), {})
    assert len(ledger.load(tmp_path / "run")) == 9
