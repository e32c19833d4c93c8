"""Accuracy of finished students: on the held-out true images, and for final runs alone on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from degan_search import ledger
from degan_search import teacher as teachers
from degan_search.checkpoint import read_tensors
from degan_search.config import TeacherConfig, TrialConfig
from degan_search.data.synthetic import Split
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
    held_out: dict[TeacherConfig, _Judge] = {}
    test: dict[TeacherConfig, _Judge] = {}
    for _, row in waiting.iterrows():
        config = config_of(row)
        final = row["phase"] == Phase.FINAL
        if config.teacher not in held_out:
            held_out[config.teacher] = _Judge(config.teacher, data_dir, cache, "train")
        judges = {"oracle": held_out[config.teacher]}
        if final:
            if config.teacher not in test:
                test[config.teacher] = _Judge(config.teacher, data_dir, cache, "test")
            judges["test"] = test[config.teacher]
        student = load_student(run, str(row["trial_id"]), config, len(held_out[config.teacher].classes))
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
    """One part of the true images, on which students are scored."""

    def __init__(self, config: TeacherConfig, data_dir: Path | None, cache: Path, part: Split) -> None:
        true = teachers.true_images(config, data_dir, part)
        rows = true.held_out if part == "train" else slice(None)
        self.images = torch.tensor(true.images[rows])
        self.labels = torch.tensor(true.labels[rows])
        self.classes = true.classes
        train = true if part == "train" else teachers.true_images(config, data_dir)
        self.teacher_accuracy = self.accuracy(teachers.obtain(config, train, cache).model())

    def accuracy(self, model: nn.Module) -> float:
        return accuracy(predict(model, self.images), self.labels)
