"""The cost model on simulated sweeps with a clock of their own, and the number of trials that fits into a budget."""

import heapq
import io
import json
import math
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from degan_search import ledger
from degan_search.cli.main import app
from degan_search.ledger.columns import Phase, State, config_columns
from degan_search.search import resume as resuming
from degan_search.search.planning import budget as budgets
from degan_search.search.planning import timed_steps
from degan_search.search.planning.budget import TimeBudget
from degan_search.search.planning.cost_model import CostModel, Prior, duration, makespans
from degan_search.search.run import jobs
from degan_search.search.run.options import Options
from degan_search.search.space import cell as spaces
from degan_search.search.space import check, schema
from degan_search.search.space import file as space_file
from degan_search.search.suggest.asha import Rungs
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.sweep import sweep
from degan_search.settings.trial import TrialConfig
from degan_search.system.errors import UserError

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
    made = CostModel(slots, factor)
    made.priors = {
        DEGAN: Prior((20.0, 30.0, 50.0), (100, 200)),
        ("search", "noise degan"): Prior((40.0, 60.0, 100.0), (100, 200)),
        PROXY: Prior((10.0,)),
        ("final", "photos degan"): Prior((80.0,)),
    }
    return made


class TestCostModel:
    """What is learned from which trial."""

    def test_priors_until_something_was_measured(self):
        made = model()
        assert [made.seconds(kind) for kind in made.priors] == [100, 200, 10, 80]
        assert made.seconds(DEGAN, passed=1, elapsed=10) == 70
        assert made.seconds(PROXY, elapsed=99) == 0.5  # late: not much longer
        assert made.text([PROXY, PROXY, PROXY], 0) == "roughly 20 s left"
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
        assert made.text([PROXY], 20) == "about 2 min left"  # 140 s of c, beside it a slot for the other

    def test_what_was_not_seen_whole_or_went_wrong_teaches_nothing(self):
        made = model()
        made.begin("resumed", DEGAN, 0, whole=False)
        made.reach("resumed", 200, 7)
        assert not made.measured
        assert made.seconds(DEGAN, made.running["resumed"].passed) == 50
        made.end("resumed", State.COMPLETE, 7 + 100)
        assert made.seconds(DEGAN) == 2 * (20 + 30 + 50)
        before = dict(made.measured)
        for state in (State.FAIL, None):
            made.begin("broken", PROXY, 0)
            made.end("broken", state, 1)
        made.end("unknown", State.COMPLETE, 1)
        made.reach("unknown", 100, 1)
        assert made.measured == before
        assert not made.running
        assert made.ended.total() == 1

    def test_an_unknown_kind_is_as_long_as_the_others(self):
        made = model()
        assert made.seconds(("search", "gone")) == (100 + 200 + 10 + 80) / 4
        made = CostModel()
        made.begin("a", ("final", "a"), 0)
        made.end("a", State.COMPLETE, 30)
        assert made.text([("final", "b")] * 2, 30) == "about 60 s left"

    def test_finals_come_after_all_of_the_search(self):
        made = model()
        made.after = [("final", "photos degan")] * 3
        assert made.left([DEGAN, PROXY], 0) == 100
        assert made.left_after() == 160
        assert made.text([DEGAN, PROXY], 0) == "roughly 2 min left, 4 min with the finals"

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
        read.remember(frame, pd.DataFrame(points, columns=["trial_id", "stage", "budget", "score", "seconds"]))
        for name in ("measured", "reached", "ended", "running"):
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


CELLS = {
    "photos degan": ((30, 30, 40), (90,)),
    "noise degan": ((30, 30, 40), (90,)),
    "photos extended": ((60, 60, 100), (200,)),
    "photos zskd": ((60,), (60,)),
    "photos proxy": ((), (20,)),
}
"""Of a simulated sweep: seconds that are expected of a search trial, of a final."""
TRIALS, SEEDS, FACTOR, NOISE = 16, 3, 2, 0.1


