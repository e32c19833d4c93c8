"""What a sweep makes of the machine: Ray against a bare loop, threads, start-up, memory, Ray's share of the time."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray
from rich.console import Console

from benchmarks.measure import Figures, arguments
from degan_search.ledger.columns import Phase
from degan_search.search import open_run, phase, remaining
from degan_search.search import sweep as module
from degan_search.search.run import folder as run_folder
from degan_search.search.run import tune_dicts
from degan_search.search.run.options import Options
from degan_search.search.space import cell as spaces
from degan_search.search.space import schema
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.workers.cluster import ray_cluster
from degan_search.search.workers.worker import DeganTrainable
from degan_search.settings.resolve import merge
from degan_search.settings.trial import TrialConfig
from degan_search.stages.gan import Gan
from degan_search.storage.layout import CACHE
from degan_search.system import cpus, device
from degan_search.trial.inputs import Inputs, inputs_key, prepare
from degan_search.trial.trial import run as run_trial

SLOTS = len(os.sched_getaffinity(0))
LONG_SECONDS = 60
TRIAL = {
    "proxy": "glyphs/[K-Z]",
    "count": 4000,
    "teacher.dataset": "glyphs/[A-J]",
    "teacher.count": 3000,
    "teacher.network": "lenet",
    "teacher.width": 12,
    "teacher.fit": {"steps": 300, "epochs": 10},
    "student": {"network": "lenet", "width": 6},
    "gan": {"width": 16, "batch_size": 32, "batch_of": "used", "lr": 5e-4},
    "distill.score_images": 1024,
    "bank.steps": 40,
}
TINY = {"count": 400, "gan.width": 4, "bank.proxy_images": 50, "bank.generators": [[0, 0]], "distill.pool": 512}
TINY |= {"bank.generated_images": 200, "distill.score_images": 64}


def space(trials: int, gan_steps: int, changes: Mapping[str, Any] = {}) -> schema.Space:
    """Return a search of so many trials of one length, with a rung and none stopped early."""
    half = max(1, gan_steps // 2)
    lengths = {"gan.steps": gan_steps, "probe.at": [half], "probe.steps": half}
    lengths |= {"distill.steps": 2 * gan_steps, "distill.steps_per_epoch": half}
    return schema.Space.model_validate(
        {
            "trial": merge({}, TRIAL, lengths, changes),
            "cells": {"method": ["degan"]},
            "parameters": {"gan.lambda_e": {"range": [0, 5]}},
            "first": [{"gan.lambda_e": 5 * number / trials} for number in range(trials)],
            "search": {"trials": trials},
            "asha": None,
        }
    )


def configs(searched: schema.Space) -> list[TrialConfig]:
    """Return the trials of a search whose first points are all of it."""
    (cell,) = spaces.cells(searched)
    example = cell.example()
    weights = [point["gan.lambda_e"] for point in searched.first]
    return [example.model_copy(update={"gan": example.gan.model_copy(update={"lambda_e": one})}) for one in weights]


def prepared(config: TrialConfig, storage: Path) -> Inputs:
    """Return the inputs of these trials, with the teacher and bank cached where a sweep looks for them."""
    return prepare(config, None, storage / CACHE)


# A bare loop: processes that take the next trial, and nothing else


@dataclass(frozen=True)
class Span:
    """When a trial ran, by the clock."""

    begun: float
    ended: float


_inputs: Inputs


def _set_up(inputs: Inputs, threads: int, ready: Any) -> None:
    global _inputs
    _inputs = inputs
    cpus.pin(threads)
    device.set_up_torch(threads)
    ready.wait()


def _run(config: TrialConfig) -> Span:
    begun = time.time()
    run_trial(config, _inputs)
    return Span(begun, time.time())


def bare(trials: Sequence[TrialConfig], inputs: Inputs, processes: int, threads: int) -> list[Span]:
    """Run trials in processes that are given the inputs once, and begin when all of them are ready."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, spawn, _set_up, (inputs, threads, spawn.Barrier(processes))) as pool:
        return list(pool.map(_run, trials))


def wall(spans: Sequence[Span | Told]) -> float:
    """Return the seconds from the first start to the last end."""
    return max(one.ended for one in spans) - min(one.begun for one in spans)


