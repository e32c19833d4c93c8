"""The DCGAN: sizes, shapes, gradients, first weights."""

import pytest
import torch
from torch import nn

from degan_search.networks.dcgan import build_discriminator, build_generator
from tests.networks.models import count

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.parametrize(("channels", "generator", "discriminator"), [(3, 3573824, 2759424), (1, 3573696, 2757376)])
def test_dcgan_has_the_papers_parameter_counts(channels, generator, discriminator):
    assert count(build_generator(channels)) == generator
    assert count(build_discriminator(channels)) == discriminator


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [4, 6])
def test_dcgan_shapes_range_and_gradients(width, channels):
    generator, discriminator = build_generator(channels, width, latent=10), build_discriminator(channels, width)
    z = torch.randn(5, 10)
    fake = generator(z)
    logits = discriminator(fake)
    assert fake.shape == (5, channels, 32, 32)
    assert fake.abs().max() < 1
    assert logits.shape == (5,)
    logits.square().sum().backward()
    for model in (generator, discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    generator.eval()
    assert torch.equal(generator(z), generator(z[:, :, None, None]))


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_dcgan_initialisation(build):
    model = build(3).requires_grad_(False)
    convolutions = [m.weight for m in model if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
    for weights in (torch.cat([w.flatten() for w in convolutions]), convolutions[0], convolutions[1]):
        assert abs(weights.mean()) < 5 * 0.02 / weights.numel() ** 0.5
        assert weights.std() == pytest.approx(0.02, rel=5 / (2 * weights.numel()) ** 0.5)
    scales = torch.cat([m.weight for m in norms])
    assert abs(scales.mean() - 1) < 5 * 0.02 / len(scales) ** 0.5
    assert scales.std() == pytest.approx(0.02, rel=5 / (2 * len(scales)) ** 0.5)
    assert all((m.bias == 0).all() for m in norms)
