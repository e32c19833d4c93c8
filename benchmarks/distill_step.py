"""A distillation step, AlexNet to AlexNet-half: the released procedure, and ours with fresh images and with pools.

Ours is timed over whole cycles, from the making of a pool of images to its last use, and divided by the cycle's steps,
so that each step has its share of making the pool. Pools hold POOL images instead of the default's larger number, as an
image costs the same. The score that picks the best weights is timed by itself; figures with it count as many scored
images for each step as the paper's settings have. Weights are random, which changes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks import reference
from benchmarks.measure import Apart, Figures, arguments, interleaved
from degan_search.networks.dcgan import build_generator
from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, TrialConfig
from degan_search.stages.distillation import Distillation
from degan_search.stages.image_sources import EPOCH, GeneratorSource
from degan_search.system import device, seeds
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

CLASSES, LATENT, POOL = 10, 100, 128
REFERENCE_STEPS = 2
REFRESH = (1.0, 1 / 4, 1 / 16, 1 / 64)
PRECISIONS: tuple[device.Precision, ...] = ("float32", "bf16")


@dataclass
class Networks:
    """A generator and a teacher in eval mode; students are built when asked for."""

    generator: nn.Module
    teacher: nn.Module

    def student(self) -> nn.Module:
        """Return a new student."""
        with seeds.seeded(0, "student"):
            return build_classifier("alexnet_half", CLASSES)


def networks(width: int) -> Networks:
    """Return networks with random weights."""
    with seeds.seeded(0, "networks"):
        return Networks(build_generator(3, width, LATENT).eval(), build_classifier("alexnet", CLASSES).eval())


def noise(batch: int) -> Iterator[Tensor]:
    """Yield batches of noise without end."""
    rng = seeds.generator(0, "noise")
    while True:
        yield torch.randn(batch, LATENT, 1, 1, generator=rng)


def released(given: Networks, config: DistillConfig, scored: bool) -> Callable[[], object]:
    """Return the released procedure's steps, or its score of POOL images."""
    generator, teacher, student = (
        reference.plain(model) for model in (given.generator, given.teacher, given.student())
    )
    stepper = reference.adam(student, config.lr, config.beta1, config.beta2)
    batches = noise(config.batch_size)

    def steps() -> None:
        for _ in range(REFERENCE_STEPS):
            reference.distill_step(student, stepper, generator, teacher, next(batches), config.temperature)

    def score() -> None:
        reference.agreement(
            student.eval(), generator, teacher, (next(batches) for _ in range(POOL // config.batch_size))
        )
        student.train()

    return score if scored else steps


def cycle(config: DistillConfig, refresh: float) -> int:
    """Return the steps in which each image of a pool is used 1 / refresh times."""
    return round(POOL // config.batch_size / refresh)


def ours(given: Networks, config: DistillConfig, precision: device.Precision, refresh: float) -> Callable[[], object]:
    """Return our distillation's next cycle; it scores one image, which takes next to no time."""
    config = config.model_copy(
        update={
            "pool": POOL,
            "pool_refresh": refresh,
            "steps_per_epoch": cycle(config, refresh),
            "score_images": 1,
        }
    )
    student = given.student().to(memory_format=torch.channels_last)
    teacher = freeze(given.teacher, fold_norms=True)
    source = GeneratorSource(given.generator, LATENT, teacher, config, precision=precision)
    epochs = progress_of(Distillation(student, source, config, Context(0, precision=precision)))
    return lambda: next(epochs)


def our_score(given: Networks, config: DistillConfig, precision: device.Precision) -> Callable[[], object]:
    """Return our score of POOL images."""
    config = config.model_copy(update={"score_images": POOL})
    student, rng = given.student().to(memory_format=torch.channels_last).eval(), seeds.generator(0, "score")
    teacher = freeze(given.teacher, fold_norms=True)
    source = GeneratorSource(given.generator, LATENT, teacher, config, precision=precision)
    return lambda: source.score(student, rng)


def main() -> None:
    """Time all cases alternately and print what they took."""
    options = arguments(__doc__, repetitions=5, threads=1, width=64, batch=64).parse_args()
    device.set_up_torch(options.threads)
    config = TrialConfig().distill.model_copy(update={"batch_size": options.batch})
    given = networks(options.width)
    steps = {"reference": REFERENCE_STEPS}
    cases: dict[str, Callable[[], object]] = {
        "reference": Apart(released, given, config, False, threads=options.threads),
        "reference_score": Apart(released, given, config, True, threads=options.threads),
    }
    for precision in PRECISIONS:
        cases[f"{precision}_score"] = our_score(given, config, precision)
        for refresh in REFRESH:
            name = f"{precision}_refresh_1_{round(1 / refresh)}" if refresh < 1 else f"{precision}_fresh"
            cases[name], steps[name] = ours(given, config, precision, refresh), cycle(config, refresh)
    taken = interleaved(cases, options.repetitions)
    # Images scored for each step of the paper's settings.
    scored = config.score_images / (config.steps_per_epoch or EPOCH)
    seconds = {name: [value / count for value in taken[name]] for name, count in steps.items()}
    scores = {name: [value / POOL * scored for value in taken[f"{name}_score"]] for name in ("reference", *PRECISIONS)}
    figures = Figures()
    for name, values in seconds.items():
        figures.add(f"distill_step_{name}_seconds", median(values))
        if name != "reference":
            figures.times(f"distill_step_{name}_times_faster", seconds["reference"], values)
    for name, values in scores.items():
        figures.add(f"distill_score_{name}_seconds_a_step", median(values))
    with_score = {
        name: [step + score for step, score in zip(values, scores[name.split("_")[0]], strict=True)]
        for name, values in seconds.items()
    }
    for name, values in with_score.items():
        if name != "reference":
            figures.times(f"distill_step_and_score_{name}_times_faster", with_score["reference"], values)
    figures.save(options.json)


if __name__ == "__main__":
    main()
