"""Convolutions of small maps as matrix products, which a CPU computes faster in bf16 than it does the convolutions.

A kernel of 4x4 at stride 2 leaves a direct convolution little to do at each place where maps are of a few pixels, and
the gradient of its weights takes longest. Products of the same numbers, summed in float32 and rounded once as well, run
near the processor's peak (docs/results/2026-11-29-degan-step.md). In float32, and on a GPU, the layers are torch's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Maps = Float[Tensor, "n c h w"]
Rows = Float[Tensor, "pixels values"]

SMALL = 4
"""Pixels of a side of the smaller maps, input or output, up to which products are faster."""


class Halving(nn.Conv2d):
    """`nn.Conv2d` of kernel 4, stride 2, padding 1: maps of half the height and width; even sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1, bias=False)

    def forward(self, input: Maps) -> Maps:
        """Convolve; the result is channels_last if it is computed by products."""
        if not _by_products(input, max(input.shape[2:]) // 2):
            return super().forward(input)
        halved: Tensor = _Halve.apply(input, self.weight, self.bias)
        return halved


class Doubling(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of kernel 4, stride 2, padding 1: maps of twice the height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 4, 2, 1, bias=False)

    def forward(self, input: Maps, output_size: list[int] | None = None) -> Maps:
        """Convolve; the result is channels_last if it is computed by products."""
        if output_size is not None or not _by_products(input, max(input.shape[2:])):
            return super().forward(input, output_size)
        doubled: Tensor = _Double.apply(input, self.weight, self.bias)
        return doubled


class FromPixel(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` of inputs of one pixel: each becomes a map as large as the kernel."""

    def forward(self, input: Maps, output_size: list[int] | None = None) -> Maps:
        """Convolve; the result is channels_last if it is computed by a product."""
        if output_size is not None or not _by_products(input, max(input.shape[2:])):
            return super().forward(input, output_size)
        bias = None if self.bias is None else self.bias.repeat(self.kernel_size[0] * self.kernel_size[1])
        made = F.linear(input.flatten(1), _flat(self.weight).T, bias)
        return made.view(-1, *self.kernel_size, self.out_channels).permute(0, 3, 1, 2)


class ToPixel(nn.Conv2d):
    """`nn.Conv2d` of maps as large as its kernel: each becomes one pixel."""

    def forward(self, input: Maps) -> Maps:
        """Convolve."""
        if not _by_products(input, max(input.shape[2:])):
            return super().forward(input)
        return F.linear(_flat(input), _flat(self.weight), self.bias)[:, :, None, None]


def _by_products(maps: Maps, side: int) -> bool:
    """Return whether a layer whose smaller maps have this side is to be computed by products."""
    return (
        side <= SMALL
        and maps.is_cpu
        and maps.dtype != torch.float64  # which autocast leaves as it is
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


class _Halve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, large: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        large, weight = large.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(large, weight)
        count, _, height, width = large.shape
        return _halved(_patches(large), weight, bias, (count, height // 2, width // 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (small,), (large, weight) = gradients, ctx.saved_tensors
        needs = ctx.needs_input_grad
        return (
            _doubled(small, weight, None) if needs[0] else None,
            _weights(small, _patches(large)) if needs[1] else None,
            small.sum((0, 2, 3)) if needs[2] else None,
        )


class _Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, small: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        small, weight = small.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(small, weight)
        return _doubled(small, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (large,), (small, weight) = gradients, ctx.saved_tensors
        needs, patches = ctx.needs_input_grad, _patches(large)
        return (
            _halved(patches, weight, None, (len(small), *small.shape[2:])) if needs[0] else None,
            _weights(small, patches) if needs[1] else None,
            large.sum((0, 2, 3)) if needs[2] else None,
        )


def _halved(patches: Rows, weight: Maps, bias: Tensor | None, places: tuple[int, int, int]) -> Maps:
    """Return the convolution of maps, given as `_patches`, with weights [small's channels, large's channels, 4, 4].

    `places` are the number of images, then height and width of the result.
    """
    return F.linear(patches, _flat(weight), bias).view(*places, -1).permute(0, 3, 1, 2)


def _doubled(small: Maps, weight: Maps, bias: Tensor | None) -> Maps:
    """Return the transposed convolution of maps with weights [small's channels, large's channels, 4, 4].

    Even and odd rows, and likewise columns, of the result are apart: each pixel is a product of 2x2 of the small maps'
    with 2x2 of the kernel's.
    """
    count, channels, height, width = small.shape
    framed, (image, row, column) = _framed(small)
    large = small.new_empty(count, height, 2, width, 2, weight.shape[1])
    # A row lies between two small ones: an even row meets the upper one in the kernel's row 3 and the lower one in its
    # row 1, an odd row in 2 and 0. So it is with columns.
    taps = weight.permute(2, 3, 0, 1).reshape(2, 2, 2, 2, channels, -1)
    for odd in (0, 1):
        for right in (0, 1):
            places = (count, height, width, 2, 2 * channels), (image, row, column, row, 1), odd * row + right * column
            rows = framed.as_strided(*places).reshape(-1, 4 * channels)
            kernel = taps[:, 1 - odd, :, 1 - right].flip(0, 1).reshape(4 * channels, -1)
            large[:, :, odd, :, right] = F.linear(rows, kernel.T, bias).view(count, height, width, -1)
    return large.view(count, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def _weights(small: Maps, patches: Rows) -> Maps:
    """Return the gradient of weights [small's channels, large's channels, 4, 4].

    `patches` are the large maps'; these or the small maps are gradients.
    """
    pixels = small.permute(0, 2, 3, 1).reshape(-1, small.shape[1])
    return (pixels.T @ patches).view(small.shape[1], 4, 4, -1).permute(0, 3, 1, 2)


def _patches(maps: Maps) -> Rows:
    """Return the 4x4 pixels at each place of the kernel, [n * h / 2 * w / 2, 4 * 4 * c], as weights lie in memory."""
    count, channels, height, width = maps.shape
    framed, (image, row, column) = _framed(maps)
    places = (count, height // 2, width // 2, 4, 4 * channels), (image, 2 * row, 2 * column, row, 1)
    return framed.as_strided(*places).reshape(-1, 16 * channels)


def _framed(maps: Maps) -> tuple[Float[Tensor, "n h+2 w+2 c"], tuple[int, int, int]]:
    """Return maps with a frame of zeros, channels last, and the steps in memory to the next image, row and column."""
    count, channels, height, width = maps.shape
    framed = maps.new_zeros(count, height + 2, width + 2, channels)
    framed[:, 1:-1, 1:-1] = maps.permute(0, 2, 3, 1)
    image, row, column, _ = framed.stride()
    return framed, (image, row, column)


def _flat(maps: Maps) -> Rows:
    """Return each map, or the weights of each channel, as a row of pixels, the channels of a pixel together."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1)
