"""Workers, and the driver, are told to end: each trial writes a checkpoint first, so that no step is done twice."""

import os
import signal

from harness import SPACE, TRIAL, Driver, check, same_as_uninterrupted, write_space

OPTIONS = ("--storage", "runs", "--max-concurrent", "1", "--checkpoint-every", "1h", "--retries", "0")
COUNTS = """
import importlib.abc, importlib.util, os, sys
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "degan_search.training.turns":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            step = module.Turns._step
            def counted(turns, number):
                done = step(turns, number)
                with open("{steps}", "ab") as file:
                    file.write(b".")
                return done
            module.Turns._step = counted
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
"""
"""For every Python process: each step of a trial adds a byte to a file."""


class Steps:
    """How many steps all trials of a folder's sweeps have done."""

    def __init__(self, folder):
        self.file = folder / "steps"
        (folder / "sitecustomize.py").write_text(COUNTS.format(steps=self.file))
        self.environment = {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}

    @property
    def done(self):
        return self.file.stat().st_size if self.file.exists() else 0


def steps_of(run, frame):
    """Return the steps that the finished trials would take without being cut."""
    from harness import _inputs

    from degan_search.ledger.columns import config_of
    from degan_search.search.space import file as space_file
    from degan_search.trial.trial import Trial

    total, space = 0, space_file.load(str(run / "space.yaml"))
    for _, row in frame.iterrows():
        config = config_of(row)
        trial = Trial(config, _inputs(space, config, run))
        while not trial.done:
            trial.step()
            total += 1
    return total


def one_trial(**trial):
    return {
        "trial": {**TRIAL, **trial},
        "search": {"trials": 1},
        "asha": None,
        "finals": None,
        "parameters": {},
        "cells": SPACE["cells"],
    }


def tell(driver):
    """Send SIGTERM to the driver's worker, and wait until it is gone."""
    (worker,) = driver.workers()
    os.kill(worker, signal.SIGTERM)
    driver.until(lambda: worker not in driver.workers())


def test_a_worker_and_then_the_driver_are_told_to_end(tmp_path):
    write_space(tmp_path, one_trial())
    run, steps = tmp_path / "runs" / "tiny", Steps(tmp_path)
    driver = Driver(tmp_path, "sweep", "tiny.yaml", *OPTIONS, environment=steps.environment)
    driver.until(lambda: steps.done >= 20)
    tell(driver)
    before = steps.done
    driver.until(lambda: steps.done >= before + 20)
    assert driver.kill(signal.SIGTERM) == 143, driver.text
    assert "search-0000 goes on in 5 s: its process was told to end" in driver.text
    assert "Stopping, once 1 trial has written a checkpoint" in driver.text
    assert "Traceback" not in driver.text
    last = Driver(tmp_path, "resume", run, environment=steps.environment)
    assert last.wait() == 0, last.text
    frame = check(run)
    same_as_uninterrupted(run, frame)
    print(driver.text, steps.done)
    row = frame.iloc[0]
    assert row["seconds"] <= row["core_seconds"] < row["seconds"] + 60
    assert steps.done == steps_of(run, frame)
