"""Trials side by side on a GPU against trials one after the other: DeGAN steps, distillation, trials, Table 2.

On a GPU at full size, plain and with steps recorded as CUDA graphs; on a CPU at small sizes, where trials side by side
gain nothing. Weights and images are random, which changes
no time.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import operations
from benchmarks.measure import Figures, arguments
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, GanConfig, TrialConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.gan import Gan, build
from degan_search.stages.gan_training import GanProgress, GanTraining
from degan_search.stages.image_sources import GeneratorSource
from degan_search.system import seeds
from degan_search.system.device import Precision, choose_device, precision_of, set_up_torch
from degan_search.training.context import Context
from degan_search.training.cuda_graph import Accelerate
from degan_search.training.loop import Progress
from degan_search.training.turns import Turns, side_by_side_on_gpu

CLASSES = 10
CELL, CELL_NAME = "cifar100/background_6", "cell_background_6"
GAN_STEPS = 5000
"""Of a trial at full size."""
GPU = {"width": 64, "batch": 128, "images": 3000, "gan_steps": 80, "epoch": 256, "pool": 4096, "score_images": 4096}
CPU = {"width": 8, "batch": 32, "images": 500, "gan_steps": 8, "epoch": 16, "pool": 256, "score_images": 128}
WARM_UP = 10
"""GAN steps that are not timed, as they include compiling and recording; for distillation one epoch is not timed."""


@dataclass(frozen=True)
class Case:
    """How many trials run side by side, and how their steps are accelerated."""

    members: int = 1
    accelerate: Accelerate = "none"

    def __str__(self) -> str:
        """Return its name in the figures."""
        name = f"fused_{self.members}" if self.members > 1 else "alone"
        return name if self.accelerate == "none" else f"{name}_{self.accelerate}"


@dataclass(frozen=True)
class Setting:
    """What every case trains: GANs of at most `GAN_STEPS` steps and students, with AlexNet as the teacher."""

    gan: GanConfig
    distill: DistillConfig
    gan_steps: int
    """GAN steps that are timed."""
    images: Tensor
    teacher: nn.Module
    student_width: int
    precision: Precision
    device: str

    def gans(self, members: int) -> dict[int, Gan]:
        """Return untrained GANs."""
        configs = [self.gan.model_copy(update={"lambda_d": 5.0 + member}) for member in range(members)]
        return {
            member: build(config, (3, 32, 32), self.teacher, Context(member, self.device, self.precision))
            for member, config in enumerate(configs)
        }

    def student(self, seed: int) -> nn.Module:
        """Return an untrained student."""
        with seeds.seeded(seed, "student"):
            student = build_classifier("alexnet", CLASSES, self.student_width)
        return student.to(self.device).to(memory_format=torch.channels_last)

    def train_gans(self, case: Case, report_at: tuple[int, ...]) -> Turns[GanProgress]:
        """Train a case's GANs, reporting at these steps among others."""
        stages = {}
        for member, gan in self.gans(case.members).items():
            context = Context(member, self.device, self.precision, case.accelerate)
            stages[member] = GanTraining(gan, self.images, len(self.images), context, report_at)
        return Turns(stages, self.device)

    def distil(self, case: Case) -> Turns[Progress]:
        """Distil a case's students from untrained generators, reporting after each epoch."""
        config, precision = self.distill, self.precision
        stages = {}
        for member, gan in self.gans(case.members).items():
            source = GeneratorSource(gan.generator, self.gan.latent, self.teacher, config, precision)
            context = Context(member, self.device, precision, case.accelerate)
            stages[member] = Distillation(self.student(member), source, config, context)
        return Turns(stages, self.device)


@dataclass
class Timing:
    """Seconds of warming up and of what is timed, and the most memory in bytes (NaN on a CPU)."""

    warm_up: float
    seconds: float
    memory: float


def timed(stage: Callable[[], Turns[Any]]) -> Timing:
    """Run a stage to its second report."""
    gpu = torch.cuda.is_available()
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    marks = [time.perf_counter()]
    turns = stage()
    for _ in range(2):
        while not turns.step():
            pass
        if gpu:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    del turns
    memory = float(torch.cuda.max_memory_reserved()) if gpu else float("nan")
    return Timing(marks[1] - marks[0], marks[2] - marks[1], memory)


