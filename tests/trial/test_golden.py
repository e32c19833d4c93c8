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
    "seed": 1,
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
    "d_loss": 1.275384136069,
    "g_loss": -3.830290335158,
    "adversarial": 0.9905216172384,
    "entropy": 0.6412310792787,
    "diversity": 1.092408606335,
    "effective_classes": 1.711599371753,
    "coverage": 0.3333333333333,
    "mean_entropy": 0.5374282385078,
    "distill_steps": 40,
    "gan_steps": 10,
    "agreement": 0.625,
    "balanced_agreement": 0.3333333333333,
    "balanced_soft_agreement": 0.2436100979161,
    "soft_agreement": 0.4558238975977,
    "holdout_agreement": 0.25,
    "infomax": 0.2100473645379,
    "snd": 1.33917679218,
    "mcc": 0.4614496635413,
    "sure_agreement": 0.160710609126,
    "score": 0.2436100979161,
    "student_parameters": 35225,
    "multiply_adds": 153132,
}
STUDENT = {
    "0.bias": 0.09896592006684,
    "0.weight": 4.221148459169,
    "11.bias": -0.07319977499204,
    "11.weight": 1.461554545171,
    "3.bias": 0.2197603191032,
    "3.weight": 8.662961471199,
    "7.bias": 1.208236315157,
    "7.weight": 84.99660529615,
    "9.bias": 1.34795506268,
    "9.weight": 21.10228864314,
}
"""Of each tensor, see `weights`."""
GENERATOR = {
    "11.weight": 2.752114608456,
    "12.bias": -0.003561662044939,
    "12.running_mean": 0.04410365768452,
    "12.running_var": 1.438200506369,
    "12.weight": 3.965427984427,
    "14.weight": 0.06573574420164,
    "2.weight": -10.87006734193,
    "3.bias": -0.3866696719873,
    "3.running_mean": 0.01383770444036,
    "3.running_var": 12.61663698549,
    "3.weight": 35.91789843128,
    "5.weight": 22.3268532889,
    "6.bias": -0.09193481638562,
    "6.running_mean": 0.7138951795684,
    "6.running_var": 6.743115471152,
    "6.weight": 17.93944493572,
    "8.weight": 7.114942404297,
    "9.bias": -0.05079474129858,
    "9.running_mean": 0.2212151203071,
    "9.running_var": 3.292419300731,
    "9.weight": 8.744028475369,
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
