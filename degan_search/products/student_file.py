"""A finished trial's student as one file for other programs: torch.export, its preprocessing inside."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from degan_search.data.images import normalise
from degan_search.data.write import check_new, unfinished_path
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_of
from degan_search.networks import table
from degan_search.settings.trial import TrialConfig
from degan_search.stages import teacher as teachers
from degan_search.system import provenance
from degan_search.system.errors import UserError
from degan_search.trial.images import load_proxy

ABOUT = "about.json"
"""The extra file in the archive: classes, input, output, accuracy, configuration."""
SUFFIX = ".pt2"
MEASURES = ("score", "oracle_accuracy", "test_accuracy", "teacher_oracle_accuracy", "teacher_test_accuracy")


class Student(nn.Module):
    """A student that takes bytes: pixels 0..255 are brought to [-1, 1] first."""

    def __init__(self, student: nn.Module, softmax: bool) -> None:
        super().__init__()
        self.student, self.softmax = student.requires_grad_(False), softmax

    def forward(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """Return logits, or with `softmax` probabilities."""
        logits: Tensor = self.student(normalise(images))
        return logits.softmax(dim=1) if self.softmax else logits


@dataclass(frozen=True)
class Found:
    """A finished trial's student and what belongs to it."""

    row: pd.Series
    """The trial's, of the ledger."""
    config: TrialConfig
    student: nn.Module
    """As `networks.load_student` returns it."""
    classes: tuple[str, ...]


def find_student(run: Path, trial: str | None, data_dir: Path | None = None) -> Found:
    """Return a trial's student with its classes; arguments as of `export_student`.

    Raises:
        UserError: no such trial, one without a student, or true images that are not there.
    """
    row = networks.find(run, trial, "student")
    config = config_of(row)
    classes = teachers.true_images(config.teacher, data_dir).classes
    if config.task == "incremental":
        classes += load_proxy(config, data_dir).classes
    student = networks.load_student(run, str(row["trial_id"]), config, len(classes))
    return Found(row, config, student, classes)


def export_student(
    run: Path, trial: str | None, out: Path, softmax: bool = False, data_dir: Path | None = None
) -> pd.Series:
    """Write a trial's student to `out` and return the trial's ledger row.

    The file holds a `torch.export` program, uint8 [N, C, 32, 32] for any N >= 1 to logits [N, K], which needs torch
    alone to run, and as the extra file ABOUT the class names, accuracies and configuration.

    Args:
        run: the run's folder.
        trial: its id, "best" for that of the best score, or None where only one has a student.
        out: a new file ending in SUFFIX.
        softmax: give probabilities in place of logits.
        data_dir: folder of the image sets; the class names are the true set's.

    Raises:
        UserError: a file that is already there or has another ending, no such trial, or one without a student.
        OSError: the disk refused; nothing is visible then.
    """
    if out.suffix != SUFFIX:
        raise UserError(f"{out} must end in {SUFFIX}, as files of torch.export do")
    check_new(out)
    found = find_student(run, trial, data_dir)
    row, config, classes = found.row, found.config, found.classes
    shape = (table.channels(config.teacher.network), 32, 32)
    about: dict[str, Any] = {
        "input": f"uint8 [N, {', '.join(map(str, shape))}], pixels 0..255",
        "output": f"{'probabilities' if softmax else 'logits'} [N, {len(classes)}]",
        "classes": classes,
        **{name: None if pd.isna(row[name]) else float(row[name]) for name in MEASURES},
        "run": run.resolve().name,
        "trial_id": row["trial_id"],
        "config": config.model_dump(mode="json"),
        "versions": provenance.provenance()["versions"],
    }
    example = torch.zeros(2, *shape, dtype=torch.uint8)  # one image would fix N to 1
    sizes = {"images": {0: torch.export.Dim("n", min=1)}}
    program = torch.export.export(Student(found.student, softmax).eval(), (example,), dynamic_shapes=sizes)
    with unfinished_path(out) as unfinished:
        torch.export.save(program, unfinished, extra_files={ABOUT: json.dumps(about, indent=1)})
    return row