def time_cases(setting: Setting, cases: Sequence[Case], repetitions: int) -> dict[str, dict[Case, list[Timing]]]:
    """Time both stages of all cases alternately, each newly built; cases that do not fit into memory are left out."""
    found: dict[str, dict[Case, list[Timing]]] = {"gan": {}, "distill": {}}
    at = (WARM_UP, WARM_UP + setting.gan_steps)
    for _ in range(repetitions):
        for case in cases:
            stages: dict[str, Callable[[], Turns[Any]]] = {
                "gan": partial(setting.train_gans, case, at),
                "distill": partial(setting.distil, case),
            }
            for name, stage in stages.items():
                try:
                    timing = timed(stage)
                except torch.cuda.OutOfMemoryError:
                    print(f"fused_{name}_{case}: out of memory", flush=True)
                    continue
                found[name].setdefault(case, []).append(timing)
                print(f"# {name} {case}: warm after {timing.warm_up:.2f} s, then {timing.seconds:.3f} s", flush=True)
    return found


def settings(sizes: dict[str, int], teacher_width: int, options: Any, device: str) -> Setting:
    """Return what is trained at these sizes."""
    paper = TrialConfig()
    gan = paper.gan.model_copy(
        update={"width": sizes["width"], "batch_size": sizes["batch"], "batch_of": "used", "steps": GAN_STEPS}
    )
    own = {"steps_per_epoch": sizes["epoch"], "pool": sizes["pool"], "score_images": sizes["score_images"]}
    distilling = paper.distill.model_copy(update=own | {"pool_refresh": options.pool_refresh})
    with seeds.seeded(0, "teacher"):
        teacher = freeze(build_classifier("alexnet", CLASSES, teacher_width), fold_norms=True)
    images = torch.randint(
        0, 256, (sizes["images"], 3, 32, 32), dtype=torch.uint8, generator=seeds.generator(0, "images")
    )
    precision = precision_of(options.precision, device)
    return Setting(
        gan,
        distilling,
        sizes["gan_steps"],
        images.to(device),
        teacher.to(device),
        teacher_width // 2,
        precision,
        device,
    )


def print_stages(figures: Figures, setting: Setting, found: dict[str, dict[Case, list[Timing]]]) -> None:
    """Print the time of a step, what fusing gains, setting up, and memory."""
    counts = {"gan": setting.gan_steps, "distill": setting.distill.steps_per_epoch or 1}
    for stage, cases in found.items():
        alone = [timing.seconds for timing in cases[Case()]]
        for case, timings in cases.items():
            name, seconds = f"fused_{stage}_step_{case}", [timing.seconds for timing in timings]
            figures.add(f"{name}_milliseconds", 1000 * median(seconds) / counts[stage])
            if case != Case():
                figures.times(f"{name}_throughput", [case.members * value for value in alone], seconds)
            figures.add(f"{name}_warm_up_seconds", max(timing.warm_up for timing in timings))
            if torch.cuda.is_available():
                figures.add(f"{name}_megabytes_a_trial", median(t.memory for t in timings) / case.members / 1e6)


def print_trials(figures: Figures, setting: Setting, found: dict[str, dict[Case, list[Timing]]], epochs: int) -> None:
    """Print what whole trials would take, from their steps: no probe, no measure on the bank."""
    seconds = {
        stage: {case: median(timing.seconds for timing in timings) for case, timings in cases.items()}
        for stage, cases in found.items()
    }
    for case in (case for case in seconds["gan"] if case in seconds["distill"]):
        gan = seconds["gan"][case] / setting.gan_steps * GAN_STEPS
        both = gan + epochs * seconds["distill"][case]
        name = f"fused_estimated_{case}"
        figures.add(f"{name}_seconds_of_{GAN_STEPS}_gan_steps_and_{epochs}_epochs", both)
        figures.add(f"{name}_trials_an_hour", 3600 * case.members / both)


