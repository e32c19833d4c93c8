"""How long a sweep would take: a few timed steps, scaled to every trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from degan_search.data import proxies
from degan_search.data.images import normalise
from degan_search.ledger.columns import Phase
from degan_search.networks.frozen import freeze
from degan_search.networks.image_input import ImageInput
from degan_search.networks.table import own_classes
from degan_search.networks.takes import generated_shape, student_input, teacher_input, untrained
from degan_search.search.planning.cost_model import CostModel
from degan_search.search.planning.step_time import StepTime, share_of_cpu, timed_step
from degan_search.search.planning.stretches import Prior
from degan_search.search.run.jobs import Kind
from degan_search.search.space.cell import Cell, cells
from degan_search.search.space.combined import combined_cells, combined_example, combined_label
from degan_search.search.space.schema import Space
from degan_search.selection.members import repeat
from degan_search.selection.repeats import number_repeated
from degan_search.settings import lengths
from degan_search.settings.combine import member
from degan_search.settings.lengths import distill_config
from degan_search.settings.methods import METHODS, trains_generator
from degan_search.settings.mosaic import MosaicConfig
from degan_search.settings.trial import (
    DistillConfig,
    FitConfig,
    GanConfig,
    ProbeConfig,
    StudentConfig,
    TeacherConfig,
    TrialConfig,
)
from degan_search.stages import gan
from degan_search.stages.mosaic import Mosaic
from degan_search.system.device import set_up_torch
from degan_search.system.errors import UserError
from degan_search.training.context import Context
from degan_search.training.loop import ENDLESS, LR_FACTORS
from degan_search.training.losses import distillation_loss

WEIGHT = "gan.lambda_"
"""With this begin the names of the losses' weights."""
CLASSES = 10
"""Of networks that are timed: their number hardly counts."""
WHOLE, ONCE = 1.25, 0.5
"""Seconds of trials to those of their timed steps, as they also run optimisers, draw batches and make images; and those
that each takes besides, without other programs, to load and to be scored (docs/results/2026-11-29-time-left.md)."""
START = 4.0
"""Seconds that the processes of a phase take to start, with torch's compiler, until the first trial begins."""


def sweep_seconds(
    space: Space, slots: int, data_dir: Path | None, device: str = "cpu", threads: int = 1
) -> tuple[float, float]:
    """Return the fewest and the most seconds that all trials would take if none stopped early.

    Steps are timed at a small batch on this machine and scaled. The two differ where patience ends
    distillation: after `patience` epochs in each phase at the earliest, after `epochs` at the latest. The
    teacher's training is not counted.
    """
    totals = [0.0, 0.0]
    for cell in cells(space):
        runs = cell.trials() + (len(space.finals.seeds) if space.finals else 0)
        for index, seconds in enumerate(trial_seconds(typical(cell), data_dir, device, threads)):
            totals[index] += runs * seconds / slots
        if repeats := repeats_of(cell, cell.trials()):
            for index, seconds in enumerate(trial_seconds(_again(cell), data_dir, device, threads)):
                totals[index] += repeats * seconds / slots
    for cell in combined_cells(space):
        for index, seconds in enumerate(trial_seconds(combined_example(cell), data_dir, device, threads)):
            totals[index] += (len(space.finals.seeds) if space.finals else 0) * seconds / slots
    return totals[0], totals[1]


def typical(cell: Cell) -> TrialConfig:
    """Return a cell's example with weights above 0 where these vary: without any, a step would not run the teacher."""
    config = cell.example()
    weights = {name.removeprefix("gan."): 1.0 for name in cell.varies() if name.startswith(WEIGHT)}
    return config.model_copy(update={"gan": config.gan.model_copy(update=weights)})


def _again(cell: Cell) -> TrialConfig:
    """Return a configuration that takes as long as a repeat of one of a cell's trials."""
    return repeat(cell.example(), member("search-0000", b""), 1)


