"""A search that begins where earlier runs were best."""

import shutil

import pytest

from degan_search.search.run import folder as run_folder
from degan_search.search.run.options import Options
from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.search.suggest.warm_start import MOST, alike, warm_started
from degan_search.settings.resolve import trial_config
from tests.made_ledger import Sweep
from tests.search.space.made_spaces import read, refused
from tests.search.suggest.as_tune import run_all

RANGES = {"gan.lambda_e": {"zero_or_log": [0.1, 10]}, "gan.lambda_d": {"zero_or_log": [0.1, 50]}}
LETTERS = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student.network": "lenet_half"}


def add(sweep, trials, settings=LETTERS, proxy="digits"):
    """Add a cell's trials: scores by (lambda_e, lambda_d)."""
    for (e, d), score in trials.items():
        weights = {"gan.lambda_e": e, "gan.lambda_d": d}
        sweep.add(proxy, "degan", score, settings=settings | weights, cell=f"proxy={proxy}")
    return sweep.folder


def points(space, cell="proxy=digits"):
    return [(one.point["gan.lambda_e"], one.point["gan.lambda_d"]) for one in space.earlier if one.cell == cell]


@pytest.fixture
def old(tmp_path):
    return add(Sweep(tmp_path / "old"), {(0, 5): 0.3, (1, 5): 0.9, (1, 5.2): 0.8, (5, 20): 0.7, (10, 1): 0.2})


def test_the_best_points_of_the_most_alike_task_come_first(tmp_path, old):
    far = add(Sweep(tmp_path / "far"), {(0, 1): 0.99, (0, 2): 0.98}, {"teacher.dataset": "cifar10"}, proxy="photos")
    space = read(tmp_path, parameters=RANGES, first=[{"gan.lambda_e": 0, "gan.lambda_d": 0}], search={"trials": 6})
    found, lines = warm_started(space, [far, old], tmp_path / "new")
    assert points(found) == [(1, 5), (5, 20), (0, 1)]  # (1, 5.2) is as good as the first; cifar10 is of another kind
    assert len(points(found, "proxy=noise/uniform")) == MOST
    assert any(line.startswith("proxy=digits: begins with search-0001 of old (alike 1.00), ") for line in lines)
    given = CellSearcher(spaces.cells(found))
    jobs = [job.config.gan for job in run_all(given) if job.config.proxy == "digits"]
    assert [(gan.lambda_e, gan.lambda_d) for gan in jobs[:4]] == [*points(found), (0, 0)]
    assert len(jobs) == 6


def test_each_cell_takes_what_fits_it(tmp_path):
    sweep = Sweep(tmp_path / "both")
    add(sweep, {(1, 5): 0.5, (0, 5): 0.1})
    add(sweep, {(5, 20): 0.9, (0, 10): 0.95}, proxy="noise/uniform")
    cells = {"proxy": ["noise/uniform", "digits"], "method": ["degan", "dcgan"]}
    space = read(tmp_path, cells=cells, parameters=RANGES)
    found, lines = warm_started(space, [sweep.folder], tmp_path / "new")
    assert points(found, "proxy=noise/uniform method=degan")[0] == (0, 10)
    assert points(found, "proxy=digits method=degan")[0] == (1, 5)
    assert not points(found, "proxy=digits method=dcgan")
    assert "proxy=digits method=dcgan: no trial of the earlier runs fits" in lines


def test_what_lies_outside_is_moved_or_left_out_and_said(tmp_path, old):
    ranges = {"gan.lambda_e": {"zero_or_log": [0.1, 3]}, "gan.lambda_d": {"range": [0, 10]}}
    space = read(tmp_path, cells={}, parameters={"proxy": ["photos", "noise/uniform"], **ranges})
    found, lines = warm_started(space, [old], tmp_path / "new")
    assert [one.point for one in found.earlier] == [
        {"gan.lambda_e": 1.0, "gan.lambda_d": 5.0},
        {"gan.lambda_e": 3.0, "gan.lambda_d": 10.0},
    ]
    assert "search-0003 of old: gan.lambda_d = 20.0 becomes 10.0" in lines
    assert "search-0001 of old: proxy = digits is left out" in lines
    assert not any("search-0001 of old: gan" in line for line in lines)


