"""Tables from rows that no trial measured: what is chosen, what it is measured on, and how it reads."""

import datetime as dt
import io
import math

import pandas as pd
import pytest
from made_ledger import Sweep
from PIL import Image

from analysis.statistics import interval
from analysis.tables.cells import HELD_OUT, MISSING, TEST
from analysis.tables.distillation import COLUMNS
from analysis.tables.styles import STYLES, WIDTH
from analysis.tables.table import render, save, table
from degan_search import ledger
from degan_search.settings.methods import TUNED
from degan_search.system.errors import UserError

RELATED, NOISE = "cifar100/related_90", "noise/uniform"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)  # nobody needs these rows after a power cut
    return Sweep(tmp_path / "x")


def test_the_best_score_is_chosen_not_the_best_accuracy(sweep):
    sweep.add(RELATED, "degan", score=0.7, oracle=0.9, settings={"gan.lambda_e": 9})
    sweep.add(RELATED, "degan", score=0.8, oracle=0.6, settings={"gan.lambda_e": 0.5, "gan.lambda_d": 3})
    sweep.add(RELATED, "degan", score=0.99, state="PRUNED")
    sweep.add(RELATED, "degan", oracle=0.95)
    sweep.add(RELATED, "degan", state="FAIL")
    cell = sweep.cell(RELATED, "degan")
    assert cell["ours"] == pytest.approx(60)
    assert (cell["measured_on"], cell["n"], cell["lambda_e"], cell["lambda_d"]) == (HELD_OUT, 1, 0.5, 3)
    assert (cell["trials"], cell["pruned"], cell["failed"]) == (5, 1, 1)
    assert (cell["paper"], cell["difference"]) == (80.55, pytest.approx(60 - 80.55))
    assert cell["chosen_by"] == "data-free: balanced_soft_agreement"
    assert pd.isna([cell["std"], cell["low"], cell["high"]]).all()


def test_finals_are_measured_on_test_over_seeds(sweep):
    sweep.add(RELATED, "degan", score=0.9, oracle=0.1)
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        sweep.add(RELATED, "degan", score=0.5, test=accuracy, settings={"seed": seed})
    cell = sweep.cell(RELATED, "degan")
    assert (cell["measured_on"], cell["n"]) == (TEST, 3)
    assert (cell["ours"], cell["std"], cell["teacher"]) == pytest.approx((71, 1, 81))
    expected = interval([70, 71, 72])
    assert (cell["low"], cell["high"]) == pytest.approx((expected.low, expected.high))


def test_finals_of_several_configurations_are_not_averaged(sweep):
    for seed in (1, 2):
        sweep.add(RELATED, "degan", score=0.8, test=0.6, settings={"seed": seed, "gan.lambda_e": 1})
        sweep.add(RELATED, "degan", score=0.7, test=0.9, settings={"seed": seed, "gan.lambda_e": 2})
    cell = sweep.cell(RELATED, "degan")
    assert (cell["ours"], cell["lambda_e"], cell["n"]) == (pytest.approx(60), 1, 2)


def test_a_seed_that_two_runs_share_counts_once(sweep, tmp_path):
    other = Sweep(tmp_path / "y")
    for run in (sweep, other):
        run.add(RELATED, "degan", score=0.8, test=0.6, settings={"seed": 1})
    other.add(NOISE, "degan", score=0.8, test=0.2, settings={"seed": 1})
    tidy = table(ledger.load([sweep.folder, other.folder])).set_index(["proxy", "method"])
    assert tuple(tidy.loc[(RELATED, "degan"), ["n", "trials"]]) == (1, 2)
    assert tidy.loc[(NOISE, "degan"), "ours"] == pytest.approx(20)


def test_failed_finals_leave_the_search(sweep):
    sweep.add(RELATED, "degan", score=0.8, oracle=0.6)
    sweep.add(RELATED, "degan", test=0.6, state="FAIL")
    assert sweep.cell(RELATED, "degan")["measured_on"] == HELD_OUT


