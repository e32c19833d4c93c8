"""The DCGAN: sizes, shapes, gradients, first weights."""

import hashlib

import pytest
import torch
from torch import nn

from degan_search.networks.dcgan import SIZES, build_discriminator, build_generator
from degan_search.system.errors import UserError
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


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (build_generator, "fd88c892f4073318694c2fcf8cb8561b23a57161c4672cb14eda145d159c2859"),
        (build_discriminator, "2ca4b4c2a70043ceb2abb1e43dd387084c3cb6190512a50d903cce485a5bb9de"),
    ],
)
def test_names_and_weights_at_32_are_those_of_saved_networks(build, known):
    for more in ({}, {"size": 32}):
        torch.manual_seed(0)
        state = build(3, 6, **more).state_dict()
        found = hashlib.sha256(b"".join(name.encode() + value.numpy().tobytes() for name, value in state.items()))
        assert found.hexdigest() == known


@pytest.mark.parametrize("size", SIZES)
def test_depth_follows_the_size(size):
    generator, discriminator = build_generator(3, 2, 4, size), build_discriminator(3, 2, size)
    widths = {8: [4, 2], 16: [8, 4, 2], 32: [16, 8, 4, 2], 64: [16, 16, 8, 4, 2], 128: [16, 16, 16, 8, 4, 2]}
    widths[256] = [16, *widths[128]]
    assert [m.num_features for m in generator if isinstance(m, nn.BatchNorm2d)] == widths[size]
    assert [m.out_channels for m in discriminator if isinstance(m, nn.Conv2d)] == [*reversed(widths[size]), 1]
    fake = generator(torch.randn(2, 4))
    assert fake.shape == (2, 3, size, size)
    logits = discriminator(fake)
    assert logits.shape == (2,)
    logits.square().sum().backward()
    for model in (generator, discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("size", [4, 48, 512, 0])
@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_other_sizes_are_refused(build, size):
    with pytest.raises(UserError, match="must be one of 8, 16, 32, 64, 128, 256"):
        build(3, size=size)


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
