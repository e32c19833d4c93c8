"""Which images of a set are wanted, and how large: known, and refused where they cannot fit, before one is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

import numpy as np

from degan_search.data.images import SIDES, SIZE, Fit, ImageSet, Labels, Size, class_rows, drawn_rows
from degan_search.system import memory, untrusted
from degan_search.system.errors import UserError


class Picked(NamedTuple):
    """The wanted images: ascending rows of the set, their labels, and the names of the classes that are left."""

    rows: np.ndarray
    labels: Labels | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What is asked of a set of images; by default all of them, as they are.

    Raises:
        UserError: a size outside SIDES, or an unknown fit.
    """

    classes: Sequence[str] | None = None
    count: int | None = None
    """So many, drawn without replacement, as equal in class as the set allows."""
    seed: int = 0
    """Of that draw."""
    size: Size | None = None
    """Height and width; None: the set's own, 32x32 for a user's folder or Parquet file."""
    fit: Fit = "crop"
    channels: int | None = None
    """1 (gray) or 3 (RGB); None: as they are."""
    name: str = ""
    """What messages call the set."""

    def __post_init__(self) -> None:
        if self.size is not None and (
            len(self.size) != 2 or any(type(side) is not int or side not in SIDES for side in self.size)
        ):
            raise UserError(
                f"size = {self.size}: images have a height and a width of {SIDES[0]} to {SIDES[-1]} pixels each"
            )
        if self.fit not in get_args(Fit):
            raise UserError(f"fit = {self.fit!r}; expected {' or '.join(get_args(Fit))}")

    @property
    def decoded(self) -> Size:
        """Height and width to which files of any size are decoded."""
        return self.size or (SIZE, SIZE)

    def pick(
        self,
        what: object,
        total: int,
        labels: Labels | None,
        classes: tuple[str, ...],
        channels: int = 3,
        size: Size | None = None,
    ) -> Picked:
        """Choose from `total` images with these labels and names of classes; `what` they are, if they have no name.

        `channels` and `size` are those with which they come into memory; without `size`, they are there or it is
        not known before.

        Raises:
            UserError: no such classes, fewer images than `count`, or more than memory holds.
        """
        name, rows = self.name or str(what), np.arange(total)
        if self.classes is not None:
            rows, labels, classes = class_rows(name, labels, classes, self.classes)
        if self.count is not None:
            drawn = drawn_rows(name, len(rows), labels, self.count, self.seed)
            rows, labels = rows[drawn], None if labels is None else labels[drawn]
        for own, into in ((channels, size), (self.channels or channels, self.size)):
            if into:
                check_fits(name, len(rows), (own, *into))
        return Picked(rows, labels, classes)

    def of(self, images: ImageSet) -> ImageSet:
        """The wanted images of a set that is in memory; raises as `pick`."""
        picked = self.pick(images.name, len(images), images.labels, images.classes, images.images.shape[1])
        kept = images.images if len(picked.rows) == len(images) else images.images[picked.rows]
        return ImageSet(images.name, kept, picked.labels, picked.classes)


EVERYTHING = Wanted()


def check_fits(what: object, count: int, shape: tuple[int, ...]) -> None:
    """Refuse `count` images uint8 [C, H, W] of this shape if a set may not be so large, or memory is too small.

    Memory is not asked about images of RGB 32x32 and below.

    Raises:
        UserError: names both numbers, how many images would fit, and of which size all would.
    """
    pixels, most, why = math.prod(shape), untrusted.SET_BYTES, "are read"
    if pixels > 3 * SIZE**2 and (free := memory.available()) is not None and free < most:
        most, why = free, f"fit into the {free:,} bytes of memory that are free"
    if count * pixels <= most:
        return
    side = math.isqrt(most // (count * shape[0]))
    ways = [f"count: {most // pixels}"] if most >= pixels else []
    ways += [f"a size of at most {side}x{side}"] if side in SIDES else []
    raise UserError(
        f"{what} has {count:,} images of {pixels:,} bytes each; at most {most // pixels:,} such "
        f"({' x '.join(map(str, shape))}) {why}{': ask for ' if ways else ''}{', or '.join(ways)}"
    )
