"""The replayed search, on a made-up table whose optimum is known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from made_ledger import Sweep

from benchmarks import record
from benchmarks.measure import Figures
from benchmarks.replay import in_random_order, nearest, replay, search, timelines
from benchmarks.search import (
    ARMS,
    SHARES,
    Arm,
    Stopping,
    add_rungs,
    chosen,
    recommended,
    searched,
    stops,
    to_within,
    whole,
)
from degan_search.ledger.columns import State
from degan_search.search.run import tune_dicts
from degan_search.search.run.jobs import new_job
from degan_search.search.run.results import TrialResult
from degan_search.search.suggest.asha import Rungs
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.suggest.job_queue import GivenJobs
from degan_search.settings.resolve import trial_config
from degan_search.system.errors import UserError

E, D = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0), (0.0, 1.0, 3.0, 6.0, 12.0, 30.0)
BEST = (3.0, 3.0)
STEPS, AT = 320, (40, 80, 160, 240)


def made(noise=0.0, seed=0, e=E, d=D):
    """A smooth bowl around BEST in the logarithm of the weights; rungs see it the better, the later they are."""
    rng = np.random.default_rng(seed)
    rows = []
    for lambda_e, lambda_d in itertools.product(e, d):
        far = (
            math.log((lambda_e + 0.03) / (BEST[0] + 0.03)) ** 2 / 4 + math.log((lambda_d + 0.3) / (BEST[1] + 0.3)) ** 2
        )
        accuracy = 0.3 + 0.5 * math.exp(-far / 4)
        halves = accuracy + rng.normal(0, noise / 3, 2)
        probe, gan, seconds = 1.0, rng.uniform(0.05, 0.1), 0.0
        rungs = []
        for number, step in enumerate(AT, 1):
            seconds = step * gan + number * probe
            score = 0.5 * accuracy * step / STEPS + rng.normal(0, noise * (2 - step / STEPS))
            rungs.append({"step": float(step), "score": score, "seconds": seconds, "probe_seconds": probe})
        rows.append(
            {
                "lambda_e": lambda_e,
                "lambda_d": lambda_d,
                "state": "COMPLETE",
                "score": accuracy + rng.normal(0, noise),
                "oracle_accuracy": halves.mean(),
                "oracle_half_1": halves[0],
                "oracle_half_2": halves[1],
                "cross_soft_agreement": accuracy,
                "gan_steps": STEPS,
                "seconds": STEPS * gan + len(AT) * probe + 8,
                "rungs": rungs,
            }
        )
    return pd.DataFrame(rows)


TABLE = made()
GRID = timelines(TABLE, None)
TOLD = timelines(TABLE, 0.25)


class Seen(Rungs):
    """The package's rungs, which note what they were asked."""

    def __init__(self, factor):
        super().__init__(factor)
        self.asked = []

    def record(self, cell, budget, score, trial=None):
        reason = super().record(cell, budget, score, trial)
        self.asked.append((trial, budget, score, reason))
        return reason


def test_a_grid_without_probes_costs_its_seconds_and_ends_at_its_best():
    ended = replay(in_random_order(TABLE, 0), GRID, None)
    assert sorted(trial.point for trial in ended) == sorted(GRID)
    assert {trial.state for trial in ended} == {State.COMPLETE}
    assert ended[-1].spent == pytest.approx(whole(TABLE)) == pytest.approx((TABLE["seconds"] - 4).sum())
    assert chosen(TABLE, ended, "score")[-1] == pytest.approx(100 * TABLE["oracle_accuracy"].max())


def test_two_slots_share_the_work():
    end = TrialResult(id="", score=0.5, gan_steps=1, state="COMPLETE")
    told = {(0.0, float(n)): [(seconds, end)] for n, seconds in SECONDS}
    weights = [trial_config({"gan": {"lambda_e": 0.0, "lambda_d": float(n)}}) for n, _ in SECONDS]
    jobs = [new_job("search", n, "a", config) for n, config in enumerate(weights)]
    ended = replay(GivenJobs(jobs), told, None)
    # 4 and 1 begin; 2 follows 1 at 1 and ends at 3; 6 follows at 3 and ends at 9, alone from 4 on.
    assert [(trial.point[1], trial.clock, trial.spent) for trial in ended] == [
        (1, 1, 2),
        (2, 3, 6),
        (0, 4, 8),
        (3, 9, 13),
    ]
    assert replay(GivenJobs(jobs), told, None, slots=1)[-1].clock == 13
    assert [trial.point[1] for trial in replay(GivenJobs(jobs), told, None, time_budget=6)] == [1, 2]
    assert [trial.point[1] for trial in replay(GivenJobs(jobs), told, None, until=(0.0, 2.0))] == [1, 2]