def simulate(seed, slots, until=math.inf):
    """Run a sweep by a clock of its own, up to a moment.

    Machines are slower than timed steps say, cells differ in that, and trials vary by NOISE. Returns the cost model,
    what waits, how many of the phase's trials have ended, of how many, and the ends of the phases.
    """
    rng, rungs, made, ends = np.random.default_rng(seed), Rungs(FACTOR), CostModel(slots, FACTOR), []
    for cell, (search, final) in CELLS.items():
        made.priors["search", cell] = Prior(search, (100, 200)[: len(search) - 1] if search else ())
        made.priors["final", cell] = Prior(final)
    pace = rng.lognormal(0.5, 0.5) * rng.lognormal(0, 0.15, len(CELLS))
    paces = dict(zip(CELLS, pace, strict=True))
    search = [("search", cell) for _ in range(TRIALS) for cell in CELLS if CELLS[cell][0]]
    finals = made.after = [("final", cell) for _ in range(SEEDS) for cell in CELLS]
    numbers, now = count(), 0.0
    for phase in (search, finals):
        if phase is finals:
            made.after = []
        waiting, events, ended = list(phase), [], 0
        while waiting or events:
            while waiting and len(events) < slots:
                kind, trial = waiting.pop(0), next(numbers)
                takes = rng.lognormal(0, NOISE) * paces[kind[1]] * np.array(made.priors[kind].seconds)
                made.begin(trial, kind, now)
                heapq.heappush(events, (now + takes[0], trial, 0, kind, takes))
            if events[0][0] > until:
                return made, waiting, ended, len(phase), ends
            now, trial, passed, kind, takes = heapq.heappop(events)
            stopped = False
            if passed < len(takes) - 1:
                made.reach(trial, (100, 200)[passed], now)
                stopped = rungs.record(kind[1], passed, rng.random()) is not None
                if not stopped:
                    heapq.heappush(events, (now + takes[passed + 1], trial, passed + 1, kind, takes))
            if stopped or passed == len(takes) - 1:
                made.end(trial, State.PRUNED if stopped else State.COMPLETE, now)
                ended += 1
        ends.append(now)
    return made, [], ended, len(finals), ends


def test_after_a_quarter_the_time_left_is_right_within_a_fifth():
    ours, finals_too, mean_trial = [], [], []
    for seed in range(200):
        slots = 2 if seed % 2 else 4
        search, whole = simulate(seed, slots)[-1]
        made, waiting, ended, total, _ = simulate(seed, slots, search / 4)
        ours.append(made.left(waiting, search / 4) / (search * 3 / 4))
        mean_trial.append(search / 4 / ended * (total - ended) / (search * 3 / 4))
        made, waiting, *_, ends = simulate(seed, slots, whole / 4)
        assert not ends, "a quarter of the sweep is amid the search"
        finals_too.append((made.left(waiting, whole / 4) + made.left_after()) / (whole * 3 / 4))
    right = [np.mean(np.abs(np.array(ratios) - 1) < 0.2) for ratios in (ours, finals_too, mean_trial)]
    assert right[0] >= 0.9
    assert right[1] >= 0.9
    assert right[2] < 0.7  # what was shown before: the mean time of a trial that has ended, for each that has not


SPACE = {
    "trial": {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}},
    "cells": {"proxy": ["digits", "photos"], "method": ["proxy", "degan"]},
    "when": [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 50]}}}],
    "finals": {"seeds": [1, 2]},
}


def budget(seconds, slots=2, trial=100.0, final=50.0, fewest=4, **changes):
    """Return a budget of a space in which each trial takes so long, without rungs."""
    space = schema.Space.model_validate(SPACE | changes)
    cells = spaces.cells(space)
    cost = CostModel(slots)
    for cell in cells:
        cost.priors[Phase.SEARCH, cell.label] = Prior((trial,))
        cost.priors[Phase.FINAL, cell.label] = Prior((final,))
    cost.after = [(Phase.FINAL, cell.label) for cell in cells for _ in space.finals.seeds] if space.finals else []
    return TimeBudget(cost, CellSearcher(cells), seconds, 0.0, fewest)