def seconds_a_trial(spans: Sequence[Span], processes: int) -> float:
    """Return how often so many processes end a trial, once each has ended its first."""
    return median(one.ended - one.begun for one in spans[processes:]) / processes


# The same under Ray Tune


@dataclass(frozen=True)
class Told:
    """What a worker says of a trial, by the clock."""

    process: int
    begun: float
    first_step: float
    """When the GAN's first step began."""
    ended: float
    inside: float
    """Seconds in the trial's own code; the others up to the next trial's start are Ray's."""
    megabytes: float


@dataclass(frozen=True)
class Swept:
    """A phase under Ray Tune."""

    told: list[Told]
    """In order of their start."""
    fresh: list[float]
    """Seconds from a trial's suggestion to its GAN's first step, for the first trial of each process."""
    seconds: float
    """From before Ray's start to its end."""
    cpu_share: float
    """CPU seconds of the driver and of Ray's own processes, of those that all slots had meanwhile."""

    def slots(self) -> list[list[Told]]:
        """Return the trials process by process."""
        by_process = defaultdict(list)
        for one in self.told:
            by_process[one.process].append(one)
        return list(by_process.values())

    def between(self, seconds: Callable[[Told, Told], float]) -> list[float]:
        """Return what is asked of each trial and the next in its process."""
        return [seconds(*pair) for slot in self.slots() for pair in pairwise(slot)]


class Telling(DeganTrainable):
    """A trial that leaves a `Told` in its folder."""

    def setup(self, config: dict[str, Any], **given: Any) -> None:  # type: ignore[override]
        """Take a job."""
        self.began, self.first_step, self.inside = time.time(), 0.0, 0.0
        plain = Gan.step

        def first(gan: Gan, *batch: Any) -> Any:
            self.first_step = self.first_step or time.time()  # a run of steps keeps the function that it began with
            Gan.step = plain  # type: ignore[method-assign]
            return plain(gan, *batch)

        Gan.step = first  # type: ignore[method-assign, assignment]
        super().setup(config, **given)
        self.inside += time.time() - self.began

    def step(self) -> dict[str, Any]:
        """Go on, and at the end tell."""
        begun = time.time()
        result = super().step()
        ended = time.time()
        self.inside += ended - begun
        if not tune_dicts.running(result):
            megabytes = psutil.Process().memory_info().rss / 1e6
            told = Told(os.getpid(), self.began, self.first_step, ended, self.inside, megabytes)
            self.folders.at(self.jobs[0].id).write("told.json", json.dumps(vars(told)).encode())
        return result


def under_ray(searched: schema.Space, inputs: Inputs, slots: int) -> Swept:
    """Run a search under Ray Tune in a process of its own, Ray's start and end included."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(_sweep, searched, inputs, Options(Path(folder), max_concurrent=slots)).result()


def _sweep(searched: schema.Space, inputs: Inputs, options: Options) -> Swept:
    module.DeganTrainable = Telling  # type: ignore[attr-defined]
    handed: list[float] = []
    begun = time.time()
    quiet = Console(file=(options.storage / "log").open("w"))
    with open_run.open_run(options, quiet) as run, ray_cluster(options, quiet, run.interruption.listen):
        run_folder.start(searched, options)
        work, rungs = remaining.remaining_search(searched, spaces.cells(searched), run)
        next_job = work.next_job

        def noted(*given: Any) -> Any:
            handed.append(time.time())
            return next_job(*given)

        work.next_job = noted  # type: ignore[method-assign, assignment]
        references = {inputs_key(spaces.cells(searched)[0].example()): ray.put(inputs)}
        before = _cpu_seconds()
        phase.run_phase(Phase.SEARCH, run, phase.Prepared(references), CellAsha(rungs), work)
        after = _cpu_seconds()
    files = sorted((options.folder / "trials").glob("*/told.json"))
    named = {file.parent.name: Told(**json.loads(file.read_text())) for file in files}
    told = sorted(named.values(), key=lambda one: one.begun)
    firsts = {one.process: (one.first_step - handed[int(name[-4:])]) for name, one in reversed(named.items())}
    workers = {one.process for one in told}
    own = sum(seconds - before.get(process, 0) for process, seconds in after.items() if process not in workers)
    slots = options.max_concurrent or 1
    return Swept(told, list(firsts.values()), time.time() - begun, own / (wall(told) * slots))


def _cpu_seconds() -> dict[int, float]:
    driver = psutil.Process()
    found = {}
    for process in [driver, *driver.children(recursive=True)]:
        try:
            found[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return found


# Figures


def startups(swept: Swept) -> float:
    """Return the median seconds from a trial's end to the next one's first GAN step in the same process."""
    return median(swept.between(lambda one, other: other.first_step - one.ended))


def waits(swept: Swept) -> list[float]:
    """Return the seconds of each trial's slot, up to the next trial's start, that were not the trial's own."""
    return swept.between(lambda one, other: other.begun - one.begun - one.inside)


