"""A run in an object store, a real S3 server: it goes away and comes back, and so does the machine of the sweep."""

import shutil
import time

import pytest
from harness import Driver, check, rows, same_as_uninterrupted, write_space

from degan_search.storage import place, working_copy

OPTIONS = ("--checkpoint-every", "0.5", "--max-concurrent", "1")


def begin(folder, s3, *options, changes=(), home="home"):
    """Start a sweep into the store from a machine whose working copies lie in `home`; returns driver and run."""
    write_space(folder, changes)
    environment = {"XDG_CACHE_HOME": str(folder / home)}
    driver = Driver(
        folder, "sweep", "tiny.yaml", "--storage", s3.uri, *OPTIONS, *options, environment={**s3.env, **environment}
    )
    return driver, here(folder, s3, home)


def here(folder, s3, home="home"):
    return folder / home / "degan_search" / working_copy(s3.uri).name / "tiny"


def resumed(folder, s3, *options, home="home"):
    environment = {**s3.env, "XDG_CACHE_HOME": str(folder / home)}
    return Driver(folder, "resume", s3.at("tiny"), *options, environment=environment)


def everything_is_there(run, s3):
    """Check that the store holds what the working copy does."""
    there = place(s3.at("tiny"))
    names = there.names()
    for file in run.rglob("*"):
        name = file.relative_to(run).as_posix()
        if file.is_file() and not name.startswith(("ray/", "packed/")) and "/." not in f"/{name}":
            assert names.get(name) == file.stat().st_size, name
    for name in names:
        if name.startswith(("ledger/", "scores/", "jobs/")):
            assert there.read(name) == (run / name).read_bytes()
    assert not [name for name in names if "checkpoint-" in name]


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [5, 30])
def test_a_store_that_is_away_for_a_while_loses_nothing(tmp_path, s3, seconds):
    driver, run = begin(tmp_path, s3)
    driver.until(lambda: rows(run))
    s3.stop()
    time.sleep(seconds)
    s3.start()
    assert driver.wait(600) == 0, driver.text
    assert "Traceback" not in driver.text
    frame = check(run)
    everything_is_there(run, s3)
    same_as_uninterrupted(run, frame)


@pytest.mark.faults
def test_another_machine_goes_on_with_what_reached_the_store(tmp_path, s3):
    """The driver is killed while the store is away, and its disk is gone."""
    driver, run = begin(tmp_path, s3)
    driver.until(lambda: any(name.startswith("ledger/") for name in place(s3.at("tiny")).names()))
    s3.stop()
    time.sleep(3)
    driver.kill()
    s3.start()
    shutil.rmtree(tmp_path / "home")
    there = place(s3.at("tiny"))
    before = {name: there.read(name) for name in there.names("ledger")}
    assert before
    last = resumed(tmp_path, s3, home="other")
    assert last.wait(600) == 0, last.text
    run = here(tmp_path, s3, "other")
    assert all(there.read(name) == data for name, data in before.items())
    frame = check(run)
    everything_is_there(run, s3)
    same_as_uninterrupted(run, frame)


@pytest.mark.faults
def test_a_store_that_another_machine_writes_or_that_stays_away(tmp_path, s3):
    driver, _ = begin(tmp_path, s3, changes={"search": {"trials": 2}, "finals": None})
    assert driver.wait(600) == 0, driver.text
    there = place(s3.at("tiny"))
    there.write(".writer.json", b'{"host": "elsewhere", "pid": 7, "since": "2026-01-01"}')
    refused = resumed(tmp_path, s3)
    assert refused.wait() == 2
    assert "is being written by process 7 on elsewhere since 2026-01-01" in refused.text
    there.delete(".writer.json")
    again = Driver(
        tmp_path,
        *("sweep", "tiny.yaml", "--storage", s3.uri),
        environment={**s3.env, "XDG_CACHE_HOME": str(tmp_path / "new")},
    )
    assert again.wait() == 2
    assert "is already there; `degan-search resume" in again.text
