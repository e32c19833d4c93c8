"""The settings of what a network takes: size, channels, and how pixels are scaled."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from degan_search.settings.values import Model

Side = Annotated[int, Field(ge=8, le=512)]


def _both(value: object) -> object:
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class InputConfig(Model):
    """What a network takes; None: as the network says, else 32x32 RGB in [-1, 1].

    Pixels in 0..1 are brought to `range`, then `mean` is taken off, and the rest divided by `std`; each of the two is a
    number for all channels, or one for each, in the network's order.
    """

    size: Annotated[tuple[Side, Side], BeforeValidator(_both)] | None = None
    """Height and width in pixels; one number for a square."""
    channels: Literal[1, 3] | None = None
    order: Literal["rgb", "bgr"] | None = None
    """Of the channels: `bgr`, blue before red, as OpenCV reads images."""
    normalise: Literal["signed", "unit", "imagenet"] | None = None
    """`signed`: [-1, 1]; `unit`: [0, 1]; `imagenet`: [0, 1], then torchvision's mean and deviation of each channel."""
    range: tuple[float, float] | None = None
    mean: Annotated[tuple[float, ...], Field(min_length=1, max_length=3)] | None = None
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=3)] | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        own = [name for name in ("range", "mean", "std") if getattr(self, name) is not None]
        if self.normalise and own:
            raise ValueError(f"normalise = {self.normalise!r} says {own[0]} already; give one of them")
        if self.range and not self.range[0] < self.range[1]:
            raise ValueError(f"range must ascend, got {list(self.range)}")
        return self
