"""What the stages of one trial share: its settings, its inputs on the device, and the bank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from degan_search.networks.layers import channels_last
from degan_search.networks.size import size
from degan_search.networks.takes import generated_shape, student_input, untrained
from degan_search.settings.methods import METHODS, Method, normalised
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.stages import incremental
from degan_search.system.device import precision_of
from degan_search.system.errors import UserError
from degan_search.training import cuda_graph
from degan_search.training.context import Context
from degan_search.training.measures import accuracy, predict
from degan_search.trial import bank as banks
from degan_search.trial.images import banked
from degan_search.trial.inputs import Inputs
from degan_search.trial.shared import Shared


@dataclass(frozen=True, eq=False)
class TrialContext:
    """A trial's configuration with what follows from it, on the device. No stage changes any of it."""

    config: TrialConfig
    inputs: Inputs
    method: Method
    context: Context
    """Of the trial's seed."""
    shared: Shared
    """What trials on the same inputs share."""
    teacher: nn.Module
    fast_teacher: nn.Module
    """The teacher with its BatchNorms folded into other layers; as it is where `lambda_bn` needs their statistics."""
    bank: banks.Bank

    @classmethod
    def of(cls, config: TrialConfig, inputs: Inputs, device: str) -> TrialContext:
        """Return the context of a trial on a device."""
        config, on_device = normalised(config), inputs.on(device)
        precision = precision_of(config.precision, device)
        return cls(
            config,
            inputs,
            METHODS[config.method],
            Context(config.seed, device, precision, cuda_graph.acceleration_of(config.accelerate, device)),
            on_device,
            on_device.teacher,
            on_device.teacher if config.gan.lambda_bn else on_device.fast_teacher,
            _bank(config, inputs, on_device),
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of generated images."""
        return generated_shape(self.config.gan, self.inputs.teacher.takes)

    def about(self) -> dict[str, str]:
        """Return what must be the same where a trial goes on, so that it gives the same bits."""
        return {
            "config": stable_hash(self.config),
            "teacher": self.inputs.teacher.hash,
            "torch": str(torch.__version__),
            "device": torch.device(self.context.device).type,
            "precision": self.context.precision,
        }

    def refuse_another(self, about: dict[str, str]) -> None:
        """Refuse the state of another trial, by what that one's `about` said.

        Raises:
            UserError: says what differs.
        """
        for what, own in self.about().items():
            if about.get(what) != own:
                raise UserError(
                    f"the trial's saved state is of {what} {about.get(what)!r}, but now it is {own!r}; "
                    "start the trial anew, without its state"
                )

    def untrained_student(self, name: str) -> nn.Module:
        """Return a student on the device, its weights from the random stream of the stage with this name."""
        student, teacher = self.config.student, self.inputs.teacher
        with self.context.seeded(name, "weights"):
            model = untrained(student.network, teacher.classes, student.width, student_input(self.config))
        channels_last(model.to(self.context.device))
        return model

    def student_size(self) -> dict[str, float]:
        """Return the goals that the student's network decides; none in the task `incremental`, where it is the teacher.

        It may be asked for at any time: no random stream moves.
        """
        if self.config.task == "incremental":
            return {}
        student = self.config.student
        return dict(size(student.network, self.inputs.teacher.classes, student.width, student_input(self.config)))

    def compare(self, student: nn.Module) -> banks.Compared:
        """Return what the bank says of a student, with the objective as `score` among the measures."""
        measures, by_class = self.bank.compare(student)
        if self.inputs.judged_on is not None:
            images, labels = (self.shared.moved(part) for part in self.inputs.judged_on)
            score = accuracy(predict(student, images), labels)
        else:
            score = measures[self.config.objective]
        return banks.Compared(measures | {"score": score}, by_class)


def _bank(config: TrialConfig, inputs: Inputs, on_device: Shared) -> banks.Bank:
    """Return the bank, with outputs over old and new classes for the task `incremental`."""
    images, logits = on_device.bank
    if config.task == "incremental":
        proxy = inputs.proxy
        labels = on_device.moved(proxy.labels_of(banked(config, proxy)))
        logits = incremental.bank_logits(logits, labels, len(proxy.classes))
    return banks.Bank(images, logits, inputs.bank_proxy_images)
