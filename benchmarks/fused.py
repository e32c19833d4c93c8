"""Trials fused into one program against trials one after the other: DeGAN steps, distillation, whole trials, Table 2.

On a GPU at full size, with networks compiled and steps recorded as CUDA graphs as well; `--full K` really runs K
trials. Without one at small sizes, where fusing is not expected to pay. Weights and images are random, which changes
no time.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import Figures, arguments
from degan_search import degan, fused_stages, runtime
from degan_search.capture import Accelerate
from degan_search.config import DistillConfig, GanConfig, TrialConfig
from degan_search.distill import distill
from degan_search.fit import DivergedError
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.sources import GeneratorSource

CLASSES = 10
GAN_STEPS = 5000
"""Of a trial at full size."""
GPU = {"width": 64, "batch": 128, "images": 3000, "gan_steps": 80, "epoch": 256, "pool": 4096, "score_images": 4096}
CPU = {"width": 8, "batch": 32, "images": 500, "gan_steps": 8, "epoch": 16, "pool": 256, "score_images": 128}
WARM_UP = 10
"""GAN steps that are not timed; compiling and recording are among them. Of distillation an epoch."""


@dataclass(frozen=True)
class Case:
    """How many trials run, and how: as one program, or one alone."""

    members: int = 1
    accelerate: Accelerate = "none"
    fused: bool = False

    def __str__(self) -> str:
        """Return its name in the figures."""
        name = f"fused_{self.members}" if self.fused else "alone"
        return name if self.accelerate == "none" else f"{name}_{self.accelerate}"


@dataclass(frozen=True)
class Setting:
    """What every case trains: a GAN of `GAN_STEPS` steps at most, then students, AlexNet their teacher."""

    gan: GanConfig
    distill: DistillConfig
    gan_steps: int
    """GAN steps that are timed."""
    images: Tensor
    teacher: nn.Module
    student_width: int
    precision: runtime.Precision
    device: str

    def gans(self, members: int) -> dict[int, degan.Gan]:
        """Return untrained GANs."""
        configs = [self.gan.model_copy(update={"lambda_d": 5.0 + member}) for member in range(members)]
        return {
            member: degan.build(config, 3, self.teacher, member, self.device, precision=self.precision)
            for member, config in enumerate(configs)
        }

    def student(self, seed: int) -> nn.Module:
        """Return an untrained student."""
        with runtime.seeded(seed, "student"):
            student = build_classifier("alexnet", CLASSES, self.student_width)
        return student.to(self.device).to(memory_format=torch.channels_last)

    def train_gans(
        self, case: Case, report_at: tuple[int, ...], failed: dict[int, DivergedError] | None = None
    ) -> Iterator[object]:
        """Train a case's GANs, reporting at these steps among others; what ends some of fused ones is in `failed`."""
        gans, count = self.gans(case.members), len(self.images)
        if not case.fused:
            return degan.train(gans[0], self.gan, self.images, count, 0, report_at, accelerate=case.accelerate)
        seeds = {member: member for member in gans}
        together, roll = fused_stages.FusedGan(gans), fused_stages.Roll(set(gans), {} if failed is None else failed)
        return fused_stages.train(together, self.images, count, seeds, roll, report_at, case.accelerate)

    def distil(self, case: Case) -> Iterator[object]:
        """Distil a case's students from generators that nobody trained, reporting after each epoch."""
        generators = {member: gan.generator for member, gan in self.gans(case.members).items()}
        latent, config, precision = self.gan.latent, self.distill, self.precision
        if not case.fused:
            source = GeneratorSource(generators[0], latent, self.teacher, config, precision)
            student = self.student(0)
            return distill(student, source, config, 0, self.device, "distill", None, precision, case.accelerate)
        sources = fused_stages.FusedSource(generators, latent, self.teacher, config, precision)
        students = {member: self.student(member) for member in generators}
        seeds, roll = {member: member for member in generators}, fused_stages.Roll(set(generators))
        return iter(
            fused_stages.Distillation(students, sources, config, seeds, roll, self.device, accelerate=case.accelerate)
        )


@dataclass
class Timing:
    """Seconds until a stage was warm, then those of what is timed, and the most memory in bytes (NaN on a CPU)."""

    warm_up: float
    seconds: float
    memory: float


def timed(stage: Callable[[], Iterator[object]]) -> Timing:
    """Run a stage to its second report."""
    gpu = torch.cuda.is_available()
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    marks = [time.perf_counter()]
    reports = stage()
    for _ in range(2):
        next(reports)
        if gpu:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    reports.close()  # type: ignore[attr-defined]
    memory = float(torch.cuda.max_memory_reserved()) if gpu else float("nan")
    return Timing(marks[1] - marks[0], marks[2] - marks[1], memory)


def time_cases(setting: Setting, cases: Sequence[Case], repetitions: int) -> dict[str, dict[Case, list[Timing]]]:
    """Time both stages of all cases in turns, each built anew; what does not fit into memory is left out."""
    found: dict[str, dict[Case, list[Timing]]] = {"gan": {}, "distill": {}}
    at = (WARM_UP, WARM_UP + setting.gan_steps)
    for _ in range(repetitions):
        for case in cases:
            stages = {"gan": partial(setting.train_gans, case, at), "distill": partial(setting.distil, case)}
            for name, stage in stages.items():
                try:
                    found[name].setdefault(case, []).append(timed(stage))
                except torch.cuda.OutOfMemoryError:
                    print(f"fused_{name}_{case}: out of memory", flush=True)
    return found


