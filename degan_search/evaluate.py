"""Measures of finished students that no searcher sees: their accuracy, and how they agree across trials."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from degan_search import cross, ledger, pipeline
from degan_search import teacher as teachers
from degan_search.config import TeacherConfig
from degan_search.finished import load_generator, load_student
from degan_search.metrics import predict
from degan_search.records import Phase, State, config_of, score_schema

TOGETHER = ["config_teacher_dataset", "teacher_hash", "config_proxy", "config_count"]
"""What search trials share that are compared with each other."""


def evaluate(run: Path, data_dir: Path | None, cache: Path) -> int:
    """Score every finished trial that lacks a score; return how many were scored.

    Oracle accuracy is that on the held-out 20% of the true training images, and on each half of it. It is
    computed here, apart from the search, so that no searcher can see it. Test accuracy is computed for
    trials of phase `final` only. The agreements of `cross.agreements` are computed anew for all search trials on
    a proxy once one of them has none.

    Args:
        run: the run's folder.
        data_dir: folder of the image sets.
        cache: folder of trained teachers.

    Raises:
        UserError: a network's file is missing or broken.
    """
    frame = ledger.load(run)
    done = frame[frame["state"] == State.COMPLETE]
    panels = _Panels(data_dir, cache)
    scores: dict[str, dict[str, Any]] = {}
    for _, row in done[done["oracle_half_1"].isna()].iterrows():
        scores[str(row["trial_id"])] = _accuracies(run, row, panels)
    for _, trials in done[done["phase"] == Phase.SEARCH].groupby(TOGETHER, dropna=False, sort=False):
        if trials["cross_agreement"].isna().any():
            for trial_id, agreements in _agreements(run, trials, panels).items():
                scores.setdefault(trial_id, {}).update(agreements)
    known = done.set_index("trial_id")[[name for name in score_schema().names if name in done and name != "trial_id"]]
    for trial_id, measured in scores.items():
        before = {str(name): value for name, value in known.loc[trial_id].items() if pd.notna(value)}
        ledger.write_scores(run, _row(trial_id, before | measured))
    return len(scores)


def _row(trial_id: str, scores: Mapping[str, Any]) -> dict[str, Any]:
    # Counts pass through pandas as floats.
    return {"trial_id": trial_id} | {
        name: int(value) if name.startswith("n_") else value for name, value in scores.items()
    }


def _accuracies(run: Path, row: pd.Series[Any], panels: _Panels) -> dict[str, Any]:
    config = config_of(row)
    panel = panels[config.teacher]
    student = load_student(run, str(row["trial_id"]), config, panel.classes)
    right = panel.oracle.right(student)
    scores = panel.oracle.scores("oracle", right)
    # Every other image: a set sorted by class is halved within each class.
    scores |= {f"oracle_half_{half + 1}": right[half::2].double().mean().item() for half in (0, 1)}
    if row["phase"] == Phase.FINAL:
        scores |= panel.test.scores("test", panel.test.right(student))
    return scores


def _agreements(run: Path, trials: pd.DataFrame, panels: _Panels) -> dict[str, cross.Scores]:
    first = config_of(trials.iloc[0])
    proxy = pipeline.load_proxy(first, panels.data_dir)
    panel = panels[first.teacher]
    competitors = []
    for _, row in trials.iterrows():
        trial_id, config = str(row["trial_id"]), config_of(row)
        has_generator = pipeline.METHODS[config.method].images is None
        competitors.append(
            cross.Competitor(
                trial_id,
                load_student(run, trial_id, config, panel.classes),
                load_generator(run, trial_id, config, proxy.images.shape[1]) if has_generator else None,
                config.gan.latent,
                config.seed,
            )
        )
    held_out = torch.from_numpy(proxy.images[proxy.held_out[: first.bank.proxy_images]])
    return cross.agreements(competitors, held_out, panel.teacher)


class _Judge:
    """Some true images, on which students and the teacher are scored."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, teacher: nn.Module) -> None:
        self.images, self.labels = torch.tensor(images), torch.tensor(labels)
        self.teacher_accuracy = self.right(teacher).double().mean().item()

    def right(self, model: nn.Module) -> Bool[Tensor, " n"]:
        """Return for each image whether its largest logit is the label's."""
        return predict(model, self.images).argmax(dim=1) == self.labels

    def scores(self, name: str, right: Bool[Tensor, " n"]) -> dict[str, Any]:
        return {
            f"{name}_accuracy": right.double().mean().item(),
            f"teacher_{name}_accuracy": self.teacher_accuracy,
            f"n_{name}": len(right),
        }


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


class _Panels(dict[TeacherConfig, _Panel]):
    """The panel of each teacher, made when it is first asked for."""

    def __init__(self, data_dir: Path | None, cache: Path) -> None:
        super().__init__()
        self.data_dir, self.cache = data_dir, cache

    def __missing__(self, config: TeacherConfig) -> _Panel:
        self[config] = _Panel(config, self.data_dir, self.cache)
        return self[config]
