"""Which student to offer for a teacher: half of one that is built in, else a smaller network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from degan_search.data import proxies
from degan_search.networks.image_input import ImageInput
from degan_search.networks.own import scripted
from degan_search.networks.table import CLASSIFIERS, build_classifier, check_name, has_weights, is_builtin
from degan_search.networks.takes import teacher_input
from degan_search.settings.image_input import InputConfig
from degan_search.settings.resolve import flatten, merge, trial_config
from degan_search.settings.trial import StudentConfig, TeacherConfig
from degan_search.stages.own_teacher import own_teacher
from degan_search.stages.teacher_file import Teacher
from degan_search.system.errors import UserError, notice

AUTO = "auto"
"""The student's network that stands for the one that is offered."""
NETWORK, WIDTH = "student.network", "student.width"
SOME_CLASSES = 10
"""Classes by which networks are compared where the true images' are not known yet: it hardly changes which is smaller.
"""

CHOICES: tuple[tuple[str, int | None], ...] = (
    ("resnet18", 8),
    ("resnet18", 16),
    ("torchvision/shufflenet_v2_x0_5", None),
    ("torchvision/mobilenet_v3_small?width_mult=0.5", None),
    ("torchvision/mobilenet_v3_small", None),
    ("torchvision/mobilenet_v2", None),
    ("torchvision/resnet18", None),
)
"""Networks and widths to choose from, for a teacher that is not built in."""
LARGE = 64
"""Height and width from which the student that is offered takes smaller images than the teacher: half as high and wide,
at most `LARGE`. In a few hundred steps torchvision's small networks learn little: of MobileNetV3 the running statistics
lag behind, as they move by 1% at a step."""
OFFERED = ("resnet18", 16), ("resnet18", 8), ("lenet", 6)
"""What is offered, the first that has fewer parameters than the teacher."""


@dataclass(frozen=True)
class Choice:
    """A network that can be the student: its parameters for these classes and images."""

    student: StudentConfig
    parameters: int

    @property
    def name(self) -> str:
        """The network's name, with its width if that is set."""
        width, size = self.student.width, self.student.input.size
        images = f" on {size[0]}x{size[1]}" if size else ""
        return self.student.network + (f", width {width}" if width else "") + images


def offered(teacher: TeacherConfig, classes: int, parameters: int, script: bool = False) -> tuple[Choice, list[Choice]]:
    """Return the student to take where none is named, and others to choose from, all smaller than the teacher.

    Args:
        teacher: its settings.
        classes: how many it knows.
        parameters: of the teacher.
        script: whether the teacher is TorchScript, so that its network's name says nothing.

    Raises:
        UserError: no network here is smaller.
    """
    takes = teacher_input(teacher)
    if is_builtin(teacher.network) and not script:
        half = _half(teacher)
        return named(half.network, classes, takes, half.width), []
    smaller = [one for one in _tried(CHOICES, classes, takes) if one.parameters < parameters]
    large = min(takes.size) >= LARGE
    share = min(0.5, LARGE / max(takes.size))
    height, width = (max(8, round(share * side)) for side in takes.size)
    seen = replace(takes, height=height, width=width) if large else takes
    for one in _tried(OFFERED, classes, seen):
        if one.parameters < parameters:
            student = one.student.model_copy(update={"input": InputConfig(size=seen.size)}) if large else one.student
            return replace(one, student=student), [other for other in smaller if other.student != student]
    raise UserError(
        f"the teacher has {parameters:,} parameters, fewer than any student to offer: name a network of your own, as "
        "FILE.py:FUNCTION, or a built-in one with a small student.width"
    )


def with_student(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's settings, nested or dotted, with the student that is offered where its network is `auto`.

    A teacher's file is read for it. What the settings say of the student's input stays.

    Raises:
        UserError: a width beside `auto`; settings or a teacher that are wrong; or as `offered`.
    """
    given = merge({}, settings)
    known = dict(flatten(given))
    if known.get(NETWORK) != AUTO:
        return given
    if known.get(WIDTH) is not None:
        raise UserError(f"{WIDTH} = {known[WIDTH]!r} beside {NETWORK} {AUTO}, which chooses the width: leave it out")
    del given["student"]["network"]
    chosen = _offered_for(trial_config(given).teacher)
    notice(f"{NETWORK} {AUTO}: {chosen.name}, {chosen.parameters:,} parameters")
    student = chosen.student.model_dump(mode="json", exclude_defaults=True)
    return merge(given, {"student": student}, {"student": given["student"]})


def parameters_of(model: nn.Module, teacher: Teacher) -> int:
    """Return how many weights a teacher has; of a frozen script, which hides them, about how many its file holds."""
    return sum(weight.numel() for weight in model.parameters()) or len(teacher.data) // 4


def _offered_for(config: TeacherConfig) -> Choice:
    """Return the student to take for a teacher's settings alone; raises as `offered`, or as `own_teacher`."""
    if config.path:
        teacher = own_teacher(config, None, None)
        model = teacher.model()
        return offered(config, teacher.classes, parameters_of(model, teacher), scripted(model))[0]
    classes = len(proxies.classes_of(str(config.dataset)) or ()) or SOME_CLASSES
    whole = named(config.network, classes, teacher_input(config), config.width)
    return offered(config, classes, whole.parameters)[0]


def named(network: str, classes: int, takes: ImageInput, width: int | None = None) -> Choice:
    """Return a student by its network's name.

    Raises:
        UserError: an unknown network, a file of weights, or images that it does not take.
    """
    if has_weights(network):
        raise UserError(
            f"student {network!r} is a file of weights, and a student begins without any: name a network that is "
            "built in, torchvision/NAME or FILE.py:FUNCTION"
        )
    check_name(network, takes.channels, takes.size, width)
    return Choice(StudentConfig(network=network, width=width), _parameters(network, classes, takes, width))


def _half(teacher: TeacherConfig) -> StudentConfig:
    if teacher.width is None and (half := f"{teacher.network}_half") in CLASSIFIERS:
        return StudentConfig(network=half)
    width = teacher.width or CLASSIFIERS[teacher.network].width
    return StudentConfig(network=teacher.network, width=max(1, width // 2))


def _tried(choices: tuple[tuple[str, int | None], ...], classes: int, takes: ImageInput) -> list[Choice]:
    """Return the choices that take these images."""
    found = []
    for network, width in choices:
        try:
            found.append(named(network, classes, takes, width))
        except UserError:  # images that are too small, or a library that is not there
            continue
    return found


@lru_cache(maxsize=64)
def _parameters(network: str, classes: int, takes: ImageInput, width: int | None) -> int:
    device = "cpu" if ":" in network else "meta"  # the user's own code may compute with its weights
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = build_classifier(network, classes, width, takes.channels, takes.size)
    return sum(weight.numel() for weight in model.parameters())
