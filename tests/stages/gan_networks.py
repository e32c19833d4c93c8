"""Small GANs, teachers, students and batches for the tests of a GAN."""

import torch
from torch import nn

from degan_search.networks.frozen import freeze
from degan_search.networks.table import build_classifier
from degan_search.settings.trial import DistillConfig, GanConfig
from degan_search.stages.gan import build
from degan_search.stages.gan_training import GanTraining
from degan_search.system import seeds
from degan_search.training.context import Context
from degan_search.training.loop import progress_of

LATENT, BATCH, CLASSES, LR, BETA1, BETA2 = 3, 6, 5, 2e-4, 0.5, 0.999


def config(lambda_e=0.0, lambda_d=5.0, **changes):
    return GanConfig(lambda_e=lambda_e, lambda_d=lambda_d, width=2, latent=LATENT, batch_size=BATCH, **changes)


def make_teacher(name="lenet", channels=1):
    with seeds.seeded(0, "test"):
        model = build_classifier(name, CLASSES, 2, channels)
    for parameter in model.parameters():
        parameter.data *= 3  # outputs that differ from image to image
    return model.eval()


def make_gan(lambda_e, lambda_d, teacher, channels=1, seed=1):
    gan = build(config(lambda_e, lambda_d), (channels, 32, 32), teacher, Context(seed))
    gan.generator[-2].weight.data *= 10  # images with contrast
    return gan


def batches(count, channels=1, dtype=torch.float64):
    rng = torch.Generator().manual_seed(2)
    for _ in range(count):
        real = torch.rand(BATCH, channels, 32, 32, generator=rng, dtype=torch.float64) * 2 - 1
        z = torch.randn(BATCH, LATENT, 1, 1, generator=rng, dtype=torch.float64)
        yield real.to(dtype), z.to(dtype)


class Untouchable(nn.Module):
    """A classifier that nobody may call."""

    def forward(self, x):
        raise AssertionError("the classifier was called")


DISTILLING = DistillConfig(lr=0.01, beta1=0.5, temperature=4.0)


def make_student(name="lenet_half", channels=1):
    with seeds.seeded(5, "test"):
        return build_classifier(name, CLASSES, 2, channels)


def normed_teacher(dtype=torch.float64):
    """An AlexNet whose BatchNorms keep the statistics of bright noise, and whose outputs differ."""
    with seeds.seeded(0, "test"):
        model = build_classifier("alexnet", CLASSES, 8, 3)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.momentum = 1.0
        with torch.no_grad():
            model(torch.rand(64, 3, 32, 32))
    model[-1].weight.data *= 5
    return freeze(model.to(dtype))


def trained(settings, seed=0, adversarial=True, student=None, teacher=None):
    gan = build(settings, (1, 32, 32), teacher or freeze(make_teacher()), Context(seed), adversarial, student)
    progress = list(progress_of(GanTraining(gan, proxy_images(), 20, Context(seed))))
    return torch.cat([value.flatten() for value in gan.generator.state_dict().values()]), progress


def proxy_images(count=20):
    return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
