"""A finished trial's student for other programs, its preprocessing, class names and a check batch inside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from degan_search.data.images import Images
from degan_search.data.write import check_new, unfinished_path
from degan_search.evaluation import networks
from degan_search.ledger.columns import config_of
from degan_search.networks.image_input import ImageInput
from degan_search.networks.takes import student_input, teacher_input
from degan_search.products.student_formats import FORMATS, CheckBatch, Exported, Student
from degan_search.settings.criteria import DATA_FREE
from degan_search.settings.trial import TrialConfig
from degan_search.stages.own_teacher import own_teacher
from degan_search.stages.teacher_file import recorded
from degan_search.stages.true_images import true_images
from degan_search.storage.about import class_names
from degan_search.system import provenance, seeds, untrusted
from degan_search.system.errors import UserError, close_matches, notice
from degan_search.trial.images import load_proxy

MEASURES = ("score", "oracle_accuracy", "test_accuracy", "teacher_oracle_accuracy", "teacher_test_accuracy")
CHECKED = 8
"""Images of the check batch."""
TOLERANCE = 1e-4
"""Largest difference of outputs, as a share of the largest output if that is above 1: other kernels round otherwise."""


@dataclass(frozen=True)
class Checked:
    """What trying a student's file on its check batch gave."""

    images: int
    difference: float
    """Of an output from the expected one, the largest; NaN where a file gives NaN."""
    allowed: float

    @property
    def passes(self) -> bool:
        """Whether the file still gives what it gave when it was written."""
        return self.difference <= self.allowed


def _classes(run: Path, teacher: str, config: TrialConfig, data_dir: Path | None) -> tuple[str, ...]:
    """Return the names of the student's classes, in the order of its outputs.

    An older run does not tell the teacher's: they are those of the true images, or of the teacher's file.
    """
    classes = class_names(run, teacher)
    if classes is None:
        true = true_images(config.teacher, data_dir)
        classes = true.classes if true else own_teacher(recorded(config.teacher), None, None).class_names
    return classes + load_proxy(config, data_dir).classes if config.task == "incremental" else classes


def _preprocessing(takes: ImageInput, network: ImageInput, fit: str) -> dict[str, Any]:
    """Return what the file does with pixels, and how images get to its size before: words and numbers.

    The file takes what the teacher takes, whose place it fills; inside, the student's network may take smaller images.
    """
    how = "the shorter side scaled, then a centre crop" if fit == "crop" else "each side scaled by itself"
    turned = ", red and blue exchanged" if network.bgr else ""
    return {
        "inside": f"resized to {network.height}x{network.width} if need be{turned}, then (pixels / 255 - mean) / std",
        "mean": list(network.mean),
        "std": list(network.std),
        "channels": takes.channels,
        "size": list(takes.size),
        "resize": f"before, by you, as in training: bilinear with antialias, {how}; "
        + ("RGB to gray by ITU-R 601 luma" if takes.channels == 1 else "gray to RGB by repeating"),
    }


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
    classes = _classes(run, str(row["teacher_hash"]), config, data_dir)
    return Found(row, config, networks.load_student(run, str(row["trial_id"]), config, len(classes)), classes)


def export_student(
    run: Path,
    trial: str | None,
    out: Path,
    softmax: bool = False,
    data_dir: Path | None = None,
    kind: str | None = None,
) -> pd.Series:
    """Write a trial's student to `out` and return the trial's ledger row.

    It takes uint8 [N, C, H, W], pixels 0..255, for any N >= 1 and gives logits [N, K]. With it come about.json
    (class names, preprocessing, measures, configuration) and a check batch, which is tried before `out` appears.

    Args:
        run: the run's folder.
        trial: its id, "best" for that of the best score, or None where only one has a student.
        out: a new file or folder.
        softmax: give probabilities in place of logits.
        data_dir: folder of the image sets; the check images are the proxy's.
        kind: a key of FORMATS; None: the one whose suffix `out` has.

    Raises:
        UserError: `out` is already there or has an unknown ending, a library is missing, no such trial, or one without
            a student, or with a student that the format cannot hold.
        OSError: the disk refused; nothing is visible then.
    """
    kind = kind or _kind_of(out)
    if kind not in FORMATS:
        raise UserError(f"no format {kind!r}; {close_matches(kind, FORMATS)}")
    FORMATS[kind].check_libraries()
    check_new(out)
    found = find_student(run, trial, data_dir)
    row = found.row
    exported = _exported(run, found, softmax, data_dir)
    with unfinished_path(out) as unfinished:
        try:
            FORMATS[kind].write(unfinished, exported)
        except OSError:
            raise
        except Exception as error:  # torch's exporters raise many kinds
            raise UserError(f"{row['trial_id']} cannot be written as {kind}: {_first_line(error)}") from error
        checked = check(unfinished)
        if not checked.passes:
            raise UserError(
                f"{row['trial_id']} as {kind} gives other outputs than itself: {checked.difference:.2g} off"
            )
    return row