def cost_model(space: Space, data_dir: Path | None, device: str = "cpu", threads: int = 1) -> CostModel:
    """Return what the trials of a space should cost, its repeats and finals all to come."""
    priors: dict[Kind, Prior] = {}
    after: list[Kind] = []
    for cell in cells(space):
        config = typical(cell)
        final = config.model_copy(update={"probe": ProbeConfig()})
        priors[Phase.SEARCH, cell.label] = prior(config, data_dir, device, threads)
        priors[Phase.FINAL, cell.label] = prior(final, data_dir, device, threads)
        if repeats := repeats_of(cell, cell.trials()):
            priors[Phase.REPEAT, cell.label] = prior(_again(cell), data_dir, device, threads)
            after += [(Phase.REPEAT, cell.label)] * repeats
    for cell in combined_cells(space):
        priors[Phase.FINAL, combined_label(cell)] = prior(combined_example(cell), data_dir, device, threads)
    for _ in space.finals.seeds if space.finals else ():
        after += [(Phase.FINAL, cell.label) for cell in cells(space)]
        after += [(Phase.FINAL, combined_label(cell)) for cell in combined_cells(space)]
    factor = space.asha.reduction_factor if space.asha else None
    return CostModel(1, factor, priors, after, share_of_cpu(threads), START)


def repeats_of(cell: Cell, trials: int) -> int:
    """Return how many further students of its generators a cell of so many trials has, if none is stopped early."""
    repeats = cell.space.search.repeats
    if not (repeats and cell.varies() and METHODS[cell.example().method].generates):
        return 0
    return repeats * number_repeated(trials)


def prior(config: TrialConfig, data_dir: Path | None, device: str = "cpu", threads: int = 1) -> Prior:
    """Return what is expected of a trial by timed steps; between fewest and most seconds, their geometric mean."""
    rungs, before, after = _stretches(config, data_dir, device, threads)
    return Prior((*before, math.sqrt(after[0] * after[1])), rungs)


def trial_seconds(
    config: TrialConfig, data_dir: Path | None, device: str = "cpu", threads: int = 1
) -> tuple[float, float]:
    """Return the fewest and the most seconds that one trial would take, from timed steps."""
    _, before, (fewest, most) = _stretches(config, data_dir, device, threads)
    return sum(before) + fewest, sum(before) + most


