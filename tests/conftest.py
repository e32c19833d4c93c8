"""What the tests share: a tiny trial on scikit-learn's digits, and torch's settings put back after each test."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from s3_server import s3, s3_server  # noqa: F401  (fixtures)

from degan_search import ledger
from degan_search.ledger.columns import config_columns
from degan_search.networks.dcgan import build_generator
from degan_search.networks.table import build_classifier
from degan_search.settings.resolve import trial_config
from degan_search.settings.trial import TrialConfig
from degan_search.stages.teacher import obtain
from degan_search.stages.teacher_file import Teacher
from degan_search.stages.true_images import TrueImages, true_images
from degan_search.trial import inputs
from degan_search.trial.outcome import Outcome, save

settings.register_profile("project", deadline=None)  # no test asserts a time
settings.load_profile("project")

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
    "shots": 2,
    "zskd": {"images": 80, "iterations": 3, "batch_size": 40},
    "mosaic": {"batch_size": 8, "steps": 4, "student_steps": 2, "student_lr": 0.01},
    "incremental": {"batch_size": 8, "steps": 8, "lr": 0.01},
    "probe": {"steps": 4, "batch_size": 8},
    "bank": {"proxy_images": 8, "generators": [[0, 0], [0, 5]], "generated_images": 8},
}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Draw the same random numbers whatever tests ran before, in module's fixtures too."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """One thread, and after each test torch's own denormals and kernels; hypothesis needs denormals."""
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test vouches for stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def tiny() -> Callable[..., TrialConfig]:
    """Build a trial of a few steps, with changes laid over it."""
    return lambda *changes: trial_config(TINY, *changes)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of teachers and banks."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def true(tiny) -> TrueImages:
    """The tiny trial's true images."""
    return true_images(tiny().teacher, None)


@pytest.fixture(scope="session")
def teacher(tiny, true, store) -> Teacher:
    """The tiny trial's teacher."""
    return obtain(tiny().teacher, true, store)


@pytest.fixture(scope="session")
def prepare(store) -> Callable[[TrialConfig], inputs.Inputs]:
    """Prepare the inputs of a trial, with the shared cache."""
    return lambda config: inputs.prepare(config, None, store)


@pytest.fixture(scope="session")
def finished_run(tiny, teacher, store, tmp_path_factory) -> Path:
    """A run beside its teacher's cache: a `degan`, a `proxy` and a pruned trial, with weights that nobody trained.

    The generator of `search-0000` gives images of high contrast, of which the teacher sees several classes.
    """
    storage = tmp_path_factory.mktemp("storage")
    shutil.copytree(store, storage / "cache")
    run = storage / "digits"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(1, 2, 4)
        for layer in generator:
            layer.momentum = 1.0  # of BatchNorm: one batch gives its statistics
        generator(torch.randn(256, 4, 1, 1))
        student = build_classifier("lenet_half", 10, 2)
    generator[-2].weight.data.mul_(10)
    for trial_id, state, score, method in (
        ("search-0000", "COMPLETE", 0.5, "degan"),
        ("search-0001", "COMPLETE", 0.7, "proxy"),
        ("search-0002", "PRUNED", 0.9, "degan"),
    ):
        about = {"trial_id": trial_id, "attempt": 1, "phase": "search", "state": state, "score": score}
        ledger.write_row(run, about | {"teacher_hash": teacher.hash} | config_columns(tiny({"method": method})))
        if state == "COMPLETE":
            outcome = Outcome({}, student)
            if method == "degan":
                outcome.generator, outcome.samples = generator, torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
            save(outcome, run / "trials" / trial_id)
    ledger.write_scores(run, {"trial_id": "search-0000", "oracle_accuracy": 0.25})
    return run