def test_an_accuracy_that_is_not_yet_measured_is_missing(sweep):
    sweep.add(RELATED, "degan", score=0.8)
    sweep.add(RELATED, "degan", score=0.7, oracle=0.6)
    cell = sweep.cell(RELATED, "degan")
    assert pd.isna(cell["ours"]) and cell["n"] == 0 and cell["measured_on"] == MISSING


def test_hours_count_every_trial_and_the_clock_where_a_trial_did_not_say(sweep):
    begun = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    clock = {"started": begun, "finished": begun + dt.timedelta(seconds=600)}
    sweep.add(RELATED, "degan", score=0.8, oracle=0.6, seconds=1800.0, **clock)
    sweep.add(RELATED, "degan", score=0.1, state="PRUNED", seconds=900.0)
    sweep.add(RELATED, "degan", state="FAIL", **clock)
    sweep.add(RELATED, "degan", state="FAIL")
    sweep.add(RELATED, "degan", score=0.8, test=0.6, seconds=300.0)
    assert sweep.cell(RELATED, "degan")["hours"] == pytest.approx((1800 + 900 + 600 + 300) / 3600)


@pytest.mark.parametrize(
    ("measure", "chosen_by"),
    [
        (None, "data-free: balanced_soft_agreement"),  # a row of an older version
        ("score", "data-free: balanced_soft_agreement"),
        ("bn_distance", "data-free: bn_distance"),
        ("oracle_accuracy", "oracle: oracle_accuracy"),
    ],
)
def test_by_what_a_final_was_chosen(sweep, measure, chosen_by):
    for seed in (1, 2):
        sweep.add(RELATED, "degan", 0.5, test=0.7, settings={"gan.lambda_e": 2, "seed": seed}, chosen_by=measure)
    cell = sweep.cell(RELATED, "degan")
    assert (cell["lambda_e"], cell["chosen_by"]) == (2, chosen_by)
    assert f"How the lambdas (lambda_e, lambda_d) were chosen: {chosen_by}." in render(sweep.tidy())


def test_a_search_alone_shows_the_choice_across_trials(sweep):
    for weight, score, across in ((1, 0.9, 0.5), (2, 0.8, 0.6)):
        sweep.add(RELATED, "degan", score, 0.5, settings={"gan.lambda_e": weight}, cross_soft_agreement=across)
    cell = sweep.cell(RELATED, "degan")
    assert (cell["lambda_e"], cell["chosen_by"]) == (2, "data-free: cross_soft_agreement")


def test_a_search_that_was_shown_true_data_is_an_oracles(sweep):
    for method in ("degan", "proxy"):
        sweep.add(RELATED, method, score=0.8, oracle=0.8, settings={"objective": "oracle_accuracy"})
    assert sweep.cell(RELATED, "degan")["chosen_by"] == "oracle: oracle_accuracy"
    assert pd.isna(sweep.cell(RELATED, "proxy")["chosen_by"])  # nothing to choose


def test_cells_chosen_by_different_measures_are_named(sweep):
    for proxy, measure in ((RELATED, "score"), (NOISE, "agreement")):
        sweep.add(proxy, "degan", 0.8, test=0.5, chosen_by=measure)
    text = " ".join(render(sweep.tidy()).split())
    assert f"were chosen: data-free: agreement (degan on {NOISE})." in text
    assert f"were chosen: data-free: balanced_soft_agreement (degan on {RELATED})." in text


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


def test_cells_of_the_paper_without_a_trial_are_missing(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.5, seconds=9.0)
    tidy = sweep.tidy()
    missing = tidy[tidy.measured_on == MISSING]
    assert len(tidy) == 30 and len(missing) == 29
    assert missing.paper.notna().all() and missing.ours.isna().all() and missing.chosen_by.isna().all()
    assert (missing[["n", "trials", "pruned", "failed", "hours"]] == 0).all(axis=None)
    for style in STYLES:
        assert render(tidy, style).count("missing") == 29


def test_other_data_sets_lack_nothing_of_the_papers(sweep):
    sweep.add("photos", "degan", score=0.5, oracle=0.5, settings={"teacher.dataset": "glyphs"})
    for paper in ("table1", "table2"):
        tidy = sweep.tidy(paper=paper)
        assert tidy[["proxy", "method"]].to_numpy().tolist() == [["photos", "degan"]]
        assert "paper" not in render(tidy)


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


