"""Cost as work grows: seconds against images, classes, GAN steps, trials, ledger rows and slots, each at four sizes."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import ray
import torch
from rich.console import Console

from benchmarks import measure
from benchmarks.load import Stub, stub_space
from degan_search import ledger
from degan_search.ledger import pack
from degan_search.ledger.columns import Phase
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.search import open_run, phase, remaining, sweep
from degan_search.search.run import folder as run_folder
from degan_search.search.run.options import Options
from degan_search.search.space import schema
from degan_search.search.space.cell import cells
from degan_search.search.suggest.asha import CellAsha
from degan_search.search.workers.cluster import ray_cluster
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import DistillConfig, GanConfig, TrialConfig
from degan_search.stages.gan import Gan, build
from degan_search.stages.image_sources import GeneratorSource
from degan_search.storage import layout
from degan_search.system import device, seeds
from degan_search.training.context import Context
from degan_search.training.losses import distillation_loss
from degan_search.training.measures import predict
from degan_search.trial.bank import Bank
from degan_search.trial.images import load_proxy
from degan_search.trial.inputs import gather, load, prepare
from degan_search.trial.trial import run as run_trial
from tests.made_ledger import made_ledger

TRIAL = {
    "proxy": "digits",
    "count": 200,
    "teacher": {"dataset": "digits", "network": "lenet", "fit": {"steps": 100, "epochs": 5}},
    "student": {"network": "lenet_half"},
    "gan": {"width": 4, "batch_size": 32, "batch_of": "used", "steps": 20},
    "distill": {"batch_size": 32, "steps": 20, "steps_per_epoch": 10, "score_images": 256, "pool": 256},
    "bank": {"proxy_images": 40, "generators": [[0, 0]], "generated_images": 100, "steps": 20},
}
"""A trial of a second or less on images that come with the package."""
SHARE = 0.5
"""Share of the time at the largest size; where what does not grow takes more, this is said."""
TRIALS_A_SLOT, SLEEP = 10, 0.1
"""Of the axis `slots`: trials, and seconds of each of their six steps."""

Once = Callable[[int], Mapping[str, float]]
"""What is measured once at a size: seconds by name, "" for the whole."""


def timed(**acts: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of each act, and as "" of all."""
    seconds = {}
    for name, act in acts.items():
        begun = time.perf_counter()
        act()
        seconds[name] = time.perf_counter() - begun
    return {"": sum(seconds.values())} | seconds


