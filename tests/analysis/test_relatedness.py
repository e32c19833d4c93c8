"""Correlations of relatedness with accuracy, on made-up trials whose answers are known."""

import math

import pandas as pd
import pytest

from analysis import relatedness
from degan_search.ledger.columns import Phase
from degan_search.system.errors import UserError

PROXIES = {"one": 0.2, "two": 0.3, "three": 0.5, "four": 0.6, "five": 0.8}


def trial(proxy="one", method="degan", accuracy=0.5, score=0.5, weights=(0.0, 5.0), count=500, **changes):
    return {
        "proxy": proxy,
        "run": "run",
        "phase": "search",
        "state": "COMPLETE",
        "teacher_hash": "teacher",
        "config_teacher_dataset": "digits",
        "config_proxy": proxy,
        "compared_on": proxy,
        "config_count": count,
        "config_method": method,
        "config_gan_lambda_e": weights[0],
        "config_gan_lambda_d": weights[1],
        "oracle_accuracy": accuracy,
        "test_accuracy": math.nan,
        "score": score,
        **changes,
    }


def sweep(count=500):
    """Each proxy's trials: the gain falls as accuracy rises."""
    rows = []
    for proxy, accuracy in PROXIES.items():
        rows += [
            trial(proxy, "proxy", accuracy, 0.9, (0, 0), count),
            trial(proxy, "dcgan", accuracy - 0.1, 0.1, (0, 0), count),
            trial(proxy, "degan", 0.5 + accuracy / 10, 0.4, (0, 5), count),
            trial(proxy, "degan", 0.6 + accuracy / 10, 0.8, (1, 5), count),
        ]
    return pd.DataFrame(rows)


def measures(count=500):
    return pd.DataFrame(
        {
            "proxy": list(PROXIES),
            "count": pd.array([count] * 5, "Int64"),
            "images": 500,
            "good": list(PROXIES.values()),
            "bad": [-accuracy for accuracy in PROXIES.values()],
            "empty": math.nan,
        }
    )


def one(frame, phase=Phase.SEARCH):
    (row,) = relatedness.outcomes(frame, phase).to_dict("records")
    return row


def test_outcomes_are_in_percent_and_gains_in_points():
    row = relatedness.outcomes(sweep()).set_index("proxy").loc["three"]
    assert row["count"] == 500
    expected = {"proxy_images": 50, "dcgan": 40, "degan": 65, "degan_fixed": 55, "gain": 25, "gain_fixed": 15}
    assert {name: row[name] for name in relatedness.OUTCOMES} == pytest.approx(expected)


def test_degan_is_the_best_by_score_not_by_accuracy():
    row = one(pd.DataFrame([trial(accuracy=0.9, score=0.1, weights=(1, 1)), trial(accuracy=0.3, score=0.2)]))
    assert row["degan"] == pytest.approx(30)
    assert math.isnan(row["proxy_images"])
    assert math.isnan(row["gain"])


def test_dcgan_is_degan_without_weights_too():
    row = one(pd.DataFrame([trial(accuracy=0.2, weights=(0, 0)), trial("one", "dcgan", 0.4, weights=(0, 0))]))
    assert row["dcgan"] == pytest.approx(30)


def test_of_finals_the_weights_with_the_best_mean_score_count_over_seeds():
    finals = [
        trial(accuracy=math.nan, test_accuracy=accuracy, score=score, weights=weights, phase="final")
        for weights, score, accuracy in [((0, 5), 0.9, 0.9), ((0, 5), 0.1, 0.9), ((1, 5), 0.6, 0.5), ((1, 5), 0.6, 0.7)]
    ]
    row = one(pd.DataFrame([*finals, trial(accuracy=0.1)]), Phase.FINAL)
    assert row["degan"] == pytest.approx(60)
    assert row["degan_fixed"] == pytest.approx(90)
    assert one(pd.DataFrame([*finals, trial(accuracy=0.1)]))["degan"] == pytest.approx(10)


def test_only_finished_trials_with_an_accuracy_count():
    others = [trial(accuracy=0.9, score=0.9, state="PRUNED"), trial(accuracy=math.nan, score=0.9)]
    assert one(pd.DataFrame([trial(accuracy=0.3), *others]))["degan"] == pytest.approx(30)
    with pytest.raises(UserError, match="no finished search trial with oracle_accuracy"):
        relatedness.outcomes(pd.DataFrame(others))


def test_one_teacher_at_a_time():
    with pytest.raises(UserError, match="trials of 2 teachers"):
        relatedness.outcomes(pd.DataFrame([trial(), trial(teacher_hash="another")]))


def test_cells_are_the_proxies_with_their_counts():
    frame = pd.concat([sweep(), sweep(math.nan)])
    cells = relatedness.cells(frame)
    assert len(cells) == 10
    assert cells[0] == ("one", 500)
    assert cells[5] == ("one", None)
    assert len(relatedness.outcomes(frame)) == 10


def test_correlations_have_the_sign_and_the_number_of_proxies():
    table = relatedness.correlations(sweep(), measures()).set_index(["measure", "outcome"])
    assert table.loc[("good", "proxy_images"), "rho"] == pytest.approx(1)
    assert table.loc[("good", "gain"), "rho"] == pytest.approx(-1)
    assert table.loc[("bad", "degan_fixed"), "rho"] == pytest.approx(-1)
    assert math.isnan(table.loc[("empty", "degan"), "rho"])
    assert table.loc[("empty", "degan"), "n"] == 0
    found = table.loc[("good", "dcgan")]
    assert found["n"] == 5
    assert found["p"] == pytest.approx(2 / math.factorial(5))  # of 120 orders the one and its reverse
    assert found[["low", "rho", "high"]].tolist() == pytest.approx([1, 1, 1])


def test_each_count_of_images_is_an_arm_of_its_own():
    reversed_arm = measures(None).assign(good=[-accuracy for accuracy in PROXIES.values()])
    frame, both = pd.concat([sweep(), sweep(math.nan)]), pd.concat([measures(), reversed_arm])
    table = relatedness.correlations(frame, both)
    good = table[(table["measure"] == "good") & (table["outcome"] == "dcgan")]
    assert good["count"].fillna(0).tolist() == [500, 0]
    assert good["rho"].tolist() == pytest.approx([1, -1])
    assert good["n"].tolist() == [5, 5]
    text = relatedness.render(table)
    assert text.index("**500 images of each proxy**") < text.index("**All images of each proxy**")


def test_measures_of_other_counts_are_not_mixed_in():
    with pytest.raises(UserError, match="no proxy has both"):
        relatedness.correlations(sweep(500), measures(400))


def test_markdown_says_what_was_measured():
    text = relatedness.render(relatedness.correlations(sweep(), measures()))
    assert "search trials on the held-out share of the true training images" in text
    header, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in header.split("|")[2:-1]] == list(relatedness.OUTCOMES.values())
    assert [row.split("|")[1].strip() for row in rows] == ["good", "bad", "empty"]
    assert "1.00 [" in rows[0]
    assert "p 0.017, n 5" in rows[0]
    assert "nan" not in text


def test_the_score_of_proxy_images_is_a_measure_where_students_share_a_bank():
    frame = sweep().assign(compared_on="all", score=lambda rows: rows["oracle_accuracy"] ** 2)
    table = relatedness.correlations(frame, measures()).set_index(["measure", "outcome"])
    assert table.loc[("score_of_proxy_images", "degan"), ["rho", "n"]].tolist() == pytest.approx([1, 5])
    apart = relatedness.correlations(sweep(), measures())
    assert "score_of_proxy_images" not in set(apart["measure"])
