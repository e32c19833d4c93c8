"""Every kind of file in a run, truncated and bit-flipped: refused in one line or mended, never believed."""

import random
import shutil
import warnings
from types import SimpleNamespace

import pytest
from harness import SPACE, Driver, check, write_space

from degan_search import ledger
from degan_search.search.run import folder as run_folder
from degan_search.search.run import jobs, tune_dicts
from degan_search.search.space.cell import cells
from degan_search.search.space.schema import Space
from degan_search.search.workers import checkpoints
from degan_search.search.workers import worker as workers
from degan_search.search.workers.worker import DeganTrainable
from degan_search.storage import LocalPlace, place
from degan_search.system import device
from degan_search.system.errors import UserError
from degan_search.trial.inputs import inputs_key, prepare

LENGTHS = (0.0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 0.999)


def torn(data, draw, flips=20):
    """Yield a file's bytes at several lengths, and with one bit flipped at several places."""
    for share in LENGTHS:
        yield data[: min(len(data) - 1, int(share * len(data)))]
    for _ in range(flips):
        place = draw.randrange(len(data))
        yield data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small run that ended, with one trial's row taken away, so that its checkpoint matters."""
    folder = tmp_path_factory.mktemp("torn")
    write_space(folder, {"search": {"trials": 2}, "finals": None, "asha": None})
    driver = Driver(folder, "sweep", "tiny.yaml", "--storage", "runs", "--checkpoint-every", "0")
    run = folder / "runs" / "tiny"
    driver.until(lambda: any((run / "trials").glob("*/checkpoint-*")))
    first = next((run / "trials").glob("*/checkpoint-*"))
    saved = first.read_bytes()
    assert driver.wait() == 0, driver.text
    return run, saved


@pytest.mark.faults
def test_rows_are_read_whole_or_refused(made):
    run, _ = made
    whole = ledger.load(run)
    for file in sorted((run / "ledger").glob("*.parquet")):
        data = file.read_bytes()
        refused = 0
        try:
            for bad in torn(data, random.Random(0), 400):
                file.write_bytes(bad)
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    read = ledger.load(run)
                if told:
                    assert [file.name in str(warning.message) for warning in told] == [True]
                    assert ledger.broken(run) == [file]
                    assert read.equals(whole[whole["trial_id"] != file.stem.rpartition("-")[0]].reset_index(drop=True))
                    refused += 1
                else:
                    assert read.equals(whole)
        finally:
            file.write_bytes(data)
        assert refused > 400


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A run of two trials that have begun, without Ray, and a checkpoint that the worker of one has written."""
    run = tmp_path_factory.mktemp("begun")
    (cell,) = cells(Space.model_validate(SPACE))
    config = cell.example()
    device.set_up_torch(1)
    inputs = prepare(config, None, run / "cache")
    for number in range(2):
        job = jobs.new_job("search", number, cell.label, config.model_copy(update={"seed": number}))
        jobs.write(run, job)
    worker = DeganTrainable.__new__(DeganTrainable)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers.ray, "get_runtime_context", lambda: SimpleNamespace(get_accelerator_ids=dict))
        patch.setattr(workers, "fetch_inputs", lambda reference: inputs)
        place = LocalPlace(run / "trials")
        worker.setup(tune_dicts.to_config([job]), {inputs_key(config): None}, place, checkpoint_every=0)
        worker.step()
    file = next((run / "trials" / job.id).glob("checkpoint-*"))
    return run, file.read_bytes()


def test_jobs_and_checkpoints_are_read_whole_or_passed_over(begun, tmp_path):
    run, saved = begun
    known, _ = jobs.read(run)
    assert len(known) == 2
    file = run / "jobs" / "search-0000.json"
    data = file.read_bytes()
    for bad in torn(data, random.Random(1), 200):
        file.write_bytes(bad)
        read, broken = jobs.read(run)
        assert (broken == [file] and "search-0000" not in read) or read == known
    file.write_bytes(data)

    folder = place(str(tmp_path))
    older = checkpoints.load(place_with(tmp_path / "one", {"checkpoint-000001": saved}))
    assert older["reports"]
    for bad in torn(saved, random.Random(2), 40):
        found = checkpoints.load(place_with(tmp_path / "two", {"checkpoint-000001": saved, "checkpoint-000002": bad}))
        assert found["trial"].keys() == older["trial"].keys()
        assert repr(found["reports"]) == repr(older["reports"])  # as text: no NaN equals another
    assert checkpoints.load(place_with(tmp_path / "three", {"checkpoint-000001": saved[:-1]})) is None
    assert checkpoints.load(folder.at("nothing")) is None


def place_with(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return place(str(folder))


@pytest.mark.faults
@pytest.mark.parametrize("name", ["run.json", "space.yaml", "finals.json"])
def test_settings_files_are_refused_in_one_line(made, name):
    run, _ = made
    file = run / name
    if not file.exists():
        file.write_text("[]")
    data = file.read_bytes()
    try:
        for bad in torn(data, random.Random(3), 30):
            file.write_bytes(bad)
            try:
                run_folder.begun(run)
            except UserError as error:
                assert str(error)
    finally:
        file.write_bytes(data)


@pytest.mark.faults
def test_a_run_with_broken_files_is_mended_by_resume(made, tmp_path):
    """A torn row runs again under its name; torn scores are measured again; what a killed writer left is removed."""
    run, saved = made
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(run, copy)
    shutil.copytree(run.parent / "cache", copy.parent / "cache")
    before = ledger.load(copy).set_index("trial_id")
    row, score = copy / "ledger" / "search-0001-1.parquet", copy / "scores" / "search-0000.parquet"
    for file in (row, score):
        file.write_bytes(file.read_bytes()[:-100])
    (copy / "ledger" / ".tmp-1234-search-0001-1.parquet").write_bytes(b"torn")
    (copy / "trials" / "search-0001" / "checkpoint-000003").write_bytes(saved[:-5])
    driver = Driver(tmp_path, "resume", copy)
    assert driver.wait() == 0, driver.text
    assert driver.text.count("could not be read and is set aside") == 2
    check(copy)
    after = ledger.load(copy).set_index("trial_id")
    columns = ["score", "oracle_accuracy", "config_hash", "agreement"]
    assert after.loc[before.index, columns].equals(before[columns])
