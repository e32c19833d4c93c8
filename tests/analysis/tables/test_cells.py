"""What a table's cell shows: what is chosen, by what, what it is measured on, and what it cost."""

import datetime as dt

import pandas as pd
import pytest
from made_ledger import Sweep

from analysis.statistics import interval
from analysis.tables.cells import HELD_OUT, MISSING, TEST
from analysis.tables.table import render, table
from degan_search import ledger
from degan_search.settings.methods import TUNED
from tests.analysis.tables.made_rows import NOISE, RELATED


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


def test_the_best_epoch_by_the_test_images_beside_the_student_chosen_without_them(sweep):
    sweep.add(RELATED, "proxy", score=0.5, test=0.6)
    assert pd.isna([sweep.cell(RELATED, "proxy")[name] for name in ("best_on_test", "gap")]).all()
    assert "Best:" not in render(sweep.tidy()) and " best " not in render(sweep.tidy())
    for seed, (accuracy, best) in enumerate(((0.70, 0.72), (0.71, 0.75), (0.72, None))):
        settings = {"seed": seed}
        sweep.add(RELATED, "degan", 0.5, test=accuracy, settings=settings, referee_best_test_accuracy=best)
    cell = sweep.cell(RELATED, "degan")
    assert (cell["ours"], cell["best_on_test"], cell["gap"]) == pytest.approx((71, 73.5, 3))  # of those that have both
    text = render(sweep.tidy())
    assert "73.5  3.0" in text
    assert "Best: each run's best epoch by the test images" in text


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
