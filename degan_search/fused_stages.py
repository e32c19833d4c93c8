"""GAN training and distillation of several trials as one program; what each trial computes is what it would alone.

Members are the trials, by number; a member's row is its place in the stacks. Each has its own random streams, the same
as alone. A member that leaves `live` between two reports is left out of what follows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search import degan, runtime
from degan_search.capture import Accelerate, Step, accelerated, compiled
from degan_search.config import DistillConfig
from degan_search.data.images import normalise
from degan_search.fit import DivergedError, Progress, check, longest, phases
from degan_search.losses import degan_generator_loss, discriminator_loss, distillation_loss, generator_loss
from degan_search.metrics import agreement
from degan_search.networks.frozen import freeze
from degan_search.sources import CHUNK, EPOCH, Batch, IndexBatches, pool_of
from degan_search.stack import Stack, StackedAdam


@dataclass
class Roll:
    """The members that go on, and what ended others."""

    live: set[int]
    failed: dict[int, DivergedError] = field(default_factory=dict)

    @contextmanager
    def judging(self, member: int) -> Iterator[None]:
        """Let the member go no further if the block finds it diverged; the others do not notice."""
        try:
            yield
        except DivergedError as error:
            self.failed[member] = error
            self.live.discard(member)

    def of(self, members: Sequence[int]) -> list[int]:
        """Return those of the members that go on."""
        return [member for member in members if member in self.live]


class FusedGan:
    """Several `degan.Gan` that differ in their weights and lambdas alone."""

    def __init__(self, gans: Mapping[int, degan.Gan]) -> None:
        """Take the GANs of the members, with discriminators and without rivals; their networks are copied."""
        self.members, first = list(gans), next(iter(gans.values()))
        self.config, self.teacher, self.precision = first.config, first.teacher, first.precision
        self.generator = Stack([gan.generator for gan in gans.values()])
        self.discriminator = Stack([gan.discriminator for gan in gans.values() if gan.discriminator])
        betas = (self.config.beta1, self.config.beta2)
        self.adam_g, self.adam_d = (
            StackedAdam(stack, self.config.lr, betas) for stack in (self.generator, self.discriminator)
        )
        lambdas = [(gan.config.lambda_e, gan.config.lambda_d) for gan in gans.values()]
        self.lambdas = torch.tensor(lambdas, device=next(self.generator.parameters()).device)
        self.classified = any(map(any, lambdas))
        """Whether the classifier has a part in the training of any member."""

    def keep(self, members: list[int]) -> None:
        """Leave out all members but these."""
        rows = [self.members.index(member) for member in members]
        self.members, self.lambdas = members, self.lambdas[rows]
        self.generator, self.discriminator = self.generator.take(rows), self.discriminator.take(rows)
        self.adam_g.take(self.generator, rows)
        self.adam_d.take(self.discriminator, rows)

    def generated(self, member: int) -> nn.Module:
        """Return a copy of a member's generator."""
        return self.generator.model(self.members.index(member))

    def step(self, real: Float[Tensor, "k n c h w"], z: Float[Tensor, "k n latent 1 1"]) -> Float[Tensor, "k 8"]:
        """Make the step of `degan.Gan` for each member; returns what that returns, a row a member."""
        with runtime.arithmetic(self.precision, str(z.device)):
            return self._step(real, z)

    def accelerated(self, accelerate: Accelerate) -> Step:
        """Return `step` as it is run, until members are left out."""
        if accelerate == "none":
            return self.step
        running = copy.copy(self)
        for name in ("generator", "discriminator", "teacher"):
            setattr(running, name, compiled(getattr(self, name), accelerate))
        return accelerated(running.step, (self.generator, self.discriminator, self.adam_g, self.adam_d), accelerate)

    def _step(self, real: Tensor, z: Tensor) -> Tensor:
        fake = self.generator(z)
        d_losses = torch.vmap(discriminator_loss)(self.discriminator(real), self.discriminator(fake.detach()))
        self.adam_d.zero_grad()
        d_losses.sum().backward()  # type: ignore[no-untyped-call]
        self.adam_d.step()
        self.discriminator.requires_grad_(False)
        losses = self._generator_losses(fake)
        self.adam_g.zero_grad()
        losses[0].sum().backward()  # type: ignore[no-untyped-call]
        self.adam_g.step()
        self.discriminator.requires_grad_(True)
        spread = fake.to(d_losses.dtype).std(1).flatten(1).mean(1)
        nothing = torch.full_like(d_losses, math.nan)
        return torch.stack([d_losses, *losses, nothing, nothing, spread], dim=1).detach()

    def _generator_losses(self, fake: Tensor) -> tuple[Tensor, ...]:
        """Return each member's total, then adversarial, entropy and diversity losses."""
        fake_logits = self.discriminator(fake)
        if not self.classified:
            adversarial = torch.vmap(generator_loss)(fake_logits)
            nothing = torch.full_like(adversarial, math.nan)
            return adversarial, adversarial, nothing, nothing
        class_logits = shared(self.teacher, fake)
        losses = torch.vmap(degan_generator_loss)(fake_logits, class_logits, *self.lambdas.T)
        without = (self.lambdas == 0).all(1)
        entropy, diversity = (part.masked_fill(without, math.nan) for part in (losses.entropy, losses.diversity))
        return losses.total, losses.adversarial, entropy, diversity


