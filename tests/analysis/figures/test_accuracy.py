"""Accuracy by proxy and method, and by compute."""

import math

import pandas as pd
import pytest

from analysis import figures
from analysis.figures.accuracy import front
from analysis.tables.table import table
from degan_search import ledger
from degan_search.settings.methods import METHODS
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import TIDY, texts


class TestMethodsByProxy:
    """The table as a picture."""

    def test_every_measured_cell_is_written_beside_its_mark(self):
        (axes,) = figures.methods_by_proxy(TIDY).axes
        assert sorted(texts(axes)) == ["11", "60", "72"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["photos", "noise/\nuniform"]
        assert axes.get_ylim() == (0, 100)

    def test_methods_differ_in_mark_as_well_as_in_colour(self):
        (axes,) = figures.methods_by_proxy(TIDY).axes
        lines = [line for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
        assert len({line.get_marker() for line in lines}) == 2
        assert len({line.get_color() for line in lines}) == 2

    def test_of_table_3_each_kind_of_classes_has_its_place(self, learned):
        (axes,) = figures.methods_by_proxy(table(ledger.load(learned))).axes
        assert [label.get_text() for label in axes.get_xticklabels()] == [
            "all classes",
            "old classes",
            "new classes",
        ]
        assert texts(axes).count("50") == texts(axes).count("30") == 6

    def test_methods_of_one_proxy_do_not_reach_into_the_next(self):
        many = pd.DataFrame([{"proxy": p, "method": m, "ours": 50.0} for p in "ab" for m in METHODS])
        (axes,) = figures.methods_by_proxy(many.assign(std=math.nan, teacher=87.0, measured_on="test")).axes
        places = [line.get_xdata() for line in axes.get_lines() if line.get_marker() in figures.MARKERS]
        assert len(places) == len(METHODS)
        assert all(abs(place[0]) < 0.5 and abs(place[1] - 1) < 0.5 for place in places)

    def test_proxies_without_a_figure_are_left_out(self):
        missing = TIDY.assign(proxy="other", ours=math.nan)
        (axes,) = figures.methods_by_proxy(pd.concat([TIDY, missing])).axes
        assert len(axes.get_xticklabels()) == 2


class TestPareto:
    """Accuracy against compute."""

    def test_the_front_is_what_no_other_beats_or_equals(self):
        cost = pd.Series([3, 1, 2, 2, 4, 5], name="seconds")
        accuracy = pd.Series([30.0, 10.0, 20.0, 25.0, 30.0, 40.0])
        assert front(cost, accuracy).to_numpy().tolist() == [[1, 10], [2, 25], [3, 30], [5, 40]]

    def test_a_panel_for_each_proxy_of_each_true_data_set(self, trials):
        assert len(figures.pareto(trials).axes) == trials["config_proxy"].nunique()
        other = trials.assign(config_teacher_dataset="digits")
        titles = [axes.get_title() for axes in figures.pareto(pd.concat([trials, other])).axes]
        assert len(titles) == 2 * trials["config_proxy"].nunique()
        assert "digits: photos" in titles

    def test_costs(self, trials):
        assert "GAN steps" in figures.pareto(trials, "gan_steps").axes[-1].get_xlabel()
        with pytest.raises(UserError, match="'second'"):
            figures.pareto(trials, "second")