SECONDS = list(enumerate((4.0, 1.0, 2.0, 6.0)))


def test_probes_that_are_not_made_cost_nothing():
    row = TABLE.iloc[7]
    point = row["lambda_e"], row["lambda_d"]
    seconds = [rung["seconds"] for rung in row["rungs"]]
    # Neither those before the first rung nor those after the last.
    assert [when for when, _ in timelines(TABLE, 0.5)[point]] == pytest.approx([seconds[2] - 2, row["seconds"] - 3])
    assert [result.gan_steps for _, result in timelines(TABLE, 0.125)[point]] == [*AT[:3], STEPS]
    assert timelines(TABLE, None, "oracle_accuracy")[point] == [
        (row["seconds"] - 4, TrialResult(id="", score=row["oracle_accuracy"], gan_steps=STEPS, state="COMPLETE"))
    ]


def test_the_rungs_are_told_of_scores_in_the_order_of_the_clock_and_stop_trials():
    rungs = Seen(2)
    ended = replay(in_random_order(TABLE, 0), TOLD, rungs)
    asked = {(trial, budget): score for trial, budget, score, _ in rungs.asked}
    known = {rung["score"] for rungs in TABLE["rungs"] for rung in rungs}
    assert set(asked.values()) <= known
    stopped = [reason for *_, reason in rungs.asked if reason]
    assert len(stopped) == sum(trial.state is State.PRUNED for trial in ended) > 0
    assert len(rungs.scores["grid", 80]) == len(TABLE)
    again = Rungs(2)
    assert [again.record("grid", budget, score, trial) for trial, budget, score, _ in rungs.asked] == [
        reason for *_, reason in rungs.asked
    ]


@pytest.mark.parametrize(
    ("value", "point"), [(0, 0), (0.01, 0.1), (0.17, 0.1), (0.18, 0.3), (1.7, 1), (1.8, 3), (99, 10)]
)
def test_suggestions_are_moved_to_the_nearest_ratio(value, point):
    assert nearest(value, E) == point


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_search_is_the_packages_own_on_the_grid(sampler):
    jobs = search(TABLE, sampler, True, 0)
    assert type(jobs) is CellSearcher
    (points,) = zip(*(tune_dicts.from_config(jobs.suggest(str(n))) for n in range(12)), strict=True)
    points = [(one.config.gan.lambda_e, one.config.gan.lambda_d) for one in points]
    assert points[:5] == [(0, 0), (0, 6), (1, 6), (1, 12), (3, 30)]  # the shipped ones: (0, 0), (0, 5) and so on
    assert set(points) <= set(GRID)
    assert len(set(points)) == 12  # what was tried is turned down


@pytest.mark.parametrize("name", ARMS)
def test_no_search_takes_more_than_the_grid_and_regret_is_against_its_choice(name):
    arm = ARMS[name]
    jobs = in_random_order(TABLE, 1) if arm.sampler == "grid" else search(TABLE, arm.sampler, arm.first, 1)
    ended = replay(jobs, TOLD if arm.stops else GRID, Rungs(2) if arm.stops else None, time_budget=whole(TABLE) / 3)
    assert ended[-1].spent <= whole(TABLE) / 3
    spent = [trial.spent for trial in ended]
    assert spent == sorted(spent)
    accuracy = chosen(TABLE, ended, "score")
    assert accuracy[0] == pytest.approx(100 * TABLE["oracle_accuracy"].mean())  # none has finished yet
    best = max(known(trial.point) for trial in ended if trial.state is State.COMPLETE)
    assert accuracy[-1] == pytest.approx(100 * best)


def known(point, column="oracle_accuracy"):
    return TABLE.set_index(["lambda_e", "lambda_d"])[column][point]


def test_to_stop_when_the_best_has_finished_changes_nothing():
    arm, stopping = Arm("", "grid", stops=True), Stopping(0.25, 2)
    whole_runs = [
        chosen(TABLE, replay(in_random_order(TABLE, seed), TOLD, Rungs(2), time_budget=whole(TABLE)), "score")
        for seed in range(5)
    ]
    np.testing.assert_array_equal(searched(arm, TABLE, stopping, 5, "score"), whole_runs)


