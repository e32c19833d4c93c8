"""What the tests share: a tiny trial on scikit-learn's digits, and torch's settings put back after each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from degan_search import pipeline
from degan_search import teacher as teachers
from degan_search.config import TrialConfig, trial_config

TINY = {
    "proxy": "digits",
    "count": 60,
    "teacher": {
        "dataset": "digits",
        "network": "lenet",
        "width": 4,
        "count": 400,
        "fit": {"steps": 300, "epochs": 20, "batch_size": 16, "lr": 3e-3},
    },
    "student": {"network": "lenet_half", "width": 2},
    "gan": {"width": 2, "latent": 4, "batch_size": 8, "steps": 12, "lr": 0.05},
    "distill": {"batch_size": 8, "steps": 8, "steps_per_epoch": 4, "score_images": 32, "pool": 32},
    "distill_images": {"batch_size": 8, "steps": 8},
    "probe": {"steps": 4, "batch_size": 8},
    "bank": {"proxy_images": 8, "generators": [[0, 0], [0, 5]], "generated_images": 8},
}


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """One thread; denormals and kernels as torch has them, whatever a test sets up: hypothesis needs denormals."""
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrialConfig]:
    """Build a trial of a few steps, with changes laid over it."""
    return lambda *changes: trial_config(TINY, *changes)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of teachers and banks."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def true(tiny) -> teachers.TrueImages:
    """The tiny trial's true images."""
    return teachers.true_images(tiny().teacher, None)


@pytest.fixture(scope="session")
def teacher(tiny, true, store) -> teachers.Teacher:
    """The tiny trial's teacher."""
    return teachers.obtain(tiny().teacher, true, store)


@pytest.fixture(scope="session")
def prepare(true, teacher, store) -> Callable[[TrialConfig], pipeline.Inputs]:
    """What a trial with the tiny teacher is given."""

    def made(config: TrialConfig) -> pipeline.Inputs:
        proxy = pipeline.load_proxy(config, None)
        pipeline.check_size(config, proxy)
        return pipeline.prepare(config, proxy, true, teacher, store)

    return made
