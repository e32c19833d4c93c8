"""Trials that differ in the lambdas and the seed alone, run as one program on one device (as in HFTA)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import torch
from torch import nn

from degan_search.config import DistillConfig, TrialConfig, stable_hash
from degan_search.errors import UserError
from degan_search.fit import DivergedError
from degan_search.fused_stages import Distillation, FusedGan, FusedSource, Roll, train
from degan_search.methods import METHODS, normalised
from degan_search.networks.table import build_classifier
from degan_search.pipeline import Event, Inputs, Outcome, Trial, distill_config, probe_config
from degan_search.stack import unstackable

ALIKE = {"gan.lambda_e": 0.0, "gan.lambda_d": 0.0, "seed": 0}
"""In what fused trials may differ."""
Events = dict[int, Event]


def fusable(config: TrialConfig) -> str | None:
    """Return why a trial cannot run beside others in one program, or None if it can.

    Raises:
        UserError: unknown method or network.
    """
    config = normalised(config)
    method, distilling = METHODS[config.method], distill_config(config)
    with torch.device("meta"):  # no weights are drawn
        student = build_classifier(config.student.network, 2, config.student.width)
    reasons = {
        f"task {config.task}": config.task != "distillation",
        f"method {config.method} trains no generator": not method.generates,
        f"method {config.method} has no discriminator": not method.adversarial,
        "gan.lambda_s": config.gan.lambda_s > 0,
        "gan.lambda_bn": config.gan.lambda_bn > 0,
        "distill.mix_proxy": distilling.mix_proxy > 0,
        "distill.augment": distilling.augment,
        f"distill.optimiser {distilling.optimiser}": distilling.optimiser != "adam",
        f"student {config.student.network} has a layer {unstackable(student)}": unstackable(student) is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def fusion_key(config: TrialConfig) -> str | None:
    """Return what trials that can run in one program have in common, or None if this one runs alone."""
    if fusable(config):
        return None
    gan = config.gan.model_copy(update={"lambda_e": 0.0, "lambda_d": 0.0})
    return stable_hash(normalised(config).model_copy(update={"gan": gan, "seed": 0}))


class Pack:
    """Trials run as one program, in the style of `pipeline.Trial`: an iterator over their events, by member.

    A member is a trial's place in `configs`. Its events, its outcome and the numbers in them are those of the trial
    alone but for the rounding of sums; its seconds are the whole pack's. Between two reports members can be dropped;
    the others go on as before. A pack has no state to go on from: one that is cut begins anew.
    """

    def __init__(self, configs: Sequence[TrialConfig], inputs: Inputs, device: str = "cpu") -> None:
        """Take trials of one `fusion_key`.

        Raises:
            UserError: they are of several, or one of them cannot be fused.
        """
        if reason := next(filter(None, map(fusable, configs)), None):
            raise UserError(f"a trial cannot be fused with others: {reason}; run it alone")
        if len({fusion_key(config) for config in configs}) != 1:
            raise UserError("trials can be fused if they differ in gan.lambda_e, gan.lambda_d and seed alone")
        self.first = Trial(configs[0], inputs, device)
        self.trials = {member: self.first.beside(config) for member, config in enumerate(configs)}
        self.seeds = {member: config.seed for member, config in enumerate(configs)}
        self.roll = Roll(set(self.trials))
        self.outcomes: dict[int, Outcome] = {}
        """Of the members that are done."""

    @property
    def failed(self) -> dict[int, DivergedError]:
        """What ended the members that diverged; the others go on."""
        return self.roll.failed

    def drop(self, member: int) -> None:
        """Run a member no further."""
        self.roll.live.discard(member)

    def __iter__(self) -> Iterator[Events]:
        """Run the trials; yields the events of one report, by member."""
        generators = yield from self._train_gans()
        if generators:
            yield from self._distil(generators)

    def _train_gans(self) -> Generator[Events, None, dict[int, nn.Module]]:
        """Train the GANs, with their probes; returns the generators of the members that go on."""
        first, rungs = self.first, self.first.config.probe.at
        gan = FusedGan({member: trial.build_gan() for member, trial in self.trials.items()})
        proxy = first.shared.proxy
        generators: dict[int, nn.Module] = {}
        set_images = first.inputs.proxy.set_images
        for report in train(gan, proxy, set_images, self.seeds, self.roll, rungs, first.accelerate):
            generators, scores = {member: gan.generated(member) for member in report}, dict[int, float]()
            step = next((progress.step for progress in report.values()), 0)
            for member in report:
                self.trials[member].gan_steps = step
            if step in rungs:
                scores = yield from self._probe(generators, step)
            events = {
                member: self.trials[member].gan_event(generators[member], report[member], scores.get(member))
                for member in self.roll.of(list(report))
            }
            if events:
                yield events
        for member in self.roll.live:
            self.trials[member].end_gan()
        return {member: generators[member] for member in self.roll.of(list(generators))}

    def _probe(self, generators: Mapping[int, nn.Module], step: int) -> Generator[Events, None, dict[int, float]]:
        """Distil a fresh student shortly from each generator; returns the members' scores."""
        stage = self._distillation(generators, probe_config(self.first.config), f"probe at {step}", f"probe at {step}")
        for report in stage:
            if events := {member: self.trials[member].event(progress) for member, progress in report.items()}:
                yield events
        return {member: self.trials[member].compare(student)["score"] for member, student in stage.finished.items()}

    def _distil(self, generators: Mapping[int, nn.Module]) -> Iterator[Events]:
        stage = self._distillation(generators, distill_config(self.first.config), "student", "distill")
        for report in stage:
            events = {member: self.trials[member].distill_event(progress) for member, progress in report.items()}
            if events:
                yield events
            done = [member for member in self.roll.of(list(report)) if member in stage.finished]
            if ends := {member: self._end(member, stage.finished[member], generators[member]) for member in done}:
                yield ends

    def _end(self, member: int, student: nn.Module, generator: nn.Module) -> Event:
        event = self.trials[member].end(student, generator)
        self.outcomes[member] = self.trials[member].outcome
        return event

    def _distillation(
        self, generators: Mapping[int, nn.Module], config: DistillConfig, weights: str, stage: str
    ) -> Distillation:
        first = self.first
        source = FusedSource(generators, first.config.gan.latent, first.fast_teacher, config, first.precision)
        students = {member: self.trials[member].student(weights) for member in generators}
        return Distillation(students, source, config, self.seeds, self.roll, first.device, stage, first.accelerate)
