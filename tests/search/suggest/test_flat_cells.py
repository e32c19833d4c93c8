"""Searches that end once they have stopped getting better."""

import pytest

from degan_search.search.suggest.cell_searcher import CellSearcher, Past
from degan_search.selection.flat import PATIENCE
from tests.search.suggest.as_tune import end, result, run_all, searcher, suggest
from tests.search.suggest.test_going_on import CURVES, rows_of

FLAT = PATIENCE + 1
"""Trials of a search whose first trial is not bettered."""


def flat_searcher(trials=2 * FLAT):
    return searcher(search={"trials": trials, "stop_when_flat": True})


def rising_on_photos():
    scores = iter(range(100))
    return lambda config: next(scores) if config.proxy == "photos" else 0.5


def test_a_flat_cell_has_no_further_trials_and_the_others_go_on():
    search = flat_searcher()
    jobs = run_all(search, rising_on_photos())
    counts = {label: sum(one.cell == label for one in jobs) for label in search.cells}
    assert counts == {"proxy=digits": FLAT, "proxy=photos": 2 * FLAT}
    assert (search.total, search.news) == (3 * FLAT, [f"proxy=digits: ended, flat after {FLAT} trials"])
    assert len(run_all(searcher(search={"trials": 2 * FLAT}))) == 4 * FLAT


def test_what_runs_beside_the_last_one_ends_and_a_budget_begins_it_no_more():
    search = searcher(cells={"proxy": ["digits"]}, search={"trials": 30, "stop_when_flat": True})
    for number in range(FLAT + 2):
        suggest(search, str(number))
    for number in range(FLAT):
        end(search, str(number), result(0.5, "COMPLETE"))
    assert search.total == FLAT + 2 and not search.next_cells
    end(search, str(FLAT), result(0.9, "COMPLETE"))
    search.set_trials(40)
    assert search.total == FLAT + 2 and not search.waiting(60)
    assert search.news == [f"proxy=digits: ended, flat after {FLAT} trials"]


@pytest.mark.parametrize(("done", "left"), [(FLAT, 0), (FLAT - 1, 1)])
def test_it_stays_ended_when_the_run_goes_on(done, left):
    cut = searcher(cells={"proxy": ["digits"]}, search={"trials": 30, "stop_when_flat": True})
    jobs = [suggest(cut, str(number)) for number in range(done)]
    on = CellSearcher(list(cut.cells.values()), past=Past(rows_of(jobs), CURVES, first_number=done))
    assert on.flat.after == ({} if left else {"proxy=digits": FLAT})
    assert len(run_all(on)) == left


def test_what_began_before_is_waited_for_and_what_ends_later_changes_nothing():
    search = searcher(cells={"proxy": ["digits"]}, search={"trials": 30, "stop_when_flat": True})
    jobs = [suggest(search, str(number)) for number in range(FLAT + 1)]
    for number in reversed(range(1, FLAT)):
        end(search, str(number), result(0.5, "COMPLETE"))
    assert not search.flat.after  # the first still runs
    end(search, "0", result(0.6, "COMPLETE"))
    assert search.flat.after == {"proxy=digits": FLAT}
    end(search, str(FLAT), result(0.9, "COMPLETE"))
    rows = rows_of(jobs).assign(score=[0.6, *[0.5] * (FLAT - 1), 0.9])
    cells = list(search.cells.values())
    assert CellSearcher(cells, past=Past(rows, CURVES)).flat.after == {"proxy=digits": FLAT}
    assert not CellSearcher(cells, past=Past(rows[1:], CURVES, jobs[:1])).flat.after


def test_trials_that_failed_are_none():
    search = searcher(cells={"proxy": ["digits"]}, search={"trials": 12, "stop_when_flat": True})
    for number in range(12):
        suggest(search, str(number))
        end(search, str(number))
    assert not search.flat.after
