"""Tables 1 and 2: which rows there are, and the paper's figures beside ours."""

import pandas as pd
import pytest

from analysis.tables.cells import HELD_OUT, MISSING, NO_TEST, TEST
from analysis.tables.distillation import COLUMNS
from analysis.tables.styles import STYLES
from analysis.tables.table import render
from degan_search.system.errors import UserError
from tests.analysis.tables.made_rows import NOISE, RELATED


def test_rows_follow_the_paper_then_the_rest(sweep):
    for proxy in ("folder:mine", NOISE, RELATED, "cifar100/background_6"):
        sweep.add(proxy, "true", score=0.5, oracle=0.5)
    sweep.add(NOISE, "degan", score=0.5, oracle=0.5)
    sweep.add(NOISE, "proxy", score=0.5, oracle=0.5)
    assert "teacher" in set(sweep.tidy().method)  # Table 1: a method without proxy ran
    tidy = sweep.tidy(paper="table2")
    assert list(tidy.columns) == COLUMNS
    assert list(tidy.method.unique()) == ["true", "proxy", "dcgan", "degan"]
    run = tidy[tidy.method == "true"]  # the run's proxies; those of the paper alone have its three methods
    assert list(run.proxy) == [RELATED, "cifar100/background_6", NOISE, "folder:mine"]
    assert len(tidy) == 10 * 3 + 4 + 2
    assert sweep.cell(NOISE, "degan", paper="table2")["paper"] == 23.26


def test_each_number_of_proxy_images_has_rows_of_its_own(sweep):
    for number, count in enumerate((500, None)):
        settings = {"teacher.dataset": "glyphs", "count": count}
        sweep.add("folder:mine", "degan", score=0.5, oracle=0.5 + number / 4, settings=settings)
    tidy = sweep.tidy()
    assert list(tidy.proxy) == ["folder:mine, 500 images", "folder:mine, all images"]
    assert list(tidy.ours) == [50, 75] and (tidy.trials == 1).all()


def test_cells_of_the_paper_without_a_trial_are_missing(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.5, seconds=9.0)
    tidy = sweep.tidy()
    missing = tidy[tidy.measured_on == MISSING]
    assert len(tidy) == 30 and len(missing) == 29
    assert missing.paper.notna().all() and missing.ours.isna().all() and missing.chosen_by.isna().all()
    assert (missing[["n", "trials", "pruned", "failed", "hours"]] == 0).all(axis=None)
    for style in STYLES:
        assert render(tidy, style).count("missing") == 29


