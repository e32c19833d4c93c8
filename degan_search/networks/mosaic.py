"""MosaicKD's generator, and its discriminator of patches (Fang et al. 2021), as in its released code."""

from jaxtyping import Float
from torch import Tensor, nn

SMALLER = 4
"""How many times smaller than an image the generator's first maps are, and the discriminator's last."""


class Signed(nn.Module):
    """The sigmoid, brought from pixels in (0, 1) to (-1, 1)."""

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return 2 sigmoid(x) - 1."""
        return x.sigmoid() * 2 - 1


def build_generator(channels: int, width: int = 64, latent: int = 100, size: int = 32) -> nn.Module:
    """Build the generator: noise [N, latent] or [N, latent, 1, 1] to images [N, channels, size, size] in (-1, 1).

    A linear layer, then twice as large by repeating pixels, with a convolution after each. `width` is the number of
    channels before the last layer; `size` a multiple of 4. Weights are drawn from torch's default generator, as torch
    draws them.
    """
    side = size // SMALLER
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(latent, 4 * width * side**2),
        nn.Unflatten(1, (4 * width, side, side)),
        nn.BatchNorm2d(4 * width),
        *(layer for inputs in (4 * width, 2 * width) for layer in _larger(inputs)),
        nn.Conv2d(width, channels, 3, padding=1),
        Signed(),
    )


def build_discriminator(channels: int, width: int = 128) -> nn.Module:
    """Build the discriminator: images [N, channels, H, W] in [-1, 1] to logits [N, 1, H / 4, W / 4] of being real.

    Each logit sees 10x10 pixels. `width` is the number of channels after the first layer. Weights are drawn as the
    generator's.
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * width, 1, 1, bias=False),
    )


def _larger(inputs: int) -> list[nn.Module]:
    outputs = inputs // 2
    return [
        nn.Upsample(scale_factor=2),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.2, inplace=True),
    ]
