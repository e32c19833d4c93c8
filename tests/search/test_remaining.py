"""Which final runs a search leads to, and which trials are still to run."""

import math

import pandas as pd
import pytest
from made_ledger import BEGUN
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase, config_columns
from degan_search.search.open_run import open_run
from degan_search.search.remaining import final_jobs, remaining_finals, remaining_repeats, remaining_search
from degan_search.search.run import jobs
from degan_search.search.run.options import Options
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema
from degan_search.search.space.check import check
from degan_search.search.workers import checkpoints
from degan_search.settings.combine import member
from degan_search.settings.resolve import stable_hash
from degan_search.system.errors import UserError
from degan_search.trial.inputs import inputs_key
from tests.ledger.rows import age, synthetic

WEIGHT = {"gan.lambda_d": {"range": [0, 9]}}


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
        config = weighted(cells[cell], weight)
        known = nothing | {"trial_id": "t", "config_json": config.model_dump_json(), "config_objective": "agreement"}
        rows.append(known | {"phase": "search", "cell": cells[cell].label, column: score, "state": state})
    made = final_jobs(cells, pd.DataFrame(rows), schema.FinalsConfig(seeds=[7, 8], by=by, combine=None), tmp_path)
    assert {one.chosen_by for one in made} == {written}
    assert not any(one.referee for one in made)
    assert [(one.cell, one.config.seed, one.config.gan.lambda_d) for one in made] == [
        ("proxy=digits", 7, 2.0),
        ("proxy=digits", 8, 2.0),
    ]


def test_final_runs_may_hold_out_nothing_and_what_they_share_is_made_too(tmp_path):
    new = {"task": "incremental", "teacher.dataset": "digits/[0-4]", "proxy": "digits/[5-9]", "method": "proxy"}
    settings = {"trial": new | {"teacher.holdout": 0.1}, "finals": {"seeds": [7], "holdout": 0, "referee": True}}
    space = schema.Space.model_validate(settings)
    (final,) = final_jobs(spaces.cells(space), pd.DataFrame(), space.finals, tmp_path)
    assert final.config.teacher.holdout == 0
    assert final.referee
    shared = [inputs_key(config) for config in spaces.shared_configs(space)]
    assert len(set(shared)) == 2 and inputs_key(final.config) in shared
    assert [config.teacher.holdout for config in spaces.shared_configs(space)] == [0.1, 0]
    with pytest.raises(UserError, match=r"teacher\.holdout = 0: students are scored on held-out images"):
        check(schema.Space.model_validate({"finals": {"holdout": 0}}))


def test_nothing_that_an_older_version_finished_is_run_again(tmp_path):
    settings = {"cells": {"proxy": ["digits", "photos"]}, "parameters": {"gan.lambda_d": [1, 2]}}
    space = schema.Space.model_validate(settings | {"search": {"sampler": "grid"}, "finals": {"seeds": [7, 8]}})
    cells, folder = spaces.cells(space), tmp_path / "run"
    grid = [(cell.label, weighted(cell, weight)) for cell in cells for weight in (1.0, 2.0)]
    for number, (label, config) in enumerate(grid):
        write(folder, jobs.new_job(Phase.SEARCH, number, label, config), config.gan.lambda_d / 4)
    for job in final_jobs(cells, ledger.load(folder), space.finals, folder)[:-1]:
        write(folder, job, 0.5)
    age(folder)
    with open_run(Options(tmp_path, "run"), Console(quiet=True)) as run:
        search, _ = remaining_search(space, cells, run)
        (left,) = remaining_finals(cells, space.finals, run).given
    assert (search.total, search.tried) == (0, {(label, stable_hash(config)) for label, config in grid})
    assert (left.cell, left.config.seed) == ("proxy=photos", 8)


def test_repeats_are_of_the_best_quarter_and_go_on_where_they_were_cut(tmp_path):
    settings = {"cells": {"method": ["degan", "proxy"]}, "when": [{"if": {"method": "degan"}, "parameters": WEIGHT}]}
    settings |= {"parameters": {"seed": [0, 1, 2, 3, 4]}, "search": {"sampler": "grid", "repeats": 2}}
    space = schema.Space.model_validate(settings | {"trial": {"proxy": "photos"}})
    cells, folder = spaces.cells(space), tmp_path / "run"
    for number in range(5):
        config = weighted(cells[0], float(number))
        write(folder, jobs.new_job(Phase.SEARCH, number, cells[0].label, config), number / 10)
        (folder / "trials" / f"search-{number:04d}").mkdir(parents=True)
        (folder / "trials" / f"search-{number:04d}" / "generator.safetensors").write_bytes(bytes([number]))
    (folder / "trials" / "search-0003" / "generator.safetensors").unlink()
    best = member("search-0004", bytes([4]))
    with open_run(Options(tmp_path, "run"), Console(quiet=True)) as run:
        first, second = remaining_repeats(space, cells, run).given
        assert (first.id, second.id, first.cell) == ("repeat-0000", "repeat-0001", "method=degan")
        assert [one.config.combine.members for one in (first, second)] == [(best,), (best,)]
        assert first.config.gan.lambda_d == 4 and len({0, first.config.seed, second.config.seed}) == 3
        jobs.write(folder, first)
        jobs.write(folder, second)
        write(folder, first, 0.1)
        (left,) = remaining_repeats(space, cells, run).given  # the second had begun
        assert left == second
        write(folder, second, 0.2)
        assert not remaining_repeats(space, cells, run).given
        (more,) = remaining_repeats(with_repeats(space, 3), cells, run).given
        assert (more.id, more.config.combine.members) == ("repeat-0002", (best,))


def with_repeats(space, repeats):
    return space.model_copy(update={"search": space.search.model_copy(update={"repeats": repeats})})


def weighted(cell, lambda_d):
    config = cell.example()
    return config.model_copy(update={"gan": config.gan.model_copy(update={"lambda_d": lambda_d})})


def write(folder, job, score):
    about = {"phase": job.phase, "cell": job.cell, "number": job.number, "started": BEGUN, "finished": BEGUN}
    ledger.write_row(folder, synthetic(job.id, score=score, **about, **config_columns(job.config)))


def test_an_unfinished_trial_competes_by_every_goal_that_its_checkpoint_tells(tmp_path):
    settings = {"parameters": {"student.width": [2, 3, 4]}, "asha": {"reduction_factor": 2}}
    space = schema.Space.model_validate(settings | {"search": {"objectives": ["score", "student_parameters"]}})
    (cell,), folder, options = spaces.cells(space), tmp_path / "run", Options(tmp_path, "run")
    begun = [jobs.new_job(Phase.SEARCH, number, cell.label, cell.example()) for number in range(2)]
    write(folder, begun[0], 0.5)
    jobs.write(folder, begun[1])
    reports = [{"budget": 10, "score": 0.25, "seconds": 3.0}, {"budget": 12, "score": math.nan, "seconds": 4.0}]
    state = {"trial": {"metrics": {"student_parameters": 7.0}}, "reports": reports}
    checkpoints.save(options.place().at(begun[1].id), state)
    with open_run(options, Console(quiet=True)) as run:
        search, rungs = remaining_search(space, [cell], run)
    assert rungs.scores["all", 10] == [(0.25, 7.0)]
    assert rungs.record("all", 10, (0.25, 7.0), begun[1].id) is None
    assert list(search.unfinished) == [begun[1]]
    assert len(search.studies["all"].directions) == 2