class TestBudget:
    """How many trials fit, at first and as they are measured."""

    @pytest.mark.parametrize(
        ("seconds", "slots", "trials"),
        [
            # Eight finals of 50 s take 200 s on two slots; a trial in each of two cells 100 s more.
            (200 + 1000, 2, 10),
            (200 + 1099, 2, 10),
            (200 + 1100, 2, 11),
            # On three slots 150 s; 2 n trials take ceil(2 n / 3) rounds.
            (150 + 1000, 3, 15),
            (10**7, 2, budgets.MOST),
        ],
    )
    def test_known_plans(self, seconds, slots, trials):
        made = budget(seconds / (1 - budgets.RESERVE), slots)
        made.check(0.0)
        said = made.plan(0.0)
        assert made.search.trials == trials
        assert made.search.total == len(made.search.turns) == 2 * trials
        assert f": {slots} trials at a time, {trials} trials in each of 2 cells, 8 finals; about " in said

    def test_it_says_what_it_will_try(self):
        made = budget(7200)
        assert made.plan(0.0).endswith("66 trials in each of 2 cells, 8 finals; about 1 h 53 min")
        made = budget(7200, cells={"method": ["degan"]}, finals=None)
        said = made.plan(600.0)
        trials = math.floor((7200 * 0.95 - 600) / 50 / 2) * 2
        assert said.startswith(
            f"Budget 2 h, of which 10 min are over: 2 trials at a time, {trials} trials in one cell; "
        )

    def test_too_short_a_budget_is_refused_and_told_what_is_needed(self):
        made = budget(500)
        with pytest.raises(UserError, match=r"--budget 8 min is too short: 4 trials in each of 2 cells, 8 finals take"):
            made.check(0.0)
        with pytest.raises(UserError, match=r"about 11 min, 2 at a time"):
            made.check(0.0)
        assert "about 10 min, which is longer" in made.plan(0.0)  # what was in time has taken longer to prepare

    def test_nothing_changes_before_each_cell_has_a_trial_or_a_quarter_is_over(self):
        made = budget(10_000)
        made.plan(0.0)
        planned = made.search.trials
        for moment in (0.0, 2499.0):
            assert made.correct(moment) is None
        made.cost.ended[Phase.SEARCH, "proxy=digits method=degan"] = 5
        assert made.correct(2499.0) is None
        assert made.search.trials == planned
        assert made.correct(2500.0) is not None  # nothing has ended: it will be fewer
        assert made.search.trials < planned

    @pytest.mark.parametrize("pace", [0.25, 1.0, 4.0])
    def test_it_ends_in_time_at_whatever_pace(self, pace):
        made = budget(2000)
        made.plan(0.0)
        planned = made.search.trials
        said = self.run(made, 100 * pace)
        end = max(self.ends) + 200 * pace
        assert end <= 2000 * (1 - budgets.RESERVE / 2)
        assert end >= 2000 * (1 - budgets.RESERVE) * (1 - budgets.STEP) - 100 * pace
        assert (made.search.trials > planned, made.search.trials < planned) == (pace < 1, pace > 1)
        assert bool(said) == (pace != 1)
        assert max(made.search.had.values()) == made.search.trials
        assert min(made.search.had[cell] for cell in made.search.varied) >= made.search.trials - 1

    def run(self, made, seconds):
        """Run the search of a budget, each trial taking so long; returns what was said."""
        search, cost, now, running, said = made.search, made.cost, 0.0, [], []
        self.ends = []
        while search.turns or running:
            while search.turns and len(running) < cost.slots:
                one = search.next_job()
                cost.begin(one.id, one.kind, now)
                heapq.heappush(running, (now + seconds, one.id))
            now, name = heapq.heappop(running)
            cost.end(name, State.COMPLETE, now)
            self.ends.append(now)
            changed = made.correct(now)
            said += [changed] if changed else []
        return said

    def test_at_the_end_of_its_share_no_search_trial_begins(self):
        made = budget(10_000)
        made.plan(0.0)
        for _ in range(6):
            one = made.search.next_job()
            made.cost.begin(one.id, one.kind, 0.0)
            made.cost.end(one.id, State.COMPLETE, 100.0)
        planned = made.search.trials
        said = made.correct(9400.0)
        assert said == f"Budget, by the times measured so far: no further search trials, not {planned}"
        assert made.search.next_job() is None
        assert made.search.total == 6
        assert made.correct(9450.0) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"search": {"sampler": "grid"}, "parameters": {"gan.lambda_e": [0, 1]}, "when": []}, "grid runs every"),
        ({"when": []}, "no cell of the space has parameters"),
    ],
)
def test_spaces_without_a_number_of_trials_to_choose(changes, says):
    with pytest.raises(UserError, match=says):
        check.check_budget(schema.Space.model_validate(SPACE | changes))


