"""What the user sees of a run whose teacher has no true images: agreement with the teacher, and no accuracy."""

import re

import numpy as np
import pandas as pd
import pytest
from made_without_true_data import without_true_data

from analysis import figures, finals, report
from analysis.figures import style
from analysis.regret import regret
from analysis.relatedness import outcomes
from analysis.report import tables
from analysis.statistics import wilson
from analysis.tables.styles import STYLES
from analysis.tables.table import render, table
from degan_search import ledger
from degan_search.selection import choose
from degan_search.system.errors import UserError
from tests.analysis.figures.made_parts import given
from tests.cli.calls import call, refused

JUNK = re.compile(r"\bnan\b|\bNone\b|cifar10\b|\bmissing\b", re.IGNORECASE)


@pytest.fixture(scope="module", params=[False, True], ids=["nothing", "few images"])
def run(request, tmp_path_factory):
    return without_true_data(tmp_path_factory.mktemp("runs") / "made", check=request.param)


@pytest.fixture(scope="module")
def frame(run):
    return ledger.load(run)


def has_check(frame):
    return frame["check_accuracy"].notna().any()


class TestTable:
    """The table of proxies by methods."""

    def test_shows_agreement_over_the_finals_seeds(self, frame):
        cell = table(frame).set_index(["proxy", "method"]).loc["photos", "degan"]
        assert (cell["ours"], cell["n"]) == (pytest.approx(75), 2)
        assert cell["std"] == pytest.approx(np.std([70, 80], ddof=1))
        assert cell[["paper", "difference", "teacher"]].isna().all()
        assert cell["chosen_by"] == "data-free: cross_soft_agreement"

    def test_of_a_search_without_finals_is_starred(self, frame):
        text = render(table(frame[frame["phase"] == "search"]))
        assert "60.0* (1)" in text and "* Measured on the comparison images: the search's best" in text

    @pytest.mark.parametrize("kind", STYLES)
    def test_says_so_and_has_no_junk(self, frame, kind):
        text = render(table(frame), kind)
        assert not JUNK.search(text)
        if kind != "csv":
            assert "No true data: judged by agreement with the teacher" in text
            assert "Agreement is no accuracy" in text

    def test_few_images_stand_beside_it_with_their_interval(self, frame):
        text, tidy = " ".join(render(table(frame)).split()), table(frame)
        if has_check(frame):
            assert "65.0 [43.3, 81.9]" in text and "on the 20 labelled images" in text
            assert "the teacher's: 90.0 [69.9, 97.2]" in text
            assert (tidy["n_check"] == 20).all()
        else:
            assert "labelled images" not in text and tidy["check"].isna().all()

    @pytest.mark.parametrize(
        ("objective", "shown"),
        [("infomax", "balanced_soft_agreement"), ("check_accuracy", "balanced_soft_agreement"), ("agreement",) * 2],
    )
    def test_shows_the_objective_if_it_is_an_agreement(self, tmp_path, objective, shown):
        folder = without_true_data(tmp_path / "x", check=True, objective=objective)
        assert f"({shown})" in render(table(ledger.load(folder)))


def test_wilson_interval_of_known_counts():
    """Newcombe (1998): 81 of 263 and 15 of 148."""
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        found = wilson(right / n, n)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


class TestFinals:
    """Final runs in pairs."""

    def test_are_compared_by_agreement(self, frame):
        compared = finals.compare(frame)
        photos = compared[compared["proxy"] == "photos"].set_index("method")
        assert photos["agreement"].to_dict() == pytest.approx({"degan": 75, "proxy": 65, "dcgan": 55})
        assert photos["difference"].dropna().to_dict() == pytest.approx({"proxy": 10, "dcgan": 20})
        assert compared[["accuracy", "teacher"]].isna().all(axis=None)

    def test_text_says_so(self, frame):
        text = finals.render(finals.compare(frame))
        assert "No true data: judged by agreement with the teacher (balanced_soft_agreement)" in text
        assert "test accuracy" not in text and "Teacher: not measured" not in text and not JUNK.search(text)
        assert ("65.0 [43.3, 81.9]" in text) == has_check(frame)