def images(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of proxy images: loading, preparing, and a trial of fixed length that also distils on them."""

    def config(count: int) -> TrialConfig:
        return trial_config(TRIAL, {"proxy": "noise/uniform", "count": count, "distill.mix_proxy": 0.25})

    loaded = dict(zip(sizes, load([config(count) for count in sizes], None, folder), strict=True))
    inputs = {count: gather(trial, folder) for count, trial in loaded.items()}  # the bank is made here, once
    return lambda count: timed(
        load=lambda: load_proxy(config(count), None),
        prepare=lambda: gather(loaded[count], folder),
        trial=lambda: run_trial(config(count), inputs[count]),
    )


def classes(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of classes: ten steps of DeGAN, ten of distillation, and the measures on the bank."""
    pictures = torch.randint(0, 256, (2000, 1, 32, 32), dtype=torch.uint8)
    real, z = torch.rand(64, 1, 32, 32), torch.randn(64, 100, 1, 1)
    rng = seeds.generator(0, "benchmark")

    def networks(count: int) -> tuple[Gan, torch.nn.Module, GeneratorSource, Bank]:
        teacher, student = freeze(build_classifier("lenet", count)), build_classifier("lenet_half", count)
        gan = build(GanConfig(width=16, lambda_e=1.0), (1, 32, 32), teacher, Context(0))
        source = GeneratorSource(gan.generator, 100, teacher, DistillConfig())
        return gan, student, source, Bank(pictures, predict(teacher, pictures), len(pictures))

    def distil(student: torch.nn.Module, source: GeneratorSource) -> None:
        for generated, logits in (source.make(64, rng) for _ in range(10)):
            distillation_loss(student(generated), logits, 20.0).backward()  # type: ignore[no-untyped-call]

    known = {count: networks(count) for count in sizes}

    def once(count: int) -> dict[str, float]:
        gan, student, source, bank = known[count]
        return timed(
            degan=lambda: [gan.step(real, z) for _ in range(10)],
            distil=lambda: distil(student, source),
            bank=lambda: bank.compare(student),
        )

    return once


def steps(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of GAN steps: whole trials whose distillation has one length."""
    inputs = prepare(trial_config(TRIAL), None, folder)
    known = {count: trial_config(TRIAL, {"gan.steps": count}) for count in sizes}
    return lambda count: {"": timed(trial=lambda: run_trial(known[count], inputs))[""]}


def trials(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of search trials: sweeps on two slots, with Ray's start; the teacher is in the cache."""
    numbers = itertools.count()

    def space(count: int) -> schema.Space:
        lambdas = {"gan.lambda_e": {"range": [0, 10]}, "gan.lambda_d": {"range": [0, 50]}}
        trial = TRIAL | {"probe": {"at": [10], "steps": 10}}
        return schema.Space.model_validate(
            {"trial": trial, "parameters": lambdas, "search": {"trials": count}, "asha": None}
        )

    def once(count: int) -> dict[str, float]:
        options = Options(storage=folder, name=f"run-{next(numbers)}", max_concurrent=2)
        searching = {}

        def timed_phase(*given: Any) -> None:
            searching.update(timed(search=lambda: run_phase(*given)))

        run_phase = phase.run_phase
        with mock.patch.object(sweep, "run_phase", timed_phase):
            begun, cpu = time.perf_counter(), time.process_time()
            sweep.sweep(space(count), options, Console(file=io.StringIO()))
            whole = {"": time.perf_counter() - begun, "driver_cpu": time.process_time() - cpu}
        assert len(ledger.load(options.folder)) == count
        return whole | {"search": searching["search"]}

    return once


def rows(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of a ledger's rows: the first reading, and the next, from the pack that the first wrote."""
    made = made_ledger(folder / "made", max(sizes))
    runs = {count: _first_rows(made, folder / str(count), count) for count in sizes}

    def once(count: int) -> dict[str, float]:
        shutil.rmtree(runs[count] / pack.PACKED, ignore_errors=True)
        load = partial(ledger.load, runs[count])
        first = timed(first=load)["first"]
        return timed(again=load, curves=lambda: ledger.curves(runs[count])) | {"": first}

    return once


def _first_rows(made: Path, folder: Path, count: int) -> Path:
    """Link the first so many rows of a made-up run, with their scores, into a run of their own."""
    for kind in (layout.LEDGER, layout.SCORES):
        (folder / kind).mkdir(parents=True)
    for row in sorted((made / layout.LEDGER).iterdir())[:count]:
        scores = made / layout.SCORES / f"{row.stem.rpartition('-')[0]}.parquet"
        for file in (row, scores):
            if file.exists():
                os.link(file, folder / file.parent.name / file.name)
    return folder


class Sleeper(Stub):
    """A trial that waits and needs no CPU, so that there may be more slots than CPUs."""

    def step(self) -> dict[str, Any]:
        """Wait, then report as its parent does."""
        time.sleep(SLEEP)
        return super().step()


def slots(folder: Path, sizes: Sequence[int]) -> Once:
    """Measure the number of slots, with as many trials for each: the driver's CPU seconds, and seconds by the clock."""
    numbers = itertools.count()

    def once(count: int) -> dict[str, float]:
        space = stub_space(count * TRIALS_A_SLOT)
        options = Options(storage=folder, name=f"run-{next(numbers)}", max_concurrent=count)
        more, quiet = partial(ray.init, num_cpus=max(sizes)), Console(file=io.StringIO())
        with (
            mock.patch.object(ray, "init", more),
            mock.patch.object(phase, "DeganTrainable", Sleeper),
            open_run.open_run(options, quiet) as run,
            ray_cluster(options, quiet),
        ):
            run_folder.start(space, options)
            work, rungs = remaining.remaining_search(space, cells(space), run)
            begun, cpu = time.perf_counter(), time.process_time()
            phase.run_phase(Phase.SEARCH, run, phase.Prepared({}), CellAsha(rungs), work)
            return {"": time.process_time() - cpu, "clock": time.perf_counter() - begun}

    return once


AXES: dict[str, tuple[Callable[[Path, Sequence[int]], Once], tuple[int, ...]]] = {
    "images": (images, (5000, 10_000, 20_000, 40_000)),
    "classes": (classes, (10, 30, 100, 300)),
    "steps": (steps, (50, 100, 200, 400)),
    "trials": (trials, (4, 8, 16, 32)),
    "rows": (rows, (250, 500, 1000, 2000)),
    "slots": (slots, (1, 2, 4, 8)),
}


def measured(once: Once, sizes: Sequence[int], repetitions: int, warm_up: bool = True) -> dict[str, dict[int, float]]:
    """Return the median seconds by name and size; sizes alternate, so that a busy machine slows all of them."""
    if warm_up:
        once(sizes[0])
    turns = [{size: once(size) for size in sizes} for _ in range(repetitions)]
    names = turns[0][sizes[0]]
    return {name: {size: median(turn[size][name] for turn in turns) for size in sizes} for name in names}


def worst_ratio(seconds: Mapping[int, float]) -> float:
    """Return the most that the cost of one unit grows between neighbouring sizes; 1 is linear, below is better."""
    return max((seconds[b] / seconds[a]) / (b / a) for a, b in itertools.pairwise(seconds))


def exponent(seconds: Mapping[int, float]) -> float:
    """Return the slope of a straight line through the logarithms; 1 is linear. Nothing is subtracted."""
    return float(np.polyfit(np.log(list(seconds)), np.log(list(seconds.values())), 1)[0])


def constant_share(seconds: Mapping[int, float]) -> float:
    """Return the part of the largest size's cost that does not grow: where a straight line fitted to all meets 0."""
    start = float(np.polyfit(list(seconds), list(seconds.values()), 1)[1])
    return max(0.0, start / list(seconds.values())[-1])


def show(figures: measure.Figures, axis: str, found: Mapping[str, Mapping[int, float]]) -> None:
    """Print an axis: of the whole and of each part, seconds at each size, exponent, constant share, worst ratio."""
    for name, seconds in found.items():
        prefix = f"scaling_{axis}_{name}".rstrip("_")
        for size, value in seconds.items():
            figures.add(f"{prefix}_{size}_seconds", value)
        figures.add(f"{prefix}_exponent", exponent(seconds))
        figures.add(f"{prefix}_constant_share", constant_share(seconds))
        figures.add(f"{prefix}_worst_ratio_to_linear", worst_ratio(seconds))
        if constant_share(seconds) > SHARE:
            print(f"  of {prefix} most does not grow, even at {max(seconds):,}", flush=True)


def main() -> None:
    """Measure each axis, or one."""
    parser = measure.arguments(__doc__, repetitions=3, only="")
    given = parser.parse_args()
    if given.only and given.only not in AXES:
        parser.error(f"--only {given.only}: one of {', '.join(AXES)} is needed")
    device.set_up_torch(1)
    figures = measure.Figures()
    for axis in [given.only] if given.only else AXES:
        prepare, sizes = AXES[axis]
        with tempfile.TemporaryDirectory() as folder:
            show(figures, axis, measured(prepare(Path(folder), sizes), sizes, given.repetitions))
    figures.save(given.json)


if __name__ == "__main__":
    main()
