"""A time budget: the number of trials that fits into it, corrected as trials are measured."""

import heapq
import math

import pytest

from degan_search.ledger.columns import Phase, State
from degan_search.search.planning import budget as budgets
from degan_search.search.planning.budget import TimeBudget
from degan_search.search.planning.cost_model import CostModel, Prior
from degan_search.search.space import cell as spaces
from degan_search.search.space import check, schema
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.system.errors import UserError
from tests.search.planning.two_cells import SPACE


def budget(seconds, slots=2, trial=100.0, final=50.0, fewest=4, **changes):
    """Return a budget of a space in which each trial takes so long, without rungs."""
    space = schema.Space.model_validate(SPACE | changes)
    cells = spaces.cells(space)
    cost = CostModel(slots)
    for cell in cells:
        cost.stretches.priors[Phase.SEARCH, cell.label] = Prior((trial,))
        cost.stretches.priors[Phase.FINAL, cell.label] = Prior((final,))
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
        assert made.search.total == len(made.search.next_cells) == 2 * trials
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

    def test_more_trials_have_more_repeats(self):
        search = {"trials": 4, "repeats": 2}
        made = budget(3600, slots=1, cells={"method": ["degan"]}, finals=None, search=search)
        made.cost.stretches.priors[Phase.REPEAT, "method=degan"] = Prior((50.0,))
        made.check(0.0)
        # 27 trials of 100 s, and two students of 50 s each of 7 of them: 3400 of 3420 s.
        assert made.plan(0.0).endswith("27 trials in one cell, 14 repeats; about 57 min")
        assert made.search.trials == 27 and len(made.cost.after) == 14

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
        assert max(made.search.started.values()) == made.search.trials
        assert min(made.search.started[cell] for cell in made.search.varied) >= made.search.trials - 1

    def run(self, made, seconds):
        """Run the search of a budget, each trial taking so long; returns what was said."""
        search, cost, now, running, said = made.search, made.cost, 0.0, [], []
        self.ends = []
        while search.next_cells or running:
            while search.next_cells and len(running) < cost.slots:
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
