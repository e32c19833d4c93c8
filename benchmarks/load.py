"""What a sweep costs its driver: trials that compute nothing and report at five rungs."""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray
from ray import tune
from rich.console import Console

from degan_search import ledger
from degan_search.ledger.columns import Phase, Report, State
from degan_search.search import open_run, phase, remaining
from degan_search.search.callbacks.recorder import Recorder
from degan_search.search.run import folder as run_folder
from degan_search.search.run import tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.run.results import TrialResult
from degan_search.search.space import schema
from degan_search.search.space.cell import cells
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.workers.cluster import ray_cluster

RUNGS = (100, 200, 300, 400, 500)
CELLS = ("digits", "photos", "glyphs/[K-Z]", "noise/uniform", "noise/gaussian")
WINDOW = 500
"""Trials between two measures of the driver."""


class Stub(tune.Trainable):  # type: ignore[misc]
    """A trial that computes nothing: it reports what a real one would."""

    def setup(self, config: dict[str, Any], **ignored: Any) -> None:
        """Take a job."""
        (self.job,), self.rung = tune_dicts.from_config(config), 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next one."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Report the next rung, or the end."""
        self.rung += 1
        done = self.rung > len(RUNGS)
        gan_steps = RUNGS[-1] if done else RUNGS[self.rung - 1]
        gan = self.job.config.gan
        score = 1 / (1 + abs(gan.lambda_e - 3) + abs(gan.lambda_d - 7)) + 0.001 * self.rung
        steps = [gan_steps - step for step in (80, 60, 40, 20)]
        curve = [Report(budget=step, score=math.nan, seconds=1.0, stage="gan") for step in steps]
        curve.append(Report(budget=gan_steps, score=score, seconds=1.0, stage="done" if done else "gan"))
        result = TrialResult(
            id=self.jobs[0].id,
            score=score,
            gan_steps=gan_steps,
            state=State.COMPLETE if done else None,
            reports=tuple(curve),
            reports_from=len(curve) * (self.rung - 1),
            metrics={"score": score},
            seconds=1.0,
        )
        return tune_dicts.to_result([result], [] if done else [self.jobs[0].id], 1)


def stub_space(trials: int) -> schema.Space:
    """Return a space of so many trials, equally many in each of `CELLS`."""
    return schema.Space.model_validate(
        {
            "trial": {"teacher": {"dataset": "digits", "network": "lenet"}, "probe": {"at": RUNGS}},
            "cells": {"proxy": list(CELLS)},
            "parameters": {"gan.lambda_e": {"range": [0, 10]}, "gan.lambda_d": {"range": [0, 50]}},
            "search": {"trials": trials // len(CELLS)},
        }
    )


def measure(trials: int, folder: Path) -> dict[str, float]:
    """Run a sweep of stubs and return what it cost the driver."""
    space = stub_space(trials)
    options = Options(storage=folder, name=f"load-{trials}")
    driver = psutil.Process()
    quiet = Console(file=(folder / f"load-{trials}.log").open("w"))
    with (
        mock.patch.object(phase, "DeganTrainable", Stub),
        open_run.open_run(options, quiet) as run,
        ray_cluster(options, quiet),
    ):
        run_folder.start(space, options)
        work, rungs = remaining.remaining_search(space, cells(space), run)
        windows: list[tuple[float, float]] = []

        class Counting(Recorder):
            def on_trial_complete(self, *given: Any, **named: Any) -> None:
                super().on_trial_complete(*given, **named)
                if self.bar.done % WINDOW == 0:
                    windows.append((time.process_time(), driver.memory_info().rss / 1e6))

        begun, cpu, memory = time.monotonic(), time.process_time(), driver.memory_info().rss / 1e6
        with mock.patch.object(phase, "Recorder", Counting):
            phase.run_phase(Phase.SEARCH, run, phase.Prepared({}), CellAsha(rungs), work)
        wall, cpu_spent = time.monotonic() - begun, time.process_time() - cpu
        memory_grown = driver.memory_info().rss / 1e6 - memory
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    frame = ledger.load(options.folder)
    assert len(frame) == trials == frame["trial_id"].nunique(), f"{len(frame)} rows of {trials}"
    begun = time.monotonic()
    remaining.remaining_search(space, cells(space), run)
    name = f"load_{trials}"
    found = {
        f"{name}_rows": float(len(frame)),
        f"{name}_wall_seconds_a_trial": wall / trials,
        f"{name}_driver_cpu_seconds_a_trial": cpu_spent / trials,
        f"{name}_driver_megabytes_a_trial": memory_grown / trials,
        f"{name}_driver_peak_megabytes": peak,
        f"{name}_seconds_to_take_up_again": time.monotonic() - begun,
        f"{name}_peak_megabytes_with_reading_all": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }
    for number, (first, last) in enumerate(zip([(cpu, memory), *windows], windows, strict=False), 1):
        found[f"{name}_window_{number}_cpu_seconds_a_trial"] = (last[0] - first[0]) / WINDOW
        found[f"{name}_window_{number}_megabytes"] = last[1]
    return found


def main() -> None:
    """Measure each number of trials in a process of its own, as memory is never given back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, float] = {}
    for trials in arguments.trials:
        with tempfile.TemporaryDirectory() as folder:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                with os.fdopen(writer, "w") as out:
                    json.dump(measure(trials, Path(folder)), out)
                ray.shutdown()
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as answers:
                text = answers.read()
            os.waitpid(child, 0)
        measured = json.loads(text)
        found |= measured
        for name, value in measured.items():
            print(f"{name}: {value:.6g}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
