"""The driver is killed, told to stop, or there are two of it: nothing is lost, and finished work is done once."""

import random
import re
import signal
import time

import pytest
from harness import MAIN, Driver, check, rows, same_as_uninterrupted, share, still, write_space

from degan_search import ledger
from degan_search.ledger.columns import Phase, State

OPTIONS = ("--storage", "runs", "--checkpoint-every", "0.3")


def begun(run, count):
    """Return a condition: so many trials have begun."""
    return lambda: len(list((run / "jobs").glob("[!.]*.json"))) >= count


def checkpointed(run):
    """Return a condition: a trial has a checkpoint."""
    return lambda: any((run / "trials").glob("*/checkpoint-*"))


def test_killed_interrupted_refused_and_resumed(tmp_path):
    """One sweep: a second driver, SIGKILL amid a trial, SIGTERM, then to its end."""
    write_space(tmp_path, {"search": {"trials": 3}})
    share(tmp_path)
    run = tmp_path / "runs" / "tiny"
    first = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, "--max-concurrent", "1")
    first.until(checkpointed(run))
    first.process.send_signal(signal.SIGSTOP)
    # A second driver refuses, and says who is there.
    second = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS)
    assert second.wait() == 2
    assert re.search(rf"is being written by process {first.process.pid} on \S+ since 20", second.text)
    assert first.kill() == -signal.SIGKILL
    before = rows(run)

    # The lock of the dead process binds nobody.
    driver = Driver(tmp_path, "resume", run)
    driver.until(lambda: len(rows(run)) > len(before))
    assert driver.kill(signal.SIGTERM) == 143
    assert f"nothing that ended is lost; go on with: degan-search resume {run}" in driver.text
    assert "Traceback" not in driver.text
    before = still(before, run)

    last = Driver(tmp_path, "resume", run)
    assert last.wait() == 0, last.text
    still(before, run)
    frame = check(run)
    same_as_uninterrupted(run, frame)


@pytest.mark.faults
def test_more_trials_and_a_changed_space(tmp_path):
    """A run that ended has nothing left to do, until more is asked for; a changed space is refused, or allowed."""
    write_space(tmp_path)
    run = tmp_path / "runs" / "tiny"
    first = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS)
    assert first.wait() == 0, first.text
    before = rows(run)
    assert Driver(tmp_path, "resume", run).wait() == 0
    assert rows(run) == before
    file = run / "space.yaml"
    file.write_text(file.read_text().replace("reduction_factor: 3.0", "reduction_factor: 4.0"))
    changed = Driver(tmp_path, "resume", run)
    assert changed.wait() == 2
    assert "asha.reduction_factor: 3.0 before, 4.0 now" in changed.text
    allowed = Driver(tmp_path, "resume", run, "--allow-changed", "--trials", "5")
    assert allowed.wait() == 0, allowed.text
    still(before, run)
    frame = ledger.load(run)
    assert (frame["phase"] == Phase.SEARCH).sum() == 5
    assert frame["state"].isin([State.COMPLETE, State.PRUNED]).all()


@pytest.mark.faults
def test_killed_at_twenty_random_moments(tmp_path):
    draw = random.Random(0)
    cells = {"proxy": ["digits", "photos"], "method": ["degan", "dcgan"]}
    parameters = {"gan.lr": {"log": [0.0005, 0.005]}}
    more = {"search": {"trials": 6}, "finals": {"seeds": [5, 6], "combine": None}}
    write_space(tmp_path, {"cells": cells, "parameters": parameters, **more})
    run = tmp_path / "runs" / "tiny"
    before = {}
    arguments = ("sweep", "tiny.yaml", *OPTIONS)
    progress = []
    for kill in range(20):
        driver = Driver(tmp_path, *arguments)
        if kill % 4 == 0:  # while it starts
            time.sleep(draw.uniform(0.5, 10))
        else:  # while trials run
            driver.until(lambda driver=driver: driver.workers() or driver.process.poll() is not None)
            time.sleep(draw.uniform(0, 5))
        driver.kill()
        progress.append(len(rows(run)) if run.is_dir() else 0)
        if run.is_dir():
            before = still(before, run)
        if (run / "run.json").is_file():
            arguments = ("resume", run)
    last = Driver(tmp_path, *arguments)
    assert last.wait(600) == 0, last.text
    print("rows after each kill:", progress)
    still(before, run)
    frame = check(run)
    same_as_uninterrupted(run, frame)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_write_is_finished_first(tmp_path, number):
    """The signal comes while the row is being written; the row is there, and the exit code is the signal's."""
    write_space(tmp_path)
    run = tmp_path / "runs" / "tiny"
    slow = (
        "import os, signal, time\n"
        "from degan_search.ledger import write as ledger_write\n"
        "from degan_search.system import whole_files\n"
        "real = whole_files.write_bytes\n"
        "def write(path, data):\n"
        "    if path.parent.name == 'ledger':\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        time.sleep(0.5)\n"
        "    real(path, data)\n"
        "ledger_write.write_bytes = write\n"
    )
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, main=slow + MAIN)
    assert driver.wait() == 128 + number, driver.text
    assert len(rows(run)) == 1
    last = Driver(tmp_path, "resume", run)
    assert last.wait() == 0, last.text
    check(run)


@pytest.mark.faults
def test_a_clock_that_goes_backwards(tmp_path):
    """Each look at the wall clock gives an earlier time, in the driver and in its workers."""
    write_space(tmp_path)
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n"
        "real, start = time.time, time.monotonic()\n"
        "time.time = lambda: real() - 50 * (time.monotonic() - start)\n"
    )
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, environment={"PYTHONPATH": str(tmp_path)})
    assert driver.wait() == 0, driver.text
    frame = check(tmp_path / "runs" / "tiny")
    assert (frame["finished"] >= frame["started"]).all()
    assert (frame["seconds"].dropna() > 0).all()


@pytest.mark.faults
def test_a_search_goes_on_where_most_networks_are_gone(tmp_path):
    """Networks of all but the best trial are removed; more trials are compared with what is there."""
    write_space(tmp_path, {"asha": None, "finals": None})
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, "--keep", "1")
    assert driver.wait() == 0, driver.text
    left = {file.parent.name for file in run.glob("trials/*/student.safetensors")}
    assert 1 <= len(left) <= 2  # the best by what chooses, and by score
    before = rows(run)
    driver = Driver(tmp_path, "resume", run, "--trials", "6", "--keep", "all")
    assert driver.wait() == 0, driver.text
    still(before, run)
    frame = ledger.load(run)
    assert len(frame) == 6
    assert frame[["oracle_accuracy", "cross_soft_agreement"]].notna().all(axis=None)
    assert len(list(run.glob("trials/*/student.safetensors"))) == len(left) + 2


@pytest.mark.faults
def test_a_signal_while_the_sweep_prepares(tmp_path):
    """Ray has begun, and no trial has: Ray's own handler would abort the process."""
    write_space(tmp_path)
    run = tmp_path / "runs" / "tiny"
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS)
    driver.until(lambda: "Ray: " in driver.text)
    assert driver.kill(signal.SIGTERM) == 143, driver.text
    last = Driver(tmp_path, "resume", run)
    assert last.wait() == 0, last.text
    check(run)
