"""What is said of a finished run's cells whose search ended as it was flat."""

from made_ledger import BEGUN

from degan_search import ledger
from degan_search.api.conclude import flat_cells
from degan_search.ledger.columns import Phase, config_columns
from degan_search.search.run import jobs
from degan_search.search.space import cell as spaces
from degan_search.search.space import file as space_file
from degan_search.search.space import schema
from degan_search.selection.flat import PATIENCE
from tests.ledger.rows import synthetic


def test_named_after_how_many_trials_unless_one_before_still_runs(tmp_path):
    settings = {"parameters": {"gan.lambda_d": {"range": [0, 99]}}, "search": {"trials": 50, "stop_when_flat": True}}
    space = schema.Space.model_validate(settings)
    (cell,) = spaces.cells(space)
    (tmp_path / "ledger").mkdir()
    for number in range(PATIENCE + 2):
        gan = cell.example().gan.model_copy(update={"lambda_d": float(number)})
        job = jobs.new_job(Phase.SEARCH, number, "all", cell.example().model_copy(update={"gan": gan}))
        about = {"phase": job.phase, "cell": "all", "number": number, "started": BEGUN, "finished": BEGUN}
        jobs.write(tmp_path, job)
        if number:  # the first one runs
            ledger.write_row(tmp_path, synthetic(job.id, score=0.5, **about, **config_columns(job.config)))
    assert flat_cells(tmp_path, ledger.load(tmp_path)) == []  # no space
    (tmp_path / "space.yaml").write_text(space_file.dump(space))
    assert flat_cells(tmp_path, ledger.load(tmp_path)) == []
    (tmp_path / "jobs" / "search-0000.json").unlink()
    assert flat_cells(tmp_path, ledger.load(tmp_path)) == [f"all: ended, flat after {PATIENCE + 1} trials"]
    off = space.model_copy(update={"search": schema.SearchConfig(trials=50)})
    (tmp_path / "space.yaml").write_text(space_file.dump(off))
    assert flat_cells(tmp_path, ledger.load(tmp_path)) == []