def check(path: Path) -> Checked:
    """Load an exported student, of any format, and try it on the check batch that it holds.

    The format is seen by the content. Loading `torch.export` programs may run code: this is for the user's own files.

    Raises:
        UserError: no such file, or none that this project wrote; a library is missing.
    """
    kind = _kind_inside(path)
    FORMATS[kind].check_libraries()
    try:
        loaded = FORMATS[kind].load(path)
        batch = loaded.check
        outputs = [run(batch.images) for run in loaded.runs]
        differences = [float(np.abs(output - batch.outputs).max()) for output in outputs]
    except UserError:
        raise
    except Exception as error:  # torch's and onnxruntime's loaders raise many kinds
        raise UserError(f"{path} is no whole student as export-student writes it: {_first_line(error)}") from None
    allowed = TOLERANCE * max(1.0, float(np.abs(batch.outputs).max()))
    return Checked(len(batch.images), float(np.max(differences)), allowed)


def _exported(run: Path, found: Found, softmax: bool, data_dir: Path | None) -> Exported:
    """Return a trial's student with all that is written of it."""
    row, config, classes, takes = found.row, found.config, found.classes, teacher_input(found.config.teacher)
    student = Student(found.student, softmax).eval()
    images, source = _check_images(config, data_dir, takes)
    with torch.no_grad():
        outputs = student(torch.from_numpy(images)).numpy()
    about: dict[str, Any] = {
        "input": f"uint8 [N, {', '.join(map(str, takes.shape))}], pixels 0..255",
        "preprocessing": _preprocessing(takes, student_input(config), config.proxy_fit),
        "output": f"{'probabilities' if softmax else 'logits'} [N, {len(classes)}]",
        "classes": classes,
        "network": config.student.network,
        "teacher": {"network": config.teacher.network, "hash": _known(row["teacher_hash"])},
        **{name: _known(row[name]) for name in MEASURES},
        "agreement": {name: _known(row[name]) for name in DATA_FREE},
        "check": f"{len(images)} images of {source}",
        "run": run.resolve().name,
        "trial_id": row["trial_id"],
        "config": config.model_dump(mode="json"),
        "versions": provenance.provenance()["versions"],
    }
    return Exported(student, about, CheckBatch(images, outputs))


def _check_images(config: TrialConfig, data_dir: Path | None, takes: ImageInput) -> tuple[Images, str]:
    """Return images for the check batch and where they are from: the proxy, or noise where the proxy is not there."""
    try:
        proxy = load_proxy(config, data_dir)
    except UserError as error:
        notice(f"the check images are noise, as the proxy's cannot be read: {error}")
        rng = seeds.generator(0, "export", "check")
        return torch.randint(0, 256, (CHECKED, *takes.shape), dtype=torch.uint8, generator=rng).numpy(), "noise"
    rows = proxy.held_out if len(proxy.held_out) else proxy.train
    return proxy.images[rows[:CHECKED]], f"the proxy {config.proxy}"


def _kind_of(out: Path) -> str:
    for kind, known in FORMATS.items():
        if out.suffix == known.suffix:
            return kind
    endings = ", ".join(known.suffix for known in FORMATS.values() if known.suffix)
    raise UserError(f"{out} must end in one of {endings}, or for a folder in none; or say --format {'|'.join(FORMATS)}")


def _kind_inside(path: Path) -> str:
    if path.is_dir():
        return "folder"
    with untrusted.open_file(path, str(path), untrusted.MODEL_BYTES) as file:
        return "pt2" if file.read(2) == b"PK" else "onnx"  # the first letters of zip archives


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value if isinstance(value, str) else float(value)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
