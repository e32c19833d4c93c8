"""What a classifier takes: how large its images are, how many channels they have, and how pixels become numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from degan_search.settings.image_input import InputConfig
from degan_search.system.errors import UserError

NORMALISATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each channel, over pixels in 0..1, by the name that settings give it."""

GRAY = (0.299, 0.587, 0.114)
"""Weights of ITU-R 601 luma."""


@dataclass(frozen=True)
class ImageInput:
    """The images that a network takes: it is given `(pixel / 255 - mean) / std`, channel by channel."""

    height: int = 32
    width: int = 32
    channels: int = 3
    mean: tuple[float, ...] = NORMALISATIONS["signed"][0]
    std: tuple[float, ...] = NORMALISATIONS["signed"][1]
    bgr: bool = False
    """Whether blue comes before red; mean and std are in this order, too."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def signed(self) -> bool:
        """Whether the network is given exactly [-1, 1]."""
        return set(self.mean) | set(self.std) == {0.5}


def signed(channels: int, size: tuple[int, int] = (32, 32)) -> ImageInput:
    """Return the input of images in [-1, 1]."""
    return ImageInput(*size, channels, (0.5,) * channels, (0.5,) * channels)


def of_config(config: dict[str, Any], what: str) -> ImageInput:
    """Return the input that a configuration in timm's manner tells: `input_size`, `mean`, `std`; others are ignored.

    Raises:
        UserError: the size is none; `what` names its place.
    """
    channels, size = of_size(config.get("input_size", 32), what)
    mean, std = config.get("mean"), config.get("std")
    given = signed(channels, size)
    if mean is None or std is None or len(mean) != channels or len(std) != channels:
        return given
    return ImageInput(*size, channels, tuple(map(float, mean)), tuple(map(float, std)))


def of_size(size: Any, what: str) -> tuple[int, tuple[int, int]]:
    """Return channels (3 if not told) and (height, width) of a number, (height, width) or (channels, height, width).

    Raises:
        UserError: it is none of these; `what` names its place.
    """
    given = [size, size] if isinstance(size, int) else size
    if not isinstance(given, Sequence) or len(given) not in (2, 3) or not all(_counts(one) for one in given):
        raise UserError(f"{what}: input_size is {size!r}; it must be a number of pixels or [height, width]")
    *channels, height, width = given
    return (channels[0] if channels else 3), (height, width)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def changed(known: ImageInput, config: InputConfig, what: str) -> ImageInput:
    """Return what a network takes where settings say it otherwise.

    Args:
        known: what it takes if they say nothing.
        config: the settings.
        what: names them in messages, such as teacher.input.

    Raises:
        UserError: as many means or deviations as there are no channels, or an order of a single one.
    """
    height, width = config.size or known.size
    channels = config.channels or known.channels
    mean, std = known.mean, known.std
    if config.normalise:
        mean, std = NORMALISATIONS[config.normalise]
    elif config.range or config.mean or config.std:
        low, high = config.range or (0.0, 1.0)
        span = high - low
        mean = tuple((value - low) / span for value in config.mean or (0.0,))
        std = tuple(value / span for value in config.std or (1.0,))
    means, stds = _each(mean, channels, f"{what}.mean"), _each(std, channels, f"{what}.std")
    if config.order == "bgr" and channels == 1:
        raise UserError(f"{what}.order = 'bgr' needs 3 channels, and there is 1: leave it out")
    bgr = config.order == "bgr" if config.order else known.bgr
    return ImageInput(height, width, channels, means, stds, bgr and channels == 3)


def _each(values: tuple[float, ...], channels: int, what: str) -> tuple[float, ...]:
    """Return a value for each channel; three of RGB become that of gray where the network takes one."""
    if len(values) == channels:
        return values
    if len(set(values)) == 1:
        return values[:1] * channels
    if len(values) == 3 and channels == 1:
        return (sum(weight * value for weight, value in zip(GRAY, values, strict=True)),)
    raise UserError(f"{what} has {len(values)} numbers for {channels} channels; give one for all, or one for each")