def test_a_failed_trial_is_no_choice():
    failed = TABLE.assign(state=["FAIL" if (e, d) == BEST else "COMPLETE" for e, d in GRID])
    failed.loc[failed["state"] == "FAIL", ["score", "oracle_accuracy"]] = np.nan
    ended = replay(in_random_order(failed, 0), timelines(failed, None), None)
    assert [trial.point for trial in ended if trial.state is State.FAIL] == [BEST]
    assert chosen(failed, ended, "score")[-1] == pytest.approx(100 * failed["oracle_accuracy"].max())


def test_compute_from_which_the_regret_stays():
    regret = np.ones((4, len(SHARES))) * 5
    regret[0, 100:] = 0.5
    regret[1, 20:40] = 0
    regret[2] = -1
    regret[3, 100:] = 0.5
    regret[3, 150] = 2
    assert to_within(regret, 1).tolist() == [SHARES[100], 1, 0, SHARES[151]]


def test_stopping_costs_less_and_the_cheapest_within_noise_is_recommended():
    table = stops(TABLE, 3)
    assert len(table) == len(AT[:3]) * 3
    assert (table["compute"] < 1).all()
    assert table.groupby("factor")["compute"].apply(lambda own: own.is_monotonic_increasing).all()
    assert recommended([table], [100]) == Stopping(0.125, 4)
    dear = table.assign(regret=[0.0 if row.grace == 0.5 and row.factor == 3 else 2.0 for row in table.itertuples()])
    assert recommended([table, dear], [100, 1]) == Stopping(0.5, 3)
    assert recommended([table, dear], [100, -1]) is None


def test_rungs_are_correlated_with_what_came_of_the_trials():
    figures = Figures()
    add_rungs(figures, "s", TABLE)
    assert figures.values["s_rung_40_rank_correlation_with_accuracy"] == pytest.approx(1)
    total = TABLE["seconds"].sum()
    assert figures.values["s_rung_240_probe_share_of_seconds"] == pytest.approx(len(TABLE) / total)


def curve(*points):
    return pd.DataFrame(points, columns=["budget", "seconds", "score"])


def test_a_probes_seconds_are_those_that_the_steps_do_not_take():
    nan = math.nan
    rungs = record.rungs(curve((4, 1.0, nan), (8, 2.0, nan), (10, 9.5, 0.5), (12, 10.0, nan), (16, 11.0, nan)))
    assert rungs == [{"step": 10, "score": 0.5, "seconds": 9.5, "probe_seconds": 7.0}]


def test_a_run_is_recorded_and_read_back(tmp_path):
    sweep = Sweep(tmp_path / "grid")
    reports = [
        {"budget": step, "score": score, "seconds": seconds, "stage": stage}
        for step, score, seconds, stage in [
            (10, math.nan, 1.0, "gan"),
            (20, math.nan, 2.0, "gan"),
            (30, 0.4, 5.0, "gan"),
            (40, math.nan, 6.0, "gan"),
            (60, 0.6, 9.0, "done"),
        ]
    ]
    for weight in (0.0, 1.0):
        sweep.add(
            "photos",
            "degan",
            0.6,
            0.5,
            settings={"gan.lambda_e": weight, "gan.lambda_d": 3.0},
            scores={"oracle_half_1": 0.4, "oracle_half_2": 0.6},
            seconds=9.0,
            gan_steps=60,
            reports=reports,
        )
    table = record.table(sweep.folder)
    table.to_parquet(tmp_path / "grid.parquet")
    told = timelines(record.read(tmp_path / "grid.parquet"), 0.25)
    assert told == {
        (weight, 3.0): [
            (5.0, TrialResult(id="", score=0.4, gan_steps=30)),
            (9.0, TrialResult(id="", score=0.6, gan_steps=60, state="COMPLETE")),
        ]
        for weight in (0.0, 1.0)
    }
    assert whole(table) == pytest.approx(2 * (9 - 2))
    sweep.add("photos", "degan", 0.2, state="PRUNED", settings={"gan.lambda_e": 5.0})
    with pytest.raises(UserError, match="asha: null"):
        record.table(sweep.folder)
