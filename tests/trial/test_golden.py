"""A tiny DeGAN trial in float64, from the images' files to the ones it leaves: its numbers are written down here.

They change with seed streams, initial weights, losses, optimisers, orders and measures. In float64 they are the same on
every kind of CPU to 13 digits; in float32 a GAN soon turns differences of rounding into differences of images.
"""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from degan_search.data import images
from degan_search.settings.resolve import trial_config
from degan_search.system import device
from degan_search.trial import run_here

CONFIG = {
    "seed": 3,
    "teacher": {
        "network": "lenet",
        "width": 4,
        "fit": {"steps": 40, "steps_per_epoch": 10, "batch_size": 16, "lr": 0.01},
    },
    "student": {"network": "lenet_half", "width": 3},
    "gan": {"width": 3, "latent": 5, "batch_size": 8, "batch_of": "used", "steps": 10, "lambda_e": 1, "lr": 0.005},
    "distill": {"batch_size": 8, "steps": 40, "steps_per_epoch": 10, "score_images": 32, "pool": 32, "lr": 0.01},
    "probe": {"at": [3], "steps": 8, "batch_size": 8},
    "bank": {"proxy_images": 8, "generators": [[0, 5]], "generated_images": 8, "steps": 3},
}

MEASURED = {
    "d_loss": 0.6898450017469,
    "g_loss": -2.375939345653,
    "adversarial": 1.919006136428,
    "entropy": 0.7368408931478,
    "diversity": 1.006357275046,
    "effective_classes": 2.723621940285,
    "coverage": 0.3333333333333,
    "mean_entropy": 1.001962590214,
    "distill_steps": 40,
    "gan_steps": 10,
    "agreement": 0.5625,
    "balanced_agreement": 0.3333333333333,
    "balanced_soft_agreement": 0.4879835726077,
    "soft_agreement": 0.6443947911044,
    "holdout_agreement": 0.125,
    "infomax": 0.02797734818087,
    "snd": 1.796825369714,
    "mcc": 0.3367163497807,
    "sure_agreement": 0.4148645262764,
    "score": 0.4879835726077,
}
STUDENT = {
    "0.bias": 0.3211229544267,
    "0.weight": 3.674151613177,
    "11.bias": 0.1468336449358,
    "11.weight": -2.732310052593,
    "3.bias": 0.3057787337194,
    "3.weight": -3.578086490221,
    "7.bias": 0.4955448372058,
    "7.weight": -54.55242041176,
    "9.bias": -0.8142541535185,
    "9.weight": -20.40410900807,
}
"""Of each tensor, see `weights`."""
GENERATOR = {
    "11.weight": 6.275537060439,
    "12.bias": -0.101137701845,
    "12.running_mean": 0.2589630978357,
    "12.running_var": 1.490594688008,
    "12.weight": 4.032737909387,
    "14.weight": 0.1069176192523,
    "2.weight": 7.724930626507,
    "3.bias": -0.8596774331355,
    "3.running_mean": 0.0199800076507,
    "3.running_var": 12.61376066011,
    "3.weight": 35.97979183546,
    "5.weight": 25.73441813306,
    "6.bias": -0.4761113707261,
    "6.running_mean": 1.106565969083,
    "6.running_var": 6.686471136452,
    "6.weight": 17.82538648821,
    "8.weight": 13.56219439195,
    "9.bias": -0.3451404698032,
    "9.running_mean": 0.5626517931365,
    "9.running_var": 3.370015233369,
    "9.weight": 8.944099371564,
}


@pytest.fixture
def float64(monkeypatch):
    """Networks, noise and images in float64, on the CPU."""
    plain = images.normalise
    for name, module in list(sys.modules.items()):
        if name.startswith("degan_search") and getattr(module, "normalise", None) is plain:
            monkeypatch.setattr(module, "normalise", lambda given: given.double() / 127.5 - 1)
    monkeypatch.setattr(device, "choose_device", lambda *given: "cpu")
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def patterns(count, classes):
    """Images of stripes that no library draws, and their labels."""
    which = np.arange(count)[:, None, None]
    down, across, label = np.arange(32)[:, None], np.arange(32), which % classes
    brightness = (4 * (label * down + (classes - 1 - label) * across) + 37 * which) % 128 + 60 * label
    return brightness.astype(np.uint8), which.ravel() % classes


def weights(file):
    """One number for each of a network's tensors: their sum with weights of 1, 2, 1, 2 and so on."""
    tensors = {name: value for name, value in load_file(file).items() if value.is_floating_point()}
    assert {value.dtype for value in tensors.values()} == {torch.float64}
    return {name: float(value.sum() + value.flatten()[1::2].sum()) for name, value in tensors.items()}


def test_the_numbers_of_a_trial_are_those_written_down(float64, tmp_path):
    for name, (pictures, labels) in {"true": patterns(60, 3), "proxy": patterns(40, 4)}.items():
        np.savez(tmp_path / f"{name}.npz", images=pictures, labels=labels)
    own = {"proxy": f"npz:{tmp_path / 'proxy.npz'}", "teacher.dataset": f"npz:{tmp_path / 'true.npz'}"}
    found = run_here.run(trial_config(CONFIG, own), tmp_path / "out", tmp_path / "runs")
    measured = {name: value for name, value in found.items() if not name.endswith("seconds")}
    near = partial(pytest.approx, rel=1e-9, abs=1e-12)
    assert {name for name, value in measured.items() if value is None} == {"divergence", "bn_loss", "bn_distance"}
    assert {name: value for name, value in measured.items() if value is not None} == near(MEASURED)
    assert weights(tmp_path / "out/student.safetensors") == near(STUDENT)
    assert weights(tmp_path / "out/generator.safetensors") == near(GENERATOR)
