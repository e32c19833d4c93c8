"""Accuracy of finished students: on the held-out true images, and for final runs alone on the test split."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from degan_search import ledger
from degan_search import teacher as teachers
from degan_search.checkpoint import read_tensors
from degan_search.config import TeacherConfig, TrialConfig
from degan_search.errors import UserError
from degan_search.metrics import accuracy, predict
from degan_search.networks.table import build_classifier
from degan_search.records import Phase, State, config_of


def evaluate(run: Path, data_dir: Path | None, cache: Path) -> int:
    """Score every finished trial that has no accuracy yet; return how many.

    Oracle accuracy is that on the held-out 20% of the true training images. It is computed here, apart from
    the search, so that no searcher can see it. Test accuracy is computed for trials of phase `final` only.

    Args:
        run: the run's folder.
        data_dir: folder of the image sets.
        cache: folder of trained teachers.

    Raises:
        UserError: a student's file is missing or broken.
    """
    frame = ledger.load(run)
    waiting = frame[(frame["state"] == State.COMPLETE) & frame["oracle_accuracy"].isna()]
    panels: dict[TeacherConfig, _Panel] = {}
    for _, row in waiting.iterrows():
        config = config_of(row)
        if config.teacher not in panels:
            panels[config.teacher] = _Panel(config.teacher, data_dir, cache)
        panel = panels[config.teacher]
        judges = {"oracle": panel.oracle}
        if row["phase"] == Phase.FINAL:
            judges["test"] = panel.test
        student = load_student(run, str(row["trial_id"]), config, panel.classes)
        scores: dict[str, Any] = {"trial_id": row["trial_id"]}
        for name, judge in judges.items():
            scores |= {
                f"{name}_accuracy": judge.accuracy(student),
                f"teacher_{name}_accuracy": judge.teacher_accuracy,
                f"n_{name}": len(judge.labels),
            }
        ledger.write_scores(run, scores)
    return len(waiting)


def load_student(run: Path, trial_id: str, config: TrialConfig, classes: int) -> nn.Module:
    """Return a finished trial's student, in eval mode.

    Raises:
        UserError: its file is missing or broken.
    """
    file = run / "trials" / trial_id / "student.safetensors"
    if not file.is_file():
        raise UserError(f"{file} is missing: the accuracy of {trial_id} cannot be measured")
    channels = teachers.channels(config.teacher)
    student = build_classifier(config.student.network, classes, config.student.width, channels)
    student.load_state_dict(read_tensors(file.read_bytes(), str(file)))
    return student.eval()


class _Judge:
    """Some true images, on which students and the teacher are scored."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, teacher: nn.Module) -> None:
        self.images, self.labels = torch.tensor(images), torch.tensor(labels)
        self.teacher_accuracy = self.accuracy(teacher)

    def accuracy(self, model: nn.Module) -> float:
        return accuracy(predict(model, self.images), self.labels)


class _Panel:
    """A teacher's judges: the held-out images, and the test images, which are read when a final run asks for them."""

    def __init__(self, config: TeacherConfig, data_dir: Path | None, cache: Path) -> None:
        self.config, self.data_dir = config, data_dir
        true = teachers.true_images(config, data_dir)
        self.classes = len(true.classes)
        self.teacher = teachers.obtain(config, true, cache).model()
        self.oracle = _Judge(true.images[true.held_out], true.labels[true.held_out], self.teacher)

    @cached_property
    def test(self) -> _Judge:
        true = teachers.true_images(self.config, self.data_dir, "test")
        return _Judge(true.images, true.labels, self.teacher)
