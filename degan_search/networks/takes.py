"""What the networks of a trial take, by its settings."""

from __future__ import annotations

from degan_search.networks.front import Classifier
from degan_search.networks.image_input import ImageInput, changed
from degan_search.networks.table import build_classifier, default_input
from degan_search.settings.trial import GanConfig, TeacherConfig, TrialConfig

LARGEST = 128
"""Height and width of generated images at most, where the settings do not say it."""


def teacher_input(config: TeacherConfig) -> ImageInput:
    """Return what a teacher takes: as `teacher.input` says, and what that leaves open as its network says.

    Raises:
        UserError: an unknown network, or settings that do not fit.
    """
    return changed(default_input(config.network), config.input, "teacher.input")


def student_input(config: TrialConfig) -> ImageInput:
    """Return what a trial's student takes: as `student.input` says, and what that leaves open as the teacher does.

    Raises:
        UserError: as `teacher_input`.
    """
    return changed(teacher_input(config.teacher), config.student.input, "student.input")


def generated_size(config: GanConfig, takes: ImageInput) -> int:
    """Return the height and width of generated images: `gan.size`, else by what the teacher takes."""
    return config.size or min(LARGEST, 2 ** (min(takes.size).bit_length() - 1))


def generated_shape(config: GanConfig, takes: ImageInput) -> tuple[int, int, int]:
    """Return the channels, which are the teacher's, height and width of generated images."""
    size = generated_size(config, takes)
    return takes.channels, size, size


def untrained(network: str, classes: int, width: int | None, takes: ImageInput) -> Classifier:
    """Return an untrained network behind its front; its weights are drawn from torch's default generator.

    Raises:
        UserError: as `build_classifier`.
    """
    return Classifier(build_classifier(network, classes, width, takes.channels, takes.size), takes)
