"""The regret of choosing without true data, on made-up trials whose best choice is known."""

import math

import pandas as pd
import pytest

from analysis import regret
from degan_search.selection import choose
from degan_search.settings import criteria
from degan_search.system.errors import UserError

WEIGHTS = [(0.0, 0.0), (0.0, 5.0), (1.0, 5.0)]


def trials(accuracies, agreements, proxy="photos", method="degan", phase="search", state="COMPLETE", dataset="digits"):
    """Synthetic trials: the same agreements for every criterion, but the reverse for plain agreement."""
    frame = pd.DataFrame(
        {
            "phase": phase,
            "state": state,
            "config_task": None,  # as in rows of an older version
            "config_method": method,
            "config_teacher_dataset": dataset,
            "config_proxy": proxy,
            "config_gan_lambda_e": [weight for weight, _ in WEIGHTS],
            "config_gan_lambda_d": [weight for _, weight in WEIGHTS],
            "oracle_accuracy": accuracies,
            "oracle_half_1": accuracies,
            "oracle_half_2": accuracies,
            "run": "first",
            "config_count": 100,
        }
    )
    for criterion in criteria.DATA_FREE:
        frame[criterion] = agreements
    frame["agreement"] = agreements[::-1]
    return frame


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


class TestBest:
    """`best`."""

    FRAME = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(score=[0.3, 0.2, 0.1], trial_id=["a", "b", "c"])

    def picked(self, frame=FRAME, **options):
        return list(choose.best(frame, **options)["trial_id"])

    def test_the_score_decides_unless_told_otherwise(self):
        assert self.picked() == ["a"]
        assert self.picked(by="balanced_soft_agreement") == ["c"]
        assert self.picked(by="agreement") == ["a"]
        assert self.picked(by="oracle_accuracy", top=2) == ["b", "c"]

    def test_less_is_better_for_a_distance(self):
        assert self.picked(by="bn_distance", top=3) == ["a", "b", "c"]

    def test_each_group_has_its_own(self):
        other = self.FRAME.assign(config_proxy="noise/uniform", trial_id=["d", "e", "f"], score=[0.5, 0.6, 0.4])
        both = pd.concat([self.FRAME, other])
        assert sorted(self.picked(both)) == ["a", "e"]
        assert self.picked(both, per=()) == ["e"]
        assert self.picked(both, per=["config_teacher_dataset"], top=2) == ["e", "d"]

    def test_of_equals_the_first(self):
        assert self.picked(self.FRAME.assign(score=1.0)) == ["a"]

    def test_trials_without_the_measure_or_an_end_are_passed_over(self):
        assert self.picked(self.FRAME.assign(score=[math.nan, 0.2, 0.1])) == ["b"]
        assert self.picked(self.FRAME.assign(state=["PRUNED", "COMPLETE", "FAIL"])) == ["b"]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"by": "scor"}, "did you mean score"),
            ({"by": "effective_classes"}, "unknown"),
            ({"by": "test_accuracy"}, "unknown"),
            ({"per": ["config_prox"]}, "did you mean config_proxy"),
            ({"top": 0}, "top = 0"),
        ],
    )
    def test_what_cannot_be_chosen_by(self, options, says):
        with pytest.raises(UserError, match=says):
            choose.best(self.FRAME, **options)

    def test_nothing_finished(self):
        with pytest.raises(UserError, match="nothing to choose"):
            choose.best(self.FRAME.assign(state="FAIL"))


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


def test_without_agreement_across_trials_the_score_chooses():
    frame = trials([0.2, 0.5, 0.4], [0.1, 0.3, 0.4]).assign(
        config_objective="balanced_soft_agreement", cross_soft_agreement=math.nan
    )
    assert choose.chosen_by(frame) == "score"
