"""Which final runs a search leads to."""

import math

import pandas as pd
import pytest

from degan_search.search.remaining import final_jobs
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema


@pytest.mark.parametrize(
    ("by", "column", "written"),
    [
        (None, "cross_soft_agreement", "cross_soft_agreement"),
        (None, "score", "score"),  # no trial has an agreement across trials
        ("score", "score", "score"),
        ("infomax", "infomax", "infomax"),
    ],
)
def test_finals_are_each_cells_choice(by, column, written, tmp_path):
    settings = {"cells": {"proxy": ["digits", "photos"]}, "parameters": {"gan.lambda_d": [1, 2]}}
    cells = spaces.cells(schema.Space.model_validate(settings))
    nothing = dict.fromkeys(("score", "cross_soft_agreement", "infomax"), math.nan)
    rows = []
    for cell, weight, score, state in [
        (0, 1.0, 0.4, "COMPLETE"),
        (0, 2.0, 0.6, "COMPLETE"),
        (0, 1.0, 0.9, "PRUNED"),
        (0, 1.0, math.nan, "COMPLETE"),
        (1, 1.0, 0.9, "FAIL"),
    ]:
        config = cells[cell].example()
        config = config.model_copy(update={"gan": config.gan.model_copy(update={"lambda_d": weight})})
        known = nothing | {"trial_id": "t", "config_json": config.model_dump_json(), "config_objective": "agreement"}
        rows.append(known | {"phase": "search", "cell": cells[cell].label, column: score, "state": state})
    jobs = final_jobs(cells, pd.DataFrame(rows), schema.FinalsConfig(seeds=[7, 8], by=by), tmp_path)
    assert {one.chosen_by for one in jobs} == {written}
    assert [(one.cell, one.config.seed, one.config.gan.lambda_d) for one in jobs] == [
        ("proxy=digits", 7, 2.0),
        ("proxy=digits", 8, 2.0),
    ]
