"""What a network takes: its size in pixels, channels, and the mean and deviation that bring pixels to its range."""

from __future__ import annotations

from dataclasses import dataclass

from degan_search.settings.image_input import InputConfig
from degan_search.system.errors import UserError

NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "signed": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and deviation of each channel by name: [-1, 1], [0, 1], and what torchvision's networks take."""
GRAY = (0.299, 0.587, 0.114)
"""Weights of ITU-R 601 luma."""


@dataclass(frozen=True)
class ImageInput:
    """What a network takes: (pixel - mean) / std, of pixels in 0..1, for each channel."""

    height: int = 32
    width: int = 32
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def signed(self) -> bool:
        """Whether pixels are brought to [-1, 1]."""
        return set(self.mean) == {0.5} and set(self.std) == {0.5}


def changed(known: ImageInput, config: InputConfig, what: str) -> ImageInput:
    """Return what a network takes where settings say it otherwise.

    Args:
        known: what it takes if they say nothing.
        config: the settings.
        what: names them in messages, such as teacher.input.

    Raises:
        UserError: as many means or deviations as there are no channels.
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
    return ImageInput(
        height, width, channels, _each(mean, channels, f"{what}.mean"), _each(std, channels, f"{what}.std")
    )


def _each(values: tuple[float, ...], channels: int, what: str) -> tuple[float, ...]:
    """Return a value for each channel; three of RGB become that of gray where the network takes one."""
    if len(values) == channels:
        return values
    if len(set(values)) == 1:
        return values[:1] * channels
    if len(values) == 3 and channels == 1:
        return (sum(weight * value for weight, value in zip(GRAY, values, strict=True)),)
    raise UserError(f"{what} has {len(values)} numbers for {channels} channels; give one for all, or one for each")
