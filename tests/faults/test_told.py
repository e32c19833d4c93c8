"""Workers, and the driver, are told to end: each trial writes a checkpoint first, so that no step is done twice."""

import os
import random
import signal

import pytest
from harness import TRIAL, Driver, check, inputs_of, patch_everywhere, same_as_uninterrupted, write_space

from degan_search.ledger.columns import config_of
from degan_search.search.space import file as space_file
from degan_search.trial.trial import Trial

OPTIONS = ("--storage", "runs", "--max-concurrent", "1", "--checkpoint-every", "1h", "--retries", "0")
COUNTS = """
step = module.Turns._step
def counted(turns, number):
    done = step(turns, number)
    with open("{steps}", "ab") as file:
        file.write(b".")
    return done
module.Turns._step = counted
"""
"""For `patch_everywhere`: each step of a trial adds a byte to a file."""


class Steps:
    """How many steps all trials of a folder's sweeps have done."""

    def __init__(self, folder):
        self.file = folder / "steps"
        patch_everywhere(folder, "degan_search.training.turns", COUNTS.format(steps=self.file))
        self.environment = {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    @property
    def done(self):
        return self.file.stat().st_size if self.file.exists() else 0


def steps_of(run, frame):
    """Return the steps that finished trials take if nobody cuts them."""
    total, space = 0, space_file.load(str(run / "space.yaml"))
    for row in frame.to_dict("records"):
        config = config_of(row)
        trial = Trial(config, inputs_of(space, config, run))
        while not trial.done:
            trial.step()
            total += 1
    return total


ALONE = {"search": {"trials": 1}, "parameters": {}, "asha": None, "finals": None}


def tell(driver):
    """Send SIGTERM to the driver's worker, and wait until it is gone."""
    (worker,) = driver.workers()
    os.kill(worker, signal.SIGTERM)
    driver.until(lambda: worker not in driver.workers())


@pytest.mark.faults
def test_a_worker_that_is_told_to_end_loses_no_step(tmp_path):
    write_space(tmp_path, ALONE)
    run, steps = tmp_path / "runs" / "tiny", Steps(tmp_path)
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, environment=steps.environment)
    driver.until(lambda: steps.done >= 20)
    tell(driver)
    assert driver.wait() == 0, driver.text
    assert "search-0000 goes on in 5 s: its process was told to end" in driver.text
    frame = check(run)
    assert steps.done == steps_of(run, frame)
    assert frame.loc[0, "attempt"] == 2
    assert frame.loc[0, "seconds"] <= frame.loc[0, "core_seconds"]


@pytest.mark.faults
def test_a_driver_that_is_told_to_stop_loses_no_step(tmp_path):
    write_space(tmp_path, ALONE)
    run, steps = tmp_path / "runs" / "tiny", Steps(tmp_path)
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, environment=steps.environment)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = steps.done
        driver.until(lambda before=before: steps.done >= before + 20)
        assert driver.kill(number) == code, driver.text
        assert "Stopping, once 1 trial has written a checkpoint" in driver.text
        assert "Traceback" not in driver.text
        driver = Driver(tmp_path, "resume", run, environment=steps.environment)
    assert driver.wait() == 0, driver.text
    frame = check(run)
    same_as_uninterrupted(run, frame)
    assert steps.done == steps_of(run, frame)
    assert frame.loc[0, "seconds"] <= frame.loc[0, "core_seconds"]


@pytest.mark.faults
@pytest.mark.timeout(3000)  # on a busy machine
def test_twenty_random_preemptions_lose_at_most_a_step_each(tmp_path):
    draw, told = random.Random(0), 0
    changes = {"gan": {**TRIAL["gan"], "steps": 400}, "distill": {**TRIAL["distill"], "steps": 300}}
    write_space(tmp_path, {"trial": {**TRIAL, **changes}, "search": {"trials": 8}, "asha": None, "finals": None})
    run, steps = tmp_path / "runs" / "tiny", Steps(tmp_path)
    given = (*OPTIONS, "--keep", "all")  # networks, as every trial is compared with one that nobody cut
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *given, environment=steps.environment)
    while told < 20:
        wanted = steps.done + draw.randrange(1, 150)
        driver.until(lambda wanted=wanted: steps.done >= wanted)
        tell(driver)
        told += 1
        print(f"{told} told, {steps.done} steps", flush=True)
    assert driver.wait(900) == 0, driver.text
    frame = check(run)
    same_as_uninterrupted(run, frame)
    lost = steps.done - steps_of(run, frame)
    print(f"{told} preemptions, {steps.done} steps, {lost} done twice")
    assert 0 <= lost <= told