def test_the_run_keeps_its_points_and_needs_no_other(tmp_path, old):
    space, _ = warm_started(read(tmp_path, parameters=RANGES), [old], tmp_path / "new")
    options = Options(storage=tmp_path, name="new")
    options.folder.mkdir()
    run_folder.start(space, options)
    shutil.rmtree(old)
    begun = run_folder.begun(options.folder)
    assert begun.space == space
    assert begun.space.earlier
    assert not begun.changed


def test_likeness_is_of_teacher_and_proxy(tmp_path):
    (cell, _) = spaces.cells(read(tmp_path, parameters=RANGES))  # on noise/uniform
    same = trial_config(LETTERS, {"proxy": "noise/uniform"})
    other = {"teacher": {"dataset": "cifar10", "network": "alexnet"}, "proxy": "photos"}
    assert alike(cell, same) == 1
    assert alike(cell, trial_config(other)) == 0
    assert alike(cell, trial_config(LETTERS, {"proxy": "photos"})) == pytest.approx(2 / 3)
    letters = {"teacher.dataset": "glyphs/[D-F]", "proxy": "noise/uniform"}
    assert alike(cell, trial_config(LETTERS, letters)) == pytest.approx(5 / 6)
    file = {"teacher": {"path": "a.pt", "network": "lenet"}, "proxy": "noise/uniform"}
    assert alike(cell, trial_config(file)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"search": {"sampler": "grid"}, "parameters": {"gan.lambda_d": [0, 5]}},
            "sampler grid runs every combination",
        ),
        ({"parameters": {}}, "no cell of the space has parameters"),
        ({"parameters": {"gan.width": [4, 8]}}, "it searched none of gan.width"),
        ({"cells": {"method": ["extended"]}, "parameters": RANGES}, "it searched none of gan.lambda_d, gan.lambda_e"),
    ],
)
def test_a_space_that_nothing_fits_is_refused(tmp_path, old, changes, says):
    space = read(tmp_path, **changes)
    refused(lambda: warm_started(space, [old], tmp_path / "new"), "--from", says)


def test_runs_that_cannot_be_taken_are_refused(tmp_path, old):
    space = read(tmp_path, parameters=RANGES)
    (tmp_path / "empty").mkdir()
    stopped = Sweep(tmp_path / "stopped")
    stopped.add("digits", "degan", 0.5, state="PRUNED", settings=LETTERS)
    refused(lambda: warm_started(space, [tmp_path / "none"], tmp_path / "new"), "no run at")
    refused(lambda: warm_started(space, [tmp_path / "empty"], tmp_path / "new"), "is no run")
    refused(lambda: warm_started(space, [old, old], tmp_path / "new"), "two runs are called 'old'")
    refused(lambda: warm_started(space, [old], tmp_path / "x" / ".." / "old"), "the folder of the new run itself")
    refused(lambda: warm_started(space, [old, stopped.folder], tmp_path / "new"), "stopped", "has finished")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cell": "proxy=photos"}, "earlier: 'proxy=photos' is none of the cells"),
        ({"point": {"gan.lambda_x": 1}}, "earlier: 'gan.lambda_x' is none of the parameters"),
        ({"point": {"gan.lambda_e": 99}}, "earlier: gan.lambda_e = 99 is outside its range"),
        ({"alike": 2}, "alike"),
    ],
)
def test_wrong_points_in_a_file_are_refused(tmp_path, changes, says):
    one = {"cell": "proxy=digits", "run": "old", "trial": "search-0001", "alike": 1, "point": {"gan.lambda_e": "1e0"}}
    fine = read(tmp_path, parameters=RANGES, earlier=[one])
    assert fine.earlier[0].point == {"gan.lambda_e": 1.0}
    (tmp_path / "again.yaml").write_text(space_file.dump(fine))
    assert space_file.load(tmp_path / "again.yaml") == fine
    refused(lambda: read(tmp_path, parameters=RANGES, earlier=[one | changes]), says)
