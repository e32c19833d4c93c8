"""A set of images in memory, and the conversions that every stage shares."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from degan_search.system.errors import UserError, close_matches

Images = UInt8[np.ndarray, "n c h w"]
Labels = Int64[np.ndarray, "n"]
Size = tuple[int, int]
"""Height and width."""
SIZE = 32  # height and width where nothing else is said
SIDES = range(8, 513)
"""Heights and widths that images may be brought to."""
Fit = Literal["crop", "stretch"]
"""How images of another shape are brought to a size: their middle in its aspect ratio, or all of them, distorted."""
CHUNK = 4096  # images of 32x32 converted at a time, of larger ones as many pixels, so that float copies stay small


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels: uint8 [N, C, H, W]; int64 [N] in 0..K-1, or None; K class names, or ()."""

    name: str
    images: Images
    labels: Labels | None
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at these indices, in this order; the classes stay."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def select(self, classes: Sequence[str]) -> "ImageSet":
        """The images of these classes, relabelled 0..k-1 in the set's own order of classes.

        Raises:
            UserError: the set has no labels, or none of its classes has one of the names.
        """
        rows, labels, kept = class_rows(self.name, self.labels, self.classes, classes)
        return ImageSet(self.name, self.images[rows], labels, kept)

    def sample(self, count: int, seed: int) -> "ImageSet":
        """`count` images without replacement, as equal in class as the set allows, in the set's order.

        Raises:
            UserError: count is below 1 or above the number of images.
        """
        return self.take(drawn_rows(self.name, len(self), self.labels, count, seed))


class CountError(UserError):
    """A number of images was asked for that the `images` that there are cannot give."""

    def __init__(self, message: str, images: int = 0) -> None:
        super().__init__(message)
        self.images = images


def class_rows(
    name: str, labels: Labels | None, known: Sequence[str], wanted: Sequence[str]
) -> tuple[np.ndarray, Labels, tuple[str, ...]]:
    """The rows of a set that are of these classes, their labels 0..k-1 in the set's own order, and those classes.

    Raises:
        UserError: the set has no labels, or none of its classes has one of the names.
    """
    if labels is None:
        raise UserError(f"{name} has no classes, so {', '.join(wanted)} cannot be selected from it")
    for one in wanted:
        if one not in known:
            raise UserError(f"{name} has no class {one!r}; {close_matches(one, known)}")
    kept = [label for label, one in enumerate(known) if one in wanted]
    rows = np.flatnonzero(np.isin(labels, kept))
    return rows, np.searchsorted(kept, labels[rows]).astype(np.int64), tuple(known[label] for label in kept)


def drawn_rows(name: str, total: int, labels: Labels | None, count: int, seed: int) -> np.ndarray:
    """Ascending rows of `count` of `total` images, drawn without replacement, as equal in class as there are any.

    Raises:
        CountError: count is below 1 or above the number of images.
    """
    if not 1 <= count <= total:
        raise CountError(f"{name} has {total} images; count must be 1 to that, not {count}", total)
    drawn = np.random.default_rng(seed).permutation(total)
    if labels is not None:
        # Every class's first image, then every class's second, and so on until there are enough.
        by_class = drawn[np.argsort(labels[drawn], kind="stable")]
        sizes = np.bincount(labels)
        turn = np.empty(total, np.int64)
        turn[by_class] = np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        drawn = drawn[np.argsort(turn[drawn], kind="stable")]
    return np.sort(drawn[:count])


