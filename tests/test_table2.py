"""Table 2 from rows that no trial measured: what is chosen, what it is measured on, and how it reads."""

import io

import pandas as pd
import pytest

from analysis.table2 import COLUMNS, HELD_OUT, TEST, render, table2
from degan_search import ledger
from degan_search.config import trial_config
from degan_search.errors import UserError
from degan_search.records import config_columns

RELATED, NOISE = "cifar100/related_90", "noise/uniform"


class Sweep:
    """A run's folder that is filled by hand."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0
        (folder / "ledger").mkdir(parents=True)

    def add(self, proxy, method, score=None, oracle=None, test=None, state="COMPLETE", settings=(), teacher=0.8):
        phase = "search" if test is None else "final"
        trial_id = f"{phase}-{self.number:04}"
        self.number += 1
        config = trial_config({"proxy": proxy, "method": method}, dict(settings))
        about = {"trial_id": trial_id, "attempt": 1, "phase": phase, "state": state, "host": "synthetic"}
        ledger.write(self.folder, about | {"score": score} | config_columns(config))
        accuracies = {"oracle_accuracy": oracle, "test_accuracy": test}
        teachers = {"teacher_oracle_accuracy": teacher, "teacher_test_accuracy": test and teacher + 0.01}
        ledger.write_scores(self.folder, {"trial_id": trial_id} | accuracies | teachers)

    def tidy(self, **options):
        return table2(ledger.load(self.folder), **options)

    def cell(self, proxy, method):
        tidy = self.tidy()
        (cell,) = tidy[(tidy.proxy == proxy) & (tidy.method == method)].to_dict("records")
        return cell


@pytest.fixture
def sweep(tmp_path):
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
    assert pd.isna(cell["std"])


def test_finals_are_measured_on_test_over_seeds(sweep):
    sweep.add(RELATED, "degan", score=0.9, oracle=0.1)
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        sweep.add(RELATED, "degan", score=0.5, test=accuracy, settings={"seed": seed})
    cell = sweep.cell(RELATED, "degan")
    assert (cell["measured_on"], cell["n"]) == (TEST, 3)
    assert (cell["ours"], cell["std"], cell["teacher"]) == pytest.approx((71, 1, 81))


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
    tidy = table2(ledger.load([sweep.folder, other.folder]))
    assert (tidy.n[0], tidy.trials[0]) == (1, 2)


def test_failed_finals_leave_the_search(sweep):
    sweep.add(RELATED, "degan", score=0.8, oracle=0.6)
    sweep.add(RELATED, "degan", test=0.6, state="FAIL")
    assert sweep.cell(RELATED, "degan")["measured_on"] == HELD_OUT


def test_an_accuracy_that_is_not_yet_measured_is_missing(sweep):
    sweep.add(RELATED, "degan", score=0.8)
    sweep.add(RELATED, "degan", score=0.7, oracle=0.6)
    cell = sweep.cell(RELATED, "degan")
    assert pd.isna(cell["ours"]) and cell["n"] == 0


def test_rows_and_columns_follow_the_paper_then_the_rest(sweep):
    for proxy in ("folder:mine", NOISE, RELATED, "cifar100/background_6"):
        sweep.add(proxy, "true", score=0.5, oracle=0.5)
    sweep.add(NOISE, "degan", score=0.5, oracle=0.5)
    sweep.add(NOISE, "proxy", score=0.5, oracle=0.5)
    tidy = sweep.tidy()
    assert list(tidy.columns) == COLUMNS
    assert list(tidy.proxy.unique()) == [RELATED, "cifar100/background_6", NOISE, "folder:mine"]
    assert list(tidy.method.unique()) == ["proxy", "degan", "true"]
    assert len(tidy) == 12
    assert sweep.cell(NOISE, "degan")["paper"] == 23.26


@pytest.mark.parametrize(
    ("dataset", "paper", "figures"),
    [
        ("cifar10", "table2", {"proxy": 26.5, "degan": 55.05, "true": None}),
        ("cifar10", "table1", {"proxy": None, "degan": None, "true": 81.78}),
        ("fashion_mnist", "table2", {"proxy": None, "degan": None, "true": 88.98}),
        ("glyphs", "table2", {"proxy": None, "degan": None, "true": None}),
    ],
)
def test_the_papers_figures_belong_to_the_true_data(sweep, dataset, paper, figures):
    for method in ("dcgan", "degan", "true"):
        sweep.add("svhn", method, score=0.5, oracle=0.5, settings={"teacher.dataset": dataset})
    tidy = sweep.tidy(paper=paper).set_index("method")
    shown = {name: None if pd.isna(value) else value for name, value in tidy.paper.items()}
    assert shown == {"dcgan": figures["proxy"], "degan": figures["degan"], "true": figures["true"]}


def test_fashion_has_the_figures_of_table_1(sweep):
    sweep.add("cifar10", "degan", score=0.5, oracle=0.5, settings={"teacher.dataset": "fashion_mnist"})
    assert sweep.cell("cifar10", "degan")["paper"] == 83.79


def test_settings_are_not_mixed(sweep):
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5)
    sweep.add(RELATED, "degan", score=0.5, oracle=0.5, settings={"student.network": "lenet_half"})
    with pytest.raises(UserError, match="config_student_network is alexnet_half, lenet_half"):
        sweep.tidy()


def mixed(sweep):
    for seed, accuracy in enumerate((0.70, 0.71, 0.72)):
        settings = {"seed": seed, "gan.lambda_e": 0.125}
        sweep.add(RELATED, "degan", score=0.5, test=accuracy, settings=settings)
    sweep.add(RELATED, "proxy", score=0.5, oracle=0.655)
    sweep.add("folder:mine", "degan", state="FAIL")
    return sweep.tidy()


def test_text(sweep):
    assert render(mixed(sweep)) == (
        "Student accuracy in %, mean ± sample standard deviation (seeds); true data: cifar10; "
        "teacher: 80.0 on the held-out 20% of the true training images; 81.0 on the test images.\n"
        "\n"
        "proxy data           proxy      proxy, paper    degan           degan, paper    lambda_e, lambda_d\n"
        "-------------------  ---------  --------------  --------------  --------------  --------------------\n"
        "cifar100/related_90  65.5* (1)  74.58           71.0 ± 1.0 (3)  80.55           0.125, 5\n"
        "folder:mine          missing                    missing\n"
        "\n"
        "Measured on the held-out 20% of the true training images or the test images.\n"
        "Chosen by balanced_soft_agreement, the search's objective.\n"
        "* Measured on the held-out 20% of the true training images: the search's best trial by its score, "
        "no final trials.\n"
        "5 trials, of which 0 pruned and 1 failed.\n"
    )


def test_markdown_and_csv_carry_the_same_cells_and_notes(sweep):
    tidy = mixed(sweep)
    markdown, csv = render(tidy, "markdown"), render(tidy, "csv")
    assert r"| 65.5\* (1)" in markdown and "\n\\* Measured on the held-out" in markdown
    assert "# * Measured on the held-out" in csv
    read = pd.read_csv(io.StringIO(csv), comment="#", dtype=str, keep_default_na=False)
    assert list(read.columns) == [
        "proxy data",
        "proxy",
        "proxy, paper",
        "degan",
        "degan, paper",
        "lambda_e, lambda_d",
    ]
    assert list(read.degan) == ["71.0 ± 1.0 (3)", "missing"]


def test_without_held_out_cells_there_is_no_star(sweep):
    sweep.add(RELATED, "degan", score=0.5, test=0.7)
    text = render(sweep.tidy())
    assert "*" not in text and "Measured on the test images." in text


def test_nothing_to_show(sweep):
    tidy = sweep.tidy()
    assert list(tidy.columns) == COLUMNS
    assert render(tidy) == "No trials yet.\n"


def test_an_unknown_style_is_refused(sweep):
    with pytest.raises(UserError, match="style 'html' is unknown: one of text, markdown, csv"):
        render(sweep.tidy(), "html")
