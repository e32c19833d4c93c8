"""Reads images from folders and from NumPy archives, and decodes them within limits."""

import io
import math
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from degan_search.data.images import Images, ImageSet
from degan_search.system import untrusted
from degan_search.system.errors import UserError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may read a file as, whatever its name: some of its other formats run programs (EPS)."""
HEADER = 20_000  # bytes of an array's header at most; NumPy reads 10,000 characters
USER_SIZE = 32  # a user's own images may have any size; they are all brought to this one, in RGB


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


def check_count(what: object, count: int, pixels: int = 3 * USER_SIZE**2) -> None:
    """Raise UserError if `count` images of `pixels` bytes each are more than a set may have in memory."""
    if count * pixels > untrusted.SET_BYTES:
        most = untrusted.SET_BYTES // pixels
        raise UserError(f"{what} has {count:,} images of {pixels:,} bytes each; at most {most:,} such are read")


def decode(sources: Iterable[tuple[str, Path | IO[bytes]]], count: int, fit: bool) -> Images:
    """`count` image files, each with the name for an error, as one array [count, C, H, W].

    With `fit` each is cropped about its middle and scaled to 32x32 RGB; without, all must be like the first.
    Of an animation or of several pages the first is taken.

    Raises:
        UserError: an image cannot be read, is none of FORMATS, is too large (untrusted.IMAGE_BYTES, IMAGE_PIXELS),
            or has another size than the first; or they are too many.
    """
    images, i = np.empty((0, 0, 0, 0), np.uint8), -1
    for i, (name, source) in enumerate(sources):
        pixels = _pixels(name, source, fit)
        if i == 0:
            check_count(f"a set with {name}", count, pixels.size)
            images = np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != images.shape[1:]:
            raise UserError(f"{name} has shape {pixels.shape}; the images before it {images.shape[1:]}")
        images[i] = pixels
    if i + 1 != count:
        raise UserError(f"{count} images were announced, and {i + 1} are there")
    return images


def _pixels(name: str, source: Path | IO[bytes], fit: bool) -> np.ndarray:
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
        image = opened.convert("L" if opened.mode in ("1", "L") and not fit else "RGB")
        if fit:
            image = ImageOps.fit(image, (USER_SIZE, USER_SIZE), Image.Resampling.BILINEAR)
        return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder in sorted order: its own, or those of its subfolders (classes).

    Raises:
        UserError: no folder, no or too many images, a link that leads outside or nowhere, or a pipe or device.
    """
    if not os.path.isdir(folder):  # noqa: PTH112  (also False for a name that no file system allows)
        raise UserError(f"{folder} is not a folder; expected images, or one subfolder of images for each class")
    with reading(folder, "a folder of images"):
        inner = [place for place in folder.iterdir() if place.is_dir() and not place.name.startswith(".")]
        loose, nested = (_images_in(folder, places) for places in ([folder], inner))
        if bool(loose) == bool(nested):
            found = (
                "images both of its own and in subfolders" if loose else f"no images ({', '.join(sorted(SUFFIXES))})"
            )
            raise UserError(f"{folder} has {found}; expected images, or one subfolder of images for each class")
        files = loose or nested
        root = folder.resolve()
        for path in files:
            if not path.is_file():
                raise UserError(f"{path} is a folder, pipe, device or broken link; a plain file is needed")
            if not path.resolve().is_relative_to(root):
                raise UserError(f"{path} is a link to {path.resolve()}, outside {folder}; copy the image instead")
    return files


def _images_in(folder: Path, places: Sequence[Path]) -> list[Path]:
    found = (path for place in places for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    most = untrusted.SET_BYTES // (3 * USER_SIZE**2)
    files = sorted(islice(found, most + 1))
    check_count(folder, len(files))
    return files


def read_folder(folder: Path) -> ImageSet:
    """A user's folder as 32x32 RGB, labelled by subfolder in sorted order, or unlabelled if it has none.

    Raises:
        UserError: as `image_files`, or a broken image.
    """
    files = image_files(folder)
    images = decode(((str(path), path) for path in files), len(files), fit=True)
    if files[0].parent == folder:
        return ImageSet(str(folder), images, None, ())
    classes, labels = np.unique([path.parent.name for path in files], return_inverse=True)
    return ImageSet(str(folder), images, labels.astype(np.int64), tuple(classes.tolist()))


def read_npz(path: Path) -> ImageSet:
    """A NumPy archive: `images`, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3; `labels` [N] if any.

    Raises:
        UserError: no such archive, arrays of other names, kinds or shapes, or too much. No pickled object is read.
    """
    with (
        untrusted.open_file(path, str(path), untrusted.SET_BYTES) as file,
        reading(path, "a NumPy archive (.npz) of plain arrays"),
    ):
        contents = untrusted.check_zip(file, str(path), 2 * untrusted.SET_BYTES)
        with zipfile.ZipFile(file) as archive:
            if "images.npy" not in contents:
                found = ", ".join(name.removesuffix(".npy") for name in contents)
                raise UserError(f"{path} has the arrays {found}; expected images, and labels if there are any")
            images = _array(path, archive, "images")
            labels = _array(path, archive, "labels") if "labels.npy" in contents else None
    shape = list(images.shape)
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[3] in (1, 3):
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
        raise UserError(
            f"images of {path} is {images.dtype} {shape}; "
            "expected uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
        )
    if labels is None:
        return ImageSet(str(path), images, None, ())
    integers = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
    if not integers or not 0 <= labels.min() <= labels.max() < len(labels):
        raise UserError(
            f"labels of {path} is {labels.dtype} {list(labels.shape)}; expected class numbers 0, 1, ..., "
            f"one for each of the {len(images)} images"
        )
    return ImageSet(str(path), images, labels.astype(np.int64), tuple(map(str, range(int(labels.max()) + 1))))


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of an archive after checking its header, in which a few bytes can claim any size."""
    with archive.open(f"{name}.npy") as entry:
        header = io.BytesIO(entry.read(HEADER))
    version = np.lib.format.read_magic(header)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(header)
    size = math.prod(shape) * kind.itemsize
    if size > untrusted.SET_BYTES:
        raise UserError(f"{name} of {path} is {kind} {list(shape)}; at most {untrusted.SET_BYTES:,} bytes are read")
    with archive.open(f"{name}.npy") as entry:
        array: np.ndarray = np.lib.format.read_array(entry, allow_pickle=False)
    return array
