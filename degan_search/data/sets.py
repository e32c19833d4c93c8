"""The table of image sets: one entry is one set, its class names, its size and how it is loaded."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock

from degan_search.data import choice, files, folders, npz, parquet, shards, synthetic
from degan_search.data.choice import Choice
from degan_search.data.images import SIDES, SIZE, ImageSet, to_input
from degan_search.data.synthetic import Split
from degan_search.data.wanted import EVERYTHING, Wanted
from degan_search.system.errors import UserError, close_matches

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_MNIST_CLASSES = (
    "t_shirt_top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle_boot",
)
DIGIT_CLASSES = tuple("0123456789")
# CIFAR-100's own two levels; its class ids follow the alphabet.
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man_made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non_insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
CIFAR100_CLASSES = tuple(sorted(" ".join(SUPERCLASSES.values()).split()))

Loader = Callable[[Split, Path, Wanted], ImageSet]


@dataclass(frozen=True)
class SetEntry:
    """One image set: class names (() if unlabelled), training images, loader, and whether files are needed."""

    classes: tuple[str, ...]
    train_size: int
    load: Loader
    from_files: bool = False
    even: bool = True
    """Whether each class has as many training images as every other."""
    at: Callable[[int], Loader] | None = None
    """The loader of `NAME@SIZE`: images that are drawn at any height and width; None: they have one size."""


@dataclass(frozen=True)
class UserEntry:
    """One kind of a user's own images: how to load and how to count them, and what may be chosen behind the path."""

    load: Callable[[Path, Choice, Wanted], ImageSet]
    count: Callable[[Path, Choice], int]
    choices: tuple[str, ...]


class UserSet(NamedTuple):
    """What a name such as `parquet:PATH?label=kind` says."""

    kind: UserEntry
    path: Path
    choice: Choice


def data_folder(data_dir: Path | None) -> Path:
    """Where image sets lie: as given, or the environment variable DATA_DIR, or ./data."""
    return data_dir or Path(os.environ.get("DATA_DIR") or "data")


def _torchvision(class_name: str, root: Path, split: Split) -> ImageSet:
    """One of torchvision's own sets from its files under root, downloaded there first if they are absent."""
    from torchvision import datasets  # here, as it is slow to import and mostly not needed

    arguments = {"split": split} if class_name == "SVHN" else {"train": split == "train"}
    constructor = partial(getattr(datasets, class_name), root, **arguments)
    try:
        loaded = constructor()
    except RuntimeError:  # not there yet
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{class_name}.lock"):
            loaded = constructor(download=True)
    images = np.asarray(loaded.data)
    if images.ndim == 3:
        images = images[:, None]
    elif class_name != "SVHN":
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    labels = np.asarray(loaded.labels if class_name == "SVHN" else loaded.targets, dtype=np.int64)
    return ImageSet(class_name, images, labels, tuple(map(files.plain, getattr(loaded, "classes", DIGIT_CLASSES))))


def _public(name: str, class_name: str, classes: tuple[str, ...], train_size: int, even: bool = True) -> SetEntry:
    """The entry of a public set: Parquet as on the Hugging Face hub, else torchvision's own files."""

    def load(split: Split, folder: Path, wanted: Wanted) -> ImageSet:
        if path := shards.find_split(folder / name, split):
            return parquet.read(path, classes, wanted=wanted)
        try:
            found = _torchvision(class_name, folder, split)
        except Exception as error:  # not there, or broken in whatever way
            raise UserError(
                f"{name} was not found: looked for {(folder / name).absolute()}/{split}.parquet, then for "
                f"torchvision's files in {folder.absolute()}, which could not be downloaded ({error}); "
                "set DATA_DIR to where the images lie"
            ) from error
        return wanted.of(found)

    return SetEntry(classes, train_size, load, from_files=True, even=even)


def _drawn(draw: Callable[[Split, Wanted, int], ImageSet], train_size: int, classes: tuple[str, ...] = ()) -> SetEntry:
    """The entry of a set that is drawn at any size."""

    def at(side: int) -> Loader:
        return lambda split, _, wanted: draw(split, wanted, side)

    return SetEntry(classes, train_size, at(SIZE), at=at)


