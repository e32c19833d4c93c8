"""What people see while trials run: the best score of each cell."""

import io
from xml.etree import ElementTree

import pytest
from rich.console import Console, Group

from degan_search.ledger.columns import State
from degan_search.search.callbacks.live_figure import live_figure
from degan_search.search.callbacks.progress_bar import AROUND, ProgressBar

ENDED = [
    ("search-0000", "proxy=photos", State.COMPLETE, 0.5),
    ("search-0001", "proxy=digits", State.COMPLETE, 0.75),
    ("search-0002", "proxy=digits", State.COMPLETE, 0.25),
    ("search-0003", "proxy=photos", State.PRUNED, 0.9),
    ("search-0004", "proxy=photos", State.COMPLETE, 0.625),
    ("search-0005", "proxy=noise", State.FAIL, float("nan")),
]


@pytest.fixture
def bar():
    return ProgressBar("Search", 9, Console(file=io.StringIO(), width=100, height=20))


def below(bar):
    """The lines of the terminal that are below the bar."""
    console = Console(file=io.StringIO(), width=bar.console.width, height=bar.console.height)
    _, *lines = bar.bar.get_renderables()
    console.print(Group(*lines))
    return console.file.getvalue().splitlines()


def test_each_cell_has_its_best_score_the_last_improved_first(bar):
    for trial in ENDED:
        bar.count(*trial)
    bar.show(1, "2 min left")
    best = ["best score 0.625 (search-0004) of proxy=photos", "best score 0.750 (search-0001) of proxy=digits"]
    assert below(bar) == best
    assert bar.bar.tasks[0].description == "Search: 6 done, 1 running, 1 stopped early, 1 failed, 2 min left"


def test_a_log_has_a_line_a_change_with_the_cell_that_improved_last(bar):
    for trial in ENDED:
        bar.count(*trial)
        bar.print_line(bar.show(1, ""))
    lines = bar.console.file.getvalue().splitlines()
    assert len(lines) == len(ENDED)
    assert lines[0] == "Search: 1 done, 1 running, best score 0.500 (search-0000) [1/9]"
    assert lines[2] == "Search: 3 done, 1 running, best score 0.750 (search-0001) of proxy=digits [3/9]"
    assert lines[5] == (
        "Search: 6 done, 1 running, 1 stopped early, 1 failed, best score 0.625 (search-0004) of proxy=photos [6/9]"
    )


def test_one_cell_needs_no_lines(bar):
    bar.count(*ENDED[0])
    text = bar.show(0, "")
    assert below(bar) == [] and bar.bar.tasks[0].description == text
    assert text.endswith("best score 0.500 (search-0000)")


@pytest.mark.parametrize(("cells", "shown"), [(6, 6), (7, 5), (30, 5), (2, 2)])
def test_as_many_cells_as_fit_and_how_many_more(cells, shown):
    bar = ProgressBar("Search", cells, Console(file=io.StringIO(), width=60, height=AROUND + 6))
    for number in range(cells):
        bar.count(f"search-{number:04}", f"proxy={number} method=" + "x" * 99, State.COMPLETE, 0.5)
    bar.show(0, "")
    *_, last = lines = below(bar)
    assert [line.split()[5] for line in lines[:shown]] == [f"proxy={cells - 1 - place}" for place in range(shown)]
    assert (last == f"... and {cells - shown} more cells") == (cells > shown)
    assert len(lines) == min(cells, 6)


def test_the_figure_has_each_finished_trial_and_each_cells_best_so_far():
    finished = {"proxy=<b>": [(1, 0.5, "search-0000"), (4, 0.4, "search-0003")], "other": [(2, 0.75, "search-0001")]}
    shown = live_figure(finished, 9)
    root = ElementTree.fromstring(f"<div>{shown}</div>")
    assert len(root.findall(".//circle")) == 3
    assert [one.text for one in root.findall(".//circle/title")] == [
        "search-0000: 0.500",
        "search-0003: 0.400",
        "search-0001: 0.750",
    ]
    best = root.findall(".//path")[1].get("d")
    assert best.startswith("M") and best.count("V") == 1  # a poorer trial does not lower the line
    height = best.removeprefix("M").split("H")[0].split()[1]
    assert best.endswith(f"V{height}")
    assert "proxy=<b>" in "".join(root.itertext()) and "of 9" in "".join(root.itertext())
    assert live_figure({"other": []}, 9) == ""


def test_equal_scores_and_one_trial_can_be_drawn():
    assert "0.500" in live_figure({"one": [(1, 0.5, "search-0000")]}, 1)
