"""The regret of choosing without true data, on made-up trials whose best choice is known."""

import math

import pandas as pd
import pytest

from analysis import choice
from degan_search.errors import UserError

WEIGHTS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0)]


def trials(accuracies, agreements, proxy="photos", method="degan", phase="search", state="COMPLETE", dataset="digits"):
    """Synthetic trials: the same agreements for every criterion, but the reverse for plain agreement."""
    frame = pd.DataFrame(
        {
            "phase": phase,
            "state": state,
            "config_method": method,
            "config_teacher_dataset": dataset,
            "config_proxy": proxy,
            "config_gan_lambda_e": [weight for weight, _ in WEIGHTS],
            "config_gan_lambda_d": [weight for _, weight in WEIGHTS],
            "oracle_accuracy": accuracies,
        }
    )
    for criterion in choice.CRITERIA:
        frame[criterion] = agreements
    frame["agreement"] = agreements[::-1]
    return frame


def row(table, criterion, proxy="photos"):
    found = table[(table["criterion"] == criterion) & (table["proxy"] == proxy)]
    assert len(found) == 1
    return found.iloc[0]


def test_regret_is_the_best_accuracy_minus_the_picked_ones():
    table = choice.regret(trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]))
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
    table = choice.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), *others]))
    assert (table["trials"] == 3).all()
    assert row(table, "balanced_soft_agreement")["accuracy"] == pytest.approx(40)


def test_proxies_are_judged_apart_and_a_missing_criterion_left_out():
    noise = trials([0.1, 0.3, 0.2], [0.5, 0.6, 0.4], proxy="noise/uniform")
    noise["holdout_agreement"] = math.nan
    table = choice.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), noise]))
    assert row(table, "balanced_soft_agreement", "noise/uniform")["regret"] == pytest.approx(0)
    assert "holdout_agreement" not in set(table[table["proxy"] == "noise/uniform"]["criterion"])


def test_a_proxy_of_two_data_sets_is_judged_for_each_and_the_mean_taken_over_both():
    other = trials([0.5, 0.1, 0.1], [0.1, 0.3, 0.4], dataset="cifar10")
    table = choice.regret(pd.concat([trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]), other]))
    assert list(table["dataset"].unique()) == ["digits", "cifar10"]
    means = choice.mean_regret(table).set_index("criterion")
    assert means.loc["balanced_soft_agreement", "mean_regret"] == pytest.approx((10 + 40) / 2)
    assert means.loc["balanced_soft_agreement", "proxies"] == 2
    assert means["mean_regret"].is_monotonic_increasing


def test_equal_scores_have_no_rank_correlation():
    assert math.isnan(row(choice.regret(trials([0.2, 0.5, 0.4], [0.3] * 3)), "soft_agreement")["rank_correlation"])


def test_without_an_accuracy_there_is_nothing_to_judge():
    with pytest.raises(UserError, match="no finished search trial"):
        choice.regret(trials([math.nan] * 3, [0.1, 0.2, 0.3]))


def test_the_table_is_markdown():
    text = choice.render(choice.regret(trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4])))
    assert text.startswith("| dataset")
    assert "| photos" in text
