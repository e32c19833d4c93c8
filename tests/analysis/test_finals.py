"""Final runs in pairs: known differences and p values on made-up runs."""

import math

import pandas as pd
import pytest

from analysis import finals
from degan_search import ledger
from degan_search.ledger.columns import config_columns
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError

CHECKED = ("check_accuracy", "n_check", "teacher_check_accuracy")


def runs(accuracies, method="degan", weights=(0.0, 5.0), first_seed=1, best=None, **changes):
    """Finished final runs, one a seed; the score is half the accuracy, which is in percent; `best`: points more."""
    return pd.DataFrame(
        {
            "phase": "final",
            "state": "COMPLETE",
            **config_columns(
                trial_config(
                    {"method": method, "seed": seed, "gan.lambda_e": weights[0], "gan.lambda_d": weights[1]}, changes
                )
            ),
            "gan_steps": 0 if "proxy" in method else 100,
            "distill_steps": 200,
            "score": accuracy / 200,
            "test_accuracy": accuracy / 100,
            "teacher_test_accuracy": 0.9,
            **dict.fromkeys(CHECKED),
            "referee_best_test_accuracy": None if best is None else (accuracy + best) / 100,
            "trial_id": f"final-{seed:04d}",
        }
        for seed, accuracy in enumerate(accuracies, start=first_seed)
    )


def compare(*parts):
    return finals.compare(pd.concat(parts, ignore_index=True))


