"""Some images of a proxy, to look at before anything is trained."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from degan_search.data import proxies
from degan_search.networks.image_input import ImageInput
from degan_search.system.errors import UserError

FEWEST = 20
"""Images that a proxy must have: two folds of a classifier and five neighbours need some."""


@dataclass(frozen=True, eq=False)
class Some:
    """Images of a proxy as the teacher takes them."""

    images: UInt8[np.ndarray, "n c h w"]
    total: int
    """How many the proxy has."""
    seconds: float
    """To load an image."""


def some_images(name: str, most: int, data_dir: Path | None, takes: ImageInput) -> Some:
    """Return at most so many images of a proxy; only these are decoded, where its number of images is soon known.

    Raises:
        UserError: fewer than `FEWEST`, or images that are not there.
    """
    total = proxies.size(name, data_dir)
    count = None if total is None else min(total, most)
    begun = time.perf_counter()
    loaded = proxies.load(name, "train", data_dir, count, size=takes.size, channels=takes.channels)
    seconds = (time.perf_counter() - begun) / len(loaded)
    total = len(loaded) if total is None else total
    drawn = loaded if len(loaded) <= most else loaded.sample(most, seed=0)
    if len(drawn) < FEWEST:
        raise UserError(f"proxy {name!r}: {len(drawn)} images are too few to measure; {FEWEST} are needed")
    return Some(drawn.images, total, seconds)
