"""A first space for a teacher without data: a commented file, as large as a time budget allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from degan_search.search.planning import timed_steps
from degan_search.search.planning.cost_model import duration
from degan_search.search.planning.step_time import share_of_cpu
from degan_search.search.space import file as space_file
from degan_search.search.space.cell import cells
from degan_search.search.space.schema import Space
from degan_search.search.suggest.cell_searcher import CellSearcher
from degan_search.settings import yaml_text
from degan_search.settings.trial import StudentConfig, TeacherConfig
from degan_search.system.errors import UserError

START = 40.0
"""Seconds that a sweep takes beside its trials: Ray, processes, tables, report."""
BESIDE = 1.35
"""Margin over what the timed steps say of trials: scores of many images, accuracies, larger networks."""
SHARE = 0.9
"""Of the time budget that the plan may fill, as steps are timed on a machine that may soon be busier."""
QUICK = 32
"""Height and width of generated images in shorter sweeps: larger ones take several times the steps to look like any."""
FEW, MANY = 400, 1200
"""GAN steps up to which time goes into longer training alone, as shorter GANs teach nothing, and from which on the
search is wide."""


@dataclass(frozen=True)
class Size:
    """How large a sweep is, by the steps of its GANs; the ratios are those of the shipped spaces for 2 cores."""

    steps: int

    @property
    def batch(self) -> int:
        """Images of a GAN step."""
        return 32 if self.steps < MANY else 64

    @property
    def width(self) -> int:
        """Of the GAN's networks."""
        return 16 if self.steps < MANY else 32

    @property
    def rungs(self) -> list[int]:
        """GAN steps after which a trial may be stopped."""
        return [self.steps // 2] if self.steps < 2 * FEW else [self.steps // 4, self.steps // 2]

    @property
    def probe_steps(self) -> int:
        """Distillation steps at a rung."""
        return min(500, self.steps * 3 // 8)

    @property
    def distill_steps(self) -> int:
        """Of every student."""
        return 3 * self.steps

    @property
    def trials(self) -> int:
        """Search trials of weights for each proxy."""
        return 3 if self.steps <= FEW else 5 if self.steps < 2 * FEW else 8 if self.steps < MANY else 16

    @property
    def seeds(self) -> list[int]:
        """Of the final runs."""
        return [1] if self.steps <= FEW else [1, 2] if self.steps < MANY else [1, 2, 3]

    @property
    def methods(self) -> list[str]:
        """Of the table."""
        return ["proxy", "degan"] if self.steps < MANY else ["proxy", "dcgan", "degan"]

    @property
    def count(self) -> int:
        """Proxy images at most."""
        return min(10_000, max(2000, 32 * self.steps))


JUDGES = ("photos", "noise/uniform")
"""Embedded sets without classes, on which students are compared, too: docs/results/2026-11-28-choosing.md."""
SIZES = tuple(Size(steps) for steps in (100, 150, 200, 250, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 5000))


@dataclass(frozen=True)
class Wanted:
    """What the space is for: the teacher, the student, and the proxies with their numbers of images, if known."""

    teacher: TeacherConfig
    student: StudentConfig
    proxies: Sequence[tuple[str, int | None]]
    gan_size: int
    command: str
    """That was given."""
    image_seconds: float = 0.0
    """To load an image."""

    def batch(self, most: int) -> int:
        """Return a batch of at most so many images that the smallest proxy fills, a fifth of it held out."""
        known = [count for _, count in self.proxies if count is not None]
        return min(most, 2 ** (max(2, min(known) * 4 // 5).bit_length() - 1)) if known else most


@dataclass(frozen=True)
class Fitted:
    """A space's text, and how long its sweep should take, in seconds."""

    text: str
    space: Space
    size: Size
    seconds: float
    share: float
    """In which part of their time the timed steps had a CPU; the sweep is planned as if no other programs ran."""


def fitted(
    wanted: Wanted, budget: float, slots: int, data_dir: Path | None = None, device: str = "cpu", threads: int = 1
) -> Fitted:
    """Return the largest space whose whole sweep should fit into a time budget on this machine, by timed steps.

    As many trials are expected to stop early as when scores come in random order.

    Args:
        wanted: what it is for.
        budget: seconds.
        slots: trials at a time.
        data_dir: folder of the image sets.
        device: where trials run.
        threads: of each trial.

    Raises:
        UserError: not even the smallest fits; says what it takes.
    """
    found = None
    for size in SIZES:
        text = text_of(wanted, size)
        what = "the space of init"
        space = space_file.parsed(yaml_text.parse(text, what), what)
        seconds = _seconds(wanted, size, space, slots, data_dir, device, threads)
        if seconds > SHARE * budget:
            if found is None:
                raise UserError(
                    f"--budget {duration(budget)} is too short: the smallest sweep of this teacher would take about "
                    f"{duration(seconds / SHARE)} here; give more, fewer proxies, or a smaller --size"
                )
            break
        found = Fitted(text, space, size, seconds, share_of_cpu(threads))
    assert found
    return found


def _seconds(
    wanted: Wanted, size: Size, space: Space, slots: int, data_dir: Path | None, device: str, threads: int
) -> float:
    """Return how long a whole sweep should take without other programs: its trials, and reading images."""
    cost = timed_steps.cost_model(space, data_dir, device, threads)
    cost.set_slots(slots)
    cost.start = 0.0  # START, above, has it
    search = CellSearcher(cells(space))
    trials = cost.left(search.waiting(search.trials), 0.0) + cost.left_after()
    example = timed_steps.typical(cells(space)[-1])
    distil_step = timed_steps.distillation_step(example.teacher, example.student, device, threads)
    images = sum(min(size.count, count or size.count) for _, count in wanted.proxies)
    reading = images * (wanted.image_seconds + distil_step.image / 3)
    return START + share_of_cpu(threads) * (reading + BESIDE * trials)


def text_of(wanted: Wanted, size: Size) -> str:
    """Return the space file: YAML with comments."""
    teacher = wanted.teacher.model_dump(mode="json", exclude_defaults=True)
    if wanted.teacher.path == wanted.teacher.network:  # an ONNX file is both
        teacher.pop("path")
    if "classes" in teacher and "\n" in teacher["classes"]:
        teacher["classes"] = teacher["classes"].split("\n")
    student = wanted.student.model_dump(mode="json", exclude_defaults=True)
    names = [name for name, _ in wanted.proxies]
    listed = "\n".join(f"    {key}: {_value(value)}{_about(key)}" for key, value in teacher.items())
    return TEXT.format(
        command=wanted.command,
        count=size.count,
        teacher=listed,
        student=_value(student),
        gan_size=min(wanted.gan_size, QUICK) if size.steps < MANY else wanted.gan_size,
        size=size,
        rungs=[0, *size.rungs] if len(names) > 1 else size.rungs,
        batch=wanted.batch(size.batch),
        image_batch=wanted.batch(64),
        steps=size.distill_steps,
        score_every=min(200, size.distill_steps // 2),
        proxies=_value(names),
        judges=_value([name for name in JUDGES if name not in names]),
        trials=size.trials * len(names),
        methods=_value(size.methods),
    )


def _about(key: str) -> str:
    about = {
        "network": "what builds the network",
        "path": "its weights",
        "classes": "names of classes, a text file, or how many there are",
        "check": "a few labelled images, to measure on; nothing is trained or chosen by them",
        "trusted": "lets TorchScript run its program",
    }.get(key)
    return f"  # {about}" if about else ""


def _value(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


TEXT = """\
# Made by: {command}
# Run it with `degan-search sweep THIS_FILE`, from the same folder: paths are as they were given.
description: A first sweep, of a size that fits the time budget of init.
trial:
  count: {count}  # images of each proxy, or all where it has fewer; more take longer to load
  count_is: most
  teacher:
{teacher}
  # The network that is distilled. Any that docs/networks.md names; a smaller input is {{..., input: {{size: 32}}}}.
  student: {student}
  # The GAN: more steps, a larger width and a larger size give better images and take longer.
  gan: {{size: {gan_size}, width: {size.width}, steps: {size.steps}, batch_size: {batch}, batch_of: used, lr: 0.0005}}
  # How long students are distilled, from generated images and, for the method `proxy`, from the proxy itself.
  distill: {{steps: {steps}, steps_per_epoch: {score_every}, score_images: 1024, pool_refresh: 0.25}}
  distill_images: {{steps: {steps}, steps_per_epoch: {score_every}, batch_size: {image_batch}, batch_of: used}}
  # After these GAN steps a short distillation gives a first score; the worse half of the trials stops there. At 0 it is
  # from the proxy images themselves.
  probe: {{at: {rungs}, steps: {size.probe_steps}}}
  # All students are compared with the teacher on the same images, those of which it is sure: held-out images of every
  # proxy and of these embedded sets. Add others by name, but none with the teacher's own training images.
  objective: sure_agreement
  bank: {{judges: {judges}, generators: []}}
# Each method has its own search: `proxy` distils from the proxy images themselves, `dcgan` from a GAN without the
# teacher's losses, `degan` from one with them.
cells:
  method: {methods}
parameters:  # what is searched: which proxy,
  proxy: {proxies}
when:
  - if: {{method: degan}}
    parameters:  # and the weights of the teacher's two losses: 0, or between these
      gan.lambda_e: {{zero_or_log: [0.01, 10]}}
      gan.lambda_d: {{zero_or_log: [0.1, 50]}}
# Points that are tried first. The second is the released code's; (1, 5) and (1, 10) did best in our own sweeps.
first:
  - {{gan.lambda_e: 0, gan.lambda_d: 0}}
  - {{gan.lambda_e: 0, gan.lambda_d: 5}}
  - {{gan.lambda_e: 1, gan.lambda_d: 5}}
  - {{gan.lambda_e: 1, gan.lambda_d: 10}}
  - {{gan.lambda_e: 5, gan.lambda_d: 20}}
# So many trials of each method; `sweep --budget 2h` chooses the number by the time. With repeats: 2 beside it the best
# quarter of each method's generators teach two further students each, and the choice is by the mean: worth it where
# there is time.
search: {{trials: {trials}}}
asha: {{reduction_factor: 2}}
# The best of each method is run again with these seeds, and beside it one student of the best generators together,
# with each of the teacher's classes equally often and a quarter of proxy images.
finals: {{seeds: {size.seeds}, combine: {{members: 4, balance: true, share: 0.25}}}}
"""
"""What `text_of` fills in."""