def test_settings_are_not_mixed(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5, settings={"student.network": "lenet_half"})
    with pytest.raises(UserError, match="config_student_network is alexnet_half, lenet_half"):
        sweep.tidy()


def mixed(sweep):
    """Finals, a search without finals, a failed cell, and one that was not run, as nothing of the paper's."""
    glyphs = {"teacher.dataset": "glyphs"}
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        settings = glyphs | {"seed": seed, "gan.lambda_e": 0.125}
        sweep.add("under_score", "degan", score=0.5, test=accuracy, settings=settings, seconds=3600.0)
    sweep.add("under_score", "proxy", score=0.5, oracle=0.655, settings=glyphs, seconds=72.0)
    sweep.add("folder:a|b", "degan", state="FAIL", settings=glyphs)
    return sweep.tidy()


def test_text(sweep):
    assert render(mixed(sweep)) == (
        "Student accuracy in %, mean ± sample standard deviation (seeds); true data: glyphs; teacher: 80.0 on the "
        "held-out 20% of\nthe true training images; 81.0 on the test images.\n"
        "\n"
        "proxy data   method  ours            95% interval  lambdas   trials  hours\n"
        "──────────────────────────────────────────────────────────────────────────\n"
        "folder:a|b   proxy   missing\n"
        "             degan   missing                                      1   0.00\n"
        "under_score  proxy   65.5* (1)                                    1   0.02\n"
        "             degan   71.0 ± 1.0 (3)  [70.0, 72.0]  0.125, 5       3   3.00\n"
        "\n"
        "Measured on the held-out 20% of the true training images or the test images.\n"
        "* Measured on the held-out 20% of the true training images: the search's best trial by its score, "
        "no final trials.\n"
        "The interval is a bootstrap over seeds: with few seeds it is too narrow.\n"
        "How the lambdas (lambda_e, lambda_d) were chosen: data-free: balanced_soft_agreement.\n"
        "5 trials, of which 0 pruned and 1 failed; 3.02 hours of trials together.\n"
    )


def test_the_papers_figure_and_ours_stand_side_by_side(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.5)
    (line,) = [line for line in render(sweep.tidy()).splitlines() if "50.0" in line]
    assert line.split() == ["degan", "50.0", "(1)", "80.55", "-30.5", "0,", "5", "1", "0.00"]


def test_text_lines_are_no_longer_than_a_terminal(sweep):
    for seed in range(10):
        long = "cifar100/[" + ",".join(f"class_{number}" for number in range(30)) + "]"
        sweep.add(long, "proxy_matched", score=0.5, test=1 - 0.05 * seed, settings={"seed": seed})
    text = render(sweep.tidy())
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "class_29" in "".join(text.split())


def test_markdown_escapes_what_it_would_read_as_its_own(sweep):
    markdown = render(mixed(sweep), "markdown")
    assert r"| 65.5\* (1)" in markdown and "\n\\* Measured on the held-out" in markdown
    assert r"folder:a\|b" in markdown


def test_csv_has_every_column_unrounded(sweep):
    tidy = mixed(sweep)
    read = pd.read_csv(io.StringIO(render(tidy, "csv")))
    pd.testing.assert_frame_equal(read, tidy.fillna(math.nan), check_dtype=False)  # a blank may be None


