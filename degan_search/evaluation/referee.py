"""The referee of final runs: how accurate a student is on the test images after each epoch, which moves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from degan_search.evaluation.judges import Panels
from degan_search.networks.takes import teacher_input
from degan_search.settings.resolve import stable_hash
from degan_search.settings.trial import TrialConfig
from degan_search.stages.true_images import LabelledImages
from degan_search.system.device import settled
from degan_search.training.measures import accuracy, predict
from degan_search.trial.images import tested_on
from degan_search.trial.trial import Referee


def referee(tested: LabelledImages, device: str) -> Referee:
    """Return what says how accurate a student is on these images, in [0, 1]; it leaves the student as it was."""
    images, labels = settled((torch.tensor(tested.images).to(device), torch.tensor(tested.labels).to(device)))

    def share_right(student: nn.Module) -> float:
        return accuracy(predict(student, images), labels)

    return share_right


def judged_images(configs: Iterable[TrialConfig], data_dir: Path | None, cache: Path) -> dict[str, LabelledImages]:
    """Return the test images that `accuracy.evaluate` measures final runs on, by `referee_key`.

    Args:
        configs: of the final runs; new classes' images follow those of the old ones.
        data_dir: folder of the image sets.
        cache: folder of trained teachers, those of the runs among them.

    Raises:
        UserError: the images are not there or broken.
    """
    panels = Panels(data_dir, cache)
    found: dict[str, LabelledImages] = {}
    for config in configs:
        if (key := referee_key(config)) not in found:
            judges = panels[config.teacher].judges(config, "test")
            images, labels = ([getattr(judge, part) for judge in judges] for part in ("images", "labels"))
            found[key] = LabelledImages(np.concatenate(images), np.concatenate(labels))
    return found


def referee_key(config: TrialConfig) -> str:
    """Return the name of the test images of a final run: runs of one key are tried on the same."""
    return stable_hash(config.task, config.proxy_fit, *teacher_input(config.teacher).shape, *tested_on(config))