def _stretches(
    config: TrialConfig, data_dir: Path | None, device: str, threads: int
) -> tuple[tuple[int, ...], list[float], tuple[float, float]]:
    """Return a trial's rungs, the seconds to each from the one before, and the fewest and most from the last on."""
    try:
        whole = proxies.parent_size(config.proxy, data_dir)
    except UserError:  # images that are not there yet: the paper's sets all have about this many
        whole = 50_000
    method = METHODS[config.method]
    count = config.count or round(whole * proxies.share(config.proxy))
    if method.source == "mosaic":
        step = mosaic_step(config.teacher, config.student, timed(config.gan), config.mosaic, device, threads)
        steps = lengths.mosaic_steps(config.mosaic, count)
        seconds = ONCE / share_of_cpu() + step.of(config.mosaic.batch_size) * steps
        return (), [], (seconds, seconds)
    distil_step = distillation_step(config.teacher, config.student, device, threads)
    rungs: tuple[int, ...] = ()
    before: list[float] = []
    last_seconds = 0.0
    if trains_generator(config):
        gan_step = generator_step(config.teacher, config.student, timed(config.gan), device, threads)
        batch, steps = lengths.gan_lengths(config.gan, count, count if config.count else whole)
        rungs = tuple(step for step in config.probe.at if step <= steps)
        probe = distil_step.of(config.probe.batch_size) * config.probe.steps
        before = [gan_step.of(batch) * (step - last) + probe for last, step in itertools.pairwise((0, *rungs))]
        last_seconds = gan_step.of(batch) * (steps - max(rungs, default=0))
    elif method.source == "zskd":  # a batch's step is much like one of a student's
        batches = config.zskd.images / config.zskd.batch_size
        last_seconds = distil_step.of(config.zskd.batch_size) * batches * config.zskd.iterations
    fitting = config.incremental if config.task == "incremental" else distill_config(config)
    fewest, most = _steps(fitting, fitting.steps_per_epoch or -(-count // fitting.batch_size))
    each = distil_step.of(fitting.batch_size)
    last_seconds += ONCE / share_of_cpu()
    return rungs, before, (last_seconds + each * fewest, last_seconds + each * most)


def _steps(config: FitConfig, epoch: int) -> tuple[int, int]:
    """Return the fewest and the most steps of a training with epochs of this many steps."""
    if config.optimiser == "sgd":  # to its last step, without patience
        steps = min(config.steps or ENDLESS, config.epochs * epoch)
        return steps, steps
    if config.steps:
        return config.steps, config.steps
    phases = len(LR_FACTORS)
    return phases * config.patience * epoch, phases * config.epochs * epoch


def timed(config: GanConfig) -> GanConfig:
    """Return a GAN's settings with only what its steps' time depends on, so that equal ones are timed once."""
    weights = {name: float(value > 0) for name, value in config if f"gan.{name}".startswith(WEIGHT)}
    return GanConfig(width=config.width, size=config.size, latent=config.latent, **weights)


@cache
def generator_step(
    teacher: TeacherConfig, student: StudentConfig, gan_config: GanConfig, device: str, threads: int
) -> StepTime:
    """Return the seconds of a GAN step, with what a trial computes beside it."""
    takes, frozen, trained = _networks(teacher, student, device, threads)
    shape = generated_shape(gan_config, takes)
    networks = gan.build(gan_config, shape, frozen, Context(0, device), student=(trained, DistillConfig()), adam=_Idle)

    def step(batch: int) -> Callable[[], object]:
        real, z = _images(batch, shape, device), torch.randn(batch, gan_config.latent, 1, 1, device=device)
        return lambda: networks.step(real, z)

    return timed_step(step, device).times(WHOLE)


@cache
def distillation_step(teacher: TeacherConfig, student: StudentConfig, device: str, threads: int) -> StepTime:
    """Return the seconds of a distillation step, with what a trial computes beside it."""
    takes, frozen, trained = _networks(teacher, student, device, threads)

    def step(batch: int) -> Callable[[], object]:
        given = _images(batch, takes.shape, device)
        return lambda: distillation_loss(trained(given), frozen(given), 20.0).backward()  # type: ignore[no-untyped-call]

    return timed_step(step, device).times(WHOLE)


def _images(batch: int, shape: tuple[int, ...], device: str) -> Tensor:
    return normalise(torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, device=device))


class _Idle(torch.optim.Optimizer):
    """An optimiser that changes no weight.

    With real batches an optimiser takes about a hundredth of a step, but torch's load its compiler, for a second.
    """

    def __init__(self, model: nn.Module, config: GanConfig) -> None:
        self.model = model

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.model.zero_grad(set_to_none)

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Do nothing."""


@cache
def mosaic_step(
    teacher: TeacherConfig,
    student: StudentConfig,
    gan_config: GanConfig,
    config: MosaicConfig,
    device: str,
    threads: int,
) -> StepTime:
    """Return the seconds of a step of MosaicKD's generator and the student's after it, with what is computed beside."""
    takes, frozen, trained = _networks(teacher, student, device, threads)

    def step(batch: int) -> Callable[[], object]:
        endless = config.model_copy(update={"batch_size": batch, "steps": ENDLESS})
        proxy, learned = (
            torch.zeros(batch, *shape, dtype=torch.uint8, device=device)
            for shape in (generated_shape(gan_config, takes), takes.shape)
        )
        return Mosaic(trained, frozen, proxy, learned, endless, gan_config, Context(0, device)).step

    return timed_step(step, device).times(WHOLE)


def _networks(
    teacher: TeacherConfig, student: StudentConfig, device: str, threads: int
) -> tuple[ImageInput, nn.Module, nn.Module]:
    """Return what the teacher takes, the frozen teacher and a student, both untrained; torch is set up."""
    set_up_torch(threads)
    takes, classes = teacher_input(teacher), own_classes(teacher.network) or CLASSES
    frozen = freeze(untrained(teacher.network, classes, teacher.width, takes)).to(device)
    learns = student_input(TrialConfig(teacher=teacher, student=student))
    return takes, frozen, untrained(student.network, classes, student.width, learns).to(device)