def share(swept: Swept) -> float:
    """Return Ray's part of the slots' time: their waits, and what the driver and Ray's processes took from them."""
    return sum(waits(swept)) / sum(swept.between(lambda one, other: other.begun - one.begun)) + swept.cpu_share


def compare(trials: int, gan_steps: int, repetitions: int, inputs: Inputs, figures: Figures) -> None:
    """Compare, in turns, one thread a trial with all threads, and Ray Tune with a bare loop."""
    searched = space(trials, gan_steps)
    wanted = configs(searched)
    few = wanted[: 3 * SLOTS]
    walls = defaultdict(list)
    swept: list[Swept] = []
    for _ in range(repetitions):
        walls["one thread"].append(seconds_a_trial(bare(few, inputs, SLOTS, threads=1), SLOTS))
        walls["all threads"].append(seconds_a_trial(bare(few[: 1 + SLOTS], inputs, 1, threads=SLOTS), 1))
        walls["bare"].append(wall(bare(wanted, inputs, SLOTS, threads=1)))
        swept.append(under_ray(searched, inputs, SLOTS))
        walls["ray"].append(wall(swept[-1].told))
    figures.add("seconds_a_trial", SLOTS * median(walls["bare"]) / trials)
    figures.times("throughput_one_thread_a_trial_to_all_threads", walls["all threads"], walls["one thread"])
    figures.times("throughput_ray_to_bare", walls["bare"], walls["ray"])
    figures.times("throughput_ray_with_its_start_to_bare", walls["bare"], [one.seconds for one in swept])
    figures.add("startup_seconds_reused", median(map(startups, swept)))
    figures.add("startup_seconds_reused_most", max(map(startups, swept)))
    figures.add("startup_seconds_fresh", median(seconds for one in swept for seconds in one.fresh))
    lost = median(median(waits(one)) for one in swept)
    cpu = median(one.cpu_share for one in swept)
    figures.add("ray_seconds_a_trial", lost)
    figures.add("ray_cpu_share", cpu)
    figures.add(f"ray_share_of_{LONG_SECONDS}_second_trials", lost / (lost + LONG_SECONDS) + cpu)


def memory(trials: int, storage: Path, figures: Figures) -> None:
    """Measure a worker's memory after its fifth trial and after its last."""
    searched = space(trials, 4, TINY)
    swept = under_ray(searched, prepared(configs(searched)[0], storage), 1)
    (slot,) = swept.slots()
    early, late = slot[min(5, trials) - 1].megabytes, slot[-1].megabytes
    figures.add("megabytes_after_5_trials", early)
    figures.add(f"megabytes_after_{trials}_trials", late)
    figures.add("megabytes_grown", late / early)


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__, trials=8 * SLOTS, gan_steps=60, memory_trials=50)
    parser.add_argument("--long", action="store_true", help=f"also run trials of about {LONG_SECONDS} s (4 minutes)")
    options = parser.parse_args()
    figures = Figures()
    device.set_up_torch(1)
    with tempfile.TemporaryDirectory() as folder:
        inputs = prepared(configs(space(1, options.gan_steps))[0], Path(folder))
        compare(options.trials, options.gan_steps, options.repetitions, inputs, figures)
        memory(options.memory_trials, Path(folder), figures)
        if options.long:
            longer = round(options.gan_steps * LONG_SECONDS / figures.values["seconds_a_trial"])
            swept = under_ray(space(3 * SLOTS, longer), inputs, SLOTS)
            figures.add("long_seconds_a_trial", median(one.ended - one.begun for one in swept.told))
            figures.add("long_ray_share", share(swept))
    figures.save(options.json)


if __name__ == "__main__":
    # By its name: the classes of `__main__` are unknown to the processes that are started.
    from benchmarks.sweep import main as run

    run()
