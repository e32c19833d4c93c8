"""A whole trial, DeGAN and then distillation, by the released procedure and by the package's default settings.

GAN steps and distillation steps are in the paper's proportion, networks and lengths are small. Both have the same
teacher (cached, its training is not timed), and in each repetition the same seed: the same first weights, noise and
order of images. The accuracy is that on the teacher's held-out true images.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import reference
from benchmarks.measure import Figures, arguments, interleaved
from degan_search.data.sets import data_folder
from degan_search.networks.table import build_classifier
from degan_search.selection.paired_test import paired
from degan_search.settings import lengths
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.stages.gan import build
from degan_search.stages.true_images import TrueImages
from degan_search.system import device, seeds
from degan_search.system.errors import UserError
from degan_search.training.batches import IndexBatches
from degan_search.training.context import Context
from degan_search.training.measures import accuracy, predict
from degan_search.trial.inputs import Inputs, gather, load
from degan_search.trial.trial import run as run_trial

DISTILL_STEPS = 25_600 / 5_000
"""The paper's for each GAN step: 100 epochs of distillation, 200 of the GAN."""
COMMON: dict[str, Any] = {
    "gan": {"width": 16, "batch_size": 64, "batch_of": "used", "lr": 5e-4},
    "bank": {"generators": []},
}
TASKS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {
        "proxy": "cifar10",
        "count": 10_000,
        "teacher": {
            "dataset": "fashion_mnist",
            "network": "lenet",
            "fit": {"steps": 7500, "epochs": 30, "patience": 5},
        },
        "student": {"network": "lenet_half"},
    },
    "cifar10": {
        "proxy": "cifar100/background_6",
        "teacher": {
            "dataset": "cifar10",
            "network": "alexnet",
            "width": 12,
            "fit": {"steps": 6000, "epochs": 30, "patience": 5},
        },
        "student": {"network": "alexnet_half", "width": 6},
    },
    "glyphs": {
        "proxy": "glyphs/[K-Z]",
        "count": 10_000,
        "teacher": {
            "dataset": "glyphs/[A-J]",
            "network": "lenet",
            "width": 12,
            "fit": {"steps": 1600, "epochs": 40, "patience": 5},
        },
        "student": {"network": "lenet", "width": 6},
    },
}
Procedure = Callable[[TrialConfig, Inputs], tuple[nn.Module, float]]


def settings(task: str, gan_steps: int) -> TrialConfig:
    """Return a trial's settings; precision and the pool of generated images are the package's defaults."""
    steps = {"gan.steps": gan_steps, "distill.steps": round(gan_steps * DISTILL_STEPS)}
    return trial_config(COMMON, TASKS[task], steps)


def prepared(config: TrialConfig, storage: Path) -> tuple[Inputs, TrueImages]:
    """Return what trials are given, its teacher from the cache or trained now, and the true images."""
    (loaded,) = load([config], None, storage)
    assert loaded.true is not None, "the teacher is trained"
    return gather(loaded, storage), loaded.true


def ours(config: TrialConfig, inputs: Inputs) -> tuple[nn.Module, float]:
    """Run a trial of the package's; return the student, and the seconds of the GAN."""
    outcome = run_trial(config, inputs)
    return outcome.student, outcome.metrics["gan_seconds"]


