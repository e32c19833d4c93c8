"""The cost model: what it learns from which trial, and what it predicts."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from degan_search.ledger.columns import State
from degan_search.search.planning.cost_model import CostModel, Prior, bounds, duration, makespans, remember, span

SECONDS = st.floats(0, 100)
DEGAN, PROXY = ("search", "photos degan"), ("search", "photos proxy")


@pytest.mark.parametrize(
    ("running", "waiting", "slots", "total"),
    [
        ([], [], 2, 0),
        ([3], [], 2, 3),
        ([], [1, 1, 1, 1], 2, 2),
        ([], [1, 1, 4], 2, 5),  # the long one comes last
        ([], [4, 1, 1], 2, 4),
        ([5, 1], [2, 2, 2], 2, 7),
        ([5, 1, 1], [2], 2, 5),  # one slot fewer than before
    ],
)
def test_makespan(running, waiting, slots, total):
    assert max(makespans(running, waiting, slots)) == total


@given(st.lists(SECONDS, max_size=3), st.lists(SECONDS, max_size=30), st.integers(3, 5))
def test_makespan_is_between_its_bounds(running, waiting, slots):
    everything = [*running, *waiting, 0.0]
    total = max(makespans(running, waiting, slots))
    assert total >= max(everything)
    assert sum(everything) / slots - 1e-6 <= total <= sum(everything) / slots + max(everything) + 1e-6


def test_durations_for_people():
    texts = {
        0.4: "0 s",
        89: "89 s",
        90: "2 min",
        720: "12 min",
        5340: "89 min",
        5400: "1 h 30 min",
        6600: "1 h 50 min",
        7200: "2 h",
    }
    texts |= {86400: "24 h", 90000 * 52: "1,300 h"}
    assert {seconds: duration(seconds) for seconds in texts} == texts


def model(slots=2, factor=None):
    priors = {
        DEGAN: Prior((20.0, 30.0, 50.0), (100, 200)),
        ("search", "noise degan"): Prior((40.0, 60.0, 100.0), (100, 200)),
        PROXY: Prior((10.0,)),
        ("final", "photos degan"): Prior((80.0,)),
    }
    return CostModel(slots, factor, priors)


class TestCostModel:
    """What is learned from which trial."""

    def test_priors_until_something_was_measured(self):
        made = model()
        assert [made.seconds(kind) for kind in made.stretches.priors] == [100, 200, 10, 80]
        assert made.seconds(DEGAN, passed=1, elapsed=10) == 70
        assert made.seconds(PROXY, elapsed=99) == 0.5  # late: not much longer
        assert made.text([PROXY, PROXY, PROXY], 0) == "about 13 to 27 s left"
        assert CostModel().text([PROXY], 0) == ""  # nothing is known at all
        assert made.text([], 0) == ""

    def test_a_stretch_is_learned_in_its_kind_then_its_cell_then_for_all(self):
        made = model()
        made.begin("a", DEGAN, 1000)
        made.reach("a", 100, 1040)  # twice as long as was thought
        assert made.seconds(DEGAN) == 200  # and so will what follows, for all that is known
        assert made.seconds(("search", "noise degan")) == 400
        assert made.seconds(PROXY) == 20
        made.reach("a", 200, 1040 + 90)
        made.end("a", State.COMPLETE, 1130 + 50)
        assert made.seconds(DEGAN) == 40 + 90 + 50
        assert made.seconds(("search", "noise degan")) == 80 + 180 + 100
        assert made.seconds(("final", "photos degan")) == 80 * 180 / 100
        assert made.seconds(PROXY) == 18
        made.begin("b", PROXY, 0)
        made.end("b", State.COMPLETE, 5)
        assert (made.seconds(PROXY), made.seconds(DEGAN)) == (5, 180)
        made.begin("c", DEGAN, 0)
        made.reach("c", 100, 20)
        assert made.seconds(DEGAN) == 30 + 90 + 50
        assert made.text([PROXY], 20) == "about 78 s to 3 min left"  # 140 s of c, beside it a slot for the other

    def test_what_was_not_seen_whole_or_went_wrong_teaches_nothing(self):
        made = model()
        made.begin("resumed", DEGAN, 0, whole=False)
        made.reach("resumed", 200, 7)
        assert not made.stretches.measured
        assert made.seconds(DEGAN, made.running["resumed"].passed) == 50
        made.end("resumed", State.COMPLETE, 7 + 100)
        assert made.seconds(DEGAN) == 2 * (20 + 30 + 50)
        before = dict(made.stretches.measured)
        made.begin("broken", PROXY, 0)
        made.end("broken", State.FAIL, 1)
        made.begin("broken", PROXY, 0)
        made.cut_short("broken")
        made.end("unknown", State.COMPLETE, 1)
        made.reach("unknown", 100, 1)
        assert made.stretches.measured == before
        assert not made.running
        assert made.ended.total() == 1

    def test_an_unknown_kind_is_as_long_as_the_others(self):
        made = model()
        assert made.seconds(("search", "gone")) == (100 + 200 + 10 + 80) / 4
        made = CostModel()
        made.begin("a", ("final", "a"), 0)
        made.end("a", State.COMPLETE, 30)
        assert made.text([("final", "b")] * 2, 30) == "about 50 to 70 s left"

    def test_a_range_holds_until_a_trial_has_ended_as_it_is_late_and_then_grows_narrow(self):
        made = model()
        made.share = 0.5  # other programs had the CPUs while steps were timed
        assert bounds(made, 100, 4, 0) == (32.5, 135)
        made.begin("a", DEGAN, 0)
        assert bounds(made, 100, 3, 10) == (32.5, 135)
        assert bounds(made, 100, 3, 60) == pytest.approx((32.5, 135 * 3))  # 20 s were expected
        made.end("a", State.PRUNED, 60)
        assert bounds(made, 100, 3, 60) == pytest.approx((80, 120))  # a quarter has ended
        assert bounds(made, 100, 99, 60) == (50, 150)
        made.begin("b", PROXY, 60)
        assert bounds(made, 100, 0, 60) == pytest.approx((100 - 10 * 2**0.5 - 2.5, 100 + 10 * 2**0.5 + 2.5))
        assert bounds(made, 1, 0, 60)[0] == 0
        assert [span(*ends) for ends in ((10, 20), (50, 150), (600, 600), (600, 900))] == [
            "10 to 20 s",
            "50 s to 2 min",
            "10 min",
            "10 to 15 min",
        ]

    def test_a_phase_begins_with_the_start_of_its_processes(self):
        made = CostModel(2, None, {PROXY: Prior((10.0,)), ("final", "photos proxy"): Prior((10.0,))}, start=6.0)
        made.after = [("final", "photos proxy")] * 3
        assert made.left([PROXY] * 3, 0) == 6 + 20  # before anything has begun
        made.begin_phase("search", 0)
        assert (made.left([PROXY] * 3, 0), made.left_after()) == (6 + 20, 6 + 20)
        assert (made.left([PROXY] * 3, 4), made.left([PROXY] * 3, 7)) == (2 + 20, 20)
        made.begin("a", PROXY, 8)
        assert (made.left([PROXY] * 2, 9), made.left_after()) == (9 + 10, 8 + 20)  # it took 8 s
        made.end("a", State.COMPLETE, 18)
        made.begin_phase("final", 30)
        assert (made.left([("final", "photos proxy")], 31), made.left_after()) == (7 + 10, 0)

    def test_a_phase_without_trials_is_not_waited_for(self):
        made = model()
        made.after = [("repeat", "photos degan"), ("final", "photos degan")]
        made.begin_phase("final", 0)
        assert (made.after, made.left_after()) == ([], 0)

    def test_an_early_stop_of_a_running_trial_widens_the_range(self):
        made, plain = model(factor=2), model()
        for one in (made, plain):
            for name in "ab":
                one.begin(name, DEGAN, 0)
                one.reach(name, 100, 20)
            one.end("a", State.PRUNED, 20)
        # b is stopped no more as far as is known: nobody has reached the second rung.
        assert bounds(made, 100, 0, 20) == bounds(plain, 100, 0, 20)
        made.reach("b", 200, 50)
        made.begin("c", DEGAN, 50)
        whole, expected = 100.0, 20 + 30 * made.goes_on(DEGAN, 0) + 50 * made.goes_on(DEGAN, 0) * made.goes_on(DEGAN, 1)
        assert expected < whole
        around = 0.1 * 3**0.5 * 100 + 0.25 * whole + (whole - expected) / 2
        assert bounds(made, 100, 0, 50) == pytest.approx((100 - around, 100 + around))

    def test_finals_come_after_all_of_the_search(self):
        made = model()
        made.after = [("final", "photos degan")] * 3
        assert made.left([DEGAN, PROXY], 0) == 100
        assert made.left_after() == 160
        assert made.text([DEGAN, PROXY], 0) == "about 65 s to 2 min left, 3 to 6 min with the finals"

    def test_the_ledger_teaches_the_same(self):
        live, read = model(factor=2), model(factor=2)
        rows, points = [], []
        for number, (last, state) in enumerate([(100, "PRUNED"), (300, "COMPLETE"), (200, "PRUNED"), (200, "FAIL")]):
            name, pace = f"search-{number}", 1 + number
            live.begin(name, DEGAN, 1000.0)
            for budget, seconds in ((100, 10 * pace), (200, 25 * pace)):
                if budget <= last:
                    live.reach(name, budget, 1000.0 + seconds)
                    points.append((name, "gan", budget, 0.5, float(seconds)))
            seconds = {100: 10, 200: 25, 300: 60}[last] * pace
            live.end(name, State(state), 1000.0 + seconds)
            points.append((name, "done", last, 0.5, float(seconds)))
            rows.append((name, *DEGAN, state, float(seconds)))
        rows.append(("search-9", *DEGAN, "FAIL", math.nan))
        frame = pd.DataFrame(rows, columns=["trial_id", "phase", "cell", "state", "seconds"])
        remember(read, frame, pd.DataFrame(points, columns=["trial_id", "stage", "budget", "score", "seconds"]))
        assert read.stretches.measured == live.stretches.measured
        for name in ("reached", "ended", "running"):
            assert getattr(read, name) == getattr(live, name)


class TestStops:
    """The share of trials that a rung lets on."""

    @pytest.mark.parametrize("factor", [2, 3, 8])
    def test_scores_in_no_order_go_on_as_often_as_the_rungs_let_them(self, factor):
        scores, made = np.random.default_rng(0).random((20_000, 9)), CostModel(1, factor)
        for before in range(9):
            cutoffs = np.quantile(scores[:, :before], 1 - 1 / factor, axis=1) if before else 0
            share = np.mean(scores[:, before] >= cutoffs)
            assert made.goes_on(DEGAN, 0, before) == pytest.approx(share, abs=0.015)

    def test_in_the_long_run_one_of_the_reduction_factor(self):
        assert CostModel(1, 3).goes_on(DEGAN, 0, 10**6) == pytest.approx(1 / 3, abs=1e-5)
        assert CostModel(1, None).goes_on(DEGAN, 0, 10**6) == 1