def settings(sizes: dict[str, int], teacher_width: int, options: Any, device: str) -> Setting:
    """Return what is trained at these sizes."""
    paper = TrialConfig()
    gan = paper.gan.model_copy(
        update={"width": sizes["width"], "batch_size": sizes["batch"], "batch_of": "used", "steps": GAN_STEPS}
    )
    own = {"steps_per_epoch": sizes["epoch"], "pool": sizes["pool"], "score_images": sizes["score_images"]}
    distilling = paper.distill.model_copy(update=own | {"pool_refresh": options.pool_refresh})
    with runtime.seeded(0, "teacher"):
        teacher = freeze(build_classifier("alexnet", CLASSES, teacher_width), fold_norms=True)
    images = torch.randint(
        0, 256, (sizes["images"], 3, 32, 32), dtype=torch.uint8, generator=runtime.generator(0, "images")
    )
    precision = runtime.precision_of(options.precision, device)
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


def print_table2(figures: Figures, setting: Setting, found: dict[str, dict[Case, list[Timing]]], epochs: int) -> None:
    """Print hours for Table 2 with 16 pairs of lambdas a cell, from operations counted.

    On a GPU at the rates measured here, the search fused or not; else at the rates that `benchmarks.operations`
    assumes, the batches of fused trials counting as one.
    """
    try:
        from benchmarks import operations  # type: ignore[attr-defined,unused-ignore]
    except ImportError:
        print("fused_table2: benchmarks/operations.py is not there", flush=True)
        return
    work = operations.table2(epochs, setting.distill.pool_refresh)
    if torch.cuda.is_available():
        cost = operations.costs(width=setting.gan.width)
        config = setting.distill
        learned = (config.steps_per_epoch or 1) * config.batch_size
        epoch = learned * cost.distillation(config.pool_refresh)
        epoch += config.score_images * (cost.make + cost.student_forward)
        gan = setting.gan_steps * setting.gan.batch_size * cost.degan
        rates = {
            case: {
                "gan": case.members * gan / median(timing.seconds for timing in timings),
                "other": case.members * epoch / median(timing.seconds for timing in found["distill"][case]),
            }
            for case, timings in found["gan"].items()
            if case in found["distill"]
        }
        for case, own in rates.items():
            for kind, rate in own.items():
                figures.add(f"fused_{kind}_{case}_tflops", rate / 1e12)
            hours = sum(
                one.total / (own if one.part == "search" else rates[Case()])["gan" if one.kind == "gan" else "other"]
                for one in work
            )
            figures.add(f"fused_table2_epochs_{epochs}_search_{case}_estimated_hours", hours / 3600)
        return
    assumed = operations.Rates(1e12 * 989 * 0.1, 1e12 * 989 * 0.02, 0.003)
    for members in (1, 4, 8, 16):
        seconds = sum(
            replace(one, batch=one.batch * members).seconds(assumed) if one.part == "search" else one.seconds(assumed)
            for one in work
        )
        figures.add(f"fused_table2_epochs_{epochs}_search_fused_{members}_assumed_h100_hours", seconds / 3600)


def run_full(figures: Figures, setting: Setting, case: Case, epochs: int) -> None:
    """Really train so many GANs and students."""
    begun = time.perf_counter()
    failed: dict[int, DivergedError] = {}
    for _ in setting.train_gans(case, (), failed):
        pass
    figures.add(f"fused_full_{case}_gan_seconds", time.perf_counter() - begun)
    figures.add(f"fused_full_{case}_diverged", len(failed))
    begun = time.perf_counter()
    limited = setting.distill.model_copy(update={"steps": epochs * (setting.distill.steps_per_epoch or 1)})
    for _ in replace(setting, distill=limited.model_copy(update={"patience": epochs})).distil(case):
        pass
    figures.add(f"fused_full_{case}_distill_seconds", time.perf_counter() - begun)


def main() -> None:
    """Time all cases in turns and print what they took."""
    gpu = torch.cuda.is_available()
    parser = arguments(__doc__, repetitions=3, epochs=200, pool_refresh=0.0625, threads=1, precision="auto", full=0)
    parser.add_argument("--members", type=int, nargs="+", default=[4, 8, 16, 32] if gpu else [2, 4, 8])
    parser.add_argument("--accelerate", nargs="+", choices=["none", "compile", "graphs"])
    for name, value in (GPU if gpu else CPU).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    options = parser.parse_args()
    device = runtime.choose_device()
    runtime.set_up_torch(options.threads)
    sizes = {name: getattr(options, name) for name in GPU}
    setting = settings(sizes, 48 if gpu else 12, options, device)
    ways = options.accelerate or (["none", "compile", "graphs"] if gpu else ["none"])
    cases = [Case(accelerate=way) for way in ways]
    cases += [Case(members, way, True) for members in options.members for way in ways if way != "compile"]
    figures = Figures()
    if options.full:
        run_full(figures, setting, Case(options.full, ways[0], True), options.epochs)
    else:
        found = time_cases(setting, cases, options.repetitions)
        print_stages(figures, setting, found)
        print_trials(figures, setting, found, options.epochs)
        print_table2(figures, setting, found, options.epochs)
    figures.save(options.json)


if __name__ == "__main__":
    main()