def shared(teacher: nn.Module, images: Float[Tensor, "k n c h w"]) -> Float[Tensor, "k n classes"]:
    """Return the logits of one network for all members' images."""
    logits: Tensor = teacher(images.flatten(0, 1)).unflatten(0, images.shape[:2])
    return logits


def train(
    gan: FusedGan,
    proxy: UInt8[Tensor, "n c h w"],
    set_images: int,
    seeds: Mapping[int, int],
    roll: Roll,
    report_at: tuple[int, ...] = (),
    accelerate: Accelerate = "none",
) -> Iterator[dict[int, degan.GanProgress]]:
    """Train the GANs in place as `degan.train` trains each, yielding at the same steps each live member's progress."""
    size, steps = degan.lengths(gan.config, len(proxy), set_images)
    device, latent = str(proxy.device), gan.config.latent
    streams = {member: runtime.generator(seed, "gan", "images", device=device) for member, seed in seeds.items()}
    orders = {member: IndexBatches(len(proxy), size, rng) for member, rng in streams.items()}
    noise = {member: runtime.generator(seed, "gan", "noise", device=device) for member, seed in seeds.items()}
    for stack in (gan.generator, gan.discriminator):
        stack.train()
    every, run_step = max(1, steps // 50), gan.accelerated(accelerate)
    for step in range(1, steps + 1):
        real = normalise(proxy[torch.stack([next(orders[member]) for member in gan.members])])
        shape = (real.shape[1], latent, 1, 1)
        z = torch.stack([torch.randn(shape, generator=noise[member], device=device) for member in gan.members])
        losses = run_step(real, z)
        if step % every == 0 or step == steps or step in report_at:
            report = {}
            for member, values in zip(gan.members, losses.tolist(), strict=True):
                with roll.judging(member):
                    degan.check(progress := degan.GanProgress(step, steps, *values))
                    report[member] = progress
            yield report
            if (live := roll.of(gan.members)) != gan.members:
                if not live:
                    return
                gan.keep(live)
                run_step = gan.accelerated(accelerate)


class FusedSource:
    """`sources.GeneratorSource` of several members: images of each one's generator, from its own streams."""

    def __init__(
        self,
        generators: Mapping[int, nn.Module],
        latent: int,
        teacher: nn.Module,
        config: DistillConfig,
        precision: runtime.Precision = "float32",
    ) -> None:
        self.precision = precision
        self.members, self.latent, self.teacher, self.config = list(generators), latent, teacher, config
        self.generators = Stack([freeze(generator, fold_norms=True) for generator in generators.values()])
        self.steps_per_epoch = config.steps_per_epoch or EPOCH
        self.images, self.logits = (torch.empty(0) for _ in range(2))
        self.batches_left = 0

    def keep(self, members: list[int]) -> None:
        """Leave out all members but these."""
        rows = [self.members.index(member) for member in members]
        self.members, self.generators = members, self.generators.take(rows)
        if self.batches_left:
            self.images, self.logits = self.images[rows], self.logits[rows]

    @torch.no_grad()
    def make(self, count: int, rngs: Mapping[int, torch.Generator], members: list[int] | None = None) -> Batch:
        """Return this many new images of each member, or of some, and the teacher's logits for them."""
        members = members or self.members
        rows = [self.members.index(member) for member in members]
        generators = self.generators if members == self.members else self.generators.take(rows)
        streams = [rngs[member] for member in members]
        images, logits = [], []
        for start in range(0, count, CHUNK):
            shape = (min(CHUNK, count - start), self.latent, 1, 1)
            z = torch.stack([torch.randn(shape, generator=own, device=own.device) for own in streams])
            with runtime.arithmetic(self.precision, str(z.device)):
                images.append(generators(z))
                logits.append(shared(self.teacher, images[-1]))
        return torch.cat(images, 1), torch.cat(logits, 1)

    def batches(self, rngs: Mapping[int, torch.Generator]) -> Iterator[Batch]:
        """Yield batches for ever, as `GeneratorSource.batches`, with the members' dimension first."""
        size, uses = pool_of(self.config)
        orders = {member: IndexBatches(size, self.config.batch_size, rng) for member, rng in rngs.items()}
        while True:
            if not self.batches_left:
                self.images, self.logits = self.make(size, rngs)
                self.batches_left = uses
            self.batches_left -= 1
            indices = torch.stack([next(orders[member]) for member in self.members])
            rows = torch.arange(len(self.members), device=indices.device)[:, None]
            yield self.images[rows, indices], self.logits[rows, indices]


@dataclass
class _Course:
    """Where one member stands in `fit.fit`."""

    best: nn.Module
    best_score: float = -math.inf
    phase: int = 0
    epochs: int = 0
    waited: int = 0
    ends: int = 0
    """Steps done at the end of its epoch."""


class Distillation:
    """`distill.distill` from generators for several members; each has its own phases, patience and best weights."""

    def __init__(
        self,
        students: Mapping[int, nn.Module],
        source: FusedSource,
        config: DistillConfig,
        seeds: Mapping[int, int],
        roll: Roll,
        device: str,
        stage: str = "distill",
        accelerate: Accelerate = "none",
    ) -> None:
        self.config, self.source, self.roll, self.stage, self.accelerate = config, source, roll, stage, accelerate
        self.members, self.students = list(students), Stack(list(students.values()))
        self.adam = StackedAdam(self.students, config.lr, (config.beta1, config.beta2), config.weight_decay)
        self.phases, self.done = phases(config, source.steps_per_epoch), 0
        self.courses = {member: _Course(student) for member, student in students.items()}
        self.finished: dict[int, nn.Module] = {}
        """The students of members that are done, with their best weights and in eval mode."""
        self.rngs, self.fresh, self.dropout = (
            {member: runtime.generator(seed, stage, name, device=device) for member, seed in seeds.items()}
            for name in ("images", "score", "dropout")
        )
        self._accelerate()

    def __iter__(self) -> Iterator[dict[int, Progress]]:
        """Train, yielding at the end of an epoch the progress of each live member whose epoch it is."""
        batches, losses = self.source.batches(self.rngs), torch.empty(0)
        while self.members:
            for course in (self.courses[member] for member in self.members):
                if course.ends == self.done:
                    limit = self.phases[course.phase].limit
                    course.ends = min(self.done + self.source.steps_per_epoch, limit)
            until = min(self.courses[member].ends for member in self.members)
            self.students.train()
            for _ in range(until - self.done):
                images, logits = next(batches)
                dropout = [self.dropout[member] for member in self.members]
                losses = self.run_step(images, logits, *self.students.draw_noise(images.shape[1], dropout))
            self.done = until
            self.students.eval()
            yield self._report(dict(zip(self.members, losses.tolist(), strict=True)))
            going = [member for member in self.roll.of(self.members) if member not in self.finished]
            if going != self.members:
                self._keep(going)

    def _accelerate(self) -> None:
        """Make ready to run steps as they shall be run, until members are left out or begin another phase."""
        self.learners = compiled(self.students, self.accelerate)
        self.run_step: Step = accelerated(self.step, (self.students, self.adam), self.accelerate)

    def step(
        self, images: Float[Tensor, "k n c h w"], logits: Float[Tensor, "k n classes"], *noise: Tensor
    ) -> Float[Tensor, " k"]:
        """Train each student on its own batch, with its dropout layers' noise; returns the losses."""
        for layer, own in zip(self.students.dropouts(), noise, strict=True):
            layer.noise = own
        self.adam.zero_grad()
        with runtime.arithmetic(self.source.precision, str(images.device)):
            losses = distillation_loss(self.learners(images), logits, self.config.temperature)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        found: Tensor = losses.detach()
        return found

    def _report(self, losses: Mapping[int, float]) -> dict[int, Progress]:
        """Score the members whose epoch is over, and let them begin the next one, the next phase, or end."""
        due, report = [], {}
        for member in self.members:
            if self.courses[member].ends == self.done:
                with self.roll.judging(member):
                    check(losses[member], self.stage, self.done)
                    due.append(member)
        for member, score in self._scores(due).items():
            course = self.courses[member]
            course.epochs, course.waited = course.epochs + 1, course.waited + 1
            if score > course.best_score:
                course.best, course.best_score, course.waited = self._student(member), score, 0
            report[member] = Progress(self.stage, self.done, longest(self.phases), course.best_score, losses[member])
            self._advance(member, course)
        return report

    @torch.no_grad()
    def _scores(self, members: list[int]) -> dict[int, float]:
        """Return each one's agreement with the teacher on new images."""
        if not members:
            return {}
        images, logits = self.source.make(self.config.score_images, self.fresh, members)
        rows = [self.members.index(member) for member in members]
        students = self.students if members == self.members else self.students.take(rows)
        with runtime.arithmetic(self.source.precision, str(images.device)):
            outputs = torch.cat([students(chunk) for chunk in torch.split(images, CHUNK, dim=1)], dim=1)
        return {member: agreement(*pair) for member, *pair in zip(members, outputs, logits, strict=True)}

    def _advance(self, member: int, course: _Course) -> None:
        """Begin the next phase from the best weights if this one is over."""
        while not self.phases[course.phase].lasts(self.done, course.epochs, course.waited):
            course.phase, course.epochs, course.waited = course.phase + 1, 0, 0
            if course.phase == len(self.phases):
                self.finished[member] = course.best.eval()
                return
            row = self.members.index(member)
            self.students.put(row, course.best)
            self.adam.restart(row, self.config.lr * self.phases[course.phase].factor)
            self._accelerate()

    def _student(self, member: int) -> nn.Module:
        return self.students.model(self.members.index(member))

    def _keep(self, members: list[int]) -> None:
        rows = [self.members.index(member) for member in members]
        self.members = members
        if members:
            self.students = self.students.take(rows)
            self.adam.take(self.students, rows)
            self.source.keep(members)
            self._accelerate()
