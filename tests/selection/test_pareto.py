"""The Pareto front, and what a run's search pursued."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_ledger import made_ledger

from degan_search import ledger
from degan_search.search.space import file as space_file
from degan_search.search.space.schema import Space
from degan_search.selection.pareto import front, front_table, goals_of, ranks
from degan_search.settings.goals import GOALS
from degan_search.system.errors import UserError
from tests.cli.calls import call, refused

VALUE = st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")])


def better(goal, one, other):
    """Whether a value is better than another; one that is not known is the worst."""
    if np.isnan(one) or np.isnan(other):
        return not np.isnan(one) and bool(np.isnan(other))
    return one > other if GOALS[goal].direction == "max" else one < other


@given(st.lists(st.tuples(*[VALUE] * len(GOALS)), min_size=1, max_size=12))
def test_ranks_are_those_of_peeling_front_after_front(rows):
    left, expected, rank = set(range(len(rows))), {}, 0

    def dominates(one, other):
        pairs = list(zip(GOALS, rows[one], rows[other], strict=True))
        return any(better(*pair) for pair in pairs) and not any(better(goal, b, a) for goal, a, b in pairs)

    while left:
        first = {row for row in left if not any(dominates(other, row) for other in left)}
        expected |= dict.fromkeys(first, rank)
        left, rank = left - first, rank + 1
    assert list(ranks(np.array(rows), tuple(GOALS))) == [expected[row] for row in range(len(rows))]


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return ledger.load(made_ledger(tmp_path_factory.mktemp("runs") / "made", 60))


@pytest.mark.parametrize("goal", [name for name in GOALS if name != "score"])
def test_the_front_of_a_run_in_each_goal(goal, frame):
    found = front(frame, ("score", goal), ("cell",))
    assert set(found["phase"]) == {"search"} and set(found["state"]) == {"COMPLETE"}
    for cell, own in found.groupby("cell", sort=False):
        others = frame[(frame["cell"] == cell) & (frame["phase"] == "search") & (frame["state"] == "COMPLETE")]
        assert own["score"].iloc[0] == others["score"].max()
        assert own[goal].is_monotonic_decreasing and own["score"].is_monotonic_decreasing
        for row in own.to_dict("records"):
            assert not ((others["score"] > row["score"]) & (others[goal] <= row[goal])).any()
    assert list(front_table(frame, ("score", goal)))[-3:] == ["score", goal, "config"]


def test_what_a_run_pursued(tmp_path):
    for name, objectives in (("one", ["score"]), ("two", ["score", "multiply_adds"])):
        made = made_ledger(tmp_path / name, 12)
        space = Space.model_validate({"search": {"objectives": objectives}})
        (made / "space.yaml").write_text(space_file.dump(space))
        assert list(goals_of(made)) == objectives
    (tmp_path / "old").mkdir()
    assert goals_of(tmp_path / "old") == ("score",)
    refused("best", tmp_path / "one", "--pareto", says=["needs two goals or more, of score, student_parameters"])
    refused("best", tmp_path / "one", tmp_path / "two", "--pareto", says=["different objectives"])
    refused("best", tmp_path / "two", "--pareto", "--top", "3", says=["--by and --top do not go with it"])
    assert "multiply_adds" in call("best", tmp_path / "two", "--pareto").stdout
    assert call("table", tmp_path / "two").stdout.count("Pareto front of score, multiply_adds") == 1
    assert (
        "Pareto" not in call("table", tmp_path / "one").stdout + call("table", tmp_path / "two", "--style=csv").stdout
    )
    assert '<section id="front"' in (report := open_report(tmp_path / "two")) and "multiply adds" in report


def open_report(run):
    assert call("report", run).exit_code == 0
    return (run / "report.html").read_text()


def test_no_front_of_nothing():
    frame = pd.DataFrame({"phase": ["search"], "state": ["PRUNED"], "score": [0.5], "seconds": [1.0]})
    with pytest.raises(UserError, match="no finished search trial has score and seconds"):
        front(frame, ("score", "seconds"), ())
