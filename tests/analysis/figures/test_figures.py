"""Every figure draws what it is given or says what is missing."""

import numpy as np
import pytest
from made_ledger import made_ledger
from matplotlib.figure import Figure
from PIL import Image

from analysis import figures
from analysis.figures import style
from degan_search import ledger
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import given


class TestContract:
    """Every figure of the table."""

    @pytest.mark.parametrize("name", figures.FIGURES)
    def test_draws_a_run(self, name, trials, curves, tmp_path):
        entry, parts = figures.FIGURES[name], given(trials, curves)
        figures.save(entry.draw(*(parts[need] for need in entry.needs)), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size < style.LIMIT
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10

    @pytest.mark.parametrize("name", ["methods_by_proxy", "weights", "steps", "parallel", "pareto"])
    def test_draws_a_run_that_learns_new_classes(self, name, learned, tmp_path):
        entry, parts = figures.FIGURES[name], given(ledger.load(learned), ledger.curves(learned))
        figures.save(entry.draw(*(parts[need] for need in entry.needs)), tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size < style.LIMIT

    @pytest.mark.parametrize("name", figures.FIGURES)
    @pytest.mark.parametrize("which", ["none", "search-0000", "final-0000", "failed", "pruned"])
    def test_draws_one_trial_or_none_or_says_what_is_missing(self, name, which, trials, curves, tmp_path):
        states = {"failed": "FAIL", "pruned": "PRUNED"}
        ids = trials.loc[trials["state"] == states[which], "trial_id"].iloc[:1] if which in states else [which]
        parts = given(trials[trials["trial_id"].isin(ids)], curves[curves["trial_id"].isin(ids)])
        entry = figures.FIGURES[name]
        try:
            figure = entry.draw(*(parts[need] for need in entry.needs))
        except UserError as error:
            assert len(str(error)) > 20
        else:
            assert isinstance(figure, Figure)
            figures.save(figure, tmp_path / "one.png")

    def test_needs_are_what_the_test_and_the_command_give(self, trials, curves):
        assert {need for entry in figures.FIGURES.values() for need in entry.needs} == set(given(trials, curves))


def test_a_made_run_has_as_many_trials_as_asked_for_and_says_that_it_is_made(run, trials, curves):
    assert len(trials) == 120
    assert set(trials["host"]) == {"made"}
    assert '"made": true' in (run / "run.json").read_text()
    assert set(trials["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    assert trials.loc[trials["state"] != "COMPLETE", "reason"].str.startswith("made: ").all()
    assert set(curves["trial_id"]) <= set(trials["trial_id"])
    assert len(list((run / "trials").glob("*/samples.png"))) == 12
    assert len(ledger.load(made_ledger(run.parent / "small", 5))) == 5
