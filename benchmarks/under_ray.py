"""A search under Ray Tune in a process of its own, whose workers measure each trial."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import ray
from rich.console import Console

from benchmarks.bare_loop import Span, wall
from degan_search.ledger.columns import Phase
from degan_search.search import open_run, phase, remaining
from degan_search.search.run import folder as run_folder
from degan_search.search.run import tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.space.cell import cells
from degan_search.search.space.schema import Space
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.workers.cluster import ray_cluster
from degan_search.search.workers.worker import DeganTrainable
from degan_search.stages.gan import Gan
from degan_search.trial.inputs import Inputs, inputs_key

MEASURED = "measured.json"
"""The file of a `TimedTrial` in its trial's folder."""


@dataclass(frozen=True)
class TimedTrial(Span):
    """What a worker measured of a trial."""

    process: int
    """The worker's id."""
    first_step: float
    """When the GAN's first step began."""
    inside: float
    """Seconds in the trial's own code; the others up to the next trial's start are Ray's."""
    megabytes: float
    """The worker's memory when the trial ended."""


@dataclass(frozen=True)
class Swept:
    """A phase under Ray Tune."""

    trials: list[TimedTrial]
    """In order of their start."""
    fresh: list[float]
    """Seconds from a trial's suggestion to its GAN's first step, for the first trial of each process."""
    seconds: float
    """From before Ray's start to its end."""
    cpu_share: float
    """CPU seconds of the driver and of Ray's own processes, of those that all slots had meanwhile."""

    def slots(self) -> list[list[TimedTrial]]:
        """Return the trials process by process."""
        by_process = defaultdict(list)
        for trial in self.trials:
            by_process[trial.process].append(trial)
        return list(by_process.values())

    def between(self, seconds: Callable[[TimedTrial, TimedTrial], float]) -> list[float]:
        """Return `seconds(trial, next trial)` of each trial and the next one in its process."""
        return [seconds(*pair) for slot in self.slots() for pair in pairwise(slot)]


class TimedTrainable(DeganTrainable):
    """A trial that writes a `TimedTrial` into its folder."""

    def setup(self, config: dict[str, Any], **given: Any) -> None:  # type: ignore[override]
        """Take a job."""
        self.began, self.first_step, self.inside = time.time(), 0.0, 0.0
        plain = Gan.step

        def first(gan: Gan, *batch: Any) -> Any:
            # A stage keeps the step function that it began with, and may call this one again.
            self.first_step = self.first_step or time.time()
            Gan.step = plain  # type: ignore[method-assign]
            return plain(gan, *batch)

        Gan.step = first  # type: ignore[method-assign, assignment]
        super().setup(config, **given)
        self.inside += time.time() - self.began

    def step(self) -> dict[str, Any]:
        """Go on, and write what was measured when the trial ends."""
        begun = time.time()
        result = super().step()
        ended = time.time()
        self.inside += ended - begun
        if not tune_dicts.running(result):
            megabytes = psutil.Process().memory_info().rss / 1e6
            measured = TimedTrial(self.began, ended, os.getpid(), self.first_step, self.inside, megabytes)
            self.folders.at(self.jobs[0].id).write(MEASURED, json.dumps(vars(measured)).encode())
        return result


def under_ray(searched: Space, inputs: Inputs, slots: int) -> Swept:
    """Run a search under Ray Tune in a process of its own, Ray's start and end included."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_sweep, searched, inputs, Options(Path(folder), max_concurrent=slots)).result()


def _sweep(searched: Space, inputs: Inputs, options: Options) -> Swept:
    phase.DeganTrainable = TimedTrainable  # type: ignore[attr-defined]
    handed: list[float] = []
    begun = time.time()
    quiet = Console(file=(options.storage / "log").open("w"))
    with open_run.open_run(options, quiet) as run, ray_cluster(options, quiet, run.interruption.listen):
        run_folder.start(searched, options)
        work, rungs = remaining.remaining_search(searched, cells(searched), run)
        next_job = work.next_job

        def noted(*given: Any) -> Any:
            handed.append(time.time())
            return next_job(*given)

        work.next_job = noted  # type: ignore[method-assign, assignment]
        references = {inputs_key(cells(searched)[0].example()): ray.put(inputs)}
        before = _cpu_seconds()
        phase.run_phase(Phase.SEARCH, run, phase.Prepared(references), CellAsha(rungs), work)
        after = _cpu_seconds()
    files = sorted((options.folder / "trials").glob(f"*/{MEASURED}"))
    named = {file.parent.name: TimedTrial(**json.loads(file.read_text())) for file in files}
    trials = sorted(named.values(), key=lambda trial: trial.begun)
    firsts = {trial.process: trial.first_step - handed[int(name[-4:])] for name, trial in reversed(named.items())}
    workers = {trial.process for trial in trials}
    own = sum(seconds - before.get(process, 0) for process, seconds in after.items() if process not in workers)
    slots = options.max_concurrent or 1
    return Swept(trials, list(firsts.values()), time.time() - begun, own / (wall(trials) * slots))


def _cpu_seconds() -> dict[int, float]:
    driver = psutil.Process()
    found = {}
    for process in [driver, *driver.children(recursive=True)]:
        try:
            found[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return found
