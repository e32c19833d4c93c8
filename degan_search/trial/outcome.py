"""What a trial reports while it runs, and what it leaves: its measures, its networks, and their files."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor, nn

from degan_search.storage.layout import EARLY, GENERATOR, STUDENT
from degan_search.system.weights_file import tensors_bytes
from degan_search.system.whole_files import write_bytes


@dataclass(frozen=True)
class Event:
    """A report of a running trial: its stage, the step, of how many, and what was measured there, if anything."""

    stage: str
    step: int
    of: int | None
    seconds: float
    gan_steps: int = 0
    """Steps of the GAN done."""
    metrics: dict[str, float] = field(default_factory=dict)
    """With `score` (higher is better) at a rung and at the end."""
    class_agreement: tuple[float | None, ...] | None = None
    """At the end: agreement with the teacher in each class; None in it for a class of which the bank has no image."""


@dataclass
class Outcome:
    """What a finished trial leaves: its measures, the student, and the generator and samples if it made images."""

    metrics: dict[str, float]
    student: nn.Module
    generator: nn.Module | None = None
    samples: UInt8[Tensor, "n c h w"] | None = None
    class_agreement: tuple[float | None, ...] | None = None
    """As the last event's."""
    early: dict[str, Tensor] | None = None
    """The generator's state after half of its steps, where generators are combined."""


def files(outcome: Outcome) -> dict[str, bytes]:
    """Return what is kept of an outcome by file name: the student, and if any the generator and a grid of samples."""
    kept = {STUDENT: tensors_bytes(outcome.student.state_dict())}
    if outcome.generator is not None:
        kept[GENERATOR] = tensors_bytes(outcome.generator.state_dict())
    if outcome.early is not None:
        kept[EARLY] = tensors_bytes(outcome.early)
    if outcome.samples is not None:
        kept["samples.png"] = sample_grid(outcome.samples)
    return kept


def save(outcome: Outcome, folder: Path) -> None:
    """Write an outcome's files, each atomically.

    Raises:
        OSError: the disk refused.
    """
    for name, data in files(outcome).items():
        write_bytes(folder / name, data)


def sample_grid(images: UInt8[Tensor, "n c h w"], columns: int = 8, zoom: int = 2) -> bytes:
    """Return a PNG with the images in rows."""
    # Here, as torchvision brings torch's compiler with it, which takes a second to load.
    from torchvision.transforms.v2.functional import to_pil_image
    from torchvision.utils import make_grid

    grid = to_pil_image(make_grid(images, nrow=columns, padding=2, pad_value=255))
    buffer = io.BytesIO()
    grid.resize((grid.width * zoom, grid.height * zoom), resample=0).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
