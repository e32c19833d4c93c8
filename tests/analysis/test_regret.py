"""The regret of choosing without true data, on made-up trials whose best choice is known."""

import math

import pandas as pd
import pytest

from analysis import regret
from degan_search.selection import choose
from degan_search.system.errors import UserError
from tests.selection.made_trials import trials


def row(table, criterion, proxy="photos"):
    found = table[(table["criterion"] == criterion) & (table["proxy"] == proxy)]
    assert len(found) == 1
    return found.iloc[0]


def test_regret_is_the_best_accuracy_minus_the_picked_ones():
    table = regret.regret(trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]))
    picked = row(table, "balanced_soft_agreement")
    assert (picked["accuracy"], picked["trials"]) == (pytest.approx(40), 3)
    assert picked["regret"] == pytest.approx(10)
    assert picked["rank_correlation"] == pytest.approx(0.5)
    assert row(table, "agreement")["regret"] == pytest.approx(30)
    assert row(table, "fixed (0, 5)")["regret"] == pytest.approx(0)
    assert row(table, "random")["accuracy"] == pytest.approx(110 / 3)


def test_only_finished_search_trials_with_weights_count():
    others = [
        trials([0.9] * 3, [0.9] * 3, method="dcgan"),
        trials([0.9] * 3, [0.9] * 3, phase="final"),
        trials([0.9] * 3, [0.9] * 3, state="PRUNED"),
        trials([math.nan] * 3, [0.9] * 3),
    ]
    table = regret.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), *others]))
    assert (table["trials"] == 3).all()
    assert row(table, "balanced_soft_agreement")["accuracy"] == pytest.approx(40)


def test_proxies_are_judged_apart_and_a_missing_criterion_left_out():
    noise = trials([0.1, 0.3, 0.2], [0.5, 0.6, 0.4], proxy="noise/uniform")
    noise["holdout_agreement"] = math.nan
    table = regret.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), noise]))
    assert row(table, "balanced_soft_agreement", "noise/uniform")["regret"] == pytest.approx(0)
    assert "holdout_agreement" not in set(table[table["proxy"] == "noise/uniform"]["criterion"])


def test_a_proxy_of_two_data_sets_is_judged_for_each_and_the_mean_taken_over_both():
    other = trials([0.5, 0.1, 0.1], [0.1, 0.3, 0.4], dataset="cifar10")
    table = regret.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), other]))
    assert list(table["dataset"].unique()) == ["digits", "cifar10"]
    means = regret.mean_regret(table).set_index("criterion")
    assert means.loc["balanced_soft_agreement", "mean_regret"] == pytest.approx((10 + 40) / 2)
    assert means.loc["balanced_soft_agreement", "proxies"] == 2
    assert means["mean_regret"].is_monotonic_increasing


def test_equal_scores_have_no_rank_correlation():
    assert math.isnan(row(regret.regret(trials([0.2, 0.5, 0.4], [0.3] * 3)), "soft_agreement")["rank_correlation"])


def test_without_an_accuracy_there_is_nothing_to_judge():
    with pytest.raises(UserError, match="no finished search trial"):
        regret.regret(trials([math.nan] * 3, [0.1, 0.2, 0.3]))


def test_the_table_is_markdown():
    text = regret.render(regret.regret(trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4])))
    assert text.startswith("| dataset")
    assert "| photos" in text


def test_the_oracle_is_scored_on_the_half_it_did_not_pick_by():
    frame = trials([0.45, 0.5, 0.4], [0.1, 0.3, 0.4])
    frame["oracle_half_1"], frame["oracle_half_2"] = [0.7, 0.5, 0.3], [0.2, 0.5, 0.5]
    # Picked by the first half, trial 0 scores 0.2 on the second; by the second, trial 1 scores 0.5 on the first.
    table = regret.regret(frame)
    assert row(table, "oracle")["accuracy"] == pytest.approx(35)
    assert row(table, "balanced_soft_agreement")["regret"] == pytest.approx(-5)


def test_the_mean_regret_beside_a_random_choice():
    first = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4])
    second = trials([0.1, 0.2, 0.6], [0.1, 0.3, 0.4], proxy="noise/uniform")
    means = regret.mean_regret(regret.regret(pd.concat([first, second]))).set_index("criterion")
    picked = means.loc["balanced_soft_agreement"]
    assert (picked["mean_regret"], picked["worst"], picked["proxies"]) == (pytest.approx(5), pytest.approx(10), 2)
    random = (50 - 110 / 3 + 60 - 30) / 2
    assert means.loc["random", "mean_regret"] == pytest.approx(random)
    assert picked["of_random"] == pytest.approx(5 / random)
    assert (picked["low"], picked["high"]) == (pytest.approx(0), pytest.approx(10))


def test_a_distance_picks_the_least():
    frame = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4])
    found = row(regret.regret(frame), "bn_distance")
    assert (found["accuracy"], found["rank_correlation"]) == (pytest.approx(20), pytest.approx(-0.5))


def test_runs_are_judged_apart():
    both = pd.concat(
        [trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), trials([0.9, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(run="b")]
    )
    table = regret.regret(both)
    assert list(table[table["criterion"] == "oracle"]["run"]) == ["first", "b"]
    assert "| run" in regret.render(table)


def test_tasks_are_judged_apart():
    """The same two sets of images may be a proxy and true data, or new classes and old ones."""
    first = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(config_task="distillation", score=[0.1, 0.3, 0.4])
    second = trials([0.9, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(config_task="incremental", score=[0.9, 0.8, 0.7])
    both = pd.concat([first, second])
    assert choose.best(both)[["config_task", "oracle_accuracy"]].to_numpy().tolist() == [
        ["incremental", 0.9],
        ["distillation", 0.4],
    ]
    table = regret.regret(both)
    assert list(table[table["criterion"] == "oracle"]["task"]) == ["distillation", "incremental"]
    assert "| task" in regret.render(table) and "| task" not in regret.render(regret.regret(first))