class TestEstimate:
    """Timed steps, scaled to trials."""

    @pytest.fixture(autouse=True)
    def image(self, monkeypatch):
        """A GAN step takes 2 s an image, a distillation step 1 s."""
        monkeypatch.setattr(timed_steps, "image_seconds", lambda *_: (2.0, 1.0))

    def test_stretches_from_rung_to_rung(self, tiny):
        config = tiny({"probe.at": [4, 10, 99]})  # 12 steps of 8 images, so the last is never reached
        probe, distil = 4 * 8, 8 * 8
        seconds = (4 * 16 + probe, 6 * 16 + probe, 2 * 16 + distil)
        assert timed_steps.prior(config, None) == Prior(seconds, (4, 10))
        assert timed_steps.trial_seconds(config, None) == (sum(seconds), sum(seconds))
        assert timed_steps.prior(tiny({"method": "proxy_matched"}), None) == Prior((distil,))

    def test_between_fewest_and_most_where_patience_decides(self, tiny):
        config = tiny({"method": "proxy_matched", "distill": {"steps": None, "patience": 2, "epochs": 8}})
        fewest, most = 2 * 2 * 4 * 8, 2 * 8 * 4 * 8
        assert timed_steps.trial_seconds(config, None) == (fewest, most)
        assert timed_steps.prior(config, None).seconds == (math.sqrt(fewest * most),)

    def test_a_space(self):
        trial = {**SPACE["trial"], "probe": {"at": [100]}, "gan": {"batch_size": 32, "batch_of": "used"}}
        space = schema.Space.model_validate(SPACE | {"trial": trial})
        made = timed_steps.cost_model(space, None)
        kinds = [(phase, cell.label) for cell in spaces.cells(space) for phase in ("search", "final")]
        assert list(made.priors) == kinds
        rungs = {kind: prior.rungs for kind, prior in made.priors.items() if prior.rungs}
        assert rungs == {("search", f"proxy={name} method=degan"): (100,) for name in ("digits", "photos")}
        assert made.after == [kind for kind in kinds if kind[0] == "final"] * 2
        assert made.reduction_factor == space.asha.reduction_factor


def called(*arguments):
    return CliRunner(env={"TERM": "dumb", "NO_COLOR": "1"}).invoke(app, [*map(str, arguments)])


class TestCommand:
    """`--budget` before anything runs."""

    @pytest.fixture(autouse=True)
    def image(self, monkeypatch):
        monkeypatch.setattr(timed_steps, "image_seconds", lambda *_: (10.0, 10.0))

    def write(self, folder, tiny, **changes):
        settings = {"trial": tiny().model_dump(mode="json"), "parameters": {"gan.lambda_d": [0, 5]}}
        file = folder / "mine.yaml"
        file.write_text(yaml.safe_dump({**settings, **changes}))
        return file

    def test_a_dry_run_prints_the_plan(self, tmp_path, tiny):
        file = self.write(tmp_path, tiny, finals={"seeds": [1, 2]})
        result = called("sweep", file, "--dry-run", "--budget", "10h", "--max-concurrent", 3)
        assert result.exit_code == 0, result.output
        last = result.stdout.splitlines()[-1]
        # A trial takes 1600 s; in 9.5 hours there are 21 rounds of three, one of them the finals'.
        assert last == "Budget 10 h: 3 trials at a time, 60 trials in one cell, 2 finals; about 9 h 20 min"

    @pytest.mark.parametrize(
        ("changes", "budget", "says"),
        [
            ({}, "30min", "--budget 30 min is too short: 4 trials in one cell take about 1 h 52 min, 1 at a time"),
            ({}, "0s", "--budget '0s' is no time at all"),
            ({}, "soon", "--budget 'soon' is no time"),
            ({"search": {"sampler": "grid"}}, "2h", "--budget: search.sampler grid runs every combination"),
            ({"parameters": {}}, "2h", "--budget: no cell of the space has parameters"),
        ],
    )
    @pytest.mark.parametrize("dry", [True, False])
    def test_refusals_come_before_anything_starts(self, tmp_path, tiny, monkeypatch, changes, budget, says, dry):
        monkeypatch.setattr("degan_search.search.sweep.ray_cluster", None)
        file = self.write(tmp_path, tiny, **changes)
        more = ["--dry-run"] if dry else ["--storage", tmp_path / "runs"]
        result = called("sweep", file, "--budget", budget, "--max-concurrent", 1, *more)
        assert result.exit_code == 2
        assert says in result.output
        assert not [*(tmp_path / "runs").glob("mine")]