def chunks(count: int, height: int, width: int) -> Iterator[slice]:
    """Slices of `count` images of this size, each of which may be copied as floats."""
    step = max(1, CHUNK * SIZE**2 // max(SIZE**2, height * width))
    return (slice(start, start + step) for start in range(0, count, step))


def luma(images: Images) -> Images:
    """RGB [N, 3, H, W] to gray [N, 1, H, W] by ITU-R 601, bit by bit what Pillow's mode "L" gives."""
    red, green, blue = (images[:, channel].astype(np.uint32) for channel in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[:, None]


def resize(images: Images, size: Size) -> Images:
    """Images brought to [N, C, height, width], bilinear with antialias; their aspect ratio may change."""
    scaled = torch.nn.functional.interpolate(
        torch.tensor(images, dtype=torch.float32), size, mode="bilinear", antialias=True
    )
    return scaled.round().clamp(0, 255).to(torch.uint8).numpy()


def _middle(images: Images, size: Size) -> Images:
    """The largest part about the middle with the aspect ratio of `size`, to a pixel; a view."""
    height, width = images.shape[2:]
    rows = min(height, max(1, round(width * size[0] / size[1])))
    columns = min(width, max(1, round(height * size[1] / size[0])))
    top, left = (height - rows) // 2, (width - columns) // 2
    return images[:, :, top : top + rows, left : left + columns]


def to_input(images: Images, channels: int, size: Size = (SIZE, SIZE), fit: Fit = "crop") -> Images:
    """Images as a network takes them: uint8 [N, channels, height, width]; the same array if they are so already.

    RGB turns to gray by ITU-R 601 luma, gray to RGB by repeating; resizing is bilinear with antialias. Images of
    another aspect ratio than `size` are first cropped about their middle, unless `fit` is "stretch".

    Raises:
        UserError: the images have, or channels asks for, neither 1 nor 3 channels.
    """
    for what, number in (("images have", images.shape[1]), ("network takes", channels)):
        if number not in (1, 3):
            raise UserError(f"the {what} {number} channels; 1 (gray) and 3 (RGB) are possible")
    size = (size[0], size[1])  # from a list, too
    if images.shape[1:] == (channels, *size):
        return images
    result = np.empty((len(images), channels, *size), np.uint8)
    source = _middle(images, size) if fit == "crop" else images
    for part in chunks(len(images), max(size[0], source.shape[2]), max(size[1], source.shape[3])):
        chunk = source[part]
        if channels < chunk.shape[1]:
            chunk = luma(chunk)
        if chunk.shape[2:] != size:
            chunk = resize(chunk, size)
        result[part] = chunk  # broadcasting repeats gray
    return result


def normalise(images: UInt8[Tensor, "..."]) -> Float32[Tensor, "..."]:
    """Pixels 0..255 to [-1, 1], the range of the generator's tanh, on the tensor's device."""
    return images.to(torch.float32) / 127.5 - 1


def denormalise(images: Float32[Tensor, "..."]) -> UInt8[Tensor, "..."]:
    """Pixels in [-1, 1] back to 0..255, rounded; what lies outside is clipped."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def augment(images: Float32[Tensor, "n c h w"], rng: torch.Generator, padding: int = 4) -> Float32[Tensor, "n c h w"]:
    """Images in [-1, 1], each shifted by up to `padding` pixels either way (black comes in), half of them mirrored.

    The crop and flip that CIFAR classifiers are commonly trained with. `rng` is on the images' device.
    """
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4, value=-1.0)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=rng, device=images.device)
    mirrored = torch.rand(count, 1, generator=rng, device=images.device) < 0.5
    rows = top + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device)
    columns = left + torch.where(mirrored, across.flip(0), across)
    each = torch.arange(count, device=images.device)[:, None, None]
    # Indices around the channels' slice put the channels last.
    return padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def split(count: int, holdout: float, seed: int) -> tuple[Labels, Labels]:
    """Shuffled indices of `count` images: to train on, and the held-out share (the paper's is 0.2), none if it is 0.

    Raises:
        UserError: one of the two parts would be empty.
    """
    held = round(count * holdout)
    if held >= count or (held <= 0 and holdout != 0):
        raise UserError(f"holding out {holdout} of {count} images leaves {count - held} to train on, {held} held out")
    order = np.random.default_rng(seed).permutation(count)
    return order[held:], order[:held]


def split_by_content(images: Images, holdout: float) -> tuple[Labels, Labels]:
    """Shuffled indices as `split` gives, but each image is held out or not by a hash of its pixels alone.

    So an image of several sets that overlap is held out of all of them, or of none. The shares are near `holdout`.

    Raises:
        UserError: one of the two parts would be empty.
    """
    places = np.array([int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=4).digest()) for image in images])
    order = places.argsort(kind="stable")
    held = int(np.count_nonzero(places < holdout * 2**32))
    if not 0 < held < len(images):
        raise UserError(f"holding out {holdout} of {len(images)} images leaves none on one side; take more images")
    return order[held:], order[:held]
