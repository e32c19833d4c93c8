"""Reads images from NumPy archives: this project's own, MedMNIST's, Keras's, or arrays that the user names."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from degan_search.data.choice import PLAIN, Choice
from degan_search.data.depth import Depth
from degan_search.data.files import reading
from degan_search.data.images import SIZE, ImageSet, Labels
from degan_search.data.wanted import EVERYTHING, Wanted
from degan_search.system import memory, untrusted
from degan_search.system.errors import UserError

HEADER = 20_000  # bytes of an array's header at most; NumPy reads 10,000 characters
SPLITS = ("train", "val", "test")
LAYOUTS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))
"""Names of the arrays of a split: MedMNIST's, Keras's."""
CLASSES_BYTES = 16 * 2**20
"""Most bytes of the class names of an archive."""
CLASSES = 1000
"""A class number may be as high as this in a set of few images; in a larger one it may be as high as their number."""
_LAYOUT = "expected images, and labels if there are any"


def read_npz(path: Path, choice: Choice = PLAIN, wanted: Wanted = EVERYTHING) -> ImageSet:
    """A NumPy archive: `images`, uint8 or uint16 [N, H, W], [N, H, W, C] or [N, C, H, W] with C 1 or 3; `labels`.

    Labels are class numbers, [N] or [N, 1]; `classes`, if text, names them. PATH/train, /val and /test are the splits
    of an archive with `train_images` and `train_labels`, or `x_train` and `y_train`; PATH alone is the only one.

    Raises:
        UserError: no such archive, arrays of other names, kinds or shapes, several splits, images of an unknown depth,
            or too much. No pickled object is read.
    """
    file_path, split = (path.parent, path.name) if not path.is_file() and path.parent.is_file() else (path, None)
    with (
        untrusted.open_file(file_path, str(file_path), untrusted.SET_BYTES) as file,
        reading(file_path, "a NumPy archive (.npz) of plain arrays"),
    ):
        contents = untrusted.check_zip(file, str(file_path), 2 * untrusted.SET_BYTES)
        names = [name.removesuffix(".npy") for name in contents]
        with zipfile.ZipFile(file) as zipped:
            archive = _Archive(file_path, zipped, names)
            image, label, related = archive.choose(split, choice)
            images = archive.images(image, choice.bits)
            labels = None if label is None else archive.labels(label, len(images))
            if labels is None:
                return wanted.of(ImageSet(str(path), images, None, ()))
            highest = max([int(labels.max(initial=0)), *map(archive.highest_label, related)])
            named = archive.class_names()
    classes = named if named and len(named) > highest else tuple(map(str, range(highest + 1)))
    return wanted.of(ImageSet(str(path), images, labels, classes))


def count(path: Path, choice: Choice = PLAIN) -> int:
    """The number of images in an archive; raises as `read_npz`."""
    return len(read_npz(path, choice))


class _Archive:
    """An open archive: its arrays, each checked before it is read."""

    def __init__(self, path: Path, file: zipfile.ZipFile, names: list[str]) -> None:
        self.path, self.file, self.names = path, file, names

    def choose(self, split: str | None, choice: Choice) -> tuple[str, str | None, list[str]]:
        """Return the arrays of images and of labels, and those of the other splits' labels."""
        for name in (choice.image, choice.label):
            if name and name not in self.names:
                raise UserError(f"{self.path} has no array {name!r}; it has the arrays {self._listed()}")
        by_lower = {name.lower(): name for name in self.names}
        splits = {
            part: (by_lower[image.format(part)], by_lower.get(label.format(part)))
            for image, label in LAYOUTS
            for part in SPLITS
            if image.format(part) in by_lower
        }
        if choice.image:
            image, label, splits = choice.image, None, {}
        elif split is None and "images" in self.names:
            image, label, splits = "images", "labels" if "labels" in self.names else None, {}
        elif not splits:
            raise UserError(f"{self.path} has the arrays {self._listed()}; {_LAYOUT} (?image=NAME&label=NAME chooses)")
        elif (len(splits) > 1) if split is None else (split not in splits):
            wanted = " or ".join(f"npz:{self.path}/{part}" for part in splits)
            there = f"has no split {split!r}" if split else "has several splits"
            raise UserError(f"{self.path} {there}, in the arrays {self._listed()}; write {wanted}")
        else:
            image, label = splits[split or next(iter(splits))]
        if choice.label is not None:
            label = choice.label or None
        return image, label, [other for _, other in splits.values() if other]

    def images(self, name: str, bits: int | None) -> np.ndarray:
        """Return images as uint8 [N, C, H, W]."""
        images = self._array(name)
        shape = list(images.shape)
        if images.ndim == 3:
            images = images[:, None]
        elif images.ndim == 4 and images.shape[3] in (1, 3):
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        kind = images.dtype.newbyteorder("=")
        if kind not in (np.uint8, np.uint16) or images.ndim != 4 or images.shape[1] not in (1, 3) or not images.size:
            raise UserError(
                f"{name} of {self.path} is {images.dtype} {shape}; "
                "expected uint8 or uint16 [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
            )
        if kind == np.uint8:
            return images
        depth = Depth(bits)
        scaled = depth.scaled(f"{name} of {self.path}", images)
        depth.check(self.path)
        return scaled

    def labels(self, name: str, count: int | None) -> Labels:
        """Return class numbers, one for each of `count` images (None: as many as there are)."""
        labels = found = self._array(name)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        length = len(labels) if count is None else count
        integers = labels.shape == (length,) and np.issubdtype(labels.dtype, np.integer)
        if not integers or not 0 <= labels.min(initial=0) <= labels.max(initial=0) < max(length, CLASSES):
            raise UserError(
                f"{name} of {self.path} is {found.dtype} {list(found.shape)}; expected class numbers 0, 1, ..., "
                f"one for each of the {length} images (?label= reads images alone)"
            )
        return labels.astype(np.int64)

    def highest_label(self, name: str) -> int:
        """Return the highest class number of another split, which has the same classes; 0 if it has no such numbers."""
        try:
            return int(self.labels(name, None).max(initial=0))
        except UserError:
            return 0

    def class_names(self) -> tuple[str, ...] | None:
        """Return the text in the array `classes`, if there is such: other programs may keep other things there."""
        if "classes" not in self.names:
            return None
        shape, kind = self._header("classes")
        if kind.kind != "U" or len(shape) != 1 or math.prod(shape) * kind.itemsize > CLASSES_BYTES:
            return None
        names = tuple(map(str, self._array("classes")))
        return names if len(set(names)) == len(names) else None

    def _listed(self) -> str:
        return ", ".join(self.names)

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        with self.file.open(f"{name}.npy") as entry:
            header = io.BytesIO(entry.read(HEADER))
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(header)
        return shape, kind

    def _array(self, name: str) -> np.ndarray:
        """Return an array after checking its header, in which a few bytes can claim any size."""
        shape, kind = self._header(name)
        size = math.prod(shape) * kind.itemsize
        if size > untrusted.SET_BYTES:
            raise UserError(
                f"{name} of {self.path} is {kind} {list(shape)}; at most {untrusted.SET_BYTES:,} bytes are read"
            )
        if math.prod(shape[1:]) > 3 * SIZE**2 and (free := memory.available()) is not None and size > free:
            raise UserError(f"{name} of {self.path} is {kind} {list(shape)}; only {free:,} bytes of memory are free")
        with self.file.open(f"{name}.npy") as entry:
            array: np.ndarray = np.lib.format.read_array(entry, allow_pickle=False)
        return array