def time_batches(figures: Figures, setting: Setting) -> None:
    """Print the time of a GAN's step at each batch of Table 2, as many side by side as in a sweep."""
    for batch in sorted({steps.batch for steps in operations.table2(operations.FEWEST) if steps.kind == "gan"}):
        case = Case(side_by_side_on_gpu(batch), "graphs")
        images = setting.images.repeat(-(-batch // len(setting.images)), 1, 1, 1)
        own = replace(setting, gan=setting.gan.model_copy(update={"batch_size": batch}), images=images)
        timing = timed(partial(own.train_gans, case, (WARM_UP, WARM_UP + setting.gan_steps)))
        step = timing.seconds / setting.gan_steps / case.members
        figures.add(f"fused_gan_step_batch_{batch}_{case}_milliseconds_a_trial", 1000 * step)


def print_table2(figures: Figures, gan: GanConfig, distill: DistillConfig, epochs: int) -> None:
    """Print hours for Table 2, and minutes for one of its cells, with 16 pairs of lambdas a cell.

    From operations counted, and the steps among the figures: of GANs by their batch, and of distillation. Nothing
    where there are none of a GPU.
    """
    every = operations.table2(epochs, distill.pool_refresh)
    cost = operations.costs(width=gan.width)
    per_second = {}
    for name, value in list(figures.values.items()):
        if found := re.fullmatch(r"fused_gan_step_batch_(\d+)_\w+_milliseconds_a_trial", name):
            per_second[int(found[1])] = int(found[1]) * cost.degan / value * 1000
            figures.add(name.replace("milliseconds_a_trial", "tflops"), per_second[int(found[1])] / 1e12)
    if not per_second:
        return
    step = distill.batch_size * cost.distillation(distill.pool_refresh)
    step += distill.score_images * (cost.make + cost.student_forward) / (distill.steps_per_epoch or 1)
    cell = operations.table2(epochs, distill.pool_refresh, cells=[CELL])
    for name, value in list(figures.values.items()):
        if found := re.fullmatch(r"fused_distill_step_(alone|fused_(8))_graphs_milliseconds", name):
            other = int(found[2] or 1) * step / value * 1000
            for what, work, unit, scale in (("table2", every, "hours", 3600), (CELL_NAME, cell, "minutes", 60)):
                times = {
                    part: sum(
                        steps.total / (per_second[steps.batch] if steps.kind == "gan" else other)
                        for steps in work
                        if steps.part == part
                    )
                    for part in ("bank", "search", "finals")
                }
                line = f"fused_{what}_epochs_{epochs}_distilled_as_{found[1]}_estimated_{unit}"
                figures.add(line, sum(times.values()) / scale)
                for part, seconds in times.items():
                    figures.add(f"{line}_{part}", seconds / scale)


def main() -> None:
    """Time all cases alternately and print what they took."""
    gpu = torch.cuda.is_available()
    parser = arguments(__doc__, repetitions=3, epochs=200, pool_refresh=0.0625, threads=1, precision="auto")
    parser.add_argument("--members", type=int, nargs="+", default=[4, 8, 16, 32] if gpu else [2, 4, 8])
    parser.add_argument(
        "--measured", type=Path, help="figures of an earlier run, to estimate Table 2 from; same --epoch"
    )
    for name, value in (GPU if gpu or "--measured" in sys.argv else CPU).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args()
    device = choose_device()
    set_up_torch(options.threads)
    sizes = {name: getattr(options, name) for name in GPU}
    setting = settings(sizes, 48 if gpu else 12, options, device)
    ways: list[Accelerate] = ["none", "graphs"] if gpu else ["none"]
    cases = [Case(accelerate=way) for way in ways] + [Case(members, ways[-1]) for members in options.members]
    figures = Figures()
    if options.measured:
        figures.values = json.loads(options.measured.read_text())["figures"]
    else:
        found = time_cases(setting, cases, options.repetitions)
        print_stages(figures, setting, found)
        print_trials(figures, setting, found, options.epochs)
        if gpu:
            time_batches(figures, setting)
    print_table2(figures, setting.gan, setting.distill, options.epochs)
    figures.save(options.json)


if __name__ == "__main__":
    main()