def released(config: TrialConfig, inputs: Inputs) -> tuple[nn.Module, float]:
    """Run the released procedure from the same numbers; return the student, and the seconds of the GAN."""
    begun, seed, images = time.perf_counter(), config.seed, inputs.proxy.images
    teacher = reference.plain(inputs.teacher.model())
    built = build(config.gan, (inputs.teacher.takes.channels, 32, 32), teacher, Context(seed))
    assert built.discriminator is not None
    gan = reference.Gan(config.gan, reference.plain(built.generator), reference.plain(built.discriminator), teacher)
    size, steps = lengths.gan_lengths(config.gan, len(images), inputs.proxy.set_images)
    order = IndexBatches(len(images), size, seeds.generator(seed, "gan", "images"))
    rng = seeds.generator(seed, "gan", "noise")
    for real in islice(reference.real_batches(images, order), steps):
        gan.step(real, torch.randn(len(real), config.gan.latent, 1, 1, generator=rng))
    gan_seconds = time.perf_counter() - begun

    student_config = config.student
    with seeds.seeded(seed, "student", "weights"):
        student = build_classifier(
            student_config.network, inputs.teacher.classes, student_config.width, inputs.teacher.takes.channels
        )

    def noise(name: str) -> Iterator[Tensor]:
        rng = seeds.generator(seed, "distill", name)
        while True:
            yield torch.randn(config.distill.batch_size, config.gan.latent, 1, 1, generator=rng)

    with seeds.seeded(seed, "distill", "dropout"):
        for _ in reference.distill(
            student, gan.generator.eval(), teacher, config.distill, noise("images"), noise("score")
        ):
            pass
    return student, gan_seconds


@dataclass
class Case:
    """Trials of one procedure, one seed after the other, the first one seed 0."""

    run: Procedure
    config: TrialConfig
    inputs: Inputs
    students: list[nn.Module] = field(default_factory=list)
    gan_seconds: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """Run the next seed."""
        config = self.config.model_copy(update={"seed": len(self.students)})
        student, seconds = self.run(config, self.inputs)
        self.students.append(student)
        self.gan_seconds.append(seconds)

    def accuracies(self, images: Tensor, labels: Tensor) -> list[float]:
        """Return each student's accuracy in percent."""
        return [100 * accuracy(predict(student, images), labels) for student in self.students]


def report(cases: dict[str, Case], seconds: dict[str, list[float]], held_out: tuple[Tensor, Tensor]) -> Figures:
    """Print times and accuracies, and how they differ seed by seed."""
    figures, accuracies = Figures(), {}
    parts = {
        "": seconds,
        "gan_": {name: case.gan_seconds for name, case in cases.items()},
        "distill_": {
            name: [whole - gan for whole, gan in zip(seconds[name], case.gan_seconds, strict=True)]
            for name, case in cases.items()
        },
    }
    for part, taken in parts.items():
        for name, values in taken.items():
            figures.add(f"trial_{part}{name}_seconds", median(values))
        figures.times(f"trial_{part}times_faster", taken["reference"], taken["fast"])
    for name, case in cases.items():
        accuracies[name] = case.accuracies(*held_out)
        for seed, value in enumerate(accuracies[name]):
            figures.add(f"trial_{name}_accuracy_seed_{seed}", value)
        figures.add(f"trial_{name}_accuracy_mean", mean(accuracies[name]))
        if len(accuracies[name]) > 1:
            figures.add(f"trial_{name}_accuracy_standard_deviation", stdev(accuracies[name]))
    test = paired(accuracies["fast"], accuracies["reference"])
    for what in ("difference", "low", "high", "p"):
        figures.add(f"trial_accuracy_fast_minus_reference_{what}", getattr(test, what))
    return figures


def main() -> None:
    """Run both procedures alternately, seed by seed."""
    task = "fashion_mnist" if (data_folder(None) / "fashion_mnist").is_dir() else "glyphs"
    parser = arguments(__doc__, repetitions=5, gan_steps=150, threads=1, task=task, storage="runs/cache")
    options = parser.parse_args()
    if options.task not in TASKS:
        raise UserError(f"--task {options.task!r}; known: {', '.join(TASKS)}")
    device.set_up_torch(options.threads)
    config = settings(options.task, options.gan_steps)
    inputs, true = prepared(config, Path(options.storage))
    cases = {"reference": Case(released, config, inputs), "fast": Case(ours, config, inputs)}
    seconds = interleaved(cases, options.repetitions, warm_up=0)
    held_out = torch.from_numpy(true.images[true.held_out]), torch.from_numpy(true.labels[true.held_out])
    figures = report(cases, seconds, held_out)
    figures.add("trial_teacher_accuracy", 100 * (inputs.teacher.holdout_accuracy or 0))
    figures.save(options.json)


if __name__ == "__main__":
    main()
