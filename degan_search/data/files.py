"""Decodes image files within limits."""

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from degan_search.data.depth import Depth
from degan_search.data.images import SIZE, Fit, Images, Size
from degan_search.data.wanted import check_fits
from degan_search.system import untrusted
from degan_search.system.errors import UserError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may read a file as, whatever its name: some of its other formats run programs (EPS)."""


@contextmanager
def reading(what: object, kind: str) -> Iterator[None]:
    """Turn any error inside the block into a UserError: libraries raise many kinds for broken files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what} cannot be read as {kind}: {error or repr(error)}") from error


def plain(name: str) -> str:
    """A class name as this project writes it: "T-shirt/top" and "T - shirt / top" are both t_shirt_top."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def most_images() -> int:
    """How many images of RGB 32x32 a set may have; of a larger number not even some are drawn."""
    return untrusted.SET_BYTES // (3 * SIZE**2)


def check_count(what: object, count: int) -> None:
    """Raise UserError if a set has more images than it may have."""
    if count > most_images():
        raise UserError(
            f"{what} has {count:,} images of {3 * SIZE**2:,} bytes each; at most {most_images():,} such are read"
        )


def decode(
    sources: Iterable[tuple[str, Path | IO[bytes]]],
    count: int,
    size: Size | None,
    fit: Fit = "crop",
    what: object = "",
    bits: int | None = None,
) -> Images:
    """`count` image files, each with the name for an error, as one array [count, C, H, W].

    With `size` each is brought to this height and width, in RGB: cropped about its middle first to keep its aspect
    ratio, unless `fit` is "stretch". Without, all must be like the first.
    Of an animation or of several pages the first is taken. Photographs are turned upright as their EXIF data say.
    What has more than 8 bits is scaled by its depth (`Depth`), which is `bits` where it is given; `what` names the set.

    Raises:
        UserError: an image cannot be read, is none of FORMATS, is too large (untrusted.IMAGE_BYTES, IMAGE_PIXELS),
            has another size than the first, or no known depth; or they are too many.
    """
    images, i, depth = np.empty((0, 0, 0, 0), np.uint8), -1, Depth(bits)
    for i, (name, source) in enumerate(sources):
        pixels = _pixels(name, source, size, fit, depth)
        if i == 0:
            check_fits(f"a set with {name}", count, pixels.shape)
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise UserError(f"{name} has shape {pixels.shape}; the images before it {images.shape[1:]}")
        images[i] = pixels
    if i + 1 != count:
        raise UserError(f"{count} images were announced, and {i + 1} are there")
    depth.check(what)
    return images


def _pixels(name: str, source: Path | IO[bytes], size: Size | None, fit: Fit, depth: Depth) -> np.ndarray:
    with ExitStack() as stack:
        if isinstance(source, Path):
            source = stack.enter_context(untrusted.open_file(source, name, untrusted.IMAGE_BYTES))
        stack.enter_context(reading(name, "an image"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # about oddities in a file that can still be read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        opened = stack.enter_context(Image.open(source, formats=FORMATS))
        if opened.width * opened.height > untrusted.IMAGE_PIXELS:
            limit = f"at most {untrusted.IMAGE_PIXELS:,} pixels are read"
            raise UserError(f"{name} has {opened.width:,} x {opened.height:,} pixels, a decompression bomb? {limit}")
        raw = str(opened.tile[:1])  # how the pixels are stored; empty once they are loaded
        opened.load()
        with suppress(Exception):  # EXIF data can be broken in many ways, and the image be whole
            ImageOps.exif_transpose(opened, in_place=True)
        gray = depth.gray(name, opened, raw) if opened.mode.startswith(("I", "F")) else opened
        image = gray.convert("L" if gray.mode in ("1", "L") and not size else "RGB")
        depth.see(image, raw)
        if size:
            scaled = ImageOps.fit if fit == "crop" else Image.Image.resize
            image = scaled(image, size[::-1], Image.Resampling.BILINEAR)
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
