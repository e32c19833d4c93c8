"""Generators, students and sources of images for the tests of distillation."""

import torch
from torch import nn

from degan_search.networks.dcgan import build_generator
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig
from degan_search.stages.image_sources import GeneratorSource, ImageSource, MixedSource
from degan_search.system import seeds

LATENT = 4


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make_generator():
    """An untrained generator of images with contrast, as its BatchNorms know their inputs."""
    with seeds.seeded(0, "test maker"):
        made = build_generator(1, 2, LATENT)
    nn.init.normal_(made[-2].weight, 0.0, 2.0, generator=rng())
    for layer in made:
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        made(torch.randn(100, LATENT, 1, 1, generator=rng()))
    return made


def keys(batch):
    """Each image as bytes, to see which are the same."""
    return [image.numpy().tobytes() for image in batch]


def mixed_source(model, maker, images, share, real_batch, batch=8, **settings):
    config = DistillConfig(batch_size=batch, pool=32, **settings)
    generated = GeneratorSource(maker, LATENT, model, config)
    return MixedSource(generated, ImageSource(*images, model, real_batch, config), share)


class Constant(nn.Module):
    """Says one class of every image."""

    def __init__(self, label):
        super().__init__()
        self.logits = nn.Parameter(nn.functional.one_hot(torch.tensor(label), 10).float())

    def forward(self, x):
        return self.logits.expand(len(x), -1)


def make_student():
    with seeds.seeded(0, "student"):
        return build_classifier("lenet_half", 10, 2)