class TestChoice:
    """What needs true data says so."""

    def test_regret_and_correlations_say_what_they_need(self, frame):
        with pytest.raises(UserError, match=r"needs a labelled set in teacher\.dataset"):
            regret(frame)
        with pytest.raises(UserError, match=r"these trials have no teacher\.dataset"):
            outcomes(frame)

    def test_best_by_accuracy_is_refused(self, run, frame):
        refused("best", run, "--by", "oracle_accuracy", says=["teacher.dataset", "cross_soft_agreement or score"])
        if not has_check(frame):
            refused("best", run, "--by", "check_accuracy", says=["teacher.check"])

    def test_best_is_data_free_with_the_few_images_beside(self, run, frame):
        result = call("best", run)
        assert result.exit_code == 0 and "cross_soft_agreement" in result.stdout
        assert ("0.650 [0.433, 0.819] on 20 images" in result.stdout) == has_check(frame)

    def test_an_objective_on_few_images_chooses(self, tmp_path):
        frame = ledger.load(without_true_data(tmp_path / "x", check=True, objective="check_accuracy"))
        assert choose.chosen_by(frame) == "score"
        finals = table(frame[frame["phase"] == "search"])
        assert set(finals["chosen_by"].dropna()) == {"a few labelled images: check_accuracy"}


class TestFigures:
    """Figures show agreement and name their axis so."""

    @pytest.mark.parametrize("name", ["methods_by_proxy", "relatedness", "pareto", "weights"])
    def test_are_drawn_with_their_axis_named(self, run, frame, name):
        parts = given(frame, ledger.curves(run))
        entry = figures.FIGURES[name]
        figure = entry.draw(*(parts[need] for need in entry.needs))
        said = [axes.get_ylabel() for axes in figure.axes]
        wanted = "score\nbelow the panel's best" if name == "weights" else "agreement with the teacher (%)"
        assert wanted in said and "student accuracy (%)" not in said

    def test_proxies_of_runs_with_and_without_true_data_stay_apart(self, frame):
        other = frame.assign(config_teacher_dataset="digits")
        names = style.proxy_names(pd.concat([frame, other], ignore_index=True))
        assert set(names) >= {"no true data: photos", "digits: photos"}


class TestReport:
    """The report page."""

    def test_agreement_by_class_of_each_cells_choice(self, frame):
        (shown,) = tables.by_class(frame, {"made": ["ant", "bee", "cat"]})
        heads = [head for head, _ in shown["heads"]]
        place = next(place for place, head in enumerate(heads) if "photos" in head and "degan" in head)
        assert [row[0] for row in shown["rows"]] == ["ant", "bee", "cat"]
        assert [row[place] for row in shown["rows"]] == ["75.0", "", "100.0"]

    @pytest.mark.parametrize("names", [None, [], {"made": "ant"}, {"made": ["ant"]}, {"other": ["ant"]}])
    def test_classes_without_a_name_are_numbered(self, frame, names):
        (shown,) = tables.by_class(frame, names)
        assert [row[0] for row in shown["rows"]][1:] == ["class 1", "class 2"]

    def test_rows_of_an_older_version_have_none(self, frame):
        assert tables.by_class(frame.assign(class_agreement=None), {}) == []

    def test_the_page_says_what_it_is_judged_by(self, run, frame):
        page = report.write(run).read_text()
        shown = page[page.index("<main") : page.index("<script")]
        for part in ("none: judged by agreement", "Agreement by class", "<td>ant</td>", "needs a labelled set"):
            assert part in shown
        assert "degan-search regret" not in shown and not re.search(r"\bnan\b|cifar10\b", shown)
        assert ("90.0% [69.9, 97.2] on the 20 labelled images" in shown) == has_check(frame)
