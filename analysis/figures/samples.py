"""Generated images beside proxy images, by the teacher's class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from degan_search.system.errors import UserError

SHOWN = 8
"""Images of a class on each side."""
CLASSES = 20
"""Classes shown at most: those of which there are most generated images."""
GAP = 2
"""Pixels between images."""
ROW = 0.42
"""Inches of a row."""


def samples_by_class(
    generated: UInt8[np.ndarray, "n c h w"],
    generated_classes: Int64[np.ndarray, " n"],
    proxy_images: UInt8[np.ndarray, "m c h w"],
    proxy_classes: Int64[np.ndarray, " m"],
    class_names: Sequence[str],
    about: str = "",
) -> Figure:
    """Return generated images beside proxy images, one row for each class of the teacher (`CLASSES` at most).

    The first `SHOWN` of each class; blank where the teacher puts no image there. Percentages are of all images
    given.

    Args:
        generated: what a generator makes.
        generated_classes: the class that the teacher gives each, 0..K-1.
        proxy_images: of the same channels and size.
        proxy_classes: the class that the teacher gives each.
        class_names: the K classes.
        about: a line above, such as which trial's they are.

    Raises:
        UserError: no images on either side.
    """
    if not len(generated) or not len(proxy_images):
        raise UserError(f"{len(generated)} generated and {len(proxy_images)} proxy images: some of each are needed")
    sides = (
        ("generated", generated, np.asarray(generated_classes)),
        ("proxy", proxy_images, np.asarray(proxy_classes)),
    )
    shown = np.sort(np.argsort(-np.bincount(generated_classes, minlength=len(class_names)), kind="stable")[:CLASSES])
    rows = len(shown)
    figure = Figure(figsize=(2 * SHOWN * ROW + 2.2, rows * ROW + 0.7), layout="constrained")
    for axes, (title, images, classes) in zip(figure.subplots(1, 2), sides, strict=True):
        _side(axes, [images[classes == index] for index in shown])
        axes.set_title(f"{title} images", fontsize=10)
        shares = [_share(float(np.mean(classes == index))) for index in shown]
        labels = [f"{name}  {share}" for name, share in zip(np.array(class_names)[shown], shares, strict=True)]
        step = images.shape[2] + GAP
        axes.set_yticks(np.arange(rows) * step + images.shape[2] / 2, labels if title == "generated" else shares)
    if about:
        figure.suptitle(about, fontsize=10)
    some = f" ({rows} of {len(class_names)})" * (rows < len(class_names))
    figure.supylabel(f"the teacher's class{some}, and its share of the images", fontsize=9)
    return figure


def _share(share: float) -> str:
    return "<1%" if 0 < share < 0.005 else f"{share:.0%}"


def _side(axes: Axes, rows: Sequence[np.ndarray]) -> None:
    height, width = rows[0].shape[2:]
    canvas = np.full((len(rows) * (height + GAP) - GAP, SHOWN * (width + GAP) - GAP, 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images[:SHOWN]):
            top, left = row * (height + GAP), column * (width + GAP)
            canvas[top : top + height, left : left + width] = np.moveaxis(image, 0, 2)  # gray broadcasts
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
