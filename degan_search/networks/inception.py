"""Inception-V3 for small images: the CIFAR-100 teacher."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SMALLEST = 9
"""Pixels of a side, of which every layer leaves one at least."""


class InceptionD(nn.Module):
    """torchvision's block of this name, but for its pooling, which is by average as in the released code."""

    def __init__(self, inputs: int, convolution: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.branch3x3_1 = convolution(inputs, 192, kernel_size=1)
        self.branch3x3_2 = convolution(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = convolution(inputs, 192, kernel_size=1)
        self.branch7x7x3_2 = convolution(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = convolution(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = convolution(192, 192, kernel_size=3, stride=2)

    def forward(self, x: Float[Tensor, "n inputs h w"]) -> Float[Tensor, "n outputs h/2 w/2"]:
        """Halve height and width; the outputs are 320 + 192 channels (by the factor of the width) and the inputs."""
        narrow = self.branch3x3_2(self.branch3x3_1(x))
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([narrow, self.branch7x7x3_4(wide), F.avg_pool2d(x, kernel_size=3, stride=2)], dim=1)


def inception_v3(classes: int, channels: int, width: int, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """Build Inception-V3 with `width` sixteenths of its published channels, all of which are multiples of 16.

    So width 16 is the published size and width 1 the smallest. The CIFAR variant of the released code: nothing
    is pooled before the first Inception block, whose pooling branches convolve 3x3 instead of 1x1, there
    is no auxiliary classifier, and three more places differ from torchvision's (docs/paper.md). Takes
    [N, channels, *size] in [-1, 1], of any size, gives logits [N, classes]. Weights are drawn from torch's default
    generator.
    """
    from torchvision.models import inception  # here, as it is slow to import and mostly not needed

    def convolution(inputs: int, outputs: int, **options: Any) -> nn.Module:
        block: nn.Module = inception.BasicConv2d(inputs * width // 16, outputs * width // 16, **options)
        return block

    def first_kind(inputs: int, pooled: int) -> nn.Module:
        block: nn.Module = inception.InceptionA(inputs, pooled, convolution)
        block.branch_pool = convolution(inputs, pooled, kernel_size=3, padding=1)
        return block

    def third_kind(inputs: int, inner: int) -> nn.Module:
        block: nn.Module = inception.InceptionC(inputs, inner, convolution)
        block.branch7x7_2 = convolution(inner, inner, kernel_size=(7, 1), padding=(3, 0))
        block.branch7x7_3 = convolution(inner, 192, kernel_size=(1, 7), padding=(0, 3))
        return block

    model = nn.Sequential(
        inception.BasicConv2d(channels, 2 * width, kernel_size=3, padding=1),
        convolution(32, 32, kernel_size=3, padding=1),
        convolution(32, 64, kernel_size=3, padding=1),
        convolution(64, 80, kernel_size=1),
        convolution(80, 192, kernel_size=3),  # leaves 30x30 of 32x32
        first_kind(192, pooled=32),
        first_kind(256, pooled=64),
        first_kind(288, pooled=64),
        inception.InceptionB(288, convolution),  # leaves 14x14
        third_kind(768, 128),
        third_kind(768, 160),
        third_kind(768, 160),
        third_kind(768, 192),
        InceptionD(768, convolution),  # leaves 6x6
        inception.InceptionE(1280, convolution),
        inception.InceptionE(2048, convolution),
        nn.AdaptiveAvgPool2d(1),
        nn.Dropout2d(0.5),
        nn.Flatten(),
        nn.Linear(128 * width, classes),
    )
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 1e-5  # torchvision's is 1e-3
    return model