def test_a_cell_whose_trials_all_stopped_early_says_so(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    sweep.add(NOISE, "degan", score=0.1, state="PRUNED")
    assert render(sweep.tidy()).count("stopped early") == 1


def test_other_data_sets_lack_nothing_of_the_papers(sweep):
    sweep.add("photos", "degan", score=0.5, oracle=0.5, settings={"teacher.dataset": "glyphs"})
    for paper in ("table1", "table2"):
        tidy = sweep.tidy(paper=paper)
        assert tidy[["proxy", "method"]].to_numpy().tolist() == [["photos", "degan"]]
        assert "paper" not in render(tidy)


def test_of_a_searched_proxy_the_chosen_one_is_marked(sweep):
    glyphs = {"teacher.dataset": "glyphs"}
    one_bank = glyphs | {"bank.proxies": ["photos", "digits", "svhn"]}
    for proxy, score in (("photos", 0.6), ("digits", 0.7), ("svhn", 0.5)):
        sweep.add(proxy, "degan", score=score, oracle=0.5, settings=one_bank)
    sweep.add("photos", "combined", score=0.9, test=0.5, settings=one_bank)
    sweep.add("noise/uniform", "degan", score=0.9, oracle=0.5, settings=glyphs)  # with a bank of its own
    tidy = sweep.tidy()
    rows = tidy[["proxy", "method", "chosen_proxy"]].fillna("").to_numpy().tolist()
    of_bank = [[name, "degan", "digits"] for name in ("digits", "photos", "svhn")]
    assert sorted(rows) == sorted([*of_bank, ["photos", "combined", ""], ["noise/uniform", "degan", ""]])
    assert render(tidy, "markdown").count("(chosen)") == 1
    assert "missing" not in render(tidy)
    sweep.add("svhn", "degan", score=0.5, test=0.5, settings=one_bank)  # what the finals ran
    assert sweep.cell("digits", "degan")["chosen_proxy"] == "svhn"


@pytest.mark.parametrize(
    ("dataset", "paper", "figures"),
    [
        ("cifar10", "table2", {"dcgan": 26.5, "degan": 55.05, "true": None}),
        ("cifar10", "table1", {"dcgan": None, "degan": None, "true": 81.78}),
        ("fashion_mnist", "table2", {"dcgan": None, "degan": None, "true": 88.98}),
        ("glyphs", "table2", {"dcgan": None, "degan": None, "true": None}),
    ],
)
def test_the_papers_figures_belong_to_the_true_data(sweep, dataset, paper, figures):
    for method in ("dcgan", "degan", "true"):
        sweep.add("svhn", method, score=0.5, oracle=0.5, settings={"teacher.dataset": dataset})
    tidy = sweep.tidy(paper=paper)
    shown = tidy[tidy.trials > 0].set_index("method").paper
    assert {name: None if pd.isna(value) else value for name, value in shown.items()} == figures
    assert (tidy[tidy.method == "true"].trials > 0).all()  # true images belong to no proxy: nothing is missing


def test_fashion_has_the_figures_of_table_1(sweep):
    sweep.add("cifar10", "degan", score=0.5, oracle=0.5, settings={"teacher.dataset": "fashion_mnist"})
    assert sweep.cell("cifar10", "degan")["paper"] == 83.79


def test_table_1_cites_what_needs_no_proxy_and_measures_the_teacher(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5, teacher=0.7)
    sweep.add(RELATED, "degan", score=0.5, test=0.5, teacher=0.7)
    tidy = sweep.tidy(paper="table1").set_index("method")
    assert list(tidy.index) == ["teacher", "zskd", "true", "proxy", "dcgan", "degan"]
    assert list(tidy.proxy) == ["none", "none", "cifar10", RELATED, RELATED, RELATED]
    assert list(tidy.paper) == [83.02, 69.56, 81.78, 74.58, 66.24, 80.55]
    teacher = tidy.loc["teacher"]
    assert (teacher.ours, teacher.n, teacher.measured_on) == (pytest.approx(71), 1, TEST)
    assert teacher.difference == pytest.approx(71 - 83.02)
    assert list(tidy.index[tidy.measured_on == MISSING]) == ["zskd", "true", "proxy", "dcgan"]


def test_the_teacher_without_finals_is_measured_on_the_held_out_images(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5, teacher=0.7)
    teacher = sweep.cell("none", "teacher", paper="table1")
    assert (teacher["ours"], teacher["measured_on"]) == (pytest.approx(70), HELD_OUT)


def test_finals_without_test_images_show_held_out_accuracy_and_say_so(sweep):
    """True images of the user's own folder have no test split."""
    for seed, accuracy in enumerate((0.5, 0.7)):
        settings = {"teacher.dataset": "folder:mine", "seed": seed}
        sweep.add("photos", "degan", score=0.5, oracle=accuracy, settings=settings, phase="final")
    sweep.add("photos", "true", score=0.5, oracle=0.75, settings={"teacher.dataset": "folder:mine"})
    cell = sweep.cell("photos", "degan")
    assert (cell["ours"], cell["n"], cell["teacher"], cell["measured_on"]) == (pytest.approx(60), 2, 80, NO_TEST)
    text = " ".join(render(sweep.tidy()).split())
    assert "60.0** ± 14.1 (2)" in text and "75.0* (1)" in text and "missing" not in text
    assert "teacher: 80.0 on the held-out 20%" in text
    assert "** Measured on the held-out 20% of the true training images: final trials, as the true data have no" in text


def test_settings_are_not_mixed(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5, settings={"student.network": "lenet_half"})
    with pytest.raises(UserError, match="config_student_network is alexnet_half, lenet_half"):
        sweep.tidy()


def test_what_needs_no_proxy_is_not_missing_on_others(sweep):
    """A run of Table 1 and one of Table 2 side by side: true images, and images made from the teacher alone."""
    for method in ("true_matched", "few_shot", "zskd", "zskd_matched"):
        sweep.add(RELATED, method, score=0.5, test=0.6)
    sweep.add(NOISE, "degan", score=0.5, test=0.5)
    tidy = sweep.tidy(paper="table1")
    assert list(tidy[tidy.proxy == NOISE].method) == ["degan"]
    expected = ["true_matched", "few_shot", "zskd", "zskd_matched", "proxy", "dcgan", "degan"]
    assert list(tidy[tidy.proxy == RELATED].method) == expected
    assert "zskd" not in set(tidy[tidy.proxy == "none"].method)  # measured: beside the paper's
    cells = tidy[tidy.trials > 0].set_index("method")
    assert (cells.paper["zskd"], cells.difference["zskd"]) == (69.56, pytest.approx(60 - 69.56))
    assert cells.paper[["true_matched", "few_shot", "zskd_matched"]].isna().all()
