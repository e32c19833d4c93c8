"""What the tests of a trial share: tiny and short trials, banks, and a teacher that is a script."""

import numpy as np
import pytest
import torch

from degan_search.stages import teacher as teachers
from degan_search.trial import gan_stage
from degan_search.trial import inputs as trial_inputs
from degan_search.trial.trial import run as run_trial
from tests.trial.cut_trials import SHORT


@pytest.fixture(scope="module")
def run(tiny, prepare):
    """Run a tiny trial with some changes."""

    def run_(changes=None, report=None, **more):
        config = tiny(changes or {}, more)
        return run_trial(config, prepare(config), report)

    return run_


@pytest.fixture(scope="module")
def script(teacher, true, tiny, tmp_path_factory):
    """The tiny teacher as a TorchScript file; returns its settings and what `teachers.obtain` makes of it."""
    file = tmp_path_factory.mktemp("script") / "teacher.pt"
    torch.jit.trace(teacher.model(), torch.zeros(2, 1, 32, 32)).save(file)
    settings = {"teacher.path": str(file), "teacher.trusted": True}
    return settings, teachers.obtain(tiny(settings).teacher, true, file.parent)


@pytest.fixture
def own_proxy(tmp_path):
    """Write a proxy of the user's own; returns its name."""
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)

    def write(change=0):
        images[3, 4, 5] ^= change
        np.savez(tmp_path / "own.npz", images=images)
        return f"npz:{tmp_path / 'own.npz'}"

    return write


@pytest.fixture
def make_bank(tiny, store, tmp_path):
    """Prepare inputs with a cache of their own; returns them, how many generators were trained, and the files."""

    def make(changes, cache="banks"):
        trained = []

        def backwards(tasks):  # as side by side: in any order
            trained.extend(tasks)
            return [task() for task in tasks[::-1]][::-1]

        (loaded,) = trial_inputs.load([tiny(changes)], None, store)
        inputs = trial_inputs.gather(loaded, tmp_path / cache, run_all=backwards)
        return (
            inputs,
            len(trained),
            {path: path.stat().st_mtime_ns for path in (tmp_path / cache).glob("*.safetensors")},
        )

    return make


@pytest.fixture
def few_images(monkeypatch):
    """Measure the generator's statistics on fewer images than a trial does: a test then takes a third of the time."""
    monkeypatch.setattr(gan_stage, "STATISTICS_IMAGES", 32)


@pytest.fixture(scope="session")
def given(tiny, store):
    """The configuration and the inputs of a short trial."""

    def made(*changes):
        config = tiny(SHORT, *changes)
        return config, trial_inputs.prepare(config, None, store)

    return made
