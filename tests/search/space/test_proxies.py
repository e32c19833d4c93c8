"""A proxy that is searched: its candidates make one bank, whatever is drawn."""

import pytest

from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from tests.search.space.made_spaces import draws, read, refused, write

NAMES = ["noise/uniform", "digits", "glyphs/[K-Z]"]
VARIED = {"cells": {"method": ["degan"]}, "parameters": {"proxy": NAMES, "gan.lambda_d": [0, 5]}}


def only_cell(folder, **changes):
    (cell,) = spaces.cells(read(folder, **{**VARIED, **changes}))
    return cell


def banks_of(cell):
    """The proxies of the banks of all configurations that a cell can give."""
    configs = [cell.example(), *cell.shared(), *draws(cell, 20)]
    assert {config.proxy for config in configs[1:]} == set(cell.proxies)
    return {config.bank.proxies for config in configs}


def test_all_candidates_make_one_bank(tmp_path):
    cell = only_cell(tmp_path)
    assert cell.proxies == tuple(NAMES)
    assert banks_of(cell) == {tuple(NAMES)}
    again = space_file.load(write(tmp_path, space_file.dump(cell.space)))
    assert [banks_of(cell) for cell in spaces.cells(again)] == [{tuple(NAMES)}]


def test_they_are_compared_by_what_compares_across_proxies(tmp_path):
    assert only_cell(tmp_path).example().objective == "sure_agreement"
    trial = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "objective": "infomax"}
    assert only_cell(tmp_path, trial=trial).example().objective == "infomax"
    one = only_cell(tmp_path, parameters={"gan.lambda_d": [0, 5]})
    assert one.example().objective == "balanced_soft_agreement"


def test_under_conditions_too(tmp_path):
    when = [
        {"if": {"count": 100}, "parameters": {"proxy": NAMES[:2]}},
        {"if": {"count": 50}, "trial": {"proxy": "photos"}},
    ]
    cell = only_cell(tmp_path, parameters={"count": [100, 50]}, when=when)
    assert banks_of(cell) == {(*NAMES[:2], "photos")}
    by_method = [{"if": {"method": "degan"}, "parameters": {"proxy": NAMES}}]
    made = read(tmp_path, cells={"method": ["dcgan", "degan"]}, parameters={}, when=by_method)
    assert [cell.example().bank.proxies for cell in spaces.cells(made)] == [(), tuple(NAMES)]


@pytest.mark.parametrize("given", [[*NAMES, "photos"], []])
def test_what_the_file_says_holds(given, tmp_path):
    trial = {"teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}, "student": {"network": "lenet_half"}}
    assert banks_of(only_cell(tmp_path, trial=trial | {"bank": {"proxies": given}})) == {tuple(given)}
    assert banks_of(only_cell(tmp_path, trial=trial | {"bank.proxies": given})) == {tuple(given)}


def test_cells_have_a_bank_each_unless_the_file_says_so(tmp_path):
    table = {"cells": {"proxy": NAMES}, "parameters": {"gan.lambda_d": [0, 5]}}
    assert [banks_of(cell) for cell in spaces.cells(read(tmp_path, **table))] == 3 * [{()}]
    trial = {"bank": {"proxies": NAMES}, "teacher": {"dataset": "glyphs/[A-C]", "network": "lenet"}}
    assert [banks_of(cell) for cell in spaces.cells(read(tmp_path, **table, trial=trial))] == 3 * [{tuple(NAMES)}]


def test_new_classes_are_no_candidates_for_one_bank(tmp_path):
    trial = {"task": "incremental", "teacher": {"dataset": "digits/[0-4]", "network": "alexnet"}}
    cell = only_cell(tmp_path, trial=trial, parameters={"proxy": ["digits/[5-7]", "digits/[8-9]"]})
    assert banks_of(cell) == {()}


def test_a_first_point_may_name_one(tmp_path):
    cell = only_cell(tmp_path, first=[{"proxy": "digits", "gan.lambda_d": 5}])
    first = draws(cell, 1)[0]
    assert (first.proxy, first.gan.lambda_d, first.bank.proxies) == ("digits", 5, tuple(NAMES))
    refused(lambda: only_cell(tmp_path, first=[{"proxy": "photos"}]), "first: proxy = 'photos' is not one of")


def test_wrong_ones_are_refused(tmp_path):
    refused(lambda: only_cell(tmp_path, parameters={"proxy": ["digits", "glyps"]}), "'glyps'", "did you mean glyphs")