class TestResume:
    """What is left of a budget."""

    def run(self, folder, finished, phase="search"):
        options = Options(folder, "run", budget=3600.0, budget_begun=1_000_000.0)
        for number, moment in enumerate(finished):
            one = jobs.new_job(phase, number, "all", TrialConfig())
            about = {"trial_id": one.id, "attempt": 1, "phase": phase} | config_columns(TrialConfig())
            ledger.write(
                options.folder, about | {"state": "COMPLETE", "finished": pd.Timestamp(moment, unit="s", tz="UTC")}
            )
            jobs.write(options.folder, one)
        return options

    def test_what_the_last_driver_worked_is_gone(self, tmp_path):
        options = self.run(tmp_path, [1_000_600, 1_000_060, 900_000])
        left = resuming.with_time_budget(options, False, None)
        assert left.budget == 3000
        assert left.budget_begun > 1_000_000

    def test_once_final_runs_have_begun_no_search_trial_does(self, tmp_path):
        assert resuming.with_time_budget(self.run(tmp_path, [1_000_600], "final"), False, None).budget == 0

    def test_a_new_one_counts_from_now_and_a_number_of_trials_ends_it(self, tmp_path):
        options = self.run(tmp_path, [1_000_600], "final")
        assert resuming.with_time_budget(options, True, None).budget == 3600
        assert resuming.with_time_budget(options, False, 20).budget is None
        with pytest.raises(UserError, match="give one of the two"):
            resuming.with_time_budget(options, True, 20)
        assert resuming.with_time_budget(replace(options, budget=None), False, None).budget is None


def test_a_sweep_with_a_budget_under_ray(tmp_path, tiny, store, teacher, monkeypatch):
    """Timed steps, made up here, say that four trials fit; they turn out to be short, so there are more."""
    monkeypatch.setattr(timed_steps, "image_seconds", lambda *_: (3.0, 1.0))
    monkeypatch.setattr(budgets, "MOST", 7)
    (tmp_path / "cache").symlink_to(store)
    trial = tiny({"bank.generators": []}).model_dump(mode="json")
    settings = {"trial": trial, "cells": {"method": ["proxy_matched", "degan"]}, "finals": {"seeds": [1]}}
    when = [{"if": {"method": "degan"}, "parameters": {"gan.lambda_d": {"range": [0, 50]}}}]
    space, out = schema.Space.model_validate(settings | {"when": when}), io.StringIO()
    options = Options(tmp_path, "run", max_concurrent=1, budget=2100.0)
    sweep(space, options, Console(file=out, width=200))
    said = out.getvalue()
    assert ": 1 trial at a time, 4 trials in one cell, 2 finals; about 30 min" in said
    assert said.count("Budget, by the times measured so far: 7 trials in one cell, not 4\n") == 1
    assert "[7/7]" in said
    frame = ledger.load(tmp_path / "run")
    assert frame.groupby("phase").size().to_dict() == {"search": 7, "final": 2}
    assert (frame["state"] == "COMPLETE").all()
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["options"]["budget"] == 2100
    assert space_file.load(str(tmp_path / "run" / "space.yaml")).search.trials == 16
    # All is done: nothing more is run, though most of the time is left.
    monkeypatch.setattr("degan_search.search.sweep.ray_cluster", None)
    resuming.resume(Options(tmp_path, "run"), Console(file=out), {})
    assert len(ledger.load(tmp_path / "run")) == 9
