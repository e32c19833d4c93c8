"""The contract of every kind of network: a whole trial without true data at each size, channels and normalisation."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from degan_search.networks.image_input import NORMALISATIONS
from degan_search.networks.table import build_classifier
from degan_search.products.student_formats import CheckBatch, Exported, Student
from degan_search.settings.resolve import trial_config
from degan_search.system.trust import TRUSTED
from degan_search.training.measures import predict
from degan_search.trial import gan_stage
from degan_search.trial.inputs import prepare
from degan_search.trial.trial import run

NET = """
from torch import nn
def build(classes, channels=3):
    layers = [nn.Conv2d(channels, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(16, classes))
"""
CLASSES = 3
SHORT = {
    "proxy": "photos",
    "count": 20,
    "proxy_fit": "stretch",
    "gan": {"width": 2, "latent": 4, "batch_size": 4, "batch_of": "used", "steps": 1, "lambda_e": 1},
    "distill": {"batch_size": 4, "steps": 1, "steps_per_epoch": 1, "score_images": 4, "pool": 4},
    "bank": {"proxy_images": 3, "generators": [[0, 0]], "generated_images": 3},
}


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """A network of each kind that tests can do without a download for."""
    file = tmp_path_factory.mktemp("own") / "net.py"
    file.write_text(NET)
    return {
        "built in": "lenet",
        "torchvision": "torchvision/squeezenet1_1",
        "deep torchvision": "torchvision/shufflenet_v2_x0_5",
        "code": f"{file}:build",
    }


CASES = itertools.product(["built in", "torchvision", "code"], [28, 32, 64, 96, 224], [1, 3], NORMALISATIONS)
DEEP = "deep torchvision", 64, 3, "imagenet"
"""With BatchNorm in 56 layers, of which an export takes seconds."""


@pytest.mark.parametrize(("kind", "size", "channels", "normalise"), [*CASES, DEEP])
def test_a_trial_and_its_export(kind, size, channels, normalise, names, tmp_path, monkeypatch):
    """A GAN step, a distillation step, a score, and an exported student that gives what the student gives."""
    monkeypatch.setenv(TRUSTED, "1")
    monkeypatch.setattr(gan_stage, "STATISTICS_IMAGES", 4)
    monkeypatch.setattr(gan_stage, "SAMPLES", 4)
    name, width = names[kind], 1 if kind == "built in" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_classifier(name, CLASSES, width, channels, (size, size))
    save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    takes = {"size": size, "channels": channels, "normalise": normalise}
    teacher = {"network": name, "width": width, "path": str(tmp_path / "teacher.safetensors"), "input": takes}
    config = trial_config(SHORT, {"teacher": teacher, "student": {"network": name, "width": width}})
    inputs = prepare(config, None, tmp_path)
    assert inputs.proxy.images.shape[1:] == (channels, size, size)
    assert (inputs.teacher.classes, inputs.teacher.holdout_accuracy) == (CLASSES, None)

    images = torch.from_numpy(inputs.proxy.images[:3])
    mean, std = (torch.tensor(values).reshape(-1, 1, 1)[:channels] for values in NORMALISATIONS[normalise])
    if channels == 3 or normalise != "imagenet":  # whose gray has a mean and deviation of its own
        with torch.no_grad():
            expected = model.eval()((images / 255 - mean) / std)
        torch.testing.assert_close(predict(inputs.teacher.model(), images), expected, rtol=1e-3, atol=1e-3)

    outcome = run(config, inputs)
    assert 0 <= outcome.metrics["score"] <= 1
    assert outcome.samples.shape[1:] == (channels, *2 * [{28: 16, 32: 32, 64: 64, 96: 64, 224: 128}[size]])

    student = Student(outcome.student, softmax=False).eval()
    with torch.no_grad():
        given = student(images).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = Exported(student, {}, CheckBatch(images.numpy(), given)).program().module()
    np.testing.assert_allclose(program(images).detach().numpy(), given, rtol=1e-3, atol=1e-4)