SETS: dict[str, SetEntry] = {
    "cifar10": _public("cifar10", "CIFAR10", CIFAR10_CLASSES, 50_000),
    "cifar100": _public("cifar100", "CIFAR100", CIFAR100_CLASSES, 50_000),
    "svhn": _public("svhn", "SVHN", DIGIT_CLASSES, 73_257, even=False),
    "fashion_mnist": _public("fashion_mnist", "FashionMNIST", FASHION_MNIST_CLASSES, 60_000),
    "glyphs": _drawn(synthetic.glyphs, 36_000, synthetic.GLYPH_CLASSES),
    "photos": _drawn(synthetic.photos, 10_000),
    "noise/uniform": _drawn(synthetic.uniform_noise, 50_000),
    "noise/gaussian": _drawn(synthetic.gaussian_noise, 50_000),
    "digits": SetEntry(DIGIT_CLASSES, 1_437, lambda split, _, wanted: synthetic.digits(split, wanted), even=False),
}
# The user's own images, by the word before the colon: folder:PATH, parquet:PATH, npz:PATH.
USER_SETS: dict[str, UserEntry] = {
    "folder": UserEntry(folders.read_folder, folders.count, ("bits",)),
    "parquet": UserEntry(
        lambda path, chosen, wanted: parquet.read(path, (), chosen, wanted), parquet.rows, ("image", "label", "bits")
    ),
    "npz": UserEntry(npz.read_npz, npz.count, ("image", "label", "bits")),
}


def user_set(name: str) -> UserSet | None:
    """The kind, path and choices of a user's own set, as in "folder:PATH", or None if the name is of no such form."""
    kind, colon, path = name.partition(":")
    if not colon:
        return None
    if kind not in USER_SETS or not path:
        raise UserError(f"cannot read {name!r}; expected " + ", ".join(f"{known}:PATH" for known in USER_SETS))
    return UserSet(USER_SETS[kind], *choice.parse(kind, path, USER_SETS[kind].choices))


def find_set(name: str) -> SetEntry:
    """The entry of NAME, or of NAME@SIZE if the set can be drawn at any size.

    Raises:
        UserError: an unknown name, or a size that the set does not have.
    """
    base, at, size = name.partition("@")
    if base not in SETS:
        own = ", ".join(f"{kind}:PATH" for kind in USER_SETS)
        raise UserError(f"no image set {name!r}; {close_matches(base, SETS)}; your own: {own}")
    entry = SETS[base]
    if not at:
        return entry
    if entry.at is None:
        sized = ", ".join(f"{known}@64" for known, other in SETS.items() if other.at)
        raise UserError(f"{base} has images of one size, so there is no {name!r}; of any size are {sized}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", size) or int(size) not in SIDES:
        raise UserError(f"{name!r}: the size behind @ must be a whole number from {SIDES[0]} to {SIDES[-1]}")
    return replace(entry, load=entry.at(int(size)))


def load_set(name: str, split: Split, data_dir: Path | None = None, wanted: Wanted = EVERYTHING) -> ImageSet:
    """One split of one image set by name, whole or what is wanted of it; labels of some classes become 0..k-1.

    Args:
        name: a key of SETS, with @SIZE behind some, or folder:PATH, parquet:PATH, npz:PATH, which have a train split
            alone.
        split: "train" or "test".
        data_dir: where downloaded sets lie; None means the environment variable DATA_DIR, else ./data.
        wanted: which images, how large; others are not even decoded, where that can be.

    Raises:
        UserError: unknown name, split or class; files that are missing or cannot be read; too many for the memory.
    """
    if split not in synthetic.SPLITS:
        raise UserError(f"no split {split!r}; expected one of {', '.join(synthetic.SPLITS)}")
    if own := user_set(name):
        if split != "train":
            raise UserError(f"{name} has a train split alone, as all images of a user's own do")
        loaded = own.kind.load(own.path, own.choice, wanted)
        if not len(loaded):
            raise UserError(f"{name} has no images")
    else:
        loaded = find_set(name).load(split, data_folder(data_dir), wanted)
    images = loaded.images
    if wanted.size or wanted.channels:
        height, width = wanted.size or images.shape[2:]
        images = to_input(images, wanted.channels or images.shape[1], (height, width), wanted.fit)
    return replace(loaded, name=wanted.name or name, images=images)


def parquet_of(name: str, split: Split, data_dir: Path | None = None) -> Path | None:
    """Where a split of a set of this project lies as Parquet; None: it is drawn, or its files are torchvision's."""
    return shards.find_split(data_folder(data_dir) / name, split) if find_set(name).from_files else None


def train_size(name: str, data_dir: Path | None = None) -> int:
    """The number of training images of a whole set, without decoding any."""
    if own := user_set(name):
        return own.kind.count(own.path, own.choice)
    path = parquet_of(name, "train", data_dir)
    return parquet.rows(path) if path else find_set(name).train_size