class TestCompare:
    """`compare`."""

    def test_known_difference_over_shared_seeds(self):
        table = compare(runs([51, 62, 73, 60]), runs([50, 60, 70], "dcgan", (0, 0)))
        chosen, dcgan = table.to_dict("records")
        assert (chosen["method"], chosen["chosen"], chosen["n"]) == ("degan", True, 4)
        assert chosen["accuracy"] == pytest.approx(61.5)
        assert chosen["low"] < 61.5 < chosen["high"]
        assert math.isnan(chosen["difference"])
        assert (chosen["lambda_e"], chosen["lambda_d"], chosen["teacher"]) == (0, 5, pytest.approx(90))
        # Differences 1, 2, 3: t = 2 / (1 / sqrt 3) on 2 degrees of freedom.
        assert (dcgan["difference"], dcgan["pairs"], dcgan["n"]) == (pytest.approx(2), 3, 3)
        assert dcgan["p"] == pytest.approx(0.0742, abs=1e-4)
        assert (dcgan["difference_low"], dcgan["difference_high"]) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)
        assert math.isnan(dcgan["lambda_e"])

    def test_pairs_are_by_seed_in_whatever_order(self):
        ours, theirs = runs([51, 62, 73]), runs([50, 60, 70], "dcgan", (0, 0))
        assert compare(theirs[::-1], ours).loc[1, "p"] == pytest.approx(compare(ours, theirs).loc[1, "p"])

    def test_score_chooses_not_accuracy_and_more_seeds_come_first(self):
        better = runs([50, 51, 52], weights=(1, 5))
        worse = runs([60, 61, 62]).assign(score=0.1)
        short = runs([90, 90], weights=(2, 5))
        table = compare(worse, better, short)
        assert table.loc[table["chosen"], "lambda_e"].to_list() == [1]
        assert table.set_index("lambda_e")["difference"].dropna().to_dict() == pytest.approx({0: -10, 2: -39.5})

    def test_proxies_and_budgets_are_apart_and_what_has_no_degan_is_left_out(self):
        parts = [
            runs([50, 60]),
            runs([40, 45], "proxy_matched", (0, 0)),
            runs([70, 80], **{"gan.steps": 7}),
            runs([10, 20], proxy="digits"),
            runs([10, 20], "dcgan", (0, 0), proxy="photos"),
        ]
        table = compare(*parts)
        assert list(table["chosen"]) == [True, False, True, True]
        assert table["difference"].count() == 1
        assert "photos" not in set(table["proxy"])

    def test_only_finished_finals_count_and_each_seed_once(self):
        ours = runs([50, 60, 70])
        table = compare(
            ours, ours, runs([0], first_seed=4).assign(phase="search"), runs([0], first_seed=5).assign(state="FAIL")
        )
        assert (len(table), table.loc[0, "n"], table.loc[0, "accuracy"]) == (1, 3, pytest.approx(60))

    def test_without_degan_there_is_nothing_to_compare(self):
        with pytest.raises(UserError, match="degan-search finals"):
            compare(runs([1, 2], "dcgan", (0, 0)))

    def test_text_and_files(self, tmp_path):
        table = compare(runs([51, 62, 73]), runs([50, 60, 70], "dcgan", (0, 0)), runs([50], "proxy", (0, 0)))
        text = finals.render(table)
        assert "degan (chosen)" in text
        assert "2.0 [-0.5, 4.5]" in text
        assert "Teacher: cifar10 90.0." in text
        assert "nan" not in text
        finals.save(table, tmp_path)
        assert pd.read_csv(tmp_path / "finals.csv")["p"].tolist() == pytest.approx(table["p"].tolist(), nan_ok=True)
        assert (tmp_path / "finals.md").read_text().startswith("| proxy")
        (tmp_path / "none").touch()
        with pytest.raises(UserError, match="cannot be written"):
            finals.save(table, tmp_path / "none")

    def test_without_test_images_they_are_compared_on_held_out_ones(self):
        untested = {"test_accuracy": math.nan, "teacher_test_accuracy": math.nan, "teacher_oracle_accuracy": 0.8}
        both = (runs([51, 62, 73]), runs([50, 60, 70], "dcgan", (0, 0)))
        table = compare(*(part.assign(oracle_accuracy=part["test_accuracy"], **untested) for part in both))
        assert (table.loc[0, "accuracy"], table.loc[1, "difference"]) == (pytest.approx(62), pytest.approx(2))
        assert (table.loc[0, "teacher"], set(table["judged_by"])) == (pytest.approx(80), {"oracle_accuracy"})
        text = finals.render(table)
        assert "held-out accuracy" in text and "as the true data have no test images, in %" in text
        assert "test accuracy" not in text.lower() and "agreement" not in text and "Teacher: cifar10 80.0." in text

    def test_the_best_epoch_by_the_test_images_stands_beside_the_student_chosen_without_them(self):
        table = compare(runs([50, 60], best=1.5), runs([40, 50], "dcgan", (0, 0)))
        assert table["best_on_test"].tolist() == [pytest.approx(56.5), pytest.approx(math.nan, nan_ok=True)]
        assert table.loc[0, "gap"] == pytest.approx(1.5)
        text = finals.render(table)
        assert "  best  " in text
        assert "as most published code reports it" in text
        without = finals.render(compare(runs([50, 60])))
        assert "  best  " not in without and "published" not in without

    def test_students_of_several_generators_are_told_apart(self):
        members = ["search-0001@0123456789abcdef", "search-0002@0123456789abcdef"]
        plain = runs([60, 61], "combined", (0, 0), combine={"members": members})
        other = {"combine": {"members": members, "balance": True}, "distill.mix_proxy": 0.25}
        table = compare(runs([51, 62]), plain, runs([64, 65], "combined", (0, 0), **other))
        assert table["combined"].fillna("").tolist() == ["", "2", "2, balanced, 25% proxy images"]
        text = finals.render(table)
        assert all(f"{name} " in text for name in ("degan (chosen)", "combined (2)", "(2, balanced, 25% proxy images)"))
        assert "nan" not in text

    def test_rows_without_a_newer_setting_are_the_same_configuration(self, tmp_path):
        row = runs([50]).iloc[0].drop(["test_accuracy", "teacher_test_accuracy", *CHECKED]).to_dict() | {"attempt": 1}
        ledger.write_row(tmp_path, row)
        old = row | {"trial_id": "final-0002", "config_json": '{"seed": 2}', "config_seed": 2}
        ledger.write_row(tmp_path, old)
        assert finals.compare(ledger.load(tmp_path)).shape[0] == 1
