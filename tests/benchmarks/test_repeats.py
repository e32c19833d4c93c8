"""The replays of further student seeds and of flat searches, where the answer is known."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import flat
from benchmarks.choice import seeds
from benchmarks.choice.seeds import Pair, affordable, best, chances, replayed
from benchmarks.replay import Ended
from degan_search.ledger.columns import State
from tests.benchmarks.test_search import TABLE

QUIET = Pair("quiet", np.repeat(np.linspace(0.2, 0.9, 8), 3).reshape(8, 3), np.repeat(np.arange(8.0), 3).reshape(8, 3))
LOUD = Pair("loud", QUIET.scores + np.array([-0.1, 0.0, 0.1]), QUIET.accuracies + np.array([-1.0, 0.0, 1.0]))


@pytest.fixture(autouse=True)
def _few_sweeps(monkeypatch):
    monkeypatch.setattr(seeds, "SWEEPS", 200)


def test_without_noise_all_sweeps_choose_the_best():
    found = replayed(QUIET, 1, np.random.default_rng(0))
    assert found == {"same weights": 1, "same or within a standard error": 1, "regret": 0}


def test_further_students_help_against_noise_and_only_among_the_best_quarter():
    found = [replayed(LOUD, repeats, np.random.default_rng(0)) for repeats in (0, 9)]
    assert found[1]["same weights"] > found[0]["same weights"] + 0.1
    assert found[1]["regret"] < found[0]["regret"]
    assert LOUD.error == pytest.approx(1.0)
    students = np.array([[0.9, 0.1], [0.8, 0.8], [0.1, 1.9], *[[0.0, 0.0]] * 5])
    assert list(best(students)) == [1, 0]  # the third was not repeated
    assert 0.5 < chances(LOUD, 4, np.random.default_rng(0))[:, 0].mean() < 1


def test_repeats_displace_trials():
    assert [affordable(11, 0, 0.5), affordable(11, 2, 0.5), affordable(11, 2, 0.3)] == [11, 8, 9]
    assert replayed(QUIET, 0, np.random.default_rng(0), 8)["regret"] == 0
    fewer = replayed(QUIET, 2, np.random.default_rng(0), 4)["regret"]
    assert fewer == pytest.approx(4 / 5, abs=0.1)  # below the best of 8 are the best of 4 drawn, by (8 - 4) / (4 + 1)


def test_the_tables_are_printed_from_what_was_recorded(capsys):
    seeds.show(pd.read_parquet(seeds.FILE))
    printed = capsys.readouterr().out
    assert printed.count("chosen by") == 2 and "nan" not in printed


def test_a_search_is_cut_where_it_is_flat_with_what_runs_then():
    ended = [Ended((1.0, float(number)), State.COMPLETE, float(number), float(number)) for number in range(10)]
    scores = pd.Series([0.1, 0.5, *[0.2] * 8], index=[trial.point for trial in ended])
    assert [flat.cut(ended, scores, patience) for patience in (3, 8, 9)] == [6, 10, 10]


def test_a_cut_search_saves_trials_and_its_loss_is_in_points():
    table = flat.table({"made": TABLE}, [12], seeds=2)
    assert list(table["patience"]) == [*flat.PATIENCES] * 2
    assert table["trials saved"].between(0, 1).all() and (table["points lost"] > -1e-9).all()
    assert (table.groupby("first points")["trials saved"].diff().dropna() <= 1e-9).all()
