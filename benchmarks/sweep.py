"""How well a sweep uses the machine: Ray against a bare loop, threads, start-up, memory, Ray's share of the time."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_loop import bare, seconds_a_trial, wall
from benchmarks.measure import Figures, arguments
from benchmarks.under_ray import Swept, under_ray
from degan_search.search.space import schema
from degan_search.search.space.cell import cells
from degan_search.settings.resolve import merge
from degan_search.settings.trial import TrialConfig
from degan_search.storage.layout import CACHE
from degan_search.system import device
from degan_search.trial.inputs import Inputs, prepare

SLOTS = len(os.sched_getaffinity(0))
LONG_SECONDS = 60
"""Of a trial, for which Ray's share is stated."""
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
    """Return a search of so many trials, each with the same steps and one rung, and no early stopping."""
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
    """Return the trials of a search that runs its first points and nothing else."""
    (cell,) = cells(searched)
    example = cell.example()
    weights = [point["gan.lambda_e"] for point in searched.first]
    return [
        example.model_copy(update={"gan": example.gan.model_copy(update={"lambda_e": weight})}) for weight in weights
    ]


def prepared(config: TrialConfig, storage: Path) -> Inputs:
    """Return the inputs of these trials, with the teacher and bank cached where a sweep looks for them."""
    return prepare(config, None, storage / CACHE)


def startups(swept: Swept) -> float:
    """Return the median seconds from a trial's end to the next one's first GAN step in the same process."""
    return median(swept.between(lambda trial, after: after.first_step - trial.ended))


def waits(swept: Swept) -> list[float]:
    """Return the seconds of each trial's slot, up to the next trial's start, that were not the trial's own."""
    return swept.between(lambda trial, after: after.begun - trial.begun - trial.inside)


def share(swept: Swept) -> float:
    """Return Ray's part of the slots' time: their waits, and what the driver and Ray's processes took from them."""
    return sum(waits(swept)) / sum(swept.between(lambda trial, after: after.begun - trial.begun)) + swept.cpu_share


def compare(trials: int, gan_steps: int, repetitions: int, inputs: Inputs, figures: Figures) -> None:
    """Compare, alternately, one thread a trial with all threads, and Ray Tune with a bare loop."""
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
        walls["ray"].append(wall(swept[-1].trials))
    figures.add("seconds_a_trial", SLOTS * median(walls["bare"]) / trials)
    figures.times("throughput_one_thread_a_trial_to_all_threads", walls["all threads"], walls["one thread"])
    figures.times("throughput_ray_to_bare", walls["bare"], walls["ray"])
    figures.times("throughput_ray_with_its_start_to_bare", walls["bare"], [sweep.seconds for sweep in swept])
    figures.add("startup_seconds_reused", median(map(startups, swept)))
    figures.add("startup_seconds_reused_most", max(map(startups, swept)))
    figures.add("startup_seconds_fresh", median(seconds for sweep in swept for seconds in sweep.fresh))
    lost = median(median(waits(sweep)) for sweep in swept)
    cpu = median(sweep.cpu_share for sweep in swept)
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
            figures.add("long_seconds_a_trial", median(trial.ended - trial.begun for trial in swept.trials))
            figures.add("long_ray_share", share(swept))
    figures.save(options.json)


if __name__ == "__main__":
    main()