def test_latex_compiles_by_its_rules(sweep):
    """Each row has as many cells, and no sign is left that LaTeX would read as its own."""
    settings = {"teacher.dataset": "fashion_mnist", "gan.lambda_e": 0.125}
    for seed in (1, 2):
        sweep.add("folder:50%_{a}", "degan", score=0.5, test=0.5, settings=settings | {"seed": seed})
        sweep.add("cifar10", "degan", score=0.5, test=0.5, settings=settings | {"seed": seed})
    latex = render(sweep.tidy(), "latex")
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.strip()]
    columns = latex.split(r"\begin{tabular}{")[1].split("}")[0]
    assert len(rows) == 8 and all(row.count("&") == len(columns) - 1 and row.endswith(r"\\") for row in rows)
    assert r"folder:50\%\_\{a\}" in latex and r"fashion\_mnist" in latex and r"lambda\_e" in latex
    assert r"50.0 $\pm$ 0.0 (2)" in latex and "$-$33.8" in latex and "±" not in latex
    commands = (r"\_", r"\%", r"\{", r"\}")
    for command in commands:
        latex = latex.replace(command, "")
    assert "_" not in latex and "%" not in latex and "#" not in latex
    assert latex.count("{") == latex.count("}") and latex.count("$") % 2 == 0
    assert [latex.count(rf"\begin{{{name}}}") for name in ("table", "tabular")] == [1, 1]
    assert latex.rstrip().endswith(r"\end{table}")


def test_without_held_out_cells_there_is_no_star(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.7)
    text = render(sweep.tidy())
    assert "*" not in text and "Measured on the test images." in text


def test_saved_files_hold_what_is_rendered(sweep, tmp_path):
    tidy = mixed(sweep)
    save(tidy, tmp_path)
    for ending, style in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        assert (tmp_path / f"table.{ending}").read_text() == render(tidy, style)
    with Image.open(tmp_path / "table.png") as picture:
        assert picture.width > 400


def test_a_folder_that_cannot_be_written_is_told(sweep, tmp_path):
    (tmp_path / "none").touch()
    with pytest.raises(UserError, match="none cannot be written"):
        save(mixed(sweep), tmp_path / "none")


def test_nothing_to_show(sweep, tmp_path):
    tidy = sweep.tidy()
    assert list(tidy.columns) == COLUMNS
    assert render(tidy) == "No trials yet.\n"
    assert render(tidy, "csv") == ",".join(COLUMNS) + "\n"
    save(tidy, tmp_path)
    assert {file.name for file in tmp_path.glob("table.*")} == {"table.csv", "table.md", "table.tex"}


def test_an_unknown_style_or_table_is_refused(sweep):
    with pytest.raises(UserError, match="style 'html' is unknown; known: text, markdown, csv, latex"):
        render(sweep.tidy(), "html")
    with pytest.raises(UserError, match="table 'table4' is unknown; did you mean"):
        sweep.tidy(paper="table4")
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    with pytest.raises(
        UserError, match=r"table3 is of the task 'incremental', but .* 'distillation': table1 or table2"
    ):
        sweep.tidy(paper="table3")


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


def test_the_extensions_that_are_on_are_said(sweep):
    ours = {"gan.lambda_s": 0.5, "distill.mix_proxy": 0.25, "distill.profile": "sgd_augmented"}
    sweep.add(RELATED, "extended", score=0.5, test=0.7, settings=ours)
    sweep.add(RELATED, "degan", score=0.5, test=0.6)
    sweep.add(RELATED, "proxy", score=0.5, test=0.5, settings={"distill.profile": "sgd_augmented"})  # not what it uses
    tidy = sweep.tidy()
    cells = tidy[tidy.trials > 0].set_index("method")
    assert cells.extensions["extended"] == "lambda_s 0.5, mix_proxy 0.25, profile sgd_augmented"
    assert cells.extensions[["degan", "proxy"]].isna().all()
    assert cells.lambda_d["extended"] == 5
    text = " ".join(render(tidy).split())
    assert " best of our extensions 70.0 (1)" in text
    said = f"best of our extensions on {RELATED}: lambda_s 0.5, mix_proxy 0.25, profile sgd_augmented"
    assert f"Not the paper's: {said}." in text


@pytest.mark.parametrize("method", TUNED)
def test_the_lambdas_of_every_tuned_method_are_shown(sweep, method):
    sweep.add(RELATED, method, score=0.5, test=0.7, settings={"gan.lambda_e": 2})
    cell = sweep.cell(RELATED, method)
    assert (cell["lambda_e"], cell["lambda_d"]) == (2, 5)
    assert cell["chosen_by"] == "data-free: balanced_soft_agreement"
