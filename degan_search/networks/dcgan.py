"""The DCGAN (Radford et al. 2016), as deep as its images are large: generator and discriminator."""

from itertools import pairwise

from torch import nn

from degan_search.networks.products import Doubling, FromPixel, Halving, ToPixel
from degan_search.system.errors import UserError

SIZES = (8, 16, 32, 64, 128, 256)
"""Heights, which are widths too, of the images of a DCGAN; the paper's is 32."""


def build_generator(channels: int, width: int = 64, latent: int = 100, size: int = 32) -> nn.Module:
    """Build the generator: noise [N, latent] or [N, latent, 1, 1] to images [N, channels, size, size] in (-1, 1).

    `width` is the number of channels before the last layer; the paper's is 64. Weights are drawn from
    torch's default generator: convolutions N(0, 0.02), BatchNorm scale N(1, 0.02), shift 0.

    Raises:
        UserError: `size` is none of SIZES.
    """
    layers: list[nn.Module] = [nn.Flatten(), nn.Unflatten(1, (latent, 1, 1))]
    first, *widths = reversed(_widths(width, size))
    layers += [FromPixel(latent, first, 4, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)]
    for inputs, outputs in pairwise((first, *widths)):
        layers += [Doubling(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    last = nn.ConvTranspose2d(width, channels, 1, bias=False)
    return _initialised(nn.Sequential(*layers, last, nn.Tanh()))


def build_discriminator(channels: int, width: int = 64, size: int = 32) -> nn.Module:
    """Build the discriminator: images [N, channels, size, size] in [-1, 1] to logits [N] of being real.

    The paper's sigmoid is part of the losses. `width` is the number of channels after the first layer; the
    paper's is 64. Weights are drawn as the generator's.

    Raises:
        UserError: `size` is none of SIZES.
    """
    first, *widths = _widths(width, size)
    layers: list[nn.Module] = [Halving(channels, first), nn.LeakyReLU(0.2, inplace=True)]
    for inputs, outputs in pairwise((first, *widths)):
        layers += [Halving(inputs, outputs), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
    last = ToPixel((first, *widths)[-1], 1, 2, stride=2, bias=False)
    return _initialised(nn.Sequential(*layers, last, nn.Flatten(0)))


def _widths(width: int, size: int) -> list[int]:
    """Channels of the layers from the image's side on: each has twice as many as the one before, 8 * width at most."""
    if size not in SIZES:
        raise UserError(f"a DCGAN of {size}x{size} images: the size must be one of {', '.join(map(str, SIZES))}")
    return [min(2**level, 8) * width for level in range(SIZES.index(size) + 2)]


def _initialised(model: nn.Sequential) -> nn.Sequential:
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
    return model
