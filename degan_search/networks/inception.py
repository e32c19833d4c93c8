"""Inception-V3 for small images: the CIFAR-100 teacher."""

from typing import Any

from torch import nn

SMALLEST = 9
"""Pixels of a side, of which every layer leaves one at least."""


def inception_v3(classes: int, channels: int, width: int, size: tuple[int, int] = (32, 32)) -> nn.Sequential:
    """Build Inception-V3 with `width` sixteenths of its published channels, all of which are multiples of 16.

    So width 16 is the published size and width 1 the smallest. The CIFAR variant of the paper's size: nothing
    is pooled before the first Inception block, whose pooling branches convolve 3x3 instead of 1x1, and there
    is no auxiliary classifier. Takes [N, channels, *size] in [-1, 1], of any size, gives
    logits [N, classes]. Weights are drawn from torch's default generator.
    """
    from torchvision.models import inception  # here, as it is slow to import and mostly not needed

    def convolution(inputs: int, outputs: int, **options: Any) -> nn.Module:
        block: nn.Module = inception.BasicConv2d(inputs * width // 16, outputs * width // 16, **options)
        return block

    def first_kind(inputs: int, pooled: int) -> nn.Module:
        block: nn.Module = inception.InceptionA(inputs, pooled, convolution)
        block.branch_pool = convolution(inputs, pooled, kernel_size=3, padding=1)
        return block

    return nn.Sequential(
        inception.BasicConv2d(channels, 2 * width, kernel_size=3, padding=1),
        convolution(32, 32, kernel_size=3, padding=1),
        convolution(32, 64, kernel_size=3, padding=1),
        convolution(64, 80, kernel_size=1),
        convolution(80, 192, kernel_size=3),  # leaves 30x30 of 32x32
        first_kind(192, pooled=32),
        first_kind(256, pooled=64),
        first_kind(288, pooled=64),
        inception.InceptionB(288, convolution),  # leaves 14x14
        inception.InceptionC(768, 128, convolution),
        inception.InceptionC(768, 160, convolution),
        inception.InceptionC(768, 160, convolution),
        inception.InceptionC(768, 192, convolution),
        inception.InceptionD(768, convolution),  # leaves 6x6
        inception.InceptionE(1280, convolution),
        inception.InceptionE(2048, convolution),
        nn.AdaptiveAvgPool2d(1),
        nn.Dropout2d(0.5),
        nn.Flatten(),
        nn.Linear(128 * width, classes),
    )
