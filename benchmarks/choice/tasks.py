"""The tasks of the bench: a teacher, the proxies that compete, and the weights that are tried on each."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig

LAMBDA_E = (0.0, 0.3, 1.0, 5.0)
LAMBDA_D = (0.0, 5.0, 20.0)
WEIGHTS = tuple(product(LAMBDA_E, LAMBDA_D))
"""(lambda_e, lambda_d) of each trial: (0, 0) is DCGAN, (0, 5) the released code's."""


@dataclass(frozen=True)
class Task:
    """A teacher with its proxies."""

    name: str
    settings: dict[str, Any]
    proxies: tuple[str, ...]
    judges: tuple[str, ...]
    """Embedded sets without an image of the teacher's classes, as further images to compare students on."""
    repeated: tuple[str, ...]
    """Proxies each of whose generators teaches three students."""

    def config(self, proxy: str, **changes: Any) -> TrialConfig:
        """Return the configuration of a trial; names of changes have `__` for a dot."""
        dotted = {name.replace("__", "."): value for name, value in changes.items()}
        return trial_config(self.settings, {"proxy": proxy}, dotted)


def _settings(teacher: dict[str, Any], student: dict[str, Any], steps: int, distill: int, count: int) -> dict[str, Any]:
    length = {"steps": distill, "steps_per_epoch": 200}
    return {
        "count": count,
        "precision": "float32",
        "teacher": teacher,
        "student": student,
        "gan": {"width": 16, "steps": steps, "batch_size": 32, "batch_of": "used", "lr": 0.0005},
        "distill": length | {"score_images": 1024, "pool_refresh": 0.25},
        "distill_images": length | {"batch_size": 64, "batch_of": "used"},
        "bank": {"steps": 150},
    }


def _glyphs(classes: str) -> dict[str, Any]:
    fit = {"steps": 1600, "epochs": 40, "patience": 5}
    teacher = {"dataset": f"glyphs/[{classes}]", "network": "lenet", "width": 12, "fit": fit}
    return _settings(teacher, {"network": "lenet", "width": 6}, steps=400, distill=800, count=5000)


LETTERS = Task(
    "letters",
    _glyphs("A-J"),
    ("glyphs/[K-Z]", "glyphs/[0-9]", "photos", "noise/uniform"),
    judges=(),
    repeated=("glyphs/[K-Z]", "photos"),
)
NUMERALS = Task(
    "numerals",
    _glyphs("0-9"),
    ("glyphs/[A-M]", "glyphs/[N-Z]", "photos", "noise/uniform"),
    judges=(),
    repeated=("glyphs/[A-M]",),
)
FASHION_MNIST = Task(
    "fashion_mnist",
    _settings(
        {"dataset": "fashion_mnist", "network": "lenet", "fit": {"steps": 7500, "epochs": 30, "patience": 5}},
        {"network": "lenet_half"},
        steps=400,
        distill=800,
        count=3000,
    ),
    ("cifar10", "cifar100/background_6", "glyphs", "noise/uniform"),
    judges=("photos",),
    repeated=("cifar10", "glyphs"),
)
CIFAR10 = Task(
    "cifar10",
    _settings(
        {"dataset": "cifar10", "network": "alexnet", "width": 12, "fit": {"steps": 6000, "epochs": 30, "patience": 5}},
        {"network": "alexnet_half", "width": 6},
        steps=500,
        distill=1200,
        count=3000,
    ),
    ("cifar100/related_90", "cifar100/random_10_sample_1", "cifar100/background_6", "noise/uniform"),
    judges=("photos", "glyphs"),
    repeated=("cifar100/background_6",),
)
TASKS = {task.name: task for task in (LETTERS, FASHION_MNIST, NUMERALS, CIFAR10)}
DEVELOPED_ON = ("letters", "fashion_mnist")
"""Criteria are developed on these tasks, and judged on the others."""
