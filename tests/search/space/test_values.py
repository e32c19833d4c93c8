"""Values of a space file are those of the settings, wherever they stand; no list holds one twice."""

import pytest

from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from tests.search.space.made_spaces import draws, read, refused, write

TEXT = """
trial: {teacher: {dataset: "glyphs/[A-C]", network: lenet}, student: {network: lenet_half}}
cells: {proxy: [noise/uniform], gan.beta1: [1e-1, "0.5"]}
parameters: {gan.lambda_e: [1e-2, "1e-1"], gan.lambda_d: {log: [1e-1, 1e1]}, gan.width: [4, "8"]}
when:
  - if: {gan.lambda_e: "0.10"}
    parameters: {gan.lr: [1e-3]}
first: [{gan.lambda_e: 1e-1, gan.lambda_d: 5e0, gan.width: "8"}]
search: {trials: 1e1}
"""


def test_numbers_in_any_form_are_numbers_everywhere(tmp_path):
    space = space_file.load(write(tmp_path, TEXT))
    assert space.cells["gan.beta1"] == [0.1, 0.5]
    assert space.parameters["gan.lambda_e"] == [0.01, 0.1]
    assert space.parameters["gan.width"] == [4, 8]
    assert space.parameters["gan.lambda_d"].bounds == (0.1, 10)
    assert space.when[0].if_ == {"gan.lambda_e": 0.1}
    assert space.when[0].parameters == {"gan.lr": [0.001]}
    assert space.first == [{"gan.lambda_e": 0.1, "gan.lambda_d": 5, "gan.width": 8}]
    assert space.search.trials == 10


def test_such_points_are_drawn_and_found_again(tmp_path):
    cell = spaces.cells(space_file.load(write(tmp_path, TEXT)))[0]
    first, *others = draws(cell, 30)
    assert (first.gan.lambda_e, first.gan.lambda_d, first.gan.width) == (0.1, 5, 8)
    assert {config.gan.lr for config in others if config.gan.lambda_e == 0.1} == {0.001}
    for config in others:
        point = {"gan.lambda_e": config.gan.lambda_e, "gan.width": config.gan.width}
        assert cell.enqueue(point)["gan.lambda_e"] == [0.01, 0.1].index(config.gan.lambda_e)


def test_what_is_equal_stays_as_it_was_written(tmp_path):
    space = read(tmp_path, cells={"gan.lambda_e": [1, 2.5]}, parameters={"gan.lambda_d": [0, 5]})
    assert [cell.label for cell in spaces.cells(space)] == ["gan.lambda_e=1", "gan.lambda_e=2.5"]


@pytest.mark.parametrize("values", [[1, 1.0], ["1e-2", 0.01], [0.01, 1e-2], [5, 0, "5.0"]])
@pytest.mark.parametrize(("part", "place"), [("cells", "cells: cell gan.lambda_e="), ("parameters", "parameters: ")])
def test_equal_values_in_one_list_are_refused(values, part, place, tmp_path):
    changes = {"cells": {}, "parameters": {"gan.lambda_d": [0, 5]}, part: {"gan.lambda_e": values}}
    refused(lambda: read(tmp_path, **changes), "mine.yaml", place, "gan.lambda_e=", "is in the list twice")


def test_equal_values_under_a_condition_and_equal_seeds_are_refused(tmp_path):
    when = [{"if": {"gan.lambda_d": 5}, "parameters": {"gan.lr": ["0.1", 0.1]}}]
    refused(lambda: read(tmp_path, when=when), "when.0.parameters: gan.lr=0.1", "twice, as '0.1' and 0.1")
    refused(lambda: read(tmp_path, finals={"seeds": [1, 2, 1]}), "finals", "seeds must not hold one twice")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"parameters": {"distill.reuse": [1, 4]}}, "parameters"),
        ({"parameters": {"distill.reuse": {"int": [1, 4]}}}, "parameters"),
        ({"cells": {"distill.reuse": [1, 4]}}, "cells"),
        ({"when": [{"if": {"gan.lambda_d": 77}, "parameters": {"distill.reuse": [1]}}]}, "when.0.parameters"),
        ({"when": [{"if": {"distill.reuse": 4}, "trial": {"gan.lr": 0.1}}]}, "when: if"),
    ],
)
def test_names_of_no_setting_are_refused_wherever_they_stand(changes, place, tmp_path):
    refused(lambda: read(tmp_path, **changes), f"{place}: unknown key 'distill.reuse'", "did you mean")


def test_a_condition_that_nothing_can_meet_is_refused(tmp_path):
    when = [{"if": {"gan.lambda_d": "much"}, "trial": {"gan.lr": 0.1}}]
    refused(lambda: read(tmp_path, when=when), "when: if: gan.lambda_d = 'much'", "number")


def test_aliases_are_written_out_again(tmp_path):
    text = "trial: {gan: &gan {width: 4}, teacher: {dataset: digits, network: lenet}, student: {network: lenet}}\n"
    text += "parameters: {gan.lambda_d: [0, 5]}\nwhen: [{if: {gan.lambda_d: 5}, trial: {gan: {<<: *gan, lr: 1e-3}}}]\n"
    text += "cells: {proxy: [digits]}"
    space = space_file.load(write(tmp_path, text))
    assert space.when[0].trial == {"gan": {"width": 4, "lr": 0.001}}
    assert "*" not in space_file.dump(space)
